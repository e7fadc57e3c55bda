//! The status as JSON, for programs. Unknown values are left out.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use wg_crypto::PublicKey;

use super::asked::Asked;
use super::reason::reason;
use crate::model::status::{HubStatus, Nat, PairStatus, PathStatus, PeerStatus, Status};
use crate::model::{Label, Wall};
use crate::place::Namespace;
use crate::sys::numeric::NumericEndpoint;
use crate::tool::json::{JsonLayout, write};

/// Writes one object that holds all interfaces by their names, and a newline.
pub(super) fn print(
    out: &mut impl Write,
    all: &[Asked],
    now: Wall,
    layout: JsonLayout,
) -> io::Result<()> {
    let all: BTreeMap<_, _> = (all.iter())
        .map(|asked| (asked.name.as_str(), InterfaceFields::new(asked, now)))
        .collect();
    write(out, &all, layout)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InterfaceFields<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bind_error: Option<i32>,
    listen_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offloads: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aead: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    under_load: Option<bool>,
    /// The NAT before the interface, as its hubs see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    nat: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drops: Option<BTreeMap<&'a str, u64>>,
    peers: BTreeMap<String, PeerFields<'a>>,
    /// What a hub has relayed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<PairFields>,
}

/// Two peers that a hub has relayed between.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PairFields {
    /// The public keys. The first peer sent the first handshake.
    keys: [String; 2],
    /// Bytes from the first to the second.
    transfer_tx: u64,
    /// Bytes from the second to the first.
    transfer_rx: u64,
    /// Seconds since the last packet.
    last_packet_ago: u64,
}

impl PairFields {
    fn new(pair: &PairStatus) -> Self {
        PairFields {
            keys: pair.keys.each_ref().map(PublicKey::to_base64),
            transfer_tx: pair.tx_bytes,
            transfer_rx: pair.rx_bytes,
            last_packet_ago: pair.age.as_secs(),
        }
    }
}

impl<'a> InterfaceFields<'a> {
    fn new(asked: &'a Asked, now: Wall) -> Self {
        let status = &asked.status;
        let place = asked.place.as_ref();
        let drops = status.drops.iter().map(|(name, n)| (name.as_str(), *n));
        let peers = status.peers.iter().map(|peer| {
            let fields = PeerFields::new(status, peer, now);
            (peer.peer.public_key.to_base64(), fields)
        });
        let offloads = |list: &'a String| list.split(',').filter(|name| !name.is_empty()).collect();
        InterfaceFields {
            kind: asked.kind.as_str(),
            version: status.version.as_deref(),
            started: status.started.map(|started| started.secs),
            up: status.up,
            bind_error: status.bind_error,
            listen_port: status.listen_port,
            link_namespace: place
                .and_then(|place| place.lives_in.as_ref())
                .map(Namespace::to_string),
            socket_namespace: place
                .and_then(|place| place.born_in.as_ref())
                .map(Namespace::to_string),
            offloads: status.offloads.as_ref().map(offloads),
            aead: status.aead.as_deref(),
            workers: status.workers,
            under_load: status.under_load,
            nat: status.nat.map(Nat::as_str),
            drops: status.version.is_some().then(|| drops.collect()),
            peers: peers.collect(),
            pairs: status.pairs.iter().map(PairFields::new).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PeerFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// For programs.
    state: &'static str,
    /// For people.
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_handshake: Option<u64>,
    transfer_rx: u64,
    transfer_tx: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unanswered_handshakes: Option<u32>,
    allowed_ips: Vec<String>,
    /// The groups within which the interface relays for the peer, as a hub.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hub: Option<HubFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<RelayFields>,
}

/// A hub that the interface uses.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HubFields {
    /// Whether it answers the question whether it relays.
    answers: bool,
    /// Seconds since its last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    heard_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_micros: Option<u64>,
    /// Our address, as it sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sees: Option<String>,
}

impl HubFields {
    fn new(hub: &HubStatus) -> Self {
        HubFields {
            answers: !hub.is_mute && hub.heard.is_some(),
            heard_ago: hub.heard.map(|age| age.as_secs()),
            round_trip_micros: hub.rtt.map(micros),
            sees: hub.sees.map(|addr| NumericEndpoint(addr).to_string()),
        }
    }
}

/// A path through a hub.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RelayFields {
    /// The public key of the hub.
    hub: String,
    /// The hub that packets also go by.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_micros: Option<u64>,
    /// Whether the peer runs wg-rs with a hub, too.
    speaks: bool,
    /// Seconds without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    silent: Option<u64>,
}

