//! Routes, and the kernel's choice among them.

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

/// A unicast route over one link, or one that says that there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination: address and prefix length. All zero is the default route of the family.
    pub to: (IpAddr, u8),
    /// Index of the link it leads out by.
    pub link: Option<u32>,
    /// Next router.
    pub gateway: Option<IpAddr>,
    /// Routing table.
    pub table: u32,
    /// Source that local senders get.
    pub source: Option<IpAddr>,
    /// Largest packet, in bytes, where it is not the link's.
    pub mtu: Option<u32>,
    /// Order among routes to the same destination, lowest first.
    pub metric: Option<u32>,
    /// Made by the kernel, for an address.
    pub by_kernel: bool,
    /// Senders are told that the destination is unreachable; it has no link.
    #[serde(default)]
    pub unreachable: bool,
}

impl Route {
    /// `to` by way of `link`, in the main table.
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

    /// No way to `to`, in the main table.
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
        // A table above 255 does not fit the header; RTA_TABLE has the last word.
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

    /// `None` of a family other than IPv4 and IPv6.
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
        write!(
            f,
            "route {}/{} of table {}",
            self.to.0, self.to.1, self.table
        )
    }
}

/// Which routes to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteFilter {
    /// Those of a table.
    Table(u32),
    /// Those that lead out by the link of this index.
    Link(u32),
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the link.
    pub link: u32,
    /// The next router, if the destination is not on the link.
    pub gateway: Option<IpAddr>,
    /// The source the packet would carry.
    pub source: Option<IpAddr>,
    /// Largest packet, in bytes, where route or path have one of their own.
    pub mtu: Option<u32>,
    /// The destination is an address of this host.
    pub local: bool,
}

impl Netlink {
    /// Adds a route.
    ///
    /// # Errors
    /// [`Error::is_present`]; ENODEV: no such link; ENETDOWN: the link is down;
    /// ENETUNREACH: the gateway is out of reach; EINVAL: bits set behind the prefix; EPERM.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(route.message());
        self.request(
            message,
            NLM_F_CREATE | NLM_F_EXCL,
            format_args!("add {route}"),
        )
        .map(drop)
    }

    /// Adds a route, in place of one to the same destination with the same metric.
    ///
    /// # Errors
    /// As [`Netlink::add_route`].
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(route.message());
        self.request(
            message,
            NLM_F_CREATE | NLM_F_REPLACE,
            format_args!("set {route}"),
        )
        .map(drop)
    }

    /// Adds a route behind one to the same destination with the same metric, if there is one.
    ///
    /// # Errors
    /// As [`Netlink::add_route`].
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
        // Whoever made it, whatever its scope.
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
        let message = RouteNetlinkMessage::DelRoute(message);
        self.request(message, 0, format_args!("remove {route}"))
            .map(drop)
    }

    /// Lists the unicast routes of all tables, both families.
    ///
    /// # Errors
    /// Only the kernel's own trouble.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let replies = self.dump(
            RouteNetlinkMessage::GetRoute(RouteMessage::default()),
            "list routes",
        )?;
        Ok(unicast(&replies))
    }

    /// Lists the unicast routes of one family in one table, or over one link in any, without
    /// looking through all there are where the kernel can choose (Linux 4.20).
    ///
    /// # Errors
    /// Only the kernel's own trouble.
    pub fn routes_of(&mut self, family: Family, which: RouteFilter) -> Result<Vec<Route>, Error> {
        let mut routes = unicast(&self.dump_of(family, which)?);
        routes.retain(|route| match which {
            RouteFilter::Table(table) => route.table == table,
            RouteFilter::Link(link) => route.link == Some(link),
        });
        Ok(routes)
    }

    /// Lists the routes of one family in one table that say that there is no way.
    ///
    /// # Errors
    /// Only the kernel's own trouble.
    pub fn unreachable_routes(&mut self, family: Family, table: u32) -> Result<Vec<Route>, Error> {
        let replies = self.dump_of(family, RouteFilter::Table(table))?;
        let routes = replies.iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewRoute(message) => Route::from_message(message),
            _ => None,
        });
        // IPv6 says that they lead out by the loopback.
        let routes = routes.map(|route| Route {
            link: None,
            ..route
        });
        Ok(routes
            .filter(|route| route.unreachable && route.table == table)
            .collect())
    }

    /// Whether there is no route at all in a table, of either family.
    ///
    /// # Errors
    /// Only the kernel's own trouble.
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

    /// At least these routes.
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
        // Without it the kernel overlooks what was asked for, and gives all.
        let _ = self.channel.socket.set_netlink_get_strict_chk(true);
        let dumped = self.dump(RouteNetlinkMessage::GetRoute(message), "list routes");
        let _ = self.channel.socket.set_netlink_get_strict_chk(false);
        match dumped {
            // A table that there is not, or a family.
            Err(error) if error.is_absent() || error.is_family_unknown() => Ok(Vec::new()),
            dumped => dumped,
        }
    }

    /// Asks where a packet to `to` would go, with this source if given and this fwmark (0: none).
    ///
    /// # Errors
    /// ENETUNREACH, EHOSTUNREACH: no route; EINVAL: `source` is no local address (IPv4), or a
    /// blackhole route; EACCES: prohibited.
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
