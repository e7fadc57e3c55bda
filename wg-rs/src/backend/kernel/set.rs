//! Splits changes into requests.
//!
//! Changes and flags of the interface are only in the first request: the kernel applies them before
//! those of any peer. The peers follow in their order. If a peer's allowed IPs do not fit, the next
//! request continues the peer, with the same key and the remaining allowed IPs. The kernel applies
//! a peer's flags before its allowed IPs; if changes are in another order, the ones after the flag
//! become another entry with the same key.

use std::io;
use std::mem;

use netlink_packet_core::Emitable;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAllowedIpFlags,
    WireguardAttribute, WireguardCmd, WireguardDeviceFlags, WireguardPeer, WireguardPeerAttribute,
    WireguardPeerFlags,
};
use wg_crypto::{PresharedKey, PublicKey};

use super::message::KernelMessage;
use crate::model::{AllowedIp, Change};

/// Most bytes of attributes in one request. All peers of a request are one attribute, and an
/// attribute has at most 64 KiB. A thousand allowed IPs should fit, so that a peer is never without
/// all of them.
pub(super) const MAX_REQUEST: usize = 60 << 10;

/// Bytes before an attribute's value.
const HEADER: usize = 4;

/// Passes requests that make `changes` to `send`, each with at most `max` bytes of attributes,
/// until one fails.
pub(super) fn requests(
    name: &str,
    changes: &[Change],
    max: usize,
    send: impl FnMut(KernelMessage) -> io::Result<()>,
) -> io::Result<()> {
    let mut requests = Requests::new(name, max, send);
    // The changes up to the first peer, and then those of each peer.
    for group in changes.chunk_by(|_, next| !matches!(next, Change::Peer(_))) {
        match group {
            [Change::Peer(key), changes @ ..] => {
                for part in parts(key, changes) {
                    requests.peer(&part)?;
                }
            }
            changes => requests.device(changes),
        }
    }
    requests.send()
}

/// An entry of a request: changes of one peer.
struct Part<'a> {
    key: &'a PublicKey,
    flags: WireguardPeerFlags,
    preshared_key: Option<&'a PresharedKey>,
    /// Endpoint and keepalive.
    rest: Vec<WireguardPeerAttribute>,
    allowed_ips: Vec<(AllowedIp, bool)>,
}

/// The entries that make a peer's changes.
fn parts<'a>(key: &'a PublicKey, changes: &'a [Change]) -> Vec<Part<'a>> {
    // UpdateOnly applies to all changes that follow, so each entry has it.
    let flags = match changes.contains(&Change::UpdateOnly) {
        true => WireguardPeerFlags::UpdateOnly,
        false => WireguardPeerFlags::empty(),
    };
    let fresh = || Part {
        key,
        flags,
        preshared_key: None,
        rest: Vec::new(),
        allowed_ips: Vec::new(),
    };
    let mut parts = Vec::new();
    let mut part = fresh();
    for change in changes {
        match change {
            Change::PresharedKey(key) => part.preshared_key = Some(key),
            Change::Endpoint(addr) => part.rest.push(WireguardPeerAttribute::Endpoint(*addr)),
            Change::PersistentKeepalive(secs) => part
                .rest
                .push(WireguardPeerAttribute::PersistentKeepalive(*secs)),
            Change::AllowedIp { ip, remove } => part.allowed_ips.push((*ip, *remove)),
            Change::ReplaceAllowedIps => {
                if !part.allowed_ips.is_empty() {
                    parts.push(mem::replace(&mut part, fresh()));
                }
                part.flags |= WireguardPeerFlags::ReplaceAllowedIps;
            }
            Change::Remove => {
                if !part.allowed_ips.is_empty() {
                    parts.push(mem::replace(&mut part, fresh()));
                }
                part.flags |= WireguardPeerFlags::RemoveMe;
                break;
            }
            // The protocol version never changes, and changes of the interface do not occur here.
            _ => {}
        }
    }
    parts.push(part);
    parts
}

/// Builds and sends the requests one by one.
struct Requests<'a, S> {
    name: &'a str,
    max: usize,
    send: S,
    device: Vec<WireguardAttribute>,
    peers: Vec<WireguardPeer>,
    /// Length of both in bytes.
    len: usize,
}