impl RelayFields {
    fn new(path: &PathStatus) -> Option<Self> {
        Some(RelayFields {
            hub: path.hub?.to_base64(),
            other: path.other.map(|key| key.to_base64()),
            round_trip_micros: path.rtt.map(micros),
            speaks: path.speaks,
            silent: path.doubt.map(|age| age.as_secs()),
        })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl<'a> PeerFields<'a> {
    fn new(interface: &Status, status: &'a PeerStatus, now: Wall) -> Self {
        let reason = reason(interface, status, now);
        let peer = &status.peer;
        PeerFields {
            name: status.name(),
            state: reason.state,
            reason: reason.text,
            endpoint: peer.endpoint.map(|addr| NumericEndpoint(addr).to_string()),
            latest_handshake: peer.last_handshake.map(|last| last.secs),
            transfer_rx: peer.rx_bytes,
            transfer_tx: peer.tx_bytes,
            unanswered_handshakes: status.unanswered.map(|sent| sent.count),
            allowed_ips: peer.allowed_ips.iter().map(ToString::to_string).collect(),
            groups: (peer.extensions.relay.names().iter())
                .map(Label::as_str)
                .collect(),
            hub: status.hub.as_ref().map(HubFields::new),
            relay: status.path.as_ref().and_then(RelayFields::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Kind;
    use crate::model::Peer;

    #[test]
    fn unknown_values_are_left_out() {
        let asked = |status| Asked {
            name: "wg0".into(),
            kind: Kind::Kernel,
            place: None,
            status,
        };
        let shown = |asked: Asked| {
            let mut out = Vec::new();
            print(&mut out, &[asked], Wall::default(), JsonLayout::OneLine).unwrap();
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()
        };
        let key = PublicKey::from_bytes([1; 32]);
        let peer = PeerStatus::new(Peer::new(key));
        let bare = Status {
            peers: vec![peer],
            ..Status::default()
        };
        let expected = serde_json::json!({"wg0": {
            "kind": "kernel", "listenPort": 0,
            "peers": {key.to_base64(): {
                "state": "no-endpoint",
                "reason": "not connected: no endpoint is known; the peer must connect first",
                "transferRx": 0, "transferTx": 0, "allowedIps": [],
            }},
        }});
        assert_eq!(shown(asked(bare)), expected);
        let mut peer = PeerStatus::new(Peer::new(key));
        peer.peer.extensions.relay = "office,lab".parse().unwrap();
        let round_trip = Some(Duration::from_micros(48_001));
        peer.hub = Some(HubStatus {
            heard: Some(Duration::from_millis(3999)),
            rtt: round_trip,
            sees: "[2001:db8::1]:9".parse().ok(),
            is_mute: false,
        });
        peer.path = Some(PathStatus {
            hub: Some(key),
            other: Some(key),
            rtt: round_trip,
            speaks: true,
            doubt: Some(Duration::from_secs(2)),
        });
        let hub = Status {
            peers: vec![peer],
            ..Status::default()
        };
        let shown_peer = &shown(asked(hub))["wg0"]["peers"][key.to_base64()];
        let expected = serde_json::json!({
            "answers": true, "heardAgo": 3, "roundTripMicros": 48001, "sees": "[2001:db8::1]:9",
        });
        assert_eq!(shown_peer["hub"], expected);
        assert_eq!(shown_peer["groups"], serde_json::json!(["lab", "office"]));
        let expected = serde_json::json!({
            "hub": key.to_base64(), "other": key.to_base64(), "roundTripMicros": 48001,
            "speaks": true, "silent": 2,
        });
        assert_eq!(shown_peer["relay"], expected);
        let full = Status {
            version: Some("0.1.0".into()),
            offloads: Some("".into()),
            drops: vec![("wrong_mac1".into(), 1)],
            pairs: vec![PairStatus {
                keys: [key, key],
                tx_bytes: 5,
                rx_bytes: 6,
                age: Duration::from_millis(7999),
            }],
            ..Status::default()
        };
        let expected = serde_json::json!({"wg0": {
            "kind": "kernel", "listenPort": 0, "version": "0.1.0", "offloads": [],
            "drops": {"wrong_mac1": 1}, "peers": {}, "pairs": [{
                "keys": [key.to_base64(), key.to_base64()],
                "transferTx": 5, "transferRx": 6, "lastPacketAgo": 7,
            }],
        }});
        assert_eq!(shown(asked(full)), expected);
    }
}
