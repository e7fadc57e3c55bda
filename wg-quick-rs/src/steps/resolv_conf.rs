//! /etc/resolv.conf itself, if no program maintains it, or the program fails: it is replaced while the
//! tunnel is up, and `down` puts its former content back unless somebody else has written to it since.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::file::replace::{overwrite, swap};

/// The file.
pub const PATH: &str = "/etc/resolv.conf";
/// The mode of a new file: everybody may read it.
const MODE: u32 = 0o644;
/// The most symbolic links that are followed (path_resolution(7)).
const LINKS: usize = 40;

/// What was in the file before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Former {
    /// There was no file.
    Absent,
    /// This text.
    Text(Vec<u8>),
    /// The text of another tunnel, which may be taken down before this one.
    Tunnel {
        /// The tunnel's interface.
        interface: String,
        /// The text that it wrote.
        text: Vec<u8>,
        /// What was in the file before that.
        before: Box<Former>,
    },
    /// It is not known: the file was this tunnel's already, or has not been read yet.
    Unknown,
}

impl Former {
    /// The text, if there was a file and it is known.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Former::Text(text) | Former::Tunnel { text, .. } => Some(text),
            Former::Absent | Former::Unknown => None,
        }
    }

    /// All known texts: this one, and those from before other tunnels.
    pub fn texts(&self) -> Vec<&[u8]> {
        let mut texts = Vec::new();
        let mut former = Some(self);
        while let Some(one) = former {
            texts.extend(one.text());
            former = match one {
                Former::Tunnel { before, .. } => Some(before.as_ref()),
                _ => None,
            };
        }
        texts
    }

    /// The latest content that is still valid: the text of a tunnel that is down by now is not.
    pub fn standing(&self, mut is_up: impl FnMut(&str) -> bool) -> &Former {
        let mut former = self;
        while let Former::Tunnel {
            interface, before, ..
        } = former
            && !is_up(interface)
        {
            former = before;
        }
        former
    }
}

/// The result of an attempt to put the former content back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// The former content is there again.
    Done,
    /// Somebody else has written to the file since; it was not changed.
    Changed,
    /// The former content is not known; the file was not changed.
    Unknown,
}

/// Puts the former content back if the file contains `ours`.
///
/// # Errors
/// The file cannot be written.
pub fn put_back(path: &Path, ours: &str, former: &Former) -> io::Result<PutBack> {
    if !fs::read(path).is_ok_and(|text| text == ours.as_bytes()) {
        return Ok(PutBack::Changed);
    }
    match (former, former.text()) {
        (_, Some(text)) => write(path, text)?,
        (Former::Absent, None) => fs::remove_file(real(path)?)?,
        (_, None) => return Ok(PutBack::Unknown),
    }
    Ok(PutBack::Done)
}

/// Replaces the content of the file, or of the file to which a symbolic link leads. Readers find either
/// the old or the new content. Only a file that is a mount of its own, as in containers, or whose folder
/// cannot be written, is overwritten in place.
///
/// # Errors
/// The file cannot be written. It was not changed.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let path = real(path)?;
    let old = match fs::metadata(&path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mode = old.as_ref().map_or(MODE, |old| old.mode() & 0o777);
    match swap(&path, text, mode, old.as_ref()) {
        Err(_) if old.is_some() => overwrite(&path, text),
        done => done,
    }
}

/// The target of a path, with symbolic links followed, even if no file exists there yet.
fn real(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        let Ok(target) = fs::read_link(&path) else {
            return Ok(path);
        };
        path = match path.parent() {
            Some(folder) => folder.join(target),
            None => target,
        };
    }
    Err(io::Error::from_raw_os_error(nix::libc::ELOOP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_former_content_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let (path, at) = (
            folder.path().join("resolv.conf"),
            folder.path().join("real"),
        );
        symlink("real", &path).unwrap();
        for text in [Some("nameserver 192.0.2.1\n"), None] {
            match text {
                Some(text) => fs::write(&at, text).unwrap(),
                None => fs::remove_file(&at).unwrap(),
            }
            let former = match text {
                Some(text) => Former::Text(text.into()),
                None => Former::Absent,
            };
            let ours = "# ours\nnameserver 10.0.0.1\n";
            write(&path, ours.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&at).unwrap(), ours);
            assert_eq!(fs::metadata(&at).unwrap().mode() & 0o777, MODE);
            assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
            let unknown = put_back(&path, ours, &Former::Unknown).unwrap();
            assert_eq!(unknown, PutBack::Unknown);
            assert_eq!(put_back(&path, ours, &former).unwrap(), PutBack::Done);
            assert_eq!(fs::read_to_string(&at).ok().as_deref(), text);
            assert_eq!(put_back(&path, ours, &former).unwrap(), PutBack::Changed);
            assert_eq!(
                fs::read_dir(folder.path()).unwrap().count(),
                1 + usize::from(text.is_some())
            );
        }
    }

    #[test]
    fn the_text_of_a_tunnel_that_is_down_is_skipped() {
        let tunnel = |name: &str, before| Former::Tunnel {
            interface: name.into(),
            text: name.into(),
            before: Box::new(before),
        };
        let former = tunnel("wg1", tunnel("wg0", Former::Text(b"host".into())));
        let standing = |up: &[&str]| {
            let former = former.standing(|name| up.contains(&name));
            former.text().map(Vec::from).unwrap()
        };
        assert_eq!(standing(&["wg0", "wg1"]), b"wg1");
        assert_eq!(standing(&["wg0"]), b"wg0");
        assert_eq!(standing(&[]), b"host");
    }
}
