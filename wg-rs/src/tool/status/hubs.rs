//! The status of hubs that we use, and of peers that are reached through them.

use std::time::Duration;

use wg_crypto::PublicKey;

use super::age::time;
use crate::model::status::{HubStatus, Nat, PathStatus, PeerStatus, Status, Unanswered};
use crate::sys::numeric::NumericEndpoint;

/// A path is not reported as silent before this time, because the first packet after a pause always
/// waits for an answer.
const SILENT: Duration = Duration::from_secs(1);

/// How a peer with a session is reached by a hub.
pub(super) struct ByHub {
    /// One word for programs.
    pub state: &'static str,
    /// The beginning of the text for people.
    pub text: String,
    /// Its end.
    pub cause: Option<String>,
}

/// Describes a peer that is reached through a hub now.
pub(super) fn by_hub(interface: &Status, path: &PathStatus) -> Option<ByHub> {
    let mut text = format!("relayed by {}", name(interface, &path.hub?));
    if let Some(rtt) = path.rtt.filter(|_| path.speaks) {
        text += &format!(", {}", round_trip(rtt));
    }
    let silent = path.doubt.filter(|doubt| *doubt >= SILENT);
    let cause = match (silent, path.other) {
        (Some(doubt), Some(other)) => Some(format!(
            "nothing came back for {}, so packets also go by {}",
            time(doubt),
            name(interface, &other)
        )),
        (Some(doubt), None) => Some(format!(
            "nothing came back for {}: the hub or the peer does not answer",
            time(doubt)
        )),
        (None, _) if !path.speaks => Some("plain WireGuard there".into()),
        (None, _) => None,
    };
    Some(ByHub {
        state: match silent {
            Some(_) => "relay-silent",
            None => "relayed",
        },
        text,
        cause,
    })
}

/// Describes a peer without a session that can be reached only through a hub: one word for programs,
/// and a text for people.
pub(super) fn not_by_hub(
    interface: &Status,
    unanswered: Option<Unanswered>,
) -> (&'static str, String) {
    let hubs = || {
        interface
            .peers
            .iter()
            .filter(|peer| peer.peer.extensions.hub)
    };
    let live: Vec<_> = hubs().filter(|hub| answers(hub)).map(called).collect();
    if live.is_empty() {
        let all: Vec<_> = hubs().map(called).collect();
        let text = format!(
            "not connected: no connection with its hub {}",
            all.join(" or ")
        );
        return ("no-hub", text);
    }
    let live = live.join(" and ");
    match unanswered {
        None => (
            "nothing-sent",
            format!(
                "not connected: nothing was sent yet; the first packet starts a handshake by {live}"
            ),
        ),
        Some(Unanswered { count, age }) => (
            "no-answer-by-hub",
            format!(
                "not connected: no answer by {live} to {count} handshake{} in {}: the peer is not there, \
                 has no group in common with this machine, or a public key is wrong at one end",
                if count == 1 { "" } else { "s" },
                time(age)
            ),
        ),
    }
}

/// Describes what a hub with a session says, as the end of its text.
pub(super) fn as_hub(hub: &HubStatus) -> (&'static str, String) {
    if hub.is_mute {
        let text = "it is no hub: it does not answer (another WireGuard, or Relay is off for this \
                    machine there)";
        return ("mute-hub", text.into());
    }
    let Some(heard) = hub.heard else {
        return ("connected", "a hub that has not answered yet".into());
    };
    let mut text = format!("a hub that relays for us, heard {} ago", time(heard));
    if let Some(rtt) = hub.rtt {
        text += &format!(", {}", round_trip(rtt));
    }
    if let Some(addr) = hub.sees {
        text += &format!(", sees us at {}", NumericEndpoint(addr));
    }
    ("connected", text)
}

/// Describes the NAT before the interface, and where its hubs see it.
pub(super) fn nat(interface: &Status) -> Option<String> {
    let nat = interface.nat?;
    let hubs = interface.peers.iter().filter_map(|peer| peer.hub);
    let mut seen: Vec<_> = hubs.filter_map(|hub| hub.sees).collect();
    seen.sort();
    seen.dedup();
    let is_kept = seen.iter().all(|seen| seen.port() == interface.listen_port);
    let nat = match nat {
        _ if seen.is_empty() => return None,
        Nat::None => "no NAT",
        Nat::Easy if is_kept => "the NAT keeps the port",
        Nat::Easy => "the NAT gives all destinations the same port",
        Nat::Unknown => "a NAT, whose kind only a second hub would show",
        Nat::Hard => "the NAT gives each destination its own port",
    };
    let seen = seen
        .into_iter()
        .map(|seen| NumericEndpoint(seen).to_string());
    let seen: Vec<_> = seen.collect();
    Some(format!("hubs see {}: {nat}", seen.join(" and ")))
}

fn answers(hub: &PeerStatus) -> bool {
    hub.session == Some(true) && hub.hub.is_some_and(|hub| !hub.is_mute)
}

fn called(peer: &PeerStatus) -> String {
    let key = || peer.peer.public_key.to_base64();
    peer.name().map_or_else(key, str::to_owned)
}

fn name(interface: &Status, key: &PublicKey) -> String {
    let mut peers = interface.peers.iter();
    let peer = peers.find(|peer| peer.peer.public_key == *key);
    peer.map_or_else(|| key.to_base64(), called)
}

