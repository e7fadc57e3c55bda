//! Creates and deletes interfaces.

use super::daemon::{self, Ending};
use super::error::{Error, NO_PERMISSION, reason};
use super::find::{FoundInterface, WIREGUARD};
use crate::backend::{Backends, Kind};
use crate::daemon::options::interface_name;
use crate::sys::netlink::{self, Netlink};
use crate::sys::netns::NetNs;

/// The backend of a new interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendChoice {
    /// The same as `userspace'
    #[default]
    Auto,
    /// The wireguard-rs daemon
    Userspace,
    /// The kernel module
    Kernel,
}

/// Creates an interface in the calling thread's namespace. It is down and has no address.
///
/// # Errors
/// [`Error::Create`]: the name is invalid or in use, there is no kernel module, permission is
/// denied, or the daemon's message.
pub fn create(name: &str, backend: BackendChoice) -> Result<FoundInterface, Error> {
    let failed = |reason: String| Error::Create {
        name: name.into(),
        reason,
    };
    interface_name(name).map_err(failed)?;
    // A daemon's socket counts even if its link is in another namespace, because `wg` would use
    // that daemon.
    if Backends::new().kind(name)? == Some(Kind::Userspace) {
        let socket = daemon::socket(name);
        let text = format!("the name is used by the daemon at {}", socket.display());
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
        BackendChoice::Auto | BackendChoice::Userspace => {
            daemon::start(name)?;
            Kind::Userspace
        }
        BackendChoice::Kernel => {
            let added = netlink.add_link(name, WIREGUARD);
            added.map_err(|error| failed(explain(&error)))?;
            Kind::Kernel
        }
    };
    Ok(FoundInterface::new(name, kind, here))
}

const TAKEN: &str = "the name is used by another link";

fn explain(error: &netlink::Error) -> String {
    match error.errno() {
        Some(libc::EEXIST) => TAKEN.into(),
        Some(libc::EOPNOTSUPP) => "this kernel has no WireGuard module".into(),
        Some(libc::EPERM) => NO_PERMISSION.into(),
        _ => reason(error),
    }
}

impl FoundInterface {
    /// Deletes the interface. Its daemon, if any, has ended when this returns.
    ///
    /// # Errors
    /// [`Error::Delete`]: permission is denied; [`Error::Lingers`].
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
