//! Addresses of links.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};

use super::{Error, Netlink, family_of};

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// The link's index.
    pub link: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of the prefix that is on the link.
    pub prefix: u8,
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "address {}/{} of link {}",
            self.ip, self.prefix, self.link
        )
    }
}

impl LinkAddress {
    /// None if the message contains no address.
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        // IFA_ADDRESS is the remote end of a point-to-point link that has an IFA_LOCAL.
        let local = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
        let ip = local.or_else(|| {
            message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(ip) => Some(*ip),
                    _ => None,
                })
        })?;
        Some(LinkAddress {
            link: message.header.index,
            ip,
            prefix: message.header.prefix_len,
        })
    }

    fn message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family_of(&self.ip);
        message.header.index = self.link;
        message.header.prefix_len = self.prefix;
        if self.ip.is_loopback() {
            message.header.scope = AddressScope::Host;
        }
        message.attributes.push(AddressAttribute::Address(self.ip));
        message.attributes.push(AddressAttribute::Local(self.ip));
        message
    }
}

impl Netlink {
    /// Adds an address without duplicate address detection. The kernel activates an IPv6 address
    /// shortly after: the address is in use when [`Netlink::route_get`] reports it as local.
    ///
    /// # Errors
    /// [`Error::is_present`]; ENODEV: there is no such link; EPERM; EINVAL: the address is not
    /// valid for a link; EACCES: IPv6 is disabled on the link.
    pub fn add_address(&mut self, address: &LinkAddress) -> Result<(), Error> {
        let mut message = address.message();
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
        let message = RouteNetlinkMessage::NewAddress(message);
        let action = format_args!("add {address}");
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, action)
            .map(drop)
    }

    /// Adds an address like ip(8): with duplicate address detection, if the link supports it.
    ///
    /// # Errors
    /// Those of [`Netlink::add_address`].
    pub fn add_address_checked(&mut self, address: &LinkAddress) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewAddress(address.message());
        let action = format_args!("add {address}");
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, action)
            .map(drop)
    }

    /// Removes an address.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EPERM.
    pub fn delete_address(&mut self, address: &LinkAddress) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelAddress(address.message());
        self.request(message, 0, format_args!("remove {address}"))
            .map(drop)
    }

    /// Lists the addresses of all links, IPv4 and IPv6.
    ///
    /// # Errors
    /// The kernel is out of resources.
    pub fn addresses(&mut self) -> Result<Vec<LinkAddress>, Error> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let replies = self.dump(message, "list addresses")?;
        let addresses = replies.iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewAddress(message) => LinkAddress::from_message(message),
            _ => None,
        });
        Ok(addresses.collect())
    }
}
