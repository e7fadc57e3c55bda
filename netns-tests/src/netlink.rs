//! The little of rtnetlink that a host needs: links, addresses, routes.
//!
//! Every function acts in the network namespace of the calling thread (see [`crate::Host::run`])
//! and blocks until the kernel has acknowledged.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Sends one request and returns the payloads answered before its acknowledgement.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while rest.len() >= 16 {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(io::Error::other)?;
            let aligned = (answer.header.length as usize).next_multiple_of(4);
            rest = rest.get(aligned..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                _ => {}
            }
        }
    }
}

fn named(what: &str, name: &str) -> impl FnOnce(io::Error) -> io::Error {
    let text = format!("{what} {name}");
    move |error| io::Error::new(error.kind(), format!("{text}: {error}"))
}

fn link_by_name(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.into()));
    link
}

fn set_link(name: &str, change: impl FnOnce(&mut LinkMessage)) -> io::Result<()> {
    let mut link = link_by_name(name);
    change(&mut link);
    request(RouteNetlinkMessage::SetLink(link), 0).map_err(named("link", name))?;
    Ok(())
}

/// What the kernel says of a link.
#[derive(Debug, Clone)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Transmit queue length, packets.
    pub txqueuelen: u32,
}

/// Looks a link up; `None` when there is none of that name.
pub fn link(name: &str) -> io::Result<Option<Link>> {
    let answers = match request(RouteNetlinkMessage::GetLink(link_by_name(name)), 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
        other => other?,
    };
    Ok(answers.into_iter().find_map(|answer| {
        let RouteNetlinkMessage::NewLink(message) = answer else {
            return None;
        };
        let mut link = Link {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            mtu: 0,
            txqueuelen: 0,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::TxQueueLen(len) => link.txqueuelen = len,
                _ => {}
            }
        }
        Some(link)
    }))
}

fn index_of(name: &str) -> io::Result<u32> {
    match link(name).map_err(named("link", name))? {
        Some(link) => Ok(link.index),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no link {name}"),
        )),
    }
}

/// Creates a link of a kind without parameters (`dummy`, `wireguard`).
pub fn add_link(name: &str, kind: InfoKind) -> io::Result<()> {
    let mut link = link_by_name(name);
    link.attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    request(
        RouteNetlinkMessage::NewLink(link),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .map_err(named("create link", name))?;
    Ok(())
}

/// Creates a veth pair, `name` here and `peer` in the namespace `there`.
pub fn add_veth(name: &str, peer: &str, there: BorrowedFd<'_>) -> io::Result<()> {
    let mut other = link_by_name(peer);
    other
        .attributes
        .push(LinkAttribute::NetNsFd(there.as_raw_fd()));
    let mut link = link_by_name(name);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
    ]));
    request(
        RouteNetlinkMessage::NewLink(link),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .map_err(named("create veth", name))?;
    Ok(())
}

/// Deletes a link.
pub fn delete_link(name: &str) -> io::Result<()> {
    request(RouteNetlinkMessage::DelLink(link_by_name(name)), 0)
        .map_err(named("delete link", name))?;
    Ok(())
}

/// Sets a link up or down.
pub fn set_up(name: &str, up: bool) -> io::Result<()> {
    set_link(name, |link| {
        link.header.change_mask = LinkFlags::Up;
        link.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
    })
}

/// Sets the largest packet of a link, in bytes.
pub fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    set_link(name, |link| link.attributes.push(LinkAttribute::Mtu(mtu)))
}

/// Moves a link to the namespace `there`.
pub fn move_link(name: &str, there: BorrowedFd<'_>) -> io::Result<()> {
    set_link(name, |link| {
        link.attributes
            .push(LinkAttribute::NetNsFd(there.as_raw_fd()))
    })
}

fn address_message(name: &str, address: IpAddr, prefix: u8) -> io::Result<AddressMessage> {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.index = index_of(name)?;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    Ok(message)
}

/// Adds an address (IPv6 without duplicate address detection, so that it serves at once).
pub fn add_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let mut message = address_message(name, address, prefix)?;
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    request(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .map_err(named(
        "add address",
        &format!("{address}/{prefix} to {name}"),
    ))?;
    Ok(())
}

/// Removes an address.
pub fn delete_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let message = address_message(name, address, prefix)?;
    request(RouteNetlinkMessage::DelAddress(message), 0).map_err(named(
        "delete address",
        &format!("{address}/{prefix} of {name}"),
    ))?;
    Ok(())
}

/// A route to add or delete: `to/prefix [via gateway] dev link [metric n]`.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// Destination network.
    pub to: IpAddr,
    /// Its prefix length, bits.
    pub prefix: u8,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Name of the link.
    pub dev: &'a str,
    /// Priority; the lower wins. `None` leaves it to the kernel.
    pub metric: Option<u32>,
}

impl<'a> Route<'a> {
    /// `to/prefix dev link`.
    pub fn dev(to: IpAddr, prefix: u8, dev: &'a str) -> Route<'a> {
        Route {
            to,
            prefix,
            gateway: None,
            dev,
            metric: None,
        }
    }

    /// `to/prefix via gateway dev link`.
    pub fn via(to: IpAddr, prefix: u8, gateway: IpAddr, dev: &'a str) -> Route<'a> {
        Route {
            gateway: Some(gateway),
            ..Route::dev(to, prefix, dev)
        }
    }

    fn message(&self) -> io::Result<RouteMessage> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.to);
        message.header.destination_prefix_length = self.prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = match (self.gateway, self.to) {
            (None, IpAddr::V4(_)) => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        if self.prefix > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(self.to.into()));
        }
        if let Some(gateway) = self.gateway {
            message
                .attributes
                .push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
        }
        if let Some(metric) = self.metric {
            message.attributes.push(RouteAttribute::Priority(metric));
        }
        message
            .attributes
            .push(RouteAttribute::Oif(index_of(self.dev)?));
        Ok(message)
    }

    /// Adds the route, in place of an equal one.
    pub fn add(&self) -> io::Result<()> {
        request(
            RouteNetlinkMessage::NewRoute(self.message()?),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .map_err(named("add route", &format!("{self:?}")))?;
        Ok(())
    }

    /// Deletes the route.
    pub fn delete(&self) -> io::Result<()> {
        request(RouteNetlinkMessage::DelRoute(self.message()?), 0)
            .map_err(named("delete route", &format!("{self:?}")))?;
        Ok(())
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
