//! How the tools reach an interface: over the UAPI socket of a daemon, or over netlink in the kernel.
//!
//! - `userspace`: `<interface>.sock` in the run directory, whatever the network namespace.
//! - `kernel`: links of kind `wireguard` in the network namespace of the calling thread.
//!
//! A name that has a live socket is a daemon's; for any other the kernel is asked. Both take and return
//! [`Interface`] and [`Change`], and both fail with the texts of errno that `wg` prints.

mod errno;
mod kernel;
mod userspace;

use std::io;
use std::path::{Path, PathBuf};

pub use self::errno::{Errno, errno};
use crate::model::status::Status;
use crate::model::{Change, Extension, Interface};
use crate::uapi::RUN_DIR;

/// The kind of backend that an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A daemon: wireguard-rs, or another one.
    Userspace,
    /// The kernel module.
    Kernel,
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
    /// Netlink fails, or the run directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<String>> {
        let mut names = kernel::list()?;
        for name in userspace::list(&self.run_dir)? {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The backend of the interface of this name, if there is one.
    ///
    /// # Errors
    /// Netlink fails.
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
    /// permitted` by the kernel; `Protocol error` for an invalid reply of a daemon; `Connection timed
    /// out` for a daemon that does not answer.
    pub fn get(&self, name: &str) -> io::Result<Interface> {
        match userspace::socket(&self.run_dir, name) {
            Some(socket) => userspace::get(&socket),
            None => kernel::get(name),
        }
    }

    /// How an interface is doing. Where only our daemon would tell, `None` and nothing: of the kernel,
    /// and of other daemons.
    ///
    /// # Errors
    /// As for [`Backends::get`].
    pub fn status(&self, name: &str) -> io::Result<Status> {
        match userspace::socket(&self.run_dir, name) {
            Some(socket) => userspace::status(&socket),
            None => kernel::get(name).map(Status::from),
        }
    }

    /// Makes changes, in their order. Those before one that is refused may have been made.
    ///
    /// # Errors
    /// As for [`Backends::get`], but a name too long is `No such device`; and the reasons why the daemon
    /// or the kernel refuses a change: `Address already in use`, `Invalid argument`, …
    pub fn set(&self, name: &str, changes: &[Change]) -> io::Result<()> {
        match userspace::socket(&self.run_dir, name) {
            Some(socket) => userspace::set(&socket, changes),
            None => kernel::set(name, changes),
        }
    }

    /// As [`Backends::set`], without the extensions if it is not our daemon's interface. Returns those that
    /// people miss by that, one of a kind.
    ///
    /// # Errors
    /// As for [`Backends::set`].
    pub fn set_without_unknown(
        &self,
        name: &str,
        changes: &[Change],
    ) -> io::Result<Vec<Extension>> {
        let extension = |change: &Change| match change {
            Change::Extension(extension) => Some(extension.clone()),
            _ => None,
        };
        match self.set(name, changes) {
            // Other daemons' word for a key that they do not know, and ours for the kernel.
            Err(error)
                if matches!(errno(&error), Some(libc::EINVAL | libc::EOPNOTSUPP))
                    && changes.iter().any(|change| extension(change).is_some()) => {}
            result => return result.map(|()| Vec::new()),
        }
        let (mut rest, mut missed) = (Vec::with_capacity(changes.len()), Vec::new());
        for change in changes {
            match extension(change) {
                None => rest.push(change.clone()),
                Some(extension) if extension.is_missed() => missed.push(extension),
                Some(_) => {}
            }
        }
        self.set(name, &rest)?;
        missed.sort_by_key(Extension::key);
        missed.dedup_by_key(|extension| extension.key());
        Ok(missed)
    }
}
