//! Events of links and addresses.
//!
//! Link events arrive from each namespace that has an ID in this one (NETLINK_LISTEN_ALL_NSID), if
//! the process has the right to receive them. So a link that moves can be followed: the event of
//! its removal contains the ID of the destination, and later events carry that ID. If the link
//! moves on to a namespace without an ID here, no events arrive until [`Netlink::nsid_or_new`]
//! creates one. The state of the link must then be queried.
//!
//! [`Netlink::nsid_or_new`]: super::Netlink::nsid_or_new

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Error, Link, LinkAddress, messages};
use crate::sys::cmsg::{self, ControlBuffer, RecvMsg, int};

// linux/rtnetlink.h, linux/netlink.h
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const NETLINK_LISTEN_ALL_NSID: i32 = 8;

/// Longest notification that the kernel sends, in bytes.
const LONGEST: usize = 32 << 10;

/// The kinds of events to receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MulticastGroups {
    /// Events of links in this namespace and in namespaces that have an ID in it.
    pub links: bool,
    /// Events of addresses in this namespace, IPv4 and IPv6.
    pub addresses: bool,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetlinkEvent {
    /// A link appeared or changed. There are many more events than changes.
    Link {
        /// ID of the link's namespace; None for the listener's own.
        netns: Option<i32>,
        /// The link's current state.
        link: Link,
    },
    /// A link has left its namespace.
    LinkGone {
        /// ID of the namespace that it left; None for the listener's own.
        netns: Option<i32>,
        /// Index that it had there.
        index: u32,
        /// Name that it had there.
        name: String,
        /// None if the link was deleted; otherwise the ID of its new namespace, as seen from the
        /// old one.
        moved_to: Option<i32>,
    },
    /// An address was added or changed.
    Address(LinkAddress),
    /// An address was removed.
    AddressGone(LinkAddress),
    /// Events were lost or not understood: all state that matters must be queried again.
    Lost,
}

/// A nonblocking stream of [`NetlinkEvent`]s. It is readable when there is an event.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    queue: VecDeque<NetlinkEvent>,
    buffer: Vec<u8>,
    hears_others: bool,
}

impl Events {
    /// Listens in the calling thread's network namespace. To receive events of other namespaces the
    /// process must have CAP_NET_BROADCAST in them during this call, but not later. Without that
    /// capability only events of this namespace arrive ([`Events::hears_others`]).
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn open(groups: MulticastGroups) -> Result<Self, Error> {
        Self::listen(groups).map_err(|source| Error {
            action: "listen for netlink events".into(),
            source,
        })
    }

    fn listen(groups: MulticastGroups) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        let mut hears_others = groups.links;
        if hears_others {
            match socket.set_listen_all_namespaces(true) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => hears_others = false,
                result => result?,
            }
        }
        let wanted = [
            (groups.links, [RTNLGRP_LINK].as_slice()),
            (
                groups.addresses,
                &[RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR],
            ),
        ];
        for group in wanted
            .iter()
            .filter(|(wanted, _)| *wanted)
            .flat_map(|(_, groups)| *groups)
        {
            socket.add_membership(*group)?;
        }
        Ok(Events {
            socket,
            queue: VecDeque::new(),
            buffer: vec![0; LONGEST],
            hears_others,
        })
    }

    /// Whether events of links in other namespaces arrive.
    pub fn hears_others(&self) -> bool {
        self.hears_others
    }

    /// The next event.
    ///
    /// # Errors
    /// WouldBlock: there is no event.
    pub fn recv(&mut self) -> io::Result<NetlinkEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            self.fill()?;
        }
    }

    /// Splits one datagram into events and queues them.
    fn fill(&mut self) -> io::Result<()> {
        let mut control = ControlBuffer::new();
        let mut name = [0; mem::size_of::<libc::sockaddr_nl>()];
        let fd = self.socket.as_raw_fd();
        // SAFETY: the socket outlives this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let mut receive = || cmsg::recvmsg(fd, &mut self.buffer, &mut name, &mut control);
        let RecvMsg { len, truncated, .. } = match receive() {
            Err(error) if is_overrun(&error) => {
                // The kernel reports the loss once, and then drops events until all queued ones are
                // read.
                while receive().is_ok() {}
                self.queue.push_back(NetlinkEvent::Lost);
                return Ok(());
            }
            received => received?,
        };
        // struct sockaddr_nl { short family; short pad; u32 port; u32 groups; }: the kernel's port
        // is 0.
        if name[4..8] != [0; 4] {
            return Ok(());
        }
        if truncated {
            self.queue.push_back(NetlinkEvent::Lost);
            return Ok(());
        }
        let netns = control.messages().find_map(|(level, kind, data)| {
            (level == libc::SOL_NETLINK && kind == NETLINK_LISTEN_ALL_NSID)
                .then(|| int(data))
                .flatten()
        });
        for message in messages(&self.buffer[..len]) {
            match message.map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(message)) => {
                    self.queue.extend(event(&message, netns));
                }
                Ok(_) => {}
                Err(_) => self.queue.push_back(NetlinkEvent::Lost),
            }
        }
        Ok(())
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket lives as long as the borrow, and closes its descriptor only when
        // dropped.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

fn event(message: &RouteNetlinkMessage, netns: Option<i32>) -> Option<NetlinkEvent> {
    match message {
        // Messages of AF_BRIDGE describe a port of a bridge, not the link.
        RouteNetlinkMessage::NewLink(message) if is_link(message) => Some(NetlinkEvent::Link {
            netns,
            link: Link::from(message),
        }),
        RouteNetlinkMessage::DelLink(message) if is_link(message) => {
            let Link { index, name, .. } = Link::from(message);
            let moved_to = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::NewNetnsId(id) => Some(*id),
                    _ => None,
                });
            Some(NetlinkEvent::LinkGone {
                netns,
                index,
                name,
                moved_to,
            })
        }
        RouteNetlinkMessage::NewAddress(message) => {
            LinkAddress::from_message(message).map(NetlinkEvent::Address)
        }
        RouteNetlinkMessage::DelAddress(message) => {
            LinkAddress::from_message(message).map(NetlinkEvent::AddressGone)
        }
        _ => None,
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

fn is_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}
