//! The peers of a file, including disabled ones, and the addresses that are free.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::str::FromStr;

use wg_crypto::key::PublicKey;
use wg_rs::config::lines::Section;
use wg_rs::config::{Address, Dialect, PeerSettings, read_file};
use wg_rs::model::{AllowedIp, Label, NotALabel};

use crate::file::edit::Edit;

/// A section of a peer. A peer may have several.
#[derive(Debug)]
pub struct PeerSection {
    /// The settings of the section.
    pub peer: PeerSettings,
    /// Whether the section is enabled.
    pub is_enabled: bool,
    /// Its lines.
    pub section: Range<usize>,
}

/// All valid sections, in order.
pub fn members(text: &Edit) -> Vec<PeerSection> {
    let sections = text.sections.iter().filter_map(|(section, range)| {
        let is_enabled = match section {
            Section::Peer => true,
            Section::Disabled => false,
            Section::Interface | Section::Other => return None,
        };
        let (settings, _) = read_file("", &text.text_of(range), Dialect::WgQuick);
        let peer = settings.peers.into_iter().next()?;
        Some(PeerSection {
            peer,
            is_enabled,
            section: range.clone(),
        })
    });
    sections.collect()
}

/// How the user names a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// By its name.
    Name(Label),
    /// By its public key, for a peer without a name.
    Key(PublicKey),
}

impl FromStr for Who {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        match PublicKey::from_base64(text) {
            Ok(key) => Ok(Who::Key(key)),
            Err(_) => text.parse().map(Who::Name),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Name(name) => name.fmt(f),
            Who::Key(key) => key.fmt(f),
        }
    }
}

impl Who {
    /// The public key of this peer, if the file has it.
    pub fn key(&self, members: &[PeerSection]) -> Option<PublicKey> {
        let is_meant = |member: &&PeerSection| match self {
            Who::Name(name) => member.peer.name() == Some(name),
            Who::Key(key) => member.peer.public_key == *key,
        };
        let member = members.iter().find(is_meant)?;
        Some(member.peer.public_key)
    }
}

/// The first free address in the network of `own`; `None` if there is none. Networks in `taken` that are as
/// large as this one, or larger, do not count: they are routes to other networks.
pub fn free_address(own: &Address, taken: &[AllowedIp]) -> Option<IpAddr> {
    let (ip, prefix) = (own.ip, own.prefix);
    let all = range(&own.network()?);
    // The first is the network's own (in IPv6, its routers'), the last of IPv4 its broadcast.
    let last = all.1.checked_sub(u128::from(ip.is_ipv4()))?;
    let inside = taken
        .iter()
        .filter(|one| one.addr.is_ipv4() == ip.is_ipv4() && one.cidr > prefix)
        .map(range)
        .filter(|(start, end)| *start >= all.0 && *end <= all.1);
    let mut inside: Vec<_> = inside.chain([(bits(ip), bits(ip))]).collect();
    inside.sort_unstable();
    let mut free = all.0 + 1;
    for (start, end) in inside {
        if free < start {
            break;
        }
        free = free.max(end.checked_add(1)?);
    }
    let address = |bits: u128| match ip {
        IpAddr::V4(_) => u32::try_from(bits)
            .ok()
            .map(|bits| Ipv4Addr::from(bits).into()),
        IpAddr::V6(_) => Some(Ipv6Addr::from(bits).into()),
    };
    (free <= last).then(|| address(free)).flatten()
}

