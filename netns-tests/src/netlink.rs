//! Links, addresses and routes of a host, by the library `rtnetlink`, so that the tests do not depend
//! on the netlink code of the programs under test.
//!
//! Every function acts in the network namespace of the calling thread (see [`crate::Host::run`])
//! and blocks until the kernel has acknowledged.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::pin;

use futures_util::StreamExt;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{
    AddressMessageBuilder, Error, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkWireguard,
    RouteMessageBuilder, new_connection,
};
use tokio::runtime;

use crate::wait::{PATIENCE, until};

/// Makes requests over a connection in the calling thread's namespace.
fn with<T>(requests: impl AsyncFnOnce(Handle) -> Result<T, Error>) -> io::Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = new_connection()?;
        tokio::spawn(connection);
        requests(handle).await.map_err(|error| match error {
            Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        })
    })
}

fn named(what: &str, name: &str) -> impl FnOnce(io::Error) -> io::Error {
    let text = format!("{what} {name}");
    move |error| io::Error::new(error.kind(), format!("{text}: {error}"))
}

fn set_link(
    name: &str,
    change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
) -> io::Result<()> {
    let message = change(LinkUnspec::new_with_name(name)).build();
    with(async |handle| handle.link().set(message).execute().await).map_err(named("link", name))
}

/// A link, as the kernel describes it.
#[derive(Debug, Clone)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it is up and has a carrier.
    pub carrier: bool,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Transmit queue length, packets.
    pub txqueuelen: u32,
}

impl Link {
    fn of(message: LinkMessage) -> Link {
        let mut link = Link {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: (message.header.flags).contains(LinkFlags::Up | LinkFlags::LowerUp),
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
        link
    }
}

/// Looks up a link; `None` if there is none of that name.
pub fn link(name: &str) -> io::Result<Option<Link>> {
    let found = with(async |handle| {
        let mut links = pin!(handle.link().get().match_name(name).execute());
        links.next().await.transpose()
    });
    match found {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        found => Ok(found?.map(Link::of)),
    }
}

fn existing(name: &str) -> io::Result<Link> {
    let absent = || io::Error::new(io::ErrorKind::NotFound, format!("no link {name}"));
    link(name).map_err(named("link", name))?.ok_or_else(absent)
}

fn index_of(name: &str) -> io::Result<u32> {
    Ok(existing(name)?.index)
}

fn add_link(what: &str, name: &str, message: LinkMessage) -> io::Result<()> {
    with(async |handle| handle.link().add(message).execute().await).map_err(named(what, name))
}

/// Creates an interface of the kernel's WireGuard module.
pub fn add_wireguard(name: &str) -> io::Result<()> {
    add_link("create link", name, LinkWireguard::new(name).build())
}

/// Creates a veth pair: `name` in this namespace and `peer` in the namespace `there`.
pub fn add_veth(name: &str, peer: &str, there: BorrowedFd<'_>) -> io::Result<()> {
    let other = LinkUnspec::new_with_name(peer).setns_by_fd(there.as_raw_fd());
    let data = InfoData::Veth(InfoVeth::Peer(other.build()));
    let pair = LinkVeth::new(name, peer).set_info_data(data);
    add_link("create veth", name, pair.build())
}

/// Deletes a link.
pub fn delete_link(name: &str) -> io::Result<()> {
    let index = index_of(name)?;
    with(async |handle| handle.link().del(index).execute().await)
        .map_err(named("delete link", name))
}

/// Sets a link up or down.
pub fn set_up(name: &str, up: bool) -> io::Result<()> {
    set_link(name, |link| if up { link.up() } else { link.down() })
}

/// Sets the largest packet of a link, in bytes.
pub fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    set_link(name, |link| link.mtu(mtu))
}

/// Moves a link to the namespace `there`.
pub fn move_link(name: &str, there: BorrowedFd<'_>) -> io::Result<()> {
    set_link(name, |link| link.setns_by_fd(there.as_raw_fd()))
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    match address {
        IpAddr::V4(ip) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
            .index(index)
            .address(ip, prefix)
            .build(),
        IpAddr::V6(ip) => AddressMessageBuilder::<std::net::Ipv6Addr>::new()
            .index(index)
            .address(ip, prefix)
            .build(),
    }
}

/// Adds an address. On a link with a carrier, the host receives at this address when this returns. An
/// IPv6 address skips duplicate address detection.
pub fn add_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let Link { index, carrier, .. } = existing(name)?;
    with(async |handle| {
        let mut request = handle.address().add(index, address, prefix);
        if address.is_ipv6() {
            request.message_mut().header.flags = AddressHeaderFlags::Nodad;
        }
        request.execute().await
    })
    .map_err(named(
        "add address",
        &format!("{address}/{prefix} to {name}"),
    ))?;
    match address {
        // The kernel makes the address usable in a work queue, and drops what arrives before.
        IpAddr::V6(address) if carrier => until(PATIENCE, "an address to receive", || {
            Ok(is_local(address)?.then_some(()))
        }),
        _ => Ok(()),
    }
}

/// Whether packets to this address are for this host.
fn is_local(address: Ipv6Addr) -> io::Result<bool> {
    const LOCAL: u32 = 0x8000_0000; // RTF_LOCAL
    let destination = format!("{:032x}", u128::from(address));
    // Destination, prefix, source, prefix, gateway, metric, references, use, flags, link.
    let table = std::fs::read_to_string("/proc/thread-self/net/ipv6_route")?;
    Ok(table.lines().any(|route| {
        let fields: Vec<&str> = route.split_whitespace().collect();
        let flags = (fields.get(8)).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        fields.starts_with(&[&destination, "80"]) && flags.is_some_and(|flags| flags & LOCAL != 0)
    }))
}

/// Removes an address.
pub fn delete_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let message = address_message(index_of(name)?, address, prefix);
    with(async |handle| handle.address().del(message).execute().await).map_err(named(
        "delete address",
        &format!("{address}/{prefix} of {name}"),
    ))
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
    /// Priority; the lowest wins. With `None` the kernel chooses it.
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
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(self.to, self.prefix)
            .map_err(io::Error::other)?
            .output_interface(index_of(self.dev)?);
        match (self.gateway, self.to) {
            (Some(gateway), _) => message = message.gateway(gateway).map_err(io::Error::other)?,
            (None, IpAddr::V4(_)) => message = message.scope(RouteScope::Link),
            (None, IpAddr::V6(_)) => {}
        }
        if let Some(metric) = self.metric {
            message = message.priority(metric);
        }
        Ok(message.build())
    }

    /// Adds the route, or replaces an equal one.
    pub fn add(&self) -> io::Result<()> {
        let message = self.message()?;
        with(async |handle| handle.route().add(message).replace().execute().await)
            .map_err(named("add route", &format!("{self:?}")))
    }

    /// Deletes the route.
    pub fn delete(&self) -> io::Result<()> {
        let message = self.message()?;
        with(async |handle| handle.route().del(message).execute().await)
            .map_err(named("delete route", &format!("{self:?}")))
    }
}
