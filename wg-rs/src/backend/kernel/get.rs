//! Assembles an interface from the messages of a dump.
//!
//! The first message describes the interface, and every message contains as many peers as fit. If a
//! peer's allowed IPs do not fit, the next message continues the peer, with the same key and the
//! remaining allowed IPs. Other keys are unique, so consecutive entries with the same key are one
//! peer.

use std::io;

use netlink_packet_wireguard::{
    WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardPeer,
    WireguardPeerAttribute,
};
use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

use super::message::KernelMessage;
use crate::model::{AllowedIp, Interface, Peer, Wall};

/// Adds the contents of the next message.
pub(super) fn collect(interface: &mut Interface, message: KernelMessage) -> io::Result<()> {
    for attribute in &message.0.attributes {
        match attribute {
            WireguardAttribute::PrivateKey(key) => {
                let key = PrivateKey::from_bytes(*key);
                interface.private_key = (!key.is_zero()).then_some(key);
            }
            WireguardAttribute::ListenPort(port) => interface.listen_port = *port,
            WireguardAttribute::Fwmark(mark) => interface.fwmark = *mark,
            WireguardAttribute::Peers(peers) => {
                for WireguardPeer(attributes) in peers {
                    collect_peer(interface, attributes)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn collect_peer(
    interface: &mut Interface,
    attributes: &[WireguardPeerAttribute],
) -> io::Result<()> {
    let key = attributes.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(PublicKey::from_bytes(*key)),
        _ => None,
    });
    let key = key.ok_or_else(|| invalid("peer without a key"))?;
    if interface
        .peers
        .last()
        .is_none_or(|last| last.public_key != key)
    {
        interface.peers.push(Peer::new(key));
    }
    let Some(peer) = interface.peers.last_mut() else {
        return Ok(());
    };
    for attribute in attributes {
        match attribute {
            WireguardPeerAttribute::PresharedKey(key) => {
                peer.preshared_key = PresharedKey::from_bytes(*key);
            }
            WireguardPeerAttribute::Endpoint(addr) => peer.endpoint = Some(*addr),
            WireguardPeerAttribute::PersistentKeepalive(secs) => peer.persistent_keepalive = *secs,
            WireguardPeerAttribute::LastHandshake(time) => {
                let secs = time.seconds.try_into().unwrap_or_default();
                let nanos = time.nano_seconds.try_into().unwrap_or_default();
                peer.last_handshake = (secs != 0 || nanos != 0).then_some(Wall { secs, nanos });
            }
            WireguardPeerAttribute::RxBytes(bytes) => peer.rx_bytes = *bytes,
            WireguardPeerAttribute::TxBytes(bytes) => peer.tx_bytes = *bytes,
            WireguardPeerAttribute::AllowedIps(ips) => {
                for WireguardAllowedIp(attributes) in ips {
                    let ip = allowed_ip(attributes);
                    peer.allowed_ips
                        .push(ip.ok_or_else(|| invalid("allowed IP without an address"))?);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn allowed_ip(attributes: &[WireguardAllowedIpAttr]) -> Option<AllowedIp> {
    let (mut addr, mut cidr) = (None, None);
    for attribute in attributes {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(ip) => addr = Some(*ip),
            WireguardAllowedIpAttr::Cidr(bits) => cidr = Some(*bits),
            _ => {}
        }
    }
    AllowedIp::new(addr?, cidr?)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("invalid reply from the kernel: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{Emitable, ParseableParametrized};
    use netlink_packet_generic::{GenlFamily, GenlHeader};
    use netlink_packet_wireguard::{WireguardAddressFamily, WireguardCmd, WireguardTimeSpec};
    use proptest::prelude::*;

    /// The messages with which the kernel would describe `interface`, if each had room for `room`
    /// peers and allowed IPs together.
    fn dump(interface: &Interface, room: usize) -> Vec<KernelMessage> {
        let mut device = vec![WireguardAttribute::IfIndex(7)];
        device.push(WireguardAttribute::IfName("wg0".into()));
        device.push(WireguardAttribute::ListenPort(interface.listen_port));
        device.push(WireguardAttribute::Fwmark(interface.fwmark));
        if let Some(key) = &interface.private_key {
            device.push(WireguardAttribute::PrivateKey(*key.as_bytes()));
            let public = key.public_key();
            device.push(WireguardAttribute::PublicKey(*public.as_bytes()));
        }
        let (mut messages, mut peers, mut used) = (Vec::new(), Vec::new(), 0);
        let mut finish = |peers: Vec<WireguardPeer>| {
            let mut attributes = std::mem::take(&mut device);
            attributes.push(WireguardAttribute::Peers(peers));
            messages.push(KernelMessage::new(WireguardCmd::SetDevice, attributes));
        };
        for peer in &interface.peers {
            if used == room {
                finish(std::mem::take(&mut peers));
                used = 0;
            }
            let key = WireguardPeerAttribute::PublicKey(*peer.public_key.as_bytes());
            let mut attributes = vec![key.clone()];
            attributes.extend(facts(peer));
            used += 1;
            let mut ips = Vec::new();
            for ip in &peer.allowed_ips {
                if used == room {
                    attributes.push(WireguardPeerAttribute::AllowedIps(std::mem::take(&mut ips)));
                    peers.push(WireguardPeer(attributes));
                    finish(std::mem::take(&mut peers));
                    attributes = vec![key.clone()];
                    used = 1;
                }
                let family = match ip.addr.is_ipv4() {
                    true => WireguardAddressFamily::Ipv4,
                    false => WireguardAddressFamily::Ipv6,
                };
                ips.push(WireguardAllowedIp(vec![
                    WireguardAllowedIpAttr::Cidr(ip.cidr),
                    WireguardAllowedIpAttr::Family(family),
                    WireguardAllowedIpAttr::IpAddr(ip.addr),
                ]));
                used += 1;
            }
            attributes.push(WireguardPeerAttribute::AllowedIps(ips));
            peers.push(WireguardPeer(attributes));
        }
        finish(peers);
        messages
    }

    fn facts(peer: &Peer) -> Vec<WireguardPeerAttribute> {
        let time = peer.last_handshake.unwrap_or_default();
        let mut facts = vec![
            WireguardPeerAttribute::PresharedKey(*peer.preshared_key.as_bytes()),
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec {
                seconds: time.secs.try_into().unwrap(),
                nano_seconds: time.nanos.into(),
            }),
            WireguardPeerAttribute::PersistentKeepalive(peer.persistent_keepalive),
            WireguardPeerAttribute::TxBytes(peer.tx_bytes),
            WireguardPeerAttribute::RxBytes(peer.rx_bytes),
            WireguardPeerAttribute::ProtocolVersion(1),
        ];
        facts.extend(peer.endpoint.map(WireguardPeerAttribute::Endpoint));
        facts
    }

    /// Encodes and decodes a message.
    fn transmitted(message: &KernelMessage) -> KernelMessage {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let header = GenlHeader {
            cmd: message.command(),
            version: message.version(),
        };
        KernelMessage::parse_with_param(&bytes, header).unwrap()
    }

    fn peers() -> impl Strategy<Value = Vec<Peer>> {
        let ip = (any::<bool>(), any::<u128>(), 0..=32u8).prop_map(|(v6, bits, cidr)| {
            let addr = match v6 {
                true => std::net::Ipv6Addr::from_bits(bits).into(),
                false => std::net::Ipv4Addr::from_bits(bits as u32).into(),
            };
            AllowedIp::new(addr, cidr).unwrap()
        });
        let endpoint = prop_oneof![
            Just(None),
            Just(Some("192.0.2.1:51820".parse().unwrap())),
            Just(Some("[fe80::1%3]:9".parse().unwrap())),
        ];
        let handshake = (1..i64::MAX as u64, 0..1_000_000_000u32);
        let handshake = handshake.prop_map(|(secs, nanos)| Wall { secs, nanos });
        let peer = (
            any::<([u8; 32], u64, u64, u16)>(),
            endpoint,
            prop::option::of(handshake),
            prop::collection::vec(ip, 0..12),
        );
        let peer = peer.prop_map(|(numbers, endpoint, last_handshake, allowed_ips)| Peer {
            preshared_key: PresharedKey::from_bytes(numbers.0),
            endpoint,
            last_handshake,
            tx_bytes: numbers.1,
            rx_bytes: numbers.2,
            persistent_keepalive: numbers.3,
            allowed_ips,
            ..Peer::new(PublicKey::from_bytes([0; 32]))
        });
        prop::collection::vec(peer, 0..9).prop_map(|mut peers| {
            for (peer, i) in peers.iter_mut().zip(1..) {
                peer.public_key = PublicKey::from_bytes([i; 32]);
            }
            peers
        })
    }

    proptest! {
        #[test]
        fn messages_are_assembled(
            peers in peers(),
            key in prop::option::of(any::<[u8; 32]>()),
            (listen_port, fwmark) in any::<(u16, u32)>(),
            room in 2usize..12,
        ) {
            let private_key = key.map(PrivateKey::from_bytes);
            let interface = Interface { private_key, listen_port, fwmark, peers };
            let mut collected = Interface::default();
            for message in dump(&interface, room) {
                collect(&mut collected, transmitted(&message)).unwrap();
            }
            prop_assert_eq!(collected, interface);
        }
    }

    #[test]
    fn invalid_messages_are_errors() {
        for peer in [
            vec![WireguardPeerAttribute::RxBytes(1)],
            vec![
                WireguardPeerAttribute::PublicKey([1; 32]),
                WireguardPeerAttribute::AllowedIps(vec![WireguardAllowedIp(vec![
                    WireguardAllowedIpAttr::Cidr(33),
                    WireguardAllowedIpAttr::IpAddr([1, 2, 3, 4].into()),
                ])]),
            ],
        ] {
            let peers = WireguardAttribute::Peers(vec![WireguardPeer(peer)]);
            let message = KernelMessage::new(WireguardCmd::SetDevice, vec![peers]);
            assert!(collect(&mut Interface::default(), message).is_err());
        }
    }
}
