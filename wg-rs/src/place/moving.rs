//! Moves a link to another network namespace over netlink, whatever its backend.
//!
//! ```text
//! old: read settings ─► kernel moves the link, sets it down ─► new: addresses, up
//!                                                               └─ error? moved back, with its routes
//! ```
//!
//! The tunnel keeps working: its sockets stay in the namespace where they were created, and
//! wireguard-rs keeps the sessions of a link that is set up again at once. (The kernel module drops
//! sessions when the link goes down, and creates new ones with the next packet.) Routes over the
//! link are lost.

use std::fs;
use std::mem;
use std::os::fd::AsFd;

use super::error::{Error, NO_PERMISSION, reason};
use super::find::FoundInterface;
use super::namespace::Namespace;
use crate::sys::netlink::{self, Kept, Netlink};
use crate::sys::netns::NetNs;

impl FoundInterface {
    /// Moves the interface to `target`, which the user calls `to`. The link keeps its addresses,
    /// and is up again if it was up. If the interface is already there, nothing happens.
    ///
    /// # Errors
    /// [`Error::Move`]: the name is in use there, permission is denied, or an address is refused.
    /// The interface is then back in its old namespace, unchanged.
    pub fn move_to(&mut self, to: &Namespace, target: NetNs) -> Result<(), Error> {
        if self.netns.is(&target)? {
            return Ok(());
        }
        let name = self.name.clone();
        let failed = |reason| Error::Move {
            name,
            to: to.to_string(),
            reason,
        };
        let (kept, home) = match self.take(target) {
            Ok(taken) => taken,
            Err(trouble) => return Err(failed(trouble)),
        };
        let Err(trouble) = self.arrive(&kept, false) else {
            return Ok(());
        };
        let back = self.take(home).and_then(|_| self.arrive(&kept, true));
        Err(failed(match back {
            Ok(()) => trouble,
            Err(stuck) => format!("{trouble}; moving it back also failed: {stuck}"),
        }))
    }

    /// Moves the link. Returns the settings that it had, and its old namespace.
    fn take(&mut self, to: NetNs) -> Result<(Kept, NetNs), String> {
        let take = || {
            let mut netlink = Netlink::open()?;
            let index = netlink.link(&self.link)?.index;
            let kept = netlink.kept(index)?;
            netlink.move_link(index, to.as_fd())?;
            Ok(kept)
        };
        let taken = self.run(take).map_err(|error| reason(&error))?;
        let kept = taken.map_err(|error: netlink::Error| match error.errno() {
            Some(libc::EEXIST) => "the name is in use there".into(),
            Some(libc::EPERM) => NO_PERMISSION.into(),
            _ => reason(&error),
        })?;
        Ok((kept, mem::replace(&mut self.netns, to)))
    }

    /// Restores the settings that the link had before it was moved.
    fn arrive(&self, kept: &Kept, with_routes: bool) -> Result<(), String> {
        let arrive = || {
            let mut netlink = Netlink::open()?;
            let index = netlink.link(&self.link)?.index;
            // For the IPv6 stack of this namespace it is a new link.
            netlink.set_addr_gen_mode_none(index)?;
            if kept.has_ipv6() {
                allow_ipv6(&self.link);
            }
            netlink.restore(index, kept, with_routes)
        };
        let arrived = self.run(arrive).map_err(|error| reason(&error))?;
        arrived.map_err(|error| reason(&error))
    }
}

/// Enables IPv6 on a link of the calling thread's namespace: it may be disabled by default, as in
/// containers. If this fails, adding an address fails with the reason.
pub fn allow_ipv6(link: &str) {
    let switch = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    if fs::read_to_string(&switch).is_ok_and(|value| value.trim() != "0") {
        let _ = fs::write(&switch, "0");
    }
}