impl<'a, S: FnMut(KernelMessage) -> io::Result<()>> Requests<'a, S> {
    fn new(name: &'a str, max: usize, send: S) -> Self {
        let mut requests = Requests {
            name,
            max,
            send,
            device: Vec::new(),
            peers: Vec::new(),
            len: 0,
        };
        requests.begin();
        requests
    }

    fn begin(&mut self) {
        // With its greatest capacity, because a key that is moved leaves a copy behind.
        self.device = Vec::with_capacity(8);
        self.device
            .push(WireguardAttribute::IfName(self.name.into()));
        self.peers = Vec::new();
        self.len = self.device.as_slice().buffer_len() + HEADER;
    }

    /// Sends the current request, and begins the next one.
    fn send(&mut self) -> io::Result<()> {
        let mut attributes = mem::take(&mut self.device);
        if !self.peers.is_empty() {
            attributes.push(WireguardAttribute::Peers(mem::take(&mut self.peers)));
        }
        self.begin();
        (self.send)(KernelMessage::new(WireguardCmd::SetDevice, attributes))
    }

    /// If a setting occurs several times, the last one counts.
    fn device(&mut self, changes: &[Change]) {
        for change in changes {
            let attribute = match change {
                Change::PrivateKey(Some(key)) => WireguardAttribute::PrivateKey(*key.as_bytes()),
                Change::PrivateKey(None) => WireguardAttribute::PrivateKey([0; 32]),
                Change::ListenPort(port) => WireguardAttribute::ListenPort(*port),
                Change::FwMark(mark) => WireguardAttribute::Fwmark(*mark),
                Change::ReplacePeers => {
                    WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers)
                }
                // Changes of peers do not occur here.
                _ => continue,
            };
            let kind = mem::discriminant(&attribute);
            match self
                .device
                .iter_mut()
                .find(|other| mem::discriminant(*other) == kind)
            {
                Some(other) => *other = attribute,
                None => {
                    self.len += attribute.buffer_len();
                    self.device.push(attribute);
                }
            }
        }
    }

    fn peer(&mut self, part: &Part<'_>) -> io::Result<()> {
        // With capacity for the preshared key and allowed IPs, because a key that is moved leaves a
        // copy behind.
        let mut attributes = Vec::with_capacity(4 + part.rest.len());
        attributes.push(WireguardPeerAttribute::PublicKey(*part.key.as_bytes()));
        if !part.flags.is_empty() {
            attributes.push(WireguardPeerAttribute::Flags(part.flags));
        }
        attributes.extend(part.rest.iter().cloned());
        let key_len = part
            .preshared_key
            .map_or(0, |key| HEADER + key.as_bytes().len());
        let len = HEADER + attributes.as_slice().buffer_len() + key_len;
        if self.len + len > self.max && !self.peers.is_empty() {
            self.send()?;
        }
        self.len += len;
        // Copied only now, because only the content of a message is wiped.
        if let Some(key) = part.preshared_key {
            attributes.push(WireguardPeerAttribute::PresharedKey(*key.as_bytes()));
        }

        let mut allowed_ips = Vec::new();
        for (ip, remove) in &part.allowed_ips {
            let ip = allowed_ip(ip, *remove);
            let nest = if allowed_ips.is_empty() { HEADER } else { 0 };
            if self.len + nest + ip.buffer_len() > self.max {
                self.push(mem::take(&mut attributes), mem::take(&mut allowed_ips));
                self.send()?;
                attributes = self.continued(part);
            }
            if allowed_ips.is_empty() {
                self.len += HEADER;
            }
            self.len += ip.buffer_len();
            allowed_ips.push(ip);
        }
        self.push(attributes, allowed_ips);
        Ok(())
    }

    /// The attributes that are repeated when a peer's allowed IPs continue in this request.
    fn continued(&mut self, part: &Part<'_>) -> Vec<WireguardPeerAttribute> {
        let mut attributes = vec![WireguardPeerAttribute::PublicKey(*part.key.as_bytes())];
        let flags = part.flags & WireguardPeerFlags::UpdateOnly;
        if !flags.is_empty() {
            attributes.push(WireguardPeerAttribute::Flags(flags));
        }
        self.len += HEADER + attributes.as_slice().buffer_len();
        attributes
    }

    fn push(
        &mut self,
        mut attributes: Vec<WireguardPeerAttribute>,
        allowed_ips: Vec<WireguardAllowedIp>,
    ) {
        if !allowed_ips.is_empty() {
            attributes.push(WireguardPeerAttribute::AllowedIps(allowed_ips));
        }
        self.peers.push(WireguardPeer(attributes));
    }
}

