//! The initial file system of a virtual machine: a cpio archive in the kernel's format "newc".

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::Command;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;

/// The files by absolute path, each with its mode and contents.
#[derive(Default)]
pub(super) struct Archive {
    files: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Archive {
    /// Adds a file and its folders.
    pub(super) fn file(&mut self, path: &str, permissions: u32, contents: Vec<u8>) {
        self.add(path, FILE | permissions, contents);
    }

    /// Adds a program at `path`, and the libraries that it is linked with, at the same paths as here.
    pub(super) fn program(&mut self, path: &str, program: &Path) -> io::Result<()> {
        self.file(path, 0o755, fs::read(program)?);
        // ldd fails for a static program.
        let output = Command::new("ldd").arg(program).output()?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        // "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)"
        for library in lines.lines().filter(|_| output.status.success()) {
            let found = library
                .split_whitespace()
                .find(|word| word.starts_with('/'));
            if let Some(found) = found.filter(|found| !self.files.contains_key(*found)) {
                self.file(found, 0o755, fs::read(found)?);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, mode: u32, contents: Vec<u8>) {
        for (end, _) in path.match_indices('/').skip(1) {
            let folder = (DIRECTORY, Vec::new());
            self.files.entry(path[..end].into()).or_insert(folder);
        }
        self.files.insert(path.into(), (mode, contents));
    }

    /// Writes the archive, each folder before its files.
    pub(super) fn write(&self, out: impl Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for ((path, (mode, contents)), inode) in self.files.iter().zip(1..) {
            entry(
                &mut out,
                inode,
                *mode,
                path.trim_start_matches('/'),
                contents,
            )?;
        }
        entry(&mut out, 0, 0, "TRAILER!!!", &[])?;
        out.flush()
    }
}

fn entry(
    out: &mut impl Write,
    inode: u32,
    mode: u32,
    name: &str,
    contents: &[u8],
) -> io::Result<()> {
    let size = u32::try_from(contents.len()).map_err(io::Error::other)?;
    let name_size = name.len() as u32 + 1;
    let (owner, links, time, device) = (0, 1, 0, 0);
    write!(out, "070701{inode:08x}{mode:08x}{owner:08x}{owner:08x}")?;
    write!(
        out,
        "{links:08x}{time:08x}{size:08x}{device:08x}{device:08x}"
    )?;
    write!(
        out,
        "{device:08x}{device:08x}{name_size:08x}{:08x}{name}\0",
        0
    )?;
    // The header with the name, and the contents, are each padded to a multiple of four bytes.
    out.write_all(&[0; 3][..padding(110 + name.len() + 1)])?;
    out.write_all(contents)?;
    out.write_all(&[0; 3][..padding(contents.len())])
}

fn padding(len: usize) -> usize {
    len.next_multiple_of(4) - len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_folders_come_first() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", 0o644, b"12345".to_vec());
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        let (mut names, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |n: usize| {
                let hex = std::str::from_utf8(&rest[6 + 8 * n..14 + 8 * n]).unwrap();
                usize::from_str_radix(hex, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = std::str::from_utf8(&rest[110..110 + name_size - 1]).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            names.push((name.to_owned(), mode, rest[start..start + size].to_vec()));
            rest = &rest[(start + size).next_multiple_of(4)..];
        }
        let folder = |name: &str| (name.to_owned(), 0o040_755, Vec::new());
        assert_eq!(
            names,
            [
                folder("a"),
                folder("a/b"),
                ("a/b/c".into(), 0o100_644, b"12345".to_vec()),
                ("TRAILER!!!".into(), 0, Vec::new()),
            ]
        );
    }
}