/// The first and the last address of a network.
fn range(network: &AllowedIp) -> (u128, u128) {
    let start = bits(network.addr);
    let host = if network.addr.is_ipv4() { 32 } else { 128 } - u32::from(network.cidr);
    let size = 1u128.checked_shl(host).unwrap_or(0).wrapping_sub(1);
    (start, start | size)
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Whether two networks have an address in common.
pub fn overlap(one: &AllowedIp, other: &AllowedIp) -> bool {
    let ((a, b), (c, d)) = (range(one), range(other));
    one.addr.is_ipv4() == other.addr.is_ipv4() && a <= d && c <= b
}

/// Whether the second network contains the first.
pub fn is_inside(one: &AllowedIp, other: &AllowedIp) -> bool {
    overlap(one, other) && one.cidr >= other.cidr
}

#[cfg(test)]
mod tests {
    use super::*;
    use wg_rs::config::value;

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    const OTHER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn network(text: &str) -> AllowedIp {
        value::allowed_ip(text).unwrap().0
    }

    fn free(own: &str, taken: &[&str]) -> Option<String> {
        let taken: Vec<_> = taken.iter().map(|text| network(text)).collect();
        free_address(&value::address(own).unwrap(), &taken).map(|ip| ip.to_string())
    }

    #[test]
    fn the_first_free_address_is_found() {
        for (own, taken, expected) in [
            ("10.0.0.1/24", &[][..], Some("10.0.0.2")),
            ("10.0.0.2/24", &[], Some("10.0.0.1")),
            ("10.0.0.77/24", &["10.0.0.1", "10.0.0.3"], Some("10.0.0.2")),
            (
                "10.0.0.1/24",
                &["10.0.0.2", "10.0.0.2", "10.0.0.3"],
                Some("10.0.0.4"),
            ),
            // Networks behind peers take their addresses; a default route takes none.
            ("10.0.0.1/24", &["10.0.0.0/25"], Some("10.0.0.128")),
            (
                "10.0.0.1/24",
                &["0.0.0.0/0", "10.0.0.0/24", "10.9.0.0/16"],
                Some("10.0.0.2"),
            ),
            ("10.0.0.1/30", &["10.0.0.2"], None),
            ("10.0.0.1/31", &[], None),
            ("10.0.0.1/32", &[], None),
            ("255.255.255.253/30", &["255.255.255.254"], None),
            ("fd00::1/64", &["fd00::2", "10.0.0.2"], Some("fd00::3")),
            ("fd00::1/126", &["fd00::2"], Some("fd00::3")),
            ("fd00::1/126", &["fd00::2/127"], None),
            ("fd00::1/128", &[], None),
            ("fd00::1/127", &[], None),
        ] {
            assert_eq!(free(own, taken).as_deref(), expected, "{own} {taken:?}");
        }
    }

    #[test]
    fn overlapping_networks_are_found() {
        for (one, other, meet, inside) in [
            ("10.0.0.0/24", "10.0.0.0/8", true, true),
            ("10.0.0.0/8", "10.0.0.0/24", true, false),
            ("10.0.0.0/24", "10.0.1.0/24", false, false),
            ("0.0.0.0/0", "10.0.1.0/24", true, false),
            ("::/0", "10.0.1.0/24", false, false),
            ("fd00::1", "::/0", true, true),
        ] {
            let (one, other) = (network(one), network(other));
            assert_eq!(overlap(&one, &other), meet, "{one} {other}");
            assert_eq!(is_inside(&one, &other), inside, "{one} {other}");
        }
    }

    fn file() -> String {
        format!(
            "[Interface]\nAddress = 10.0.0.1/24\n\n# Alice's\n[Peer]\n#@ Name = alice # phone\n\n\
             PublicKey = {KEY}\nAllowedIPs = 10.0.0.2/32\n\n[Peer]\n#@ Name = bob\n\
             PublicKey = {OTHER}\nAllowedIPs = 10.0.0.3/32\n"
        )
    }

    #[test]
    fn a_peer_is_disabled_and_enabled_again() {
        for text in [
            file(),
            file().replace('\n', "\r\n"),
            file().trim_end().to_owned(),
        ] {
            let mut edit = Edit::new(text.as_bytes());
            let all = members(&edit);
            let alice = Who::Name("alice".parse().unwrap());
            assert_eq!(alice.key(&all).unwrap().to_base64(), KEY);
            edit.disable(&all[0].section);
            let off = edit.finish();
            let shown = str::from_utf8(&off).unwrap();
            assert!(shown.contains("#! [Peer]") && shown.contains("#! #@ Name = alice # phone"));
            assert_eq!(shown.matches("#! ").count(), 4, "{shown}");

            let mut edit = Edit::new(&off);
            let all = members(&edit);
            let states: Vec<_> = all
                .iter()
                .map(|one| (one.is_enabled, one.peer.name()))
                .collect();
            let name = |text: &str| text.parse::<Label>().unwrap();
            assert_eq!(
                states,
                [(false, Some(&name("alice"))), (true, Some(&name("bob")))]
            );
            assert_eq!(alice.key(&all).unwrap().to_base64(), KEY);
            edit.enable(&all[0].section);
            assert_eq!(*edit.finish(), text.as_bytes());
        }
    }

    #[test]
    fn a_disabled_peer_stays_when_the_next_one_is_removed() {
        let file = file();
        let mut edit = Edit::new(file.as_bytes());
        let bob = members(&edit).pop().unwrap();
        edit.disable(&bob.section);
        let off = edit.finish();
        let mut edit = Edit::new(&off);
        let all = members(&edit);
        edit.remove(&all[0].section);
        let left = edit.finish();
        let left = str::from_utf8(&left).unwrap();
        assert!(
            !left.contains("alice") && left.contains("#! #@ Name = bob\n"),
            "{left}"
        );
        let mut edit = Edit::new(left.as_bytes());
        let all = members(&edit);
        edit.remove(&all[0].section);
        assert_eq!(*edit.finish(), *b"[Interface]\nAddress = 10.0.0.1/24\n");
    }
}
