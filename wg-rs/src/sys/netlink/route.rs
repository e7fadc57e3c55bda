//! Routes, and the kernel's choice between them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::{Error, Netlink, family_of};
use crate::sys::udp::Family;

/// The main routing table.
pub const MAIN_TABLE: u32 = 254;

/// A unicast route over one link, or an unreachable route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination: address and prefix length. All zero means the default route of the family.
    pub to: (IpAddr, u8),
    /// Index of the outgoing link.
    pub link: Option<u32>,
    /// The next router.
    pub gateway: Option<IpAddr>,
    /// Routing table.
    pub table: u32,
    /// Source address for packets that this host sends without a source of their own.
    pub source: Option<IpAddr>,
    /// Largest packet in bytes, if it differs from the link's MTU.
    pub mtu: Option<u32>,
    /// Priority among routes to the same destination; the lowest wins.
    pub metric: Option<u32>,
    /// Whether the kernel created the route for an address.
    pub by_kernel: bool,
    /// Whether senders get the error that the destination is unreachable. Such a route has no link.
    #[serde(default)]
    pub unreachable: bool,
}

impl Route {
    /// A route to `to` over `link`, in the main table.
    pub fn new(to: (IpAddr, u8), link: u32) -> Self {
        Route {
            to,
            link: Some(link),
            gateway: None,
            table: MAIN_TABLE,
            source: None,
            mtu: None,
            metric: None,
            by_kernel: false,
            unreachable: false,
        }
    }

    /// An unreachable route to `to`, in the main table.
    pub fn unreachable(to: (IpAddr, u8)) -> Self {
        Route {
            link: None,
            unreachable: true,
            ..Route::new(to, 0)
        }
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let (ip, prefix) = self.to;
        message.header.address_family = family_of(&ip);
        message.header.destination_prefix_length = prefix;
        // A table number above 255 does not fit in the header; RTA_TABLE overrides the header.
        message.header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = if self.unreachable {
            RouteType::Unreachable
        } else {
            RouteType::Unicast
        };
        message.header.scope = if self.gateway.is_some() || self.unreachable {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        if prefix > 0 {
            attributes.push(RouteAttribute::Destination(ip.into()));
        }
        attributes.extend(self.link.map(RouteAttribute::Oif));
        attributes.extend(self.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
        attributes.extend(self.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        attributes.extend(
            self.mtu
                .map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])),
        );
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        message
    }

    /// None if the family is neither IPv4 nor IPv6.
    fn from_message(message: &RouteMessage) -> Option<Self> {
        let any: IpAddr = match message.header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route = Route {
            to: (any, message.header.destination_prefix_length),
            link: None,
            gateway: None,
            table: message.header.table.into(),
            source: None,
            mtu: None,
            metric: None,
            by_kernel: message.header.protocol == RouteProtocol::Kernel,
            unreachable: message.header.kind == RouteType::Unreachable,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Destination(to) => route.to.0 = ip(to).unwrap_or(any),
                RouteAttribute::Oif(link) => route.link = Some(*link),
                RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
                RouteAttribute::PrefSource(source) => route.source = ip(source),
                RouteAttribute::Priority(metric) => route.metric = Some(*metric),
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Some(route)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}/{} of ", self.to.0, self.to.1)?;
        match self.table {
            MAIN_TABLE => f.write_str("the main table"),
            table => write!(f, "table {table}"),
        }
    }
}

/// The routes to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteFilter {
    /// The routes of this table.
    Table(u32),
    /// The routes over the link with this index.
    Link(u32),
}

/// The path that the kernel would choose for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the outgoing link.
    pub link: u32,
    /// The next router, if the destination is not on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that the packet would have.
    pub source: Option<IpAddr>,
    /// Largest packet in bytes, if the route or the path has its own.
    pub mtu: Option<u32>,
    /// Whether the destination is an address of this host.
    pub local: bool,
}

