//! The settings that the kernel removes from a link that moves to another namespace: the up state,
//! the addresses, and the routes over the link. They are kept in the kernel's own form, so nothing
//! is lost.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol};

use super::{Error, LinkAddress, Netlink};

/// Flags of an address that the administrator chose; the kernel sets the others.
const CHOSEN: AddressFlags = AddressFlags::Nodad
    .union(AddressFlags::Homeaddress)
    .union(AddressFlags::Managetempaddr)
    .union(AddressFlags::Noprefixroute)
    .union(AddressFlags::Mcautojoin);

/// The table of the host's own addresses (RT_TABLE_LOCAL).
const LOCAL_TABLE: u8 = 255;

/// The settings of a link that moving it removes.
#[derive(Clone, Debug)]
pub struct Kept {
    up: bool,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
}

impl Kept {
    /// Whether the link was up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether the link had an IPv6 address.
    pub fn has_ipv6(&self) -> bool {
        let mut addresses = self.addresses.iter().filter_map(LinkAddress::from_message);
        addresses.any(|address| address.ip.is_ipv6())
    }
}

impl Netlink {
    /// Reads the settings that moving this link would remove.
    ///
    /// # Errors
    /// [`Error::is_absent`]: there is no such link.
    pub fn kept(&mut self, link: u32) -> Result<Kept, Error> {
        let up = self.link(link)?.up;
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let addresses = self.dump(message, "list addresses")?;
        let addresses = addresses.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == link => {
                Some(plain_address(message))
            }
            _ => None,
        });
        let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let routes = self.dump(message, "list routes")?;
        let routes = routes.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewRoute(message) => plain_route(message, link),
            _ => None,
        });
        let mut routes: Vec<_> = routes.collect();
        // A gateway must be reachable before a route can use it.
        routes.sort_by_key(|route| {
            let mut attributes = route.attributes.iter();
            attributes.any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)))
        });
        Ok(Kept {
            up,
            addresses: addresses.collect(),
            routes,
        })
    }

    /// Restores the settings of this link, with or without the routes.
    ///
    /// # Errors
    /// The first error from the kernel: EACCES: IPv6 is disabled there; EPERM; …
    pub fn restore(&mut self, link: u32, kept: &Kept, with_routes: bool) -> Result<(), Error> {
        // The link is set up first: an IPv6 address that was added before would be usable only
        // later.
        if kept.up {
            self.set_up(link, true)?;
        }
        for message in &kept.addresses {
            let mut message = message.clone();
            message.header.index = link;
            let action = match LinkAddress::from_message(&message) {
                Some(address) => format!("restore {address}"),
                None => "restore an address".into(),
            };
            let message = RouteNetlinkMessage::NewAddress(message);
            self.request(message, NLM_F_CREATE | NLM_F_EXCL, action)?;
        }
        // A link that is down has no routes.
        for message in kept.routes.iter().filter(|_| with_routes && kept.up) {
            let mut message = message.clone();
            for attribute in &mut message.attributes {
                if let RouteAttribute::Oif(index) = attribute {
                    *index = link;
                }
            }
            let message = RouteNetlinkMessage::NewRoute(message);
            match self.request(message, NLM_F_CREATE | NLM_F_EXCL, "restore a route") {
                Err(error) if !error.is_present() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The address in the form of a request.
fn plain_address(mut message: AddressMessage) -> AddressMessage {
    let is_ipv6 = message.header.family == netlink_packet_route::AddressFamily::Inet6;
    for attribute in &mut message.attributes {
        if let AddressAttribute::Flags(flags) = attribute {
            // Duplicate address detection found no other host with this address before.
            *flags = *flags & CHOSEN | AddressFlags::Nodad;
        }
    }
    message.header.flags = if is_ipv6 {
        AddressHeaderFlags::Nodad
    } else {
        AddressHeaderFlags::empty()
    };
    message
}

/// The route in the form of a request. None if it does not lead over this link, or if the kernel
/// created it for an address.
fn plain_route(mut message: RouteMessage, link: u32) -> Option<RouteMessage> {
    let header = &mut message.header;
    if header.table == LOCAL_TABLE
        || header.protocol == RouteProtocol::Kernel
        || header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    header.flags &= RouteFlags::Onlink;
    let over = |attribute: &RouteAttribute| *attribute == RouteAttribute::Oif(link);
    if !message.attributes.iter().any(over) {
        return None;
    }
    let told = |attribute: &RouteAttribute| !matches!(attribute, RouteAttribute::CacheInfo(_));
    message.attributes.retain(told);
    Some(message)
}
