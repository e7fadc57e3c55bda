//! The interface's link, in any namespace: prepared at the start, and then watched.
//!
//! The link may be renamed, and moved between namespaces, at any time, while this process stays in
//! its own namespace and may not enter others. The TUN descriptor always knows its link's
//! namespace, and events of that namespace arrive once it has an ID in ours. An event that may
//! concern the link causes a new look at it. Only two things are deduced from the events themselves,
//! because a look comes too late for them: that the link was moved, and that it was set down, if it is
//! up again by the time of the look. Without CAP_NET_BROADCAST, which ordinary containers lack, no events of other namespaces arrive; then
//! the link is checked every second.

use std::io;
use std::sync::Arc;

use crate::sys::netlink::{Events, Link, MulticastGroups, Netlink, NetlinkEvent};
use crate::sys::tun::Tun;
use crate::sys::udp::MAX_SEGMENTS;
use crate::tunnel::messages::{DATA_OVERHEAD, MAX_DATAGRAM};

/// MTU of a new link: its encrypted packets fit in an Ethernet frame over IPv6.
pub const DEFAULT_MTU: u32 = 1420;
/// Most packets that wait in the link. The TUN's default of 500 drops packets of a single fast
/// flow.
const TX_QUEUE_LEN: u32 = 1000;
/// Size of the longest super-packet in bytes: the kernel's limit.
const SUPER_PACKET: u32 = 1 << 16;

/// The state of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The link exists.
    Present {
        /// Whether the link is up.
        up: bool,
        /// The MTU in bytes.
        mtu: u32,
    },
    /// The link was deleted.
    Gone,
}

/// The link, and the connections that watch it.
pub struct LinkWatch {
    tun: Arc<Tun>,
    netlink: Netlink,
    /// The last known index.
    seen: Option<u32>,
    /// The ID of the namespace where it was last seen; None for the daemon's own.
    netns: Option<i32>,
    /// Whether the link was up according to the last event in that namespace.
    told_up: bool,
    /// The last known name.
    found: String,
    /// The last known name in the daemon's own namespace.
    name: Option<String>,
    /// The MTU for which the limits of super-packets were set.
    fitted: u32,
    hears_others: bool,
}

/// Gives a new link the settings of the kernel module's links: MTU, no link-local address, a queue
/// length.
///
/// # Errors
/// An error of netlink for a setting that is necessary.
pub fn prepare(name: &str) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.set_mtu(name, DEFAULT_MTU)?;
    for result in [
        netlink.set_tx_queue_len(name, TX_QUEUE_LEN),
        netlink.set_addr_gen_mode_none(name),
        // One super-packet then becomes exactly one send.
        netlink.set_gso_limits(name, SUPER_PACKET, segments_per_send(DEFAULT_MTU)),
    ] {
        // The host has no IPv6, or the kernel refuses; the tunnel works without this setting.
        if let Err(error) = result {
            tracing::debug!(%error, "link setting refused");
        }
    }
    Ok(())
}

/// The number of segments in one send if they fill the MTU, and so have no padding.
fn segments_per_send(mtu: u32) -> u32 {
    (MAX_DATAGRAM as u32 / (mtu + DATA_OVERHEAD as u32)).clamp(1, MAX_SEGMENTS as u32)
}

impl LinkWatch {
    /// Watches the link of `tun` from the calling thread's namespace. Also returns the events to
    /// wait for. The caller must first call [`LinkWatch::look`]. `name` is the name that we gave to the
    /// link, if any: it may have been renamed since.
    ///
    /// # Errors
    /// A socket cannot be opened.
    pub fn new(tun: Arc<Tun>, name: Option<String>) -> io::Result<(Self, Events)> {
        let events = Events::open(MulticastGroups {
            links: true,
            addresses: false,
        })?;
        let hears_others = events.hears_others();
        if !hears_others {
            tracing::warn!(
                "without CAP_NET_BROADCAST, what happens to a link that was moved to another network \
                 namespace is noticed up to a second late"
            );
        }
        let watch = LinkWatch {
            tun,
            netlink: Netlink::open()?,
            seen: None,
            netns: None,
            told_up: false,
            found: String::new(),
            name,
            fitted: 0,
            hears_others,
        };
        Ok((watch, events))
    }

    /// Whether `event` may concern the link. A link in another namespace may have the same index;
    /// the look at our link is then unnecessary but harmless.
    pub fn concerns(&self, event: &NetlinkEvent) -> bool {
        match event {
            NetlinkEvent::Link { link, .. } => Some(link.index) == self.seen,
            NetlinkEvent::LinkGone { index, .. } => Some(*index) == self.seen,
            NetlinkEvent::Lost => true,
            _ => false,
        }
    }