impl Netlink {
    /// Adds a route.
    ///
    /// # Errors
    /// [`Error::is_present`]; ENODEV: there is no such link; ENETDOWN: the link is down;
    /// ENETUNREACH: the gateway is not reachable; EINVAL: host bits are set; EPERM.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(route.message());
        self.request(
            message,
            NLM_F_CREATE | NLM_F_EXCL,
            format_args!("add {route}"),
        )
        .map(drop)
    }

    /// Adds a route, and replaces a route with the same destination and metric.
    ///
    /// # Errors
    /// Those of [`Netlink::add_route`].
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(route.message());
        self.request(
            message,
            NLM_F_CREATE | NLM_F_REPLACE,
            format_args!("set {route}"),
        )
        .map(drop)
    }

    /// Adds a route after routes with the same destination and metric.
    ///
    /// # Errors
    /// Those of [`Netlink::add_route`].
    pub fn append_route(&mut self, route: &Route) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(route.message());
        self.request(
            message,
            NLM_F_CREATE | NLM_F_APPEND,
            format_args!("append {route}"),
        )
        .map(drop)
    }

    /// Removes a route.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EPERM.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let mut message = route.message();
        // The route is removed whatever its protocol and scope.
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
        let message = RouteNetlinkMessage::DelRoute(message);
        self.request(message, 0, format_args!("remove {route}"))
            .map(drop)
    }

    /// Lists the unicast routes of all tables, IPv4 and IPv6.
    ///
    /// # Errors
    /// The kernel is out of resources.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let replies = self.dump(
            RouteNetlinkMessage::GetRoute(RouteMessage::default()),
            "list routes",
        )?;
        Ok(unicast(&replies))
    }

    /// Lists the unicast routes of one family that are in a table or lead over a link. Since Linux
    /// 4.20 the kernel filters them, so that a long list is not transferred.
    ///
    /// # Errors
    /// The kernel is out of resources.
    pub fn routes_of(&mut self, family: Family, which: RouteFilter) -> Result<Vec<Route>, Error> {
        let mut routes = unicast(&self.dump_of(family, which)?);
        routes.retain(|route| match which {
            RouteFilter::Table(table) => route.table == table,
            RouteFilter::Link(link) => route.link == Some(link),
        });
        Ok(routes)
    }

    /// Lists the unreachable routes of one family in one table.
    ///
    /// # Errors
    /// The kernel is out of resources.
    pub fn unreachable_routes(&mut self, family: Family, table: u32) -> Result<Vec<Route>, Error> {
        let replies = self.dump_of(family, RouteFilter::Table(table))?;
        let routes = replies.iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewRoute(message) => Route::from_message(message),
            _ => None,
        });
        // IPv6 reports the loopback as their link.
        let routes = routes.map(|route| Route {
            link: None,
            ..route
        });
        Ok(routes
            .filter(|route| route.unreachable && route.table == table)
            .collect())
    }

    /// Whether a table has no route at all, IPv4 or IPv6.
    ///
    /// # Errors
    /// The kernel is out of resources.
    pub fn is_table_empty(&mut self, table: u32) -> Result<bool, Error> {
        for family in [Family::V4, Family::V6] {
            let replies = self.dump_of(family, RouteFilter::Table(table))?;
            let is_in = |reply: &RouteNetlinkMessage| match reply {
                RouteNetlinkMessage::NewRoute(message) => {
                    Route::from_message(message).is_some_and(|route| route.table == table)
                }
                _ => false,
            };
            if replies.iter().any(is_in) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Requests these routes. Older kernels return more.
    fn dump_of(
        &mut self,
        family: Family,
        which: RouteFilter,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        message.attributes.push(match which {
            RouteFilter::Table(table) => RouteAttribute::Table(table),
            RouteFilter::Link(link) => RouteAttribute::Oif(link),
        });
        // Without this option the kernel ignores the filter and returns all routes.
        let _ = self.channel.socket.set_netlink_get_strict_chk(true);
        let dumped = self.dump(RouteNetlinkMessage::GetRoute(message), "list routes");
        let _ = self.channel.socket.set_netlink_get_strict_chk(false);
        match dumped {
            // The table or the family does not exist.
            Err(error) if error.is_absent() || error.is_family_unknown() => Ok(Vec::new()),
            dumped => dumped,
        }
    }

    /// Asks which way a packet to `to` would take, with this source if given, and with this fwmark
    /// (0: none).
    ///
    /// # Errors
    /// ENETUNREACH, EHOSTUNREACH: there is no route; EINVAL: `source` is not a local address
    /// (IPv4), or the route is a blackhole; EACCES: the route prohibits it.
    pub fn route_get(
        &mut self,
        to: IpAddr,
        source: Option<IpAddr>,
        mark: u32,
    ) -> Result<NextHop, Error> {
        let mut message = RouteMessage::default();
        let bits = if to.is_ipv4() { 32 } else { 128 };
        message.header.address_family = family_of(&to);
        message.header.destination_prefix_length = bits;
        message
            .attributes
            .push(RouteAttribute::Destination(to.into()));
        if let Some(source) = source {
            message.header.source_prefix_length = bits;
            message
                .attributes
                .push(RouteAttribute::Source(source.into()));
        }
        if mark != 0 {
            message.attributes.push(RouteAttribute::Mark(mark));
        }
        let action = format_args!("find a route to {to}");
        let reply = self.request(RouteNetlinkMessage::GetRoute(message), 0, action)?;
        let Some(RouteNetlinkMessage::NewRoute(message)) = reply else {
            return Err(super::unexpected(action));
        };
        let route = Route::from_message(&message).ok_or_else(|| super::unexpected(action))?;
        Ok(NextHop {
            link: route.link.ok_or_else(|| super::unexpected(action))?,
            gateway: route.gateway,
            source: route.source,
            mtu: route.mtu,
            local: message.header.kind == RouteType::Local,
        })
    }
}

fn unicast(replies: &[RouteNetlinkMessage]) -> Vec<Route> {
    let routes = replies.iter().filter_map(|reply| match reply {
        RouteNetlinkMessage::NewRoute(message)
            if message.header.kind == RouteType::Unicast
                && !message.header.flags.contains(RouteFlags::Cloned) =>
        {
            Route::from_message(message)
        }
        _ => None,
    });
    routes.collect()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
