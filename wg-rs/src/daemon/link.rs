//! The interface's link, wherever it is: made ready at the start, then watched.
//!
//! The link may be renamed and moved between namespaces at any time, while this process stays where
//! it was born and may not enter others. The TUN descriptor always knows where its link is; events
//! of that namespace are heard once ours has an id for it. So: an event that may concern the link
//! makes us look at it afresh, and nothing is deduced from the event itself. Without CAP_NET_BROADCAST,
//! which ordinary containers lack, there are no events of other namespaces: there the link is looked at
//! every second.

use std::io;
use std::sync::Arc;

use crate::sys::netlink::{Event, Events, Groups, Link, Netlink};
use crate::sys::tun::Tun;
use crate::sys::udp::MAX_SEGMENTS;
use crate::tunnel::messages::{DATA_OVERHEAD, MAX_DATAGRAM};

/// MTU of a new link: what fits an Ethernet frame over IPv6.
pub const DEFAULT_MTU: u32 = 1420;
/// Packets that may wait in the link. The TUN's 500 drops packets of a single fast flow.
const TX_QUEUE_LEN: u32 = 1000;
/// Longest super-packet, in bytes: the kernel's own limit.
const SUPER_PACKET: u32 = 1 << 16;

/// What happened to the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Present {
        /// Set up.
        up: bool,
        /// In bytes.
        mtu: u32,
    },
    /// It was deleted.
    Gone,
}

/// The link. See the head of the file.
pub struct LinkWatch {
    tun: Arc<Tun>,
    netlink: Netlink,
    /// Its index where it was last seen.
    seen: Option<u32>,
    /// Its name where it was last seen.
    found: String,
    /// Its name in the namespace of birth when it was last there.
    name: Option<String>,
    /// The MTU that its limits of super-packets are for.
    fitted: u32,
    hears_others: bool,
}

/// Gives a new link what the kernel module's links have: MTU, no link-local address, a queue.
///
/// # Errors
/// Of netlink, for what must succeed.
pub fn prepare(name: &str) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.set_mtu(name, DEFAULT_MTU)?;
    for result in [
        netlink.set_tx_queue_len(name, TX_QUEUE_LEN),
        netlink.set_addr_gen_mode_none(name),
        // So that a super-packet makes one send, not one and a bit.
        netlink.set_gso_limits(name, SUPER_PACKET, segments_per_send(DEFAULT_MTU)),
    ] {
        // A host without IPv6, or a kernel that will not: the tunnel works without.
        if let Err(error) = result {
            tracing::debug!(%error, "link setting refused");
        }
    }
    Ok(())
}

/// How many segments that fill the MTU, and so have no padding, go into one send.
fn segments_per_send(mtu: u32) -> u32 {
    (MAX_DATAGRAM as u32 / (mtu + DATA_OVERHEAD as u32)).clamp(1, MAX_SEGMENTS as u32)
}

impl LinkWatch {
    /// Watches the link of `tun` from the namespace of the calling thread, and the stream of events
    /// to wait on. Begin with a look.
    ///
    /// # Errors
    /// Of opening sockets.
    pub fn new(tun: Arc<Tun>) -> io::Result<(Self, Events)> {
        let events = Events::open(Groups {
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
            found: String::new(),
            name: None,
            fitted: 0,
            hears_others,
        };
        Ok((watch, events))
    }

    /// Whether `event` may be about the link. (An index may be another link's in another namespace:
    /// then the look was for nothing.)
    pub fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Link { link, .. } => Some(link.index) == self.seen,
            Event::LinkGone { index, .. } => Some(*index) == self.seen,
            Event::Lost => true,
            _ => false,
        }
    }

    /// Whether `event` says that the link left its namespace for another one, or if it may.
    pub fn is_move(&self, event: &Event) -> bool {
        match event {
            Event::LinkGone { moved_to, .. } => moved_to.is_some() && self.concerns(event),
            Event::Lost => true,
            _ => false,
        }
    }

    fn is_home(&self) -> bool {
        matches!(self.netlink.elsewhere(&self.tun), Ok(None))
    }

    /// Whether the link is where no event of it is heard.
    pub fn is_out_of_hearing(&self) -> bool {
        !self.hears_others && !self.is_home()
    }

    /// The former name of the link and its new one, once, if it was renamed: what it is called in another
    /// namespace says nothing here.
    pub fn renamed(&mut self) -> Option<(String, String)> {
        if self.name.as_ref() == Some(&self.found) || !self.is_home() {
            return None;
        }
        let former = self.name.replace(self.found.clone())?;
        Some((former, self.found.clone()))
    }

    /// Forbids ICMP redirects, as the kernel module does when its link goes up: a host that forwards
    /// between two peers would tell each to write to the other directly, which the tunnel does not allow.
    /// Not in another namespace, whose settings are out of reach.
    pub fn forbid_redirects(&self) {
        if !self.is_home() {
            return;
        }
        for link in [&self.found, "all"] {
            let path = format!("/proc/sys/net/ipv4/conf/{link}/send_redirects");
            // In many containers /proc/sys is not to be written.
            if let Err(error) = std::fs::write(&path, "0") {
                tracing::debug!(%error, "cannot write {path}");
            }
        }
    }

    /// Sets the link down.
    ///
    /// # Errors
    /// Of netlink; ENODEV: it is in another namespace, from where it cannot be set.
    pub fn set_down(&mut self) -> io::Result<()> {
        if !self.is_home() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let name = self.tun.name()?;
        Ok(self.netlink.set_up(&name, false)?)
    }

    /// Looks at the link, wherever it is now.
    ///
    /// # Errors
    /// Of netlink; among them that the link is just being moved.
    pub fn look(&mut self) -> io::Result<State> {
        match self.netlink.link_of(&self.tun) {
            Ok(Link {
                index,
                name,
                up,
                mtu,
                ..
            }) => {
                self.seen = Some(index);
                self.found = name;
                self.fit(index, mtu);
                Ok(State::Present { up, mtu })
            }
            Err(error) => match self.tun.name() {
                Err(gone) if gone.raw_os_error() == Some(libc::EBADFD) => Ok(State::Gone),
                _ => Err(error.into()),
            },
        }
    }

    /// Makes super-packets fit the MTU. From here that is only possible for a link that is here, and
    /// elsewhere it is only slower: a super-packet then makes a send and a bit.
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
    fn a_super_packet_makes_one_send() {
        assert_eq!(segments_per_send(DEFAULT_MTU), 45);
        assert_eq!(segments_per_send(9000), 7);
        assert_eq!(segments_per_send(65535), 1);
        assert_eq!(segments_per_send(68), MAX_SEGMENTS as u32);
    }
}