    /// Whether `event` reports that the link has moved to another namespace, or may have.
    pub fn is_move(&self, event: &NetlinkEvent) -> bool {
        match event {
            NetlinkEvent::LinkGone { moved_to, .. } => moved_to.is_some() && self.concerns(event),
            NetlinkEvent::Lost => true,
            _ => false,
        }
    }

    /// Whether `event` reports that the link, which was up, was set down. Each event must be passed to
    /// this, in order.
    pub fn is_set_down(&mut self, event: &NetlinkEvent) -> bool {
        let was_up = self.told_up;
        match event {
            NetlinkEvent::Link { netns, link }
                if (*netns, Some(link.index)) == (self.netns, self.seen) =>
            {
                self.told_up = link.up;
            }
            NetlinkEvent::Lost => self.told_up = false,
            _ => return false,
        }
        was_up && !self.told_up && *event != NetlinkEvent::Lost
    }

    fn is_home(&self) -> bool {
        matches!(self.netlink.elsewhere(&self.tun), Ok(None))
    }

    /// Whether no events of the link arrive.
    pub fn is_unwatched(&self) -> bool {
        !self.hears_others && !self.is_home()
    }

    /// If the link was renamed, returns its former and its new name, once. Its name in another
    /// namespace is ignored.
    pub fn renamed(&mut self) -> Option<(String, String)> {
        if self.name.as_ref() == Some(&self.found) || !self.is_home() {
            return None;
        }
        let former = self.name.replace(self.found.clone())?;
        Some((former, self.found.clone()))
    }

    /// Disables ICMP redirects, as the kernel module does when its link is set up: a host that
    /// forwards between two peers would tell each of them to write to the other directly, which the
    /// tunnel does not allow. Does nothing in another namespace, whose settings cannot be reached.
    pub fn forbid_redirects(&self) {
        if !self.is_home() {
            return;
        }
        for link in [&self.found, "all"] {
            let path = format!("/proc/sys/net/ipv4/conf/{link}/send_redirects");
            // In many containers /proc/sys cannot be written.
            if let Err(error) = std::fs::write(&path, "0") {
                tracing::debug!(%error, "cannot write {path}");
            }
        }
    }

    /// Sets the link down.
    ///
    /// # Errors
    /// Those of netlink; ENODEV: the link is in another namespace, where it cannot be set down.
    pub fn set_down(&mut self) -> io::Result<()> {
        if !self.is_home() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let name = self.tun.name()?;
        Ok(self.netlink.set_up(&name, false)?)
    }

    /// Reads the state of the link in its current namespace.
    ///
    /// # Errors
    /// Those of netlink, for example while the link is being moved.
    pub fn look(&mut self) -> io::Result<LinkState> {
        match self.netlink.link_of(&self.tun) {
            Ok((link, netns)) => {
                let Link {
                    index,
                    name,
                    up,
                    mtu,
                    ..
                } = link;
                if (netns, Some(index)) != (self.netns, self.seen) {
                    self.told_up = false;
                }
                self.netns = netns;
                self.seen = Some(index);
                self.found = name;
                self.fit(index, mtu);
                Ok(LinkState::Present { up, mtu })
            }
            Err(error) => match self.tun.name() {
                Err(gone) if gone.raw_os_error() == Some(libc::EBADFD) => Ok(LinkState::Gone),
                _ => Err(error.into()),
            },
        }
    }

    /// Sets the limits of super-packets for this MTU. This is possible only for a link in our
    /// namespace. Without it a super-packet needs a second, small send.
    fn fit(&mut self, index: u32, mtu: u32) {
        if std::mem::replace(&mut self.fitted, mtu) == mtu
            || !matches!(self.netlink.elsewhere(&self.tun), Ok(None))
        {
            return;
        }
        let segments = segments_per_send(mtu);
        if let Err(error) = self.netlink.set_gso_limits(index, SUPER_PACKET, segments) {
            tracing::debug!(%error, "link setting refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_packet_becomes_one_send() {
        assert_eq!(segments_per_send(DEFAULT_MTU), 45);
        assert_eq!(segments_per_send(9000), 7);
        assert_eq!(segments_per_send(65535), 1);
        assert_eq!(segments_per_send(68), MAX_SEGMENTS as u32);
    }
}
