//! Links, and the IDs that a network namespace has for other namespaces.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::{Error, Netlink, unexpected};
use crate::sys::netns::NetNs;
use crate::sys::tun::Tun;

/// Identifies a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkId<'a> {
    /// By name.
    Name(&'a str),
    /// By index.
    Index(u32),
}

impl fmt::Display for LinkId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkId::Name(name) => write!(f, "{name}"),
            LinkId::Index(index) => write!(f, "link {index}"),
        }
    }
}

impl<'a> From<&'a str> for LinkId<'a> {
    fn from(name: &'a str) -> Self {
        LinkId::Name(name)
    }
}

impl<'a> From<&'a String> for LinkId<'a> {
    fn from(name: &'a String) -> Self {
        LinkId::Name(name)
    }
}

impl From<u32> for LinkId<'_> {
    fn from(index: u32) -> Self {
        LinkId::Index(index)
    }
}

impl LinkId<'_> {
    fn message(&self, attributes: impl IntoIterator<Item = LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        match *self {
            LinkId::Index(index) => message.header.index = index,
            LinkId::Name(name) => message.attributes.push(LinkAttribute::IfName(name.into())),
        }
        message.attributes.extend(attributes);
        message
    }
}

/// A link, as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `tun`, `wireguard`, `veth`, …; None for a physical device.
    pub kind: Option<String>,
    /// Set up by the administrator (IFF_UP).
    pub up: bool,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Most packets that wait for the device.
    pub tx_queue_len: u32,
    /// Size of the largest IPv6 super-packet passed to the device, in bytes.
    pub gso_max_size: u32,
    /// Size of the largest IPv4 super-packet passed to the device, in bytes (Linux 6.3; before, 0).
    pub gso_ipv4_max_size: u32,
    /// Most segments in a super-packet passed to the device.
    pub gso_max_segs: u32,
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            ..Link::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::TxQueueLen(len) => link.tx_queue_len = *len,
                LinkAttribute::GsoMaxSize(size) => link.gso_max_size = *size,
                LinkAttribute::GsoIpv4MaxSize(size) => link.gso_ipv4_max_size = *size,
                LinkAttribute::GsoMaxSegs(segments) => link.gso_max_segs = *segments,
                LinkAttribute::LinkInfo(info) => {
                    link.kind = info.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

impl Netlink {
    /// Looks up a link.
    ///
    /// # Errors
    /// [`Error::is_absent`]: there is no such link.
    pub fn link<'a>(&mut self, id: impl Into<LinkId<'a>>) -> Result<Link, Error> {
        let id = id.into();
        self.get_link(id, None, format_args!("look up {id}"))
    }

    /// Looks up a link in the namespace with the ID `nsid` ([`Netlink::nsid`]). This needs
    /// CAP_NET_ADMIN there. Linux supports only look-ups in this way, no changes.
    ///
    /// # Errors
    /// [`Error::is_absent`]: there is no such link; EINVAL: no namespace has this ID; EPERM.
    pub fn link_in(&mut self, nsid: i32, name: &str) -> Result<Link, Error> {
        let netns = Some(LinkAttribute::IfNetnsId(nsid));
        let action = format_args!("look up {name} in namespace {nsid}");
        self.get_link(name.into(), netns, action)
    }

    /// Looks up the link of a TUN, whatever its namespace and name are now. If necessary, its
    /// namespace gets an ID, so that [`super::Events`] continues to receive its events. Also returns
    /// this ID, by which events call the namespace; None for the namespace of this connection.
    ///
    /// # Errors
    /// [`Error::is_absent`]: the link was deleted, or is being moved or renamed at the moment;
    /// EPERM: the process lacks CAP_NET_ADMIN there.
    pub fn link_of(&mut self, tun: &Tun) -> Result<(Link, Option<i32>), Error> {
        let failed = |source| Error {
            action: "find the link of a TUN".into(),
            source,
        };
        let name = tun.name().map_err(failed)?;
        match self.elsewhere(tun).map_err(failed)? {
            None => Ok((self.link(&name)?, None)),
            Some(netns) => {
                let nsid = self.nsid_or_new(netns.as_fd())?;
                Ok((self.link_in(nsid, &name)?, Some(nsid)))
            }
        }
    }

    /// The namespace of a TUN's link, if it differs from the namespace of this connection. Linux
    /// before 5.2 cannot tell; then None.
    ///
    /// # Errors
    /// EBADFD: the link was deleted; EPERM: the process lacks CAP_NET_ADMIN there.
    pub fn elsewhere(&self, tun: &Tun) -> io::Result<Option<NetNs>> {
        let netns = match tun.netns() {
            Ok(netns) => NetNs::from(netns),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_here = self.netns()?.is(&netns)?;
        Ok((!is_here).then_some(netns))
    }

    fn get_link(
        &mut self,
        id: LinkId<'_>,
        netns: Option<LinkAttribute>,
        action: impl fmt::Display + Copy,
    ) -> Result<Link, Error> {
        let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        let message = id.message(netns.into_iter().chain([mask]));
        match self.request(RouteNetlinkMessage::GetLink(message), 0, action)? {
            Some(RouteNetlinkMessage::NewLink(message)) => Ok(Link::from(&message)),
            _ => Err(unexpected(action)),
        }
    }

    /// Lists all links.
    ///
    /// # Errors
    /// The kernel is out of resources.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let replies = self.dump(RouteNetlinkMessage::GetLink(message), "list links")?;
        let links = replies.iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// Creates a link of a kind that needs no parameters: `wireguard`, `dummy`, `bridge`, …
    ///
    /// # Errors
    /// [`Error::is_present`]: the name is in use; EOPNOTSUPP: the kernel does not support this
    /// kind; EPERM.
    pub fn add_link(&mut self, name: &str, kind: &str) -> Result<(), Error> {
        let info = LinkInfo::Kind(InfoKind::Other(kind.into()));
        let action = format_args!("create {kind} link {name}");
        self.create(name, vec![info], action)
    }

    /// Creates a pair of connected Ethernet links, the second in `netns` if given.
    ///
    /// # Errors
    /// [`Error::is_present`]: a name is in use; EPERM.
    pub fn add_veth(
        &mut self,
        name: &str,
        peer: &str,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        let there = netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd()));
        let message = LinkId::Name(peer).message(there);
        let data = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(message)));
        let action = format_args!("create veth links {name} and {peer}");
        self.create(name, vec![LinkInfo::Kind(InfoKind::Veth), data], action)
    }

    fn create(
        &mut self,
        name: &str,
        info: Vec<LinkInfo>,
        action: impl fmt::Display,
    ) -> Result<(), Error> {
        let message = LinkId::Name(name).message([LinkAttribute::LinkInfo(info)]);
        let message = RouteNetlinkMessage::NewLink(message);
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, action)
            .map(drop)
    }

    /// Deletes a link.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EOPNOTSUPP: a physical link; EPERM.
    pub fn delete_link<'a>(&mut self, id: impl Into<LinkId<'a>>) -> Result<(), Error> {
        let id = id.into();
        let message = RouteNetlinkMessage::DelLink(id.message([]));
        self.request(message, 0, format_args!("delete {id}"))
            .map(drop)
    }

    /// Sets a link up or down.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EPERM; errors of the device.
    pub fn set_up<'a>(&mut self, id: impl Into<LinkId<'a>>, up: bool) -> Result<(), Error> {
        let id = id.into();
        let mut message = id.message([]);
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        let action = format_args!("set {id} {}", if up { "up" } else { "down" });
        self.request(RouteNetlinkMessage::SetLink(message), 0, action)
            .map(drop)
    }

    /// Sets the MTU in bytes.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EINVAL: outside the device's limits; EPERM.
    pub fn set_mtu<'a>(&mut self, id: impl Into<LinkId<'a>>, mtu: u32) -> Result<(), Error> {
        let id = id.into();
        self.set(
            id,
            [LinkAttribute::Mtu(mtu)],
            format_args!("set the MTU of {id} to {mtu}"),
        )
    }

    /// Sets the MTU in bytes and sets the link up, in one request.
    ///
    /// # Errors
    /// Those of [`Netlink::set_mtu`] and [`Netlink::set_up`].
    pub fn set_mtu_and_up<'a>(&mut self, id: impl Into<LinkId<'a>>, mtu: u32) -> Result<(), Error> {
        let id = id.into();
        let mut message = id.message([LinkAttribute::Mtu(mtu)]);
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = LinkFlags::Up;
        let action = format_args!("set the MTU of {id} to {mtu} and {id} up");
        self.request(RouteNetlinkMessage::SetLink(message), 0, action)
            .map(drop)
    }

    /// Sets the most packets that wait for the device.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EPERM.
    pub fn set_tx_queue_len<'a>(
        &mut self,
        id: impl Into<LinkId<'a>>,
        len: u32,
    ) -> Result<(), Error> {
        let id = id.into();
        let action = format_args!("set the queue length of {id} to {len}");
        self.set(id, [LinkAttribute::TxQueueLen(len)], action)
    }

    /// Limits the super-packets that are passed to the device, IPv4 and IPv6: their size in bytes
    /// including headers, and the number of segments. Linux before 6.3 has one size for both
    /// families.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EINVAL: above the device's limits; EPERM.
    pub fn set_gso_limits<'a>(
        &mut self,
        id: impl Into<LinkId<'a>>,
        bytes: u32,
        segments: u32,
    ) -> Result<(), Error> {
        let id = id.into();
        let limits = [
            LinkAttribute::GsoMaxSize(bytes),
            LinkAttribute::GsoIpv4MaxSize(bytes),
            LinkAttribute::GsoMaxSegs(segments),
        ];
        let action =
            format_args!("limit super-packets of {id} to {bytes} bytes, {segments} segments");
        self.set(id, limits, action)
    }

    /// Prevents an IPv6 link-local address when the link is set up (addr_gen_mode none). A link
    /// without IPv6 (MTU below 1280, or IPv6 disabled) gets none in any case.
    ///
    /// # Errors
    /// [`Error::is_absent`]; EPERM.
    pub fn set_addr_gen_mode_none<'a>(&mut self, id: impl Into<LinkId<'a>>) -> Result<(), Error> {
        let id = id.into();
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
        let action = format_args!("switch address generation of {id} off");
        match self.set(id, [spec], action) {
            Err(error) if error.is_family_unknown() => Ok(()),
            result => result,
        }
    }

    /// Moves a link to another network namespace. It is down there at first.
    ///
    /// # Errors
    /// [`Error::is_absent`]; [`Error::is_present`]: its name is in use there; EINVAL: this link
    /// cannot be moved; EPERM.
    pub fn move_link<'a>(
        &mut self,
        id: impl Into<LinkId<'a>>,
        netns: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let id = id.into();
        let there = LinkAttribute::NetNsFd(netns.as_raw_fd());
        self.set(id, [there], format_args!("move {id} to another namespace"))
    }

    fn set(
        &mut self,
        id: LinkId<'_>,
        attributes: impl IntoIterator<Item = LinkAttribute>,
        action: impl fmt::Display,
    ) -> Result<(), Error> {
        let message = RouteNetlinkMessage::SetLink(id.message(attributes));
        self.request(message, 0, action).map(drop)
    }

    /// The ID that this namespace has for `netns`, if any. Usually a namespace has no ID for
    /// itself.
    ///
    /// # Errors
    /// EBADF or EINVAL: not a network namespace.
    pub fn nsid(&mut self, netns: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
        let action = "look up the ID of a namespace";
        let message = RouteNetlinkMessage::GetNsId(nsid_message(netns, None));
        match self.request(message, 0, action)? {
            Some(RouteNetlinkMessage::NewNsId(message)) => {
                let id = message
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        NsidAttribute::Id(id) => Some(*id),
                        _ => None,
                    });
                Ok(id.filter(|id| *id >= 0))
            }
            _ => Err(unexpected(action)),
        }
    }

    /// Like [`Netlink::nsid`], but creates an ID if there is none. Events of the namespace can then
    /// be received ([`super::Events`]), and its links looked up ([`Netlink::link_in`]).
    ///
    /// # Errors
    /// EBADF or EINVAL: not a network namespace; EPERM.
    pub fn nsid_or_new(&mut self, netns: BorrowedFd<'_>) -> Result<i32, Error> {
        let action = "create an ID for a namespace";
        if let Some(id) = self.nsid(netns)? {
            return Ok(id);
        }
        let message = RouteNetlinkMessage::NewNsId(nsid_message(netns, Some(-1)));
        match self.request(message, 0, action) {
            Err(error) if !error.is_present() => return Err(error),
            _ => {}
        }
        self.nsid(netns)?.ok_or_else(|| unexpected(action))
    }
}

fn nsid_message(netns: BorrowedFd<'_>, id: Option<i32>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message
        .attributes
        .push(NsidAttribute::Fd(netns.as_raw_fd().cast_unsigned()));
    message.attributes.extend(id.map(NsidAttribute::Id));
    message
}