fn allowed_ip(ip: &AllowedIp, remove: bool) -> WireguardAllowedIp {
    let family = match ip.addr.is_ipv4() {
        true => WireguardAddressFamily::Ipv4,
        false => WireguardAddressFamily::Ipv6,
    };
    let mut attributes = vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(ip.addr),
        WireguardAllowedIpAttr::Cidr(ip.cidr),
    ];
    if remove {
        let flags = WireguardAllowedIpFlags::RemoveMe;
        attributes.push(WireguardAllowedIpAttr::Flags(flags));
    }
    WireguardAllowedIp(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::ParseableParametrized;
    use netlink_packet_generic::{GenlFamily, GenlHeader};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use wg_crypto::PrivateKey;

    /// The configuration that results from changes or from requests.
    #[derive(Debug, Default, PartialEq)]
    struct Model {
        private_key: [u8; 32],
        port: u16,
        mark: u32,
        peers: BTreeMap<[u8; 32], ModelPeer>,
        /// The owner of each network.
        networks: BTreeMap<(std::net::IpAddr, u8), [u8; 32]>,
    }

    #[derive(Clone, Debug, Default, PartialEq)]
    struct ModelPeer {
        preshared_key: [u8; 32],
        endpoint: Option<SocketAddr>,
        keepalive: u16,
    }

    impl Model {
        fn remove(&mut self, key: &[u8; 32]) {
            self.peers.remove(key);
            self.networks.retain(|_, owner| owner != key);
        }

        fn allow(&mut self, key: &[u8; 32], network: (std::net::IpAddr, u8), remove: bool) {
            if !remove {
                self.networks.insert(network, *key);
            } else if self.networks.get(&network) == Some(key) {
                self.networks.remove(&network);
            }
        }

        /// Applies changes one by one, like the UAPI.
        fn change(&mut self, changes: &[Change]) {
            let mut about = None;
            for change in changes {
                match (change, about) {
                    (Change::PrivateKey(key), _) => {
                        self.private_key = key.as_ref().map_or([0; 32], |key| *key.as_bytes());
                    }
                    (Change::ListenPort(port), _) => self.port = *port,
                    (Change::FwMark(mark), _) => self.mark = *mark,
                    (Change::ReplacePeers, _) => {
                        self.peers.clear();
                        self.networks.clear();
                    }
                    (Change::Peer(key), _) => {
                        let known = self.peers.contains_key(key.as_bytes());
                        self.peers.entry(*key.as_bytes()).or_default();
                        about = Some((*key.as_bytes(), known));
                    }
                    (Change::UpdateOnly, Some((key, false))) => {
                        self.remove(&key);
                        about = None;
                    }
                    (Change::Remove, Some((key, _))) => {
                        self.remove(&key);
                        about = None;
                    }
                    (Change::ReplaceAllowedIps, Some((key, _))) => {
                        self.networks.retain(|_, owner| *owner != key);
                    }
                    (Change::AllowedIp { ip, remove }, Some((key, _))) => {
                        self.allow(&key, (ip.addr, ip.cidr), *remove);
                    }
                    (change, Some((key, _))) => {
                        let peer = self.peers.get_mut(&key).unwrap();
                        match change {
                            Change::PresharedKey(key) => peer.preshared_key = *key.as_bytes(),
                            Change::Endpoint(addr) => peer.endpoint = Some(*addr),
                            Change::PersistentKeepalive(secs) => peer.keepalive = *secs,
                            _ => {}
                        }
                    }
                    (_, None) => {}
                }
            }
        }

        /// Applies a request like the kernel: attributes in a fixed order.
        fn request(&mut self, message: &KernelMessage) {
            let mut peers = None;
            let mut flags = WireguardDeviceFlags::empty();
            for attribute in &message.0.attributes {
                match attribute {
                    WireguardAttribute::IfName(name) => assert_eq!(name, "wg0"),
                    WireguardAttribute::PrivateKey(key) => self.private_key = *key,
                    WireguardAttribute::ListenPort(port) => self.port = *port,
                    WireguardAttribute::Fwmark(mark) => self.mark = *mark,
                    WireguardAttribute::Flags(set) => flags = *set,
                    WireguardAttribute::Peers(set) => assert!(peers.replace(set).is_none()),
                    other => panic!("{other:?}"),
                }
            }
            if flags.contains(WireguardDeviceFlags::ReplacePeers) {
                self.peers.clear();
                self.networks.clear();
            }
            for peer in peers.into_iter().flatten() {
                self.request_peer(peer);
            }
        }

        fn request_peer(&mut self, WireguardPeer(attributes): &WireguardPeer) {
            let WireguardPeerAttribute::PublicKey(key) = attributes[0] else {
                panic!("{attributes:?}")
            };
            let flags = attributes.iter().find_map(|attribute| match attribute {
                WireguardPeerAttribute::Flags(flags) => Some(*flags),
                _ => None,
            });
            let flags = flags.unwrap_or(WireguardPeerFlags::empty());
            let known = self.peers.contains_key(&key);
            if flags.contains(WireguardPeerFlags::RemoveMe) {
                return self.remove(&key);
            }
            if flags.contains(WireguardPeerFlags::UpdateOnly) && !known {
                return;
            }
            if flags.contains(WireguardPeerFlags::ReplaceAllowedIps) {
                self.networks.retain(|_, owner| *owner != key);
            }
            let peer = self.peers.entry(key).or_default();
            let mut ips = None;
            for attribute in &attributes[1..] {
                match attribute {
                    WireguardPeerAttribute::PresharedKey(key) => peer.preshared_key = *key,
                    WireguardPeerAttribute::Endpoint(addr) => peer.endpoint = Some(*addr),
                    WireguardPeerAttribute::PersistentKeepalive(secs) => peer.keepalive = *secs,
                    WireguardPeerAttribute::AllowedIps(set) => ips = Some(set),
                    WireguardPeerAttribute::Flags(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            for WireguardAllowedIp(ip) in ips.into_iter().flatten() {
                let (family, addr, cidr, remove) = match ip[..] {
                    [
                        WireguardAllowedIpAttr::Family(family),
                        WireguardAllowedIpAttr::IpAddr(addr),
                        WireguardAllowedIpAttr::Cidr(cidr),
                    ] => (family, addr, cidr, false),
                    [
                        WireguardAllowedIpAttr::Family(family),
                        WireguardAllowedIpAttr::IpAddr(addr),
                        WireguardAllowedIpAttr::Cidr(cidr),
                        WireguardAllowedIpAttr::Flags(WireguardAllowedIpFlags::RemoveMe),
                    ] => (family, addr, cidr, true),
                    _ => panic!("{ip:?}"),
                };
                assert_eq!(family == WireguardAddressFamily::Ipv4, addr.is_ipv4());
                self.allow(&key, (addr, cidr), remove);
            }
        }
    }

    /// The requests, each encoded and decoded.
    fn cut(changes: &[Change], max: usize) -> Vec<KernelMessage> {
        let mut messages = Vec::new();
        requests("wg0", changes, max, |message| {
            let mut bytes = vec![0; message.buffer_len()];
            assert!(bytes.len() <= max, "{} bytes", bytes.len());
            message.emit(&mut bytes);
            let header = GenlHeader {
                cmd: message.command(),
                version: message.version(),
            };
            messages.push(KernelMessage::parse_with_param(&bytes, header).unwrap());
            Ok(())
        })
        .unwrap();
        messages
    }

    fn of_device() -> impl Strategy<Value = Change> {
        prop_oneof![
            any::<[u8; 32]>()
                .prop_map(|key| Change::PrivateKey(Some(Box::new(PrivateKey::from_bytes(key))))),
            Just(Change::PrivateKey(None)),
            any::<u16>().prop_map(Change::ListenPort),
            any::<u32>().prop_map(Change::FwMark),
            Just(Change::ReplacePeers),
        ]
    }

    fn of_peer() -> impl Strategy<Value = Change> {
        // There are few networks, so that peers take them from one another.
        let ip = (any::<bool>(), 0..12u8, any::<bool>()).prop_map(|(v6, i, remove)| {
            let addr = match v6 {
                true => Ipv6Addr::from_bits(u128::from(i) << 96).into(),
                false => Ipv4Addr::new(10, i, 0, 0).into(),
            };
            let ip = AllowedIp::new(addr, 32).unwrap();
            Change::AllowedIp { ip, remove }
        });
        prop_oneof![
            12 => ip,
            1 => any::<[u8; 32]>()
                .prop_map(|key| Change::PresharedKey(Box::new(PresharedKey::from_bytes(key)))),
            1 => any::<([u8; 4], u16)>().prop_map(|addr| Change::Endpoint(addr.into())),
            1 => any::<([u8; 16], u16)>().prop_map(|addr| Change::Endpoint(addr.into())),
            1 => any::<u16>().prop_map(Change::PersistentKeepalive),
            1 => Just(Change::ReplaceAllowedIps),
            1 => Just(Change::Remove),
            1 => Just(Change::ProtocolVersion),
        ]
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let rest = prop::collection::vec(of_peer(), 0..40);
        let peer = (0..5u8, any::<bool>(), rest).prop_map(|(key, update_only, rest)| {
            let mut changes = vec![Change::Peer(PublicKey::from_bytes([key; 32]))];
            changes.extend(update_only.then_some(Change::UpdateOnly));
            changes.extend(rest);
            changes
        });
        let peers = prop::collection::vec(peer, 0..8);
        (prop::collection::vec(of_device(), 0..6), peers).prop_map(|(mut changes, peers)| {
            changes.extend(peers.into_iter().flatten());
            changes
        })
    }

    proptest! {
        #[test]
        fn requests_have_the_effect_of_the_changes(
            before in changes(),
            changes in changes(),
            max in prop_oneof![360..900usize, Just(MAX_REQUEST)],
        ) {
            let (mut direct, mut kernel) = (Model::default(), Model::default());
            direct.change(&before);
            kernel.change(&before);
            direct.change(&changes);
            for message in cut(&changes, max) {
                kernel.request(&message);
            }
            prop_assert_eq!(direct, kernel);
        }
    }

    #[test]
    fn a_continued_peer_repeats_only_its_key() {
        let peer = Change::Peer(PublicKey::from_bytes([1; 32]));
        let mut changes = vec![Change::FwMark(7), Change::ReplacePeers, peer];
        changes.push(Change::PresharedKey(Box::new(PresharedKey::from_bytes(
            [2; 32],
        ))));
        changes.push(Change::ReplaceAllowedIps);
        let ip = |i: u16| Ipv4Addr::from_bits(0x0a00_0000 + u32::from(i));
        changes.extend((0..1000).map(|i| Change::AllowedIp {
            ip: AllowedIp::new(ip(i).into(), 32).unwrap(),
            remove: false,
        }));
        let messages = cut(&changes, 8192);
        assert_eq!(messages.len(), 4);
        assert_eq!(messages[0].0.attributes.len(), 4);
        for message in &messages[1..] {
            let [
                WireguardAttribute::IfName(_),
                WireguardAttribute::Peers(peers),
            ] = &message.0.attributes[..]
            else {
                panic!("{message:?}")
            };
            let [WireguardPeer(attributes)] = &peers[..] else {
                panic!("{peers:?}")
            };
            assert_eq!(attributes[0], WireguardPeerAttribute::PublicKey([1; 32]));
            assert!(matches!(
                attributes[1..],
                [WireguardPeerAttribute::AllowedIps(_)]
            ));
        }
        assert_eq!(cut(&changes, MAX_REQUEST).len(), 1);
    }

    #[test]
    fn an_empty_change_is_still_sent() {
        let messages = cut(&[], MAX_REQUEST);
        assert_eq!(messages.len(), 1);
        assert_eq!(
            messages[0].0.attributes,
            [WireguardAttribute::IfName("wg0".into())]
        );
    }

    #[test]
    fn a_failed_request_is_the_last() {
        let key = |i: u8| Change::Peer(PublicKey::from_bytes([i; 32]));
        let changes: Vec<_> = (0..100).map(key).collect();
        let mut sent = 0;
        let result = requests("wg0", &changes, 1000, |_| {
            sent += 1;
            match sent {
                3 => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
                _ => Ok(()),
            }
        });
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        assert_eq!(sent, 3);
    }
}
