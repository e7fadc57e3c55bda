//! Whom the tools talk to: a daemon over its UAPI socket, or the kernel over netlink.
//!
//! - `userspace`: `<interface>.sock` in the run directory, whatever the network namespace.
//! - `kernel`: links of kind `wireguard` in the network namespace of the calling thread.
//!
//! A name that has a live socket is a daemon's; any other is asked of the kernel. Both speak
//! [`Interface`] and [`Change`], and both fail with the texts of errno that `wg` prints.

mod kernel;
mod userspace;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::uapi::RUN_DIR;
use crate::uapi::types::{Change, Interface};

/// Who keeps an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A daemon, ours or another's.
    Userspace,
    /// The kernel's module.
    Kernel,
}

/// An errno as `wg` prints it: `No such device`. What the [`io::Error`]s of this module hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let suffix = format!(" (os error {})", self.0);
        f.write_str(text.strip_suffix(&suffix).unwrap_or(&text))
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        io::Error::new(io::Error::from_raw_os_error(errno.0).kind(), errno)
    }
}

/// The errno that an error of this module, or of a system call, stands for.
pub fn errno(error: &io::Error) -> Option<i32> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    error
        .raw_os_error()
        .or_else(|| inner.map(|Errno(errno)| *errno))
}

/// All interfaces that a tool can reach from the network namespace of the calling thread.
#[derive(Clone, Debug)]
pub struct Backends {
    run_dir: PathBuf,
}

impl Default for Backends {
    fn default() -> Self {
        Backends::new()
    }
}

impl Backends {
    /// With the sockets in [`RUN_DIR`].
    pub fn new() -> Self {
        Backends::in_dir(Path::new(RUN_DIR))
    }

    /// With the sockets in this directory, which need not exist.
    pub fn in_dir(run_dir: &Path) -> Self {
        Backends {
            run_dir: run_dir.to_owned(),
        }
    }

    /// The names of all interfaces: the kernel's first, then those with a socket, both in the order
    /// in which the system lists them. Sockets that refuse connections are unlinked.
    ///
    /// # Errors
    /// The kernel's own trouble, or a run directory that cannot be read.
    pub fn list(&self) -> io::Result<Vec<String>> {
        let mut names = kernel::list()?;
        for name in userspace::list(&self.run_dir)? {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Who keeps the interface of this name, if there is one.
    ///
    /// # Errors
    /// The kernel's own trouble.
    pub fn kind(&self, name: &str) -> io::Result<Option<Kind>> {
        if userspace::socket(&self.run_dir, name).is_some() {
            return Ok(Some(Kind::Userspace));
        }
        let kernel = kernel::list()?.iter().any(|link| link == name);
        Ok(kernel.then_some(Kind::Kernel))
    }

    /// The configuration and the state of an interface.
    ///
    /// # Errors
    /// The text is that of an errno: `No such device`; `Operation not supported` by a link of
    /// another kind; `Protocol not supported` where there is neither such a socket nor the kernel's
    /// module; `File name too long`; `Permission denied` by a daemon's socket, `Operation not
    /// permitted` by the kernel; `Protocol error` for a daemon's reply that makes no sense;
    /// `Connection timed out` for one that does not answer.
    pub fn get(&self, name: &str) -> io::Result<Interface> {
        match userspace::socket(&self.run_dir, name) {
            Some(socket) => userspace::get(&socket),
            None => kernel::get(name),
        }
    }

    /// Makes changes, in their order. Those before one that is refused may have been made.
    ///
    /// # Errors
    /// As for [`Backends::get`], but a name too long is `No such device`; and whatever the daemon
    /// or the kernel refuses a change with: `Address already in use`, `Invalid argument`, …
    pub fn set(&self, name: &str, changes: &[Change]) -> io::Result<()> {
        match userspace::socket(&self.run_dir, name) {
            Some(socket) => userspace::set(&socket, changes),
            None => kernel::set(name, changes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_wg_prints_them() {
        for (code, text) in [
            (libc::ENODEV, "No such device"),
            (libc::EOPNOTSUPP, "Operation not supported"),
            (libc::EPROTONOSUPPORT, "Protocol not supported"),
            (libc::ENAMETOOLONG, "File name too long"),
            (libc::EACCES, "Permission denied"),
            (libc::EPERM, "Operation not permitted"),
            (libc::EPROTO, "Protocol error"),
            (libc::EADDRINUSE, "Address already in use"),
        ] {
            let error = io::Error::from(Errno(code));
            assert_eq!(error.to_string(), text);
            assert_eq!(errno(&error), Some(code));
        }
        assert_eq!(errno(&io::Error::from_raw_os_error(7)), Some(7));
        assert_eq!(errno(&io::Error::other("else")), None);
    }
}