fn round_trip(rtt: Duration) -> String {
    match rtt.as_millis() {
        0 => "less than 1 ms".into(),
        millis => format!("{millis} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Extensions, Peer};

    fn peer(n: u8, name: &str, hub: Option<HubStatus>) -> PeerStatus {
        let mut status = PeerStatus::new(Peer {
            extensions: Extensions {
                name: name.parse().ok(),
                hub: hub.is_some(),
                ..Extensions::default()
            },
            ..Peer::new(PublicKey::from_bytes([n; 32]))
        });
        status.session = Some(true);
        status.hub = hub;
        status
    }

    fn interface() -> Status {
        let hub = Some(HubStatus::default());
        Status {
            peers: vec![
                peer(1, "fra", hub),
                peer(2, "ams", hub),
                peer(3, "bob", None),
            ],
            ..Status::default()
        }
    }

    fn path(hub: Option<u8>) -> PathStatus {
        PathStatus {
            hub: hub.map(|n| PublicKey::from_bytes([n; 32])),
            rtt: Some(Duration::from_micros(48_700)),
            speaks: true,
            ..PathStatus::default()
        }
    }

    #[test]
    fn a_relayed_peer() {
        let interface = interface();
        assert!(by_hub(&interface, &path(None)).is_none());
        let shown = |path: &PathStatus| {
            let by = by_hub(&interface, path).unwrap();
            format!(
                "{}: {}; {}",
                by.state,
                by.text,
                by.cause.unwrap_or_default()
            )
        };
        let mut path = path(Some(1));
        assert_eq!(shown(&path), "relayed: relayed by fra, 48 ms; ");
        path.doubt = Some(Duration::from_millis(900));
        assert_eq!(shown(&path), "relayed: relayed by fra, 48 ms; ");
        path.doubt = Some(Duration::from_secs(2));
        let silent = "relay-silent: relayed by fra, 48 ms; nothing came back for 2 s";
        assert_eq!(
            shown(&path),
            format!("{silent}: the hub or the peer does not answer")
        );
        path.other = Some(PublicKey::from_bytes([2; 32]));
        assert_eq!(shown(&path), format!("{silent}, so packets also go by ams"));
        let stock = PathStatus {
            hub: path.hub,
            ..PathStatus::default()
        };
        assert_eq!(
            shown(&stock),
            "relayed: relayed by fra; plain WireGuard there"
        );
    }

    #[test]
    fn a_peer_that_no_hub_reaches() {
        let mut interface = interface();
        let unanswered = Unanswered {
            count: 2,
            age: Duration::from_secs(7),
        };
        let (state, text) = not_by_hub(&interface, Some(unanswered));
        assert_eq!(state, "no-answer-by-hub");
        let expected = "not connected: no answer by fra and ams to 2 handshakes in 7 s: the peer is not there, \
                    has no group in common with this machine, or a public key is wrong at one end";
        assert_eq!(text, expected);
        interface.peers[0].session = Some(false);
        let (state, text) = not_by_hub(&interface, None);
        let expected =
            "not connected: nothing was sent yet; the first packet starts a handshake by ams";
        assert_eq!((state, &*text), ("nothing-sent", expected));
        interface.peers[1].hub = Some(HubStatus {
            is_mute: true,
            ..HubStatus::default()
        });
        let (state, text) = not_by_hub(&interface, Some(unanswered));
        let expected = "not connected: no connection with its hub fra or ams";
        assert_eq!((state, &*text), ("no-hub", expected));
    }

    #[test]
    fn the_nat_before_the_interface() {
        let mut interface = interface();
        interface.listen_port = 51820;
        assert_eq!(nat(&interface), None);
        interface.nat = Some(Nat::Unknown);
        assert_eq!(nat(&interface), None, "no hub has answered");
        let sees = |interface: &mut Status, peer: usize, at: &str| {
            let hub = interface.peers[peer].hub.as_mut().unwrap();
            hub.sees = at.parse().ok();
        };
        sees(&mut interface, 0, "203.0.113.9:7");
        let shown = |interface: &Status, nat_is: Nat| {
            nat(&Status {
                nat: Some(nat_is),
                ..interface.clone()
            })
            .unwrap()
        };
        assert_eq!(
            shown(&interface, Nat::Unknown),
            "hubs see 203.0.113.9:7: a NAT, whose kind only a second hub would show"
        );
        sees(&mut interface, 1, "203.0.113.9:7");
        assert_eq!(
            shown(&interface, Nat::Easy),
            "hubs see 203.0.113.9:7: the NAT gives all destinations the same port"
        );
        sees(&mut interface, 1, "203.0.113.9:8");
        assert_eq!(
            shown(&interface, Nat::Hard),
            "hubs see 203.0.113.9:7 and 203.0.113.9:8: the NAT gives each destination its own port"
        );
        for hub in [0, 1] {
            sees(&mut interface, hub, "203.0.113.9:51820");
        }
        assert_eq!(
            shown(&interface, Nat::Easy),
            "hubs see 203.0.113.9:51820: the NAT keeps the port"
        );
        assert_eq!(
            shown(&interface, Nat::None),
            "hubs see 203.0.113.9:51820: no NAT"
        );
    }

    #[test]
    fn a_hub() {
        let mut hub = HubStatus::default();
        assert_eq!(as_hub(&hub).1, "a hub that has not answered yet");
        hub.heard = Some(Duration::from_secs(3));
        hub.rtt = Some(Duration::from_micros(900));
        hub.sees = "203.0.113.9:40000".parse().ok();
        let text = "a hub that relays for us, heard 3 s ago, less than 1 ms, sees us at \
                    203.0.113.9:40000";
        assert_eq!(as_hub(&hub), ("connected", text.into()));
        hub.is_mute = true;
        assert_eq!(as_hub(&hub).0, "mute-hub");
    }
}
