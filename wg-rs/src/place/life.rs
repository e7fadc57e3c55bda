//! Interfaces made and ended.

use super::daemon::{self, Ending};
use super::error::{Error, NO_PERMISSION, reason};
use super::find::{Located, WIREGUARD};
use crate::backend::{Backends, Kind};
use crate::daemon::options::interface_name;
use crate::sys::netlink::{self, Netlink};
use crate::sys::netns::NetNs;

/// Who is to keep a new interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// Our daemon
    #[default]
    Auto,
    /// Our daemon, wireguard-rs
    Userspace,
    /// The kernel's module
    Kernel,
}

/// Creates an interface, which is down and has no address, in the calling thread's namespace.
///
/// # Errors
/// [`Error::Create`]: not a name, it is taken, no module, no permission, what the daemon said.
pub fn create(name: &str, backend: Backend) -> Result<Located, Error> {
    let failed = |reason: String| Error::Create {
        name: name.into(),
        reason,
    };
    interface_name(name).map_err(failed)?;
    // A daemon's socket counts wherever its link lives: `wg` would ask it and not the new one.
    if Backends::new().kind(name)? == Some(Kind::Userspace) {
        let socket = daemon::socket(name);
        let text = format!("the name is taken by the daemon at {}", socket.display());
        return Err(failed(text));
    }
    let mut netlink = Netlink::open().map_err(|error| failed(reason(&error)))?;
    match netlink.link(name) {
        Ok(_) => return Err(failed(TAKEN.into())),
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(failed(reason(&error))),
    }
    let here = NetNs::current()?;
    let kind = match backend {
        Backend::Auto | Backend::Userspace => {
            daemon::start(name)?;
            Kind::Userspace
        }
        Backend::Kernel => {
            let added = netlink.add_link(name, WIREGUARD);
            added.map_err(|error| failed(explain(&error)))?;
            Kind::Kernel
        }
    };
    Ok(Located::new(name, kind, here))
}

const TAKEN: &str = "the name is taken by another link";

fn explain(error: &netlink::Error) -> String {
    match error.errno() {
        Some(libc::EEXIST) => TAKEN.into(),
        Some(libc::EOPNOTSUPP) => "this kernel has no WireGuard module".into(),
        Some(libc::EPERM) => NO_PERMISSION.into(),
        _ => reason(error),
    }
}

impl Located {
    /// Deletes it; its daemon, if it has one, is gone afterwards.
    ///
    /// # Errors
    /// [`Error::Delete`]: no permission; [`Error::Lingers`].
    pub fn delete(self) -> Result<(), Error> {
        let failed = |reason| Error::Delete {
            name: self.name.clone(),
            reason,
        };
        let ending = (self.kind == Kind::Userspace).then(|| Ending::of(&self.name));
        let delete = || Netlink::open()?.delete_link(&self.link);
        let deleted = self.run(delete).map_err(|error| failed(reason(&error)))?;
        deleted.map_err(|error| failed(explain(&error)))?;
        if ending.is_none_or(Ending::ended) {
            Ok(())
        } else {
            Err(Error::Lingers { name: self.name })
        }
    }
}
