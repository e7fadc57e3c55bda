//! Replaces a file as a whole, or not at all.
//!
//! The new text is written to a temporary file beside the old one and flushed to the disk; then the
//! temporary file is renamed. After any failure, also of the power, either the old or the new text is
//! there, and complete.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use rand_core::{OsRng, TryRngCore};

/// Why a file was not replaced.
#[derive(Debug, thiserror::Error)]
#[error("`{}' could not be written; the old file was kept: {source}", path.display())]
pub struct ReplaceError {
    path: PathBuf,
    source: io::Error,
}

/// Replaces the content of the file at `path` (symbolic links are followed) by `text`. Only the owner
/// may access the new file (mode 0600, or less if it was less), and the owner stays the same.
///
/// # Errors
/// There is no such file, its directory cannot be written, or the disk is full. The old file is kept.
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

/// Why there is no new file.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It stays as it is.
    #[error("`{}' exists already, and is left as it is", .0.display())]
    Exists(PathBuf),
    /// Nothing is left of it.
    #[error("`{}' could not be written: {source}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Makes a file that is its owner's alone (mode 0600). Nobody ever sees half of it.
///
/// # Errors
/// There is one already, also if it is a link to nothing; or it cannot be written.
pub fn create(path: &Path, text: &[u8]) -> Result<(), CreateError> {
    let try_create = || -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let temporary = path.with_file_name(temporary(name)?);
        let mut file = open_new(&temporary)?;
        let written = file.write_all(text).and_then(|()| file.sync_all());
        let made = written.and_then(|()| move_new(&temporary, path));
        let _ = fs::remove_file(&temporary);
        made
    };
    // The kernel says more of a folder that is missing than of a link.
    if fs::symlink_metadata(path).is_ok() {
        return Err(CreateError::Exists(path.into()));
    }
    try_create().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CreateError::Exists(path.into()),
        _ => CreateError::Failed {
            path: path.into(),
            source,
        },
    })
}

/// Gives a file another name, which must not exist. The old name may stay.
fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // FAT and some network file systems have no links. Others do not support this flag.
            renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?;
            Ok(())
        }
        linked => linked,
    }
}

/// Opens a file that does not exist yet, with mode 0600.
fn open_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Puts a new file with this mode, and with the owner of `old`, in place of `path`, which must not be a
/// symbolic link.
///
/// # Errors
/// Those of [`replace`], or something is mounted on the file. The old file is kept.
pub fn swap(path: &Path, text: &[u8], mode: u32, old: Option<&Metadata>) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let temporary = folder.join(temporary(name)?);
    let mut file = open_new(&temporary)?;
    let moved = (|| {
        file.write_all(text)?;
        if let Some(old) = old {
            // Without the right to change the owner, the new file belongs to the caller.
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
    // The rename reaches the disk when the directory does. If that fails, there is nothing to undo.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Writes new content into an existing file, for a file that cannot be replaced. The file is not emptied
/// first, so it keeps its old content if the new one cannot be written.
///
/// # Errors
/// The file cannot be read or written.
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

/// A hidden, random name for a temporary file, so that nobody else can create that file first.
///
/// # Errors
/// The system gives no random numbers.
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
    use tempfile::TempDir;

    /// The number of files in a folder.
    fn files(folder: &TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    #[test]
    fn mode_and_symbolic_links_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("wg0.conf"));
        fs::write(&real, "old").unwrap();
        symlink("real", &link).unwrap();
        for (before, after) in [(0o644, 0o600), (0o400, 0o400)] {
            fs::set_permissions(&real, fs::Permissions::from_mode(before)).unwrap();
            replace(&link, b"new").unwrap();
            assert_eq!(fs::read(&real).unwrap(), b"new");
            assert_eq!(fs::metadata(&real).unwrap().mode() & 0o7777, after);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(files(&folder), 2);
        }
    }

    #[test]
    fn a_new_file_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg0.conf");
        create(&path, b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let error = create(&path, b"other").unwrap_err();
        assert!(matches!(error, CreateError::Exists(_)), "{error}");
        let dangling = folder.path().join("link");
        symlink("nowhere", &dangling).unwrap();
        assert!(create(&dangling, b"other").is_err());
        assert!(create(&folder.path().join("none/wg0.conf"), b"other").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(files(&folder), 2);
    }

    #[test]
    fn temporary_names_differ() {
        let names = [(); 2].map(|()| temporary(OsStr::new("wg0.conf")).unwrap());
        assert_ne!(names[0], names[1]);
        assert!(names[0].to_str().unwrap().starts_with(".wg0.conf."));
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg0.conf");
        let error = replace(&path, b"new").unwrap_err().to_string();
        assert!(error.contains("wg0.conf"), "{error}");
        // A file cannot replace a directory: the last step, the rename, fails.
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"new").is_err());
        assert_eq!(files(&folder), 1);
    }
}
