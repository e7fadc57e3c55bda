//! The text of the configuration protocol: lines of `key=value`, followed by an empty line.
//!
//! Numbers have only decimal digits, keys of peers and interfaces are hexadecimal, and addresses
//! are numeric. Errors name the line and the key, but never the value, which may be a secret.

mod get;
mod reply;
mod set;
mod status;

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

pub use get::parse_get;
pub use reply::{ReplyContent, ReplyError, ReplyParser, ReplyPrinter};
pub use set::{BadLine, Problem, SetParser, parse_set, print_change};

/// Splits `key=value`.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|b| *b == b'=')?;
    Some((&line[..at], &line[at + 1..]))
}

/// Parses digits: no sign, no space, at least one digit, and not too large for `N`.
fn number<N: FromStr>(value: &str) -> Option<N> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    if digits { value.parse().ok() } else { None }
}

/// Parses `address:port` or `[address%scope]:port`. A scope is a link's index or name.
fn endpoint(value: &str) -> Option<SocketAddr> {
    if let Ok(addr) = value.parse() {
        return Some(addr);
    }
    let (host, port) = value.strip_prefix('[')?.split_once("]:")?;
    let (addr, scope) = host.split_once('%')?;
    let addr: Ipv6Addr = addr.parse().ok()?;
    let scope = nix::net::if_::if_nametoindex(scope).ok()?;
    Some(SocketAddrV6::new(addr, number(port)?, 0, scope).into())
}

#[cfg(test)]
mod arbitrary {
    //! Random interfaces and changes.

    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

    use proptest::option;
    use proptest::prelude::*;
    use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

    use crate::model::{AllowedIp, Change, Extension, Groups, Interface, Peer, Wall};

    fn private_key() -> impl Strategy<Value = Option<PrivateKey>> {
        option::of(any::<[u8; 32]>().prop_map(PrivateKey::from_bytes))
    }

    fn public_key() -> impl Strategy<Value = PublicKey> {
        any::<[u8; 32]>().prop_map(PublicKey::from_bytes)
    }

    fn preshared_key() -> impl Strategy<Value = PresharedKey> {
        prop_oneof![Just([0; 32]), any::<[u8; 32]>()].prop_map(PresharedKey::from_bytes)
    }

    fn endpoint() -> impl Strategy<Value = SocketAddr> {
        let v6 = (
            any::<u128>(),
            any::<u16>(),
            prop_oneof![Just(0), any::<u32>()],
        );
        prop_oneof![
            (any::<u32>(), any::<u16>()).prop_map(|(a, p)| (Ipv4Addr::from_bits(a), p).into()),
            v6.prop_map(|(a, p, s)| SocketAddrV6::new(Ipv6Addr::from_bits(a), p, 0, s).into()),
        ]
    }

    fn allowed_ip() -> impl Strategy<Value = AllowedIp> {
        let addr = prop_oneof![
            any::<u32>().prop_map(|a| IpAddr::V4(Ipv4Addr::from_bits(a))),
            any::<u128>().prop_map(|a| IpAddr::V6(Ipv6Addr::from_bits(a))),
            any::<u32>().prop_map(|a| IpAddr::V6(Ipv4Addr::from_bits(a).to_ipv6_mapped())),
        ];
        (addr, 0u8..=128).prop_map(|(addr, cidr)| {
            AllowedIp::new(addr, if addr.is_ipv4() { cidr % 33 } else { cidr }).unwrap()
        })
    }

    fn groups() -> impl Strategy<Value = Groups> {
        let names = prop::collection::vec("[a-k][a-z0-9-]{0,30}", 0..=8);
        names.prop_map(|names| names.join(",").parse().unwrap())
    }

    fn peer() -> impl Strategy<Value = Peer> {
        let handshake = option::of((1u64.., 0u32..1_000_000_000));
        let handshake = handshake.prop_map(|w| w.map(|(secs, nanos)| Wall { secs, nanos }));
        let numbers = (any::<u64>(), any::<u64>(), any::<u16>());
        let ips = prop::collection::vec(allowed_ip(), 0..5);
        (
            public_key(),
            preshared_key(),
            option::of(endpoint()),
            handshake,
            numbers,
            ips,
        )
            .prop_map(
                |(public_key, preshared_key, endpoint, last_handshake, numbers, allowed_ips)| {
                    let (tx_bytes, rx_bytes, persistent_keepalive) = numbers;
                    Peer {
                        preshared_key,
                        endpoint,
                        last_handshake,
                        tx_bytes,
                        rx_bytes,
                        persistent_keepalive,
                        allowed_ips,
                        ..Peer::new(public_key)
                    }
                },
            )
    }

    pub(super) fn interface() -> impl Strategy<Value = Interface> {
        let peers = prop::collection::vec(peer(), 0..6);
        (private_key(), any::<u16>(), any::<u32>(), peers).prop_map(
            |(private_key, listen_port, fwmark, peers)| Interface {
                // The protocol uses zero for "none".
                private_key: private_key.filter(|key| !key.is_zero()),
                listen_port,
                fwmark,
                peers,
            },
        )
    }

    pub(super) fn changes() -> impl Strategy<Value = Vec<Change>> {
        let of_device = prop_oneof![
            private_key().prop_map(|key| Change::PrivateKey(key.map(Box::new))),
            any::<u16>().prop_map(Change::ListenPort),
            any::<u32>().prop_map(Change::FwMark),
            Just(Change::ReplacePeers),
        ];
        let of_peer = prop_oneof![
            public_key().prop_map(Change::Peer),
            Just(Change::UpdateOnly),
            Just(Change::Remove),
            preshared_key().prop_map(|key| Change::PresharedKey(Box::new(key))),
            endpoint().prop_map(Change::Endpoint),
            any::<u16>().prop_map(Change::PersistentKeepalive),
            Just(Change::ReplaceAllowedIps),
            (allowed_ip(), any::<bool>()).prop_map(|(ip, remove)| Change::AllowedIp { ip, remove }),
            Just(Change::ProtocolVersion),
            option::of("[b-k][a-z0-9-]{0,30}").prop_map(|name| {
                let name = name.map(|name| name.parse().unwrap());
                Change::Extension(Extension::Name(name))
            }),
            groups().prop_map(|groups| Change::Extension(Extension::Relay(groups))),
            any::<bool>().prop_map(|is_hub| Change::Extension(Extension::Hub(is_hub))),
        ];
        let device = prop::collection::vec(of_device, 0..6);
        let peers = (public_key(), prop::collection::vec(of_peer, 0..20));
        (device, option::of(peers)).prop_map(|(mut changes, peers)| {
            if let Some((first, rest)) = peers {
                changes.push(Change::Peer(first));
                changes.extend(rest);
            }
            changes
        })
    }
}
