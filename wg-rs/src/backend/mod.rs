//! How the tools reach an interface: over a daemon's UAPI socket, or over netlink for the kernel
//! module.
//!
//! - `userspace`: `<interface>.sock` in the run directory, in any network namespace.
//! - `kernel`: links of kind `wireguard` in the network namespace of the calling thread.
//!
//! If a live socket has the name, the interface is a daemon's; otherwise the kernel is asked. Both
//! backends use [`Interface`] and [`Change`], and their errors have wg's texts.

mod errno;
mod kernel;
mod userspace;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use wg_crypto::PublicKey;

pub use self::errno::{Errno, errno};
use crate::model::status::Status;
use crate::model::{Change, Extension, Extensions, Interface};
use crate::uapi::RUN_DIR;

/// The kind of backend behind an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A userspace daemon: wireguard-rs or another one.
    Userspace,
    /// The kernel module.
    Kernel,
}

impl Kind {
    /// The name in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Userspace => "userspace",
            Kind::Kernel => "kernel",
        }
    }
}

/// Access to all interfaces that are reachable from the calling thread's network namespace.
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
    /// Uses the sockets in [`RUN_DIR`].
    pub fn new() -> Self {
        Backends::in_dir(Path::new(RUN_DIR))
    }

    /// Uses the sockets in this directory, which need not exist.
    pub fn in_dir(run_dir: &Path) -> Self {
        Backends {
            run_dir: run_dir.to_owned(),
        }
    }

    /// Uses no sockets: the kernel's interfaces only.
    pub fn kernels() -> Self {
        Backends::in_dir(Path::new("/nonexistent"))
    }

    /// The names of all interfaces: first the kernel's, then those with a socket, each in the order
    /// of the system. Sockets that refuse connections are deleted.
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

    /// Like [`Backends::list`], but no socket is deleted. Also returns the names for which
    /// [`Backends::is_left`] is true.
    ///
    /// # Errors
    /// Those of [`Backends::list`].
    pub fn survey(&self) -> io::Result<(Vec<String>, Vec<String>)> {
        let mut names = kernel::list()?;
        let (live, mut left) = userspace::survey(&self.run_dir)?;
        left.retain(|name| !names.contains(name));
        for name in live {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok((names, left))
    }

    /// Whether only a socket has this name, and was left by a daemon that was killed: an interface of the
    /// kernel may have the name since. The socket is not deleted.
    pub fn is_left(&self, name: &str) -> bool {
        let is_kernels = || kernel::list().is_ok_and(|names| names.iter().any(|link| link == name));
        userspace::is_left(&self.run_dir, name) && !is_kernels()
    }

    /// The kind of the interface with this name. None if there is no such interface.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn kind(&self, name: &str) -> io::Result<Option<Kind>> {
        if userspace::live(&self.run_dir, name).is_some() {
            return Ok(Some(Kind::Userspace));
        }
        let kernel = kernel::list()?.iter().any(|link| link == name);
        Ok(kernel.then_some(Kind::Kernel))
    }

    /// An interface's configuration and state.
    ///
    /// # Errors
    /// With the text of an errno: `No such device`; `Operation not supported` for a link of another
    /// kind; `Protocol not supported` if there is no such socket and no kernel module; `File name
    /// too long`; `Permission denied` by a daemon's socket, `Operation not permitted` by the
    /// kernel; `Protocol error` for an invalid reply of a daemon; `Connection timed out` if a
    /// daemon does not answer.
    pub fn get(&self, name: &str) -> io::Result<Interface> {
        match userspace::socket(&self.run_dir, name) {
            Some(socket) => userspace::get(&socket),
            None => kernel::get(name),
        }
    }

    /// The interface's kind and status. Fields that only our daemon knows are `None` or empty for the
    /// kernel and for other daemons. No socket is deleted.
    ///
    /// # Errors
    /// As for [`Backends::get`].
    pub fn status(&self, name: &str) -> io::Result<(Kind, Status)> {
        Ok(match userspace::live(&self.run_dir, name) {
            Some(socket) => (Kind::Userspace, userspace::status(&socket)?),
            None => (Kind::Kernel, kernel::get(name)?.into()),
        })
    }

    /// The extensions of the peers that have any. Empty for other daemons and for the kernel, which have
    /// no extensions.
    ///
    /// # Errors
    /// Those of [`Backends::get`].
    pub fn extensions(&self, name: &str) -> io::Result<HashMap<PublicKey, Extensions>> {
        let Some(socket) = userspace::socket(&self.run_dir, name) else {
            return Ok(HashMap::new());
        };
        let peers = userspace::status(&socket)?.peers.into_iter();
        let all = peers.map(|status| (status.peer.public_key, status.peer.extensions));
        Ok(all
            .filter(|(_, one)| *one != Extensions::default())
            .collect())
    }

    /// Sets the log level of an interface's daemon. False if it is not a daemon of ours, or does not know
    /// the level. No socket is deleted.
    ///
    /// # Errors
    /// As for [`Backends::get`].
    pub fn log(&self, name: &str, level: &str) -> io::Result<bool> {
        match userspace::live(&self.run_dir, name) {
            Some(socket) => userspace::log(&socket, level),
            None => kernel::get(name).map(|_| false),
        }
    }

    /// Applies changes in their order. If one is refused, those before it may already be applied.
    ///
    /// # Errors
    /// Those of [`Backends::get`], but `No such device` for a name that is too long; and the
    /// reasons for which a daemon or the kernel refuses a change: `Address already in use`,
    /// `Invalid argument`, …
    pub fn set(&self, name: &str, changes: &[Change]) -> io::Result<()> {
        match userspace::socket(&self.run_dir, name) {
            Some(socket) => userspace::set(&socket, changes),
            None => kernel::set(name, changes),
        }
    }

    /// Like [`Backends::set`], but without extensions if the interface is not our daemon's. Returns
    /// the extensions that were left out and that users would miss, one of each kind.
    ///
    /// # Errors
    /// Those of [`Backends::set`].
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
            // Other daemons refuse an unknown key with this errno, and so does our code for the
            // kernel.
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
