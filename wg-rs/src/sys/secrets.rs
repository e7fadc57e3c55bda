//! Reads files with keys without leaving copies of their content in memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// Initial capacity in bytes: enough for any usual file.
const CAPACITY: usize = 16 << 10;

/// Reads a whole file of any kind.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let mut bytes = Zeroizing::new(vec![0; CAPACITY]);
    let mut len = 0;
    loop {
        match read_some(&mut file, &mut bytes[len..])? {
            0 => break,
            more => len += more,
        }
        if len == bytes.len() {
            // The old buffer is wiped when it is dropped. A growing `Vec` would leave its bytes
            // behind.
            let mut larger = Zeroizing::new(vec![0; 2 * len]);
            larger[..len].copy_from_slice(&bytes);
            bytes = larger;
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Reads the first `len` bytes of `input`, or fewer if it is shorter, and the first byte after them
/// that is not `blank`, if there is one.
pub fn read_start(
    mut input: impl Read,
    len: usize,
    blank: impl Fn(u8) -> bool,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut start = Zeroizing::new(Vec::with_capacity(len + 1));
    let mut bytes = Zeroizing::new([0; 256]);
    loop {
        let more = read_some(&mut input, &mut *bytes)?;
        let (first, rest) = bytes[..more].split_at(more.min(len - start.len()));
        start.extend_from_slice(first);
        let end = rest.iter().find(|b| !blank(**b));
        start.extend(end);
        if more == 0 || end.is_some() {
            return Ok(start);
        }
    }
}

fn read_some(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that returns one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let len = bytes.len().min(1);
            self.0.read(&mut bytes[..len])
        }
    }

    #[test]
    fn a_start_and_what_follows_it() {
        for (input, start) in [
            ("", ""),
            ("ab", "ab"),
            ("abcd", "abcd"),
            ("a cd", "a cd"),
            ("abcd \n", "abcd"),
            ("abcd \nef", "abcde"),
            ("abcdef", "abcde"),
        ] {
            let read = |input: &mut dyn Read| read_start(input, 4, |b| b <= b' ').unwrap();
            assert_eq!(*read(&mut input.as_bytes()), start.as_bytes(), "{input}");
            assert_eq!(*read(&mut Slow(input.as_bytes())), start.as_bytes());
        }
        let long = [b"abcd".as_slice(), &[b'\n'; 5000], b"e"].concat();
        assert_eq!(*read_start(&*long, 4, |b| b == b'\n').unwrap(), *b"abcde");
    }

    #[test]
    fn whole_files() {
        let path = std::env::temp_dir().join(format!("wg-rs-secrets-{}", std::process::id()));
        for len in [0, 1, CAPACITY - 1, CAPACITY, CAPACITY + 1, 5 * CAPACITY] {
            std::fs::write(&path, vec![7; len]).unwrap();
            let bytes = read(&path);
            std::fs::remove_file(&path).unwrap();
            assert_eq!(*bytes.unwrap(), vec![7; len]);
        }
        assert!(read(Path::new("/")).is_err() && read(&path).is_err());
    }
}
