//! A file replaced as a whole, or not at all.
//!
//! The new text goes to a file beside the old one, reaches the disk, and only then takes the old
//! one's name: whatever fails, and whenever the power does, one of both is there complete.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rand_core::{OsRng, TryRngCore};

/// Why a file is still the old one.
#[derive(Debug, thiserror::Error)]
#[error("`{}' could not be written and is as it was: {source}", path.display())]
pub struct ReplaceError {
    path: PathBuf,
    source: io::Error,
}

/// Replaces what is in `path`, following symbolic links, by `text`. The file is then its owner's
/// alone (mode 0600, or less if it was less), and its owner is who it was.
///
/// # Errors
/// No such file, or its directory cannot be written, or the disk is full. Then it is as it was.
pub fn replace(path: &Path, text: &[u8]) -> Result<(), ReplaceError> {
    try_replace(path, text).map_err(|source| ReplaceError {
        path: path.into(),
        source,
    })
}

fn try_replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let old = fs::metadata(&path)?;
    swap(&path, text, old.mode() & 0o600, Some(&old))
}

/// Puts a new file of this mode, and of the owner of `old`, in the place of `path`, which is no
/// symbolic link.
///
/// # Errors
/// As [`replace`], or something is mounted on the file. Then it is as it was.
pub fn swap(path: &Path, text: &[u8], mode: u32, old: Option<&Metadata>) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let temporary = folder.join(temporary(name)?);

    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let moved = (|| {
        file.write_all(text)?;
        if let Some(old) = old {
            // Who may not give it away keeps it.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(error) = moved {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The name reaches the disk with its directory. If that fails, there is nothing to undo.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Gives a file that stays the same one another content, or leaves it the one it had: it is not
/// emptied first.
///
/// # Errors
/// It cannot be read or written.
pub fn overwrite(path: &Path, text: &[u8]) -> io::Result<()> {
    let old = fs::read(path)?;
    let file = OpenOptions::new().write(true).open(path)?;
    let put = |text: &[u8]| {
        file.write_all_at(text, 0)?;
        file.set_len(text.len() as u64)
    };
    put(text).inspect_err(|_| {
        let _ = put(&old);
    })
}

/// A hidden name beside `name` that nobody can foresee and make first.
///
/// # Errors
/// The system has no random numbers.
pub fn temporary(name: &OsStr) -> io::Result<OsString> {
    let random = OsRng
        .try_next_u64()
        .map_err(|error| io::Error::other(error.to_string()))?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{random:016x}"));
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process;

    /// A folder of a test, gone after it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("wg-quick-rs-{name}-{}", process::id()));
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn mode_and_links_are_kept() {
        let folder = Folder::new("replace");
        let (real, link) = (folder.0.join("real"), folder.0.join("wg0.conf"));
        fs::write(&real, "old").unwrap();
        symlink("real", &link).unwrap();
        for (before, after) in [(0o644, 0o600), (0o400, 0o400)] {
            fs::set_permissions(&real, fs::Permissions::from_mode(before)).unwrap();
            replace(&link, b"new").unwrap();
            assert_eq!(fs::read(&real).unwrap(), b"new");
            assert_eq!(fs::metadata(&real).unwrap().mode() & 0o7777, after);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(folder.names(), 2);
        }
    }

    #[test]
    fn temporary_names_differ() {
        let names = [(); 2].map(|()| temporary(OsStr::new("wg0.conf")).unwrap());
        assert_ne!(names[0], names[1]);
        assert!(names[0].to_str().unwrap().starts_with(".wg0.conf."));
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing() {
        let folder = Folder::new("replace-fails");
        let path = folder.0.join("wg0.conf");
        let error = replace(&path, b"new").unwrap_err().to_string();
        assert!(error.contains("wg0.conf"), "{error}");
        // A file cannot take the name of a directory: the last step fails.
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"new").is_err());
        assert_eq!(folder.names(), 1);
    }
}
