//! Decides from a peer's status whether it is connected, and if not, why.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::age::time;
use super::hubs;
use crate::backend::Errno;
use crate::model::Wall;
use crate::model::status::{PeerStatus, Refusal, Refused, Status, Unanswered, Unreachable};
use crate::sys::numeric::{NumericEndpoint, NumericIp};
use crate::tunnel::timers::REJECT_AFTER_TIME;

/// The text of an older refusal includes its age.
const RECENT: Duration = Duration::from_secs(20);

/// How a peer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// One word for programs: `connected`, `idle`, `no-answer`, …
    pub state: &'static str,
    /// The same as a text for people, with the cause at its end.
    pub text: String,
}

impl Condition {
    fn new(state: &'static str, text: impl Into<String>) -> Self {
        Condition {
            state,
            text: text.into(),
        }
    }
}

/// Returns how a peer of this interface is doing at the time `now`.
pub(super) fn reason(interface: &Status, peer: &PeerStatus, now: Wall) -> Condition {
    let last = peer.peer.last_handshake;
    let since_handshake = last.map(|last| Duration::from_secs(now.secs.saturating_sub(last.secs)));
    let given_up = peer.unanswered.is_some_and(|sent| sent.is_given_up());
    let session = peer
        .session
        .unwrap_or_else(|| since_handshake.is_some_and(|age| age < REJECT_AFTER_TIME));
    if interface.up == Some(false) {
        return Condition::new("interface-down", "the interface is down");
    }
    if session && !given_up {
        return connected(interface, peer, since_handshake);
    }
    let is_newer = |refused: &&Refused| since_handshake.is_none_or(|age| refused.age < age);
    // This is not a reason for having no session.
    let refusals = refusals(interface, peer)
        .filter(|refused| !matches!(refused.refusal, Refusal::NotAllowed { .. }));
    match peer.unanswered {
        Some(unanswered) => {
            let meanwhile = refusals.filter(|refused| refused.age <= unanswered.age);
            match meanwhile.min_by_key(|refused| refused.age) {
                Some(refused) => not_connected(peer, refused),
                None if peer.path.is_some() => not_by_hub(interface, Some(unanswered)),
                None => no_answer(peer, unanswered),
            }
        }
        None => {
            let last = refusals.filter(is_newer).min_by_key(|refused| refused.age);
            match last {
                Some(refused) => not_connected(peer, refused),
                None if peer.unconfirmed > 0 => unconfirmed(peer),
                None if peer.path.is_some() && since_handshake.is_none() => {
                    not_by_hub(interface, None)
                }
                None => quiet(peer, since_handshake),
            }
        }
    }
}

/// The refusals of the peer's packets and of packets to the peer, in no order.
fn refusals<'a>(interface: &'a Status, peer: &'a PeerStatus) -> impl Iterator<Item = &'a Refused> {
    let is_its = |refused: &&Refused| {
        sender(&refused.refusal).is_some_and(|from| is_its_address(interface, peer, from))
    };
    let strangers = interface.refusals.iter().filter(is_its);
    peer.refusals.iter().chain(strangers)
}

/// Describes a peer with a session. The text includes a recent refusal since the session began.
fn connected(
    interface: &Status,
    peer: &PeerStatus,
    since_handshake: Option<Duration>,
) -> Condition {
    let by_hub = peer.path.and_then(|path| hubs::by_hub(interface, &path));
    let (mut state, mut text) = match &by_hub {
        Some(by_hub) => (by_hub.state, by_hub.text.clone()),
        None => ("connected", "connected".to_owned()),
    };
    if let Some(age) = since_handshake {
        text += &format!(", last handshake {} ago", time(age));
    }
    if let Some(endpoint) = peer.peer.endpoint.filter(|_| by_hub.is_none()) {
        text += &format!(", at {}", NumericEndpoint(endpoint));
    }
    let is_by_hub = by_hub.is_some();
    if let Some(cause) = by_hub.and_then(|by_hub| by_hub.cause) {
        text += &format!("; {cause}");
    }
    if is_by_hub && !peer.peer.extensions.relay.is_empty() {
        text += "; nothing is relayed for it, as it is itself reached through a hub";
    }
    if let Some((as_hub, cause)) = peer.hub.as_ref().map(hubs::as_hub) {
        state = as_hub;
        text += &format!("; {cause}");
    }
    let is_new = |age: Duration| since_handshake.is_some_and(|since| age < since);
    for refused in refusals(interface, peer) {
        let age = refused.age;
        let is_told = match refused.refusal {
            Refusal::NotAllowed { .. } => age < REJECT_AFTER_TIME,
            _ => age < RECENT && is_new(age),
        };
        if is_told {
            text += &format!("; {} ({} ago)", cause(peer, refused).1, time(age));
        }
    }
    Condition::new(state, text)
}

fn not_by_hub(interface: &Status, unanswered: Option<Unanswered>) -> Condition {
    let (state, text) = hubs::not_by_hub(interface, unanswered);
    Condition::new(state, text)
}

/// Describes a peer without a session and without handshakes under way.
fn quiet(peer: &PeerStatus, since_handshake: Option<Duration>) -> Condition {
    match (since_handshake, peer.peer.endpoint) {
        (Some(age), _) => Condition::new(
            "idle",
            format!("idle: nothing to send, last handshake {} ago", time(age)),
        ),
        (None, None) => Condition::new(
            "no-endpoint",
            "not connected: no endpoint is known; the peer must connect first",
        ),
        // Such a daemon does not report whether a handshake was tried.
        (None, Some(endpoint)) if peer.session.is_none() => Condition::new(
            "no-handshake",
            format!(
                "not connected: no handshake with {} yet",
                NumericEndpoint(endpoint)
            ),
        ),
        (None, Some(_)) => Condition::new(
            "nothing-sent",
            "not connected: nothing was sent yet; the first packet starts a handshake",
        ),
    }
}

fn no_answer(peer: &PeerStatus, unanswered: Unanswered) -> Condition {
    let Unanswered { count, age } = unanswered;
    let plural = if count == 1 { "" } else { "s" };
    Condition::new(
        "no-answer",
        format!(
            "not connected: {count} handshake{plural} sent{}, no answer in {}: it is down, a \
             firewall blocks it, or a public key is wrong at one end",
            to(peer),
            time(age)
        ),
    )
}

fn unconfirmed(peer: &PeerStatus) -> Condition {
    let plural = if peer.unconfirmed == 1 { "" } else { "s" };
    Condition::new(
        "unconfirmed",
        format!(
            "not connected: {} handshake{plural} of it answered, but not confirmed: its preshared key \
             differs ({}), or our answers do not arrive",
            peer.unconfirmed,
            ours(peer)
        ),
    )
}

fn ours(peer: &PeerStatus) -> &'static str {
    if peer.has_preshared_key {
        "one is set here"
    } else {
        "none is set here"
    }
}

fn not_connected(peer: &PeerStatus, refused: &Refused) -> Condition {
    let (state, cause) = cause(peer, refused);
    let mut text = format!("not connected: {cause}");
    if refused.age >= RECENT {
        text += &format!(" ({} ago)", time(refused.age));
    }
    Condition::new(state, text)
}

/// Returns the word for programs and the text for a refusal.
fn cause(peer: &PeerStatus, refused: &Refused) -> (&'static str, String) {
    match refused.refusal {
        Refusal::OtherKey { from } => (
            "wrong-key",
            format!(
                "handshakes from {} are for a public key other than that of this interface",
                NumericEndpoint(from)
            ),
        ),
        Refusal::UnknownKey { from, key } => (
            "unknown-key",
            format!(
                "handshakes from {} are made with the key {key}, which no peer has",
                NumericEndpoint(from)
            ),
        ),
        Refusal::PresharedKey => (
            "wrong-preshared-key",
            format!("it answers, but the preshared keys differ ({})", ours(peer)),
        ),
        Refusal::Timestamp => (
            "clock-behind",
            "its clock is behind: the timestamp in its handshake is not newer than in its last one"
                .to_owned(),
        ),
        Refusal::NotAllowed { source } => (
            "not-allowed",
            format!(
                "packets from {} are dropped: not in its allowed IPs",
                NumericIp(source)
            ),
        ),
        Refusal::UnderLoad => (
            "under-load",
            "it is under load and asks for a cookie first".to_owned(),
        ),
        Refusal::SendFailed { errno } => ("send-failed", send_failed(peer, errno)),
        Refusal::Unreachable { what, by } => unreachable(peer, what, by),
    }
}

fn send_failed(peer: &PeerStatus, errno: i32) -> String {
    let to = to(peer);
    match errno {
        libc::ENETUNREACH => format!("this host has no route{to}"),
        libc::EPERM | libc::EACCES => {
            format!("a firewall on this host forbids sending{to}")
        }
        libc::EAFNOSUPPORT => format!("there is no socket for sending{to}"),
        errno => format!("this host cannot send{to}: {}", Errno(errno)),
    }
}

fn unreachable(peer: &PeerStatus, what: Unreachable, by: IpAddr) -> (&'static str, String) {
    let to = to(peer);
    let by = NumericIp(by);
    match what {
        Unreachable::Port => (
            "port-closed",
            format!("the port is closed: {by} refused packets{to} by ICMP"),
        ),
        Unreachable::Host => (
            "host-unreachable",
            format!("{by} reports by ICMP that it cannot deliver packets{to}"),
        ),
        Unreachable::Network => (
            "network-unreachable",
            format!("{by} reports by ICMP that it has no route for packets{to}"),
        ),
        Unreachable::Prohibited => (
            "prohibited",
            format!("{by} reports by ICMP that a firewall forbids packets{to}"),
        ),
    }
}

/// Returns ` to ENDPOINT`, or an empty text if there is no endpoint.
fn to(peer: &PeerStatus) -> String {
    let endpoint = peer.peer.endpoint;
    endpoint.map_or_else(String::new, |addr| format!(" to {}", NumericEndpoint(addr)))
}

fn sender(refusal: &Refusal) -> Option<SocketAddr> {
    match refusal {
        Refusal::OtherKey { from } | Refusal::UnknownKey { from, .. } => Some(*from),
        _ => None,
    }
}

/// Whether `from` is this peer's address, and not another peer's.
pub(super) fn is_its_address(interface: &Status, peer: &PeerStatus, from: SocketAddr) -> bool {
    let is_at = |peer: &PeerStatus| peer.peer.endpoint == Some(from);
    let is_of_host = |peer: &PeerStatus| peer.peer.endpoint.is_some_and(|at| at.ip() == from.ip());
    if interface.peers.iter().any(is_at) {
        return is_at(peer);
    }
    // A NAT with several peers behind it may use other ports for them.
    is_of_host(peer)
        && interface
            .peers
            .iter()
            .filter(|peer| is_of_host(peer))
            .count()
            == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Peer;
    use wg_crypto::PublicKey;

    const NOW: Wall = Wall {
        secs: 1_000_000_000,
        nanos: 0,
    };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A peer of our daemon before anything has happened.
    fn peer() -> PeerStatus {
        PeerStatus {
            session: Some(false),
            ..PeerStatus::new(Peer {
                endpoint: Some("192.0.2.2:7".parse().unwrap()),
                ..Peer::new(PublicKey::from_bytes([1; 32]))
            })
        }
    }

    fn of(peer: &PeerStatus) -> Condition {
        let interface = Status {
            up: Some(true),
            peers: vec![peer.clone()],
            ..Status::default()
        };
        reason(&interface, peer, NOW)
    }

    fn handshake(seconds_ago: u64) -> Option<Wall> {
        Some(Wall {
            secs: NOW.secs - seconds_ago,
            nanos: 0,
        })
    }

    fn refused(age: u64, refusal: Refusal) -> Refused {
        Refused {
            refusal,
            age: seconds(age),
        }
    }

    #[test]
    fn a_session_is_a_connection_until_handshakes_go_unanswered() {
        let mut peer = peer();
        peer.session = Some(true);
        peer.peer.last_handshake = handshake(100);
        let connected = "connected, last handshake 1 min ago, at 192.0.2.2:7";
        assert_eq!(of(&peer), Condition::new("connected", connected));
        let age = seconds(4);
        peer.unanswered = Some(Unanswered { count: 1, age });
        assert_eq!(of(&peer).state, "connected");
        peer.unanswered = Some(Unanswered { count: 2, age });
        assert_eq!(of(&peer).state, "no-answer");
        // A refusal beside the session is included.
        peer.unanswered = None;
        let source = IpAddr::from([10, 0, 0, 9]);
        peer.refusals = vec![
            refused(150, Refusal::NotAllowed { source }),
            refused(99, Refusal::Timestamp),
            refused(
                3,
                Refusal::SendFailed {
                    errno: libc::ENETUNREACH,
                },
            ),
        ];
        let told = "; packets from 10.0.0.9 are dropped: not in its allowed IPs (2 min ago); this \
                    host has no route to 192.0.2.2:7 (3 s ago)";
        assert_eq!(of(&peer).text, connected.to_owned() + told);
    }

    #[test]
    fn for_the_kernel_the_last_handshake_decides() {
        let mut peer = peer();
        peer.session = None;
        assert_eq!(of(&peer).state, "no-handshake");
        peer.peer.last_handshake = handshake(179);
        assert_eq!(of(&peer).state, "connected");
        peer.peer.last_handshake = handshake(7200);
        let idle = "idle: nothing to send, last handshake 2 h ago";
        assert_eq!(of(&peer), Condition::new("idle", idle));
    }

    #[test]
    fn a_peer_before_the_first_packet() {
        assert_eq!(of(&peer()).state, "nothing-sent");
        let mut nowhere = peer();
        nowhere.peer.endpoint = None;
        assert_eq!(of(&nowhere).state, "no-endpoint");
    }

    #[test]
    fn the_latest_refusal_since_the_first_handshake_is_the_reason() {
        let mut peer = peer();
        peer.unanswered = Some(Unanswered {
            count: 4,
            age: seconds(16),
        });
        peer.refusals = vec![
            refused(17, Refusal::Timestamp),
            refused(6, Refusal::UnderLoad),
            refused(1, Refusal::PresharedKey),
            refused(
                0,
                Refusal::NotAllowed {
                    source: IpAddr::from([10, 0, 0, 1]),
                },
            ),
        ];
        let text = "not connected: it answers, but the preshared keys differ (none is set here)";
        assert_eq!(of(&peer), Condition::new("wrong-preshared-key", text));
        peer.refusals.truncate(1);
        let text = "not connected: 4 handshakes sent to 192.0.2.2:7, no answer in 16 s: it is \
                    down, a firewall blocks it, or a public key is wrong at one end";
        assert_eq!(of(&peer), Condition::new("no-answer", text));
    }

    #[test]
    fn a_refusal_before_the_last_handshake_is_no_reason() {
        let mut peer = peer();
        peer.peer.last_handshake = handshake(1000);
        peer.refusals = vec![refused(1001, Refusal::Timestamp)];
        assert_eq!(of(&peer).state, "idle");
        peer.refusals = vec![refused(300, Refusal::Timestamp)];
        let reason = of(&peer);
        assert_eq!(reason.state, "clock-behind");
        assert!(reason.text.ends_with(" (5 min ago)"), "{}", reason.text);
    }

    #[test]
    fn strangers_at_the_endpoint_of_a_peer_are_that_peer() {
        let (mut one, mut two) = (peer(), peer());
        two.peer.endpoint = Some("192.0.2.3:7".parse().unwrap());
        let interface = |peers: &[&PeerStatus]| Status {
            refusals: vec![refused(
                1,
                Refusal::OtherKey {
                    from: "192.0.2.2:9".parse().unwrap(),
                },
            )],
            peers: peers.iter().map(|peer| (*peer).clone()).collect(),
            ..Status::default()
        };
        let both = interface(&[&one, &two]);
        assert_eq!(reason(&both, &one, NOW).state, "wrong-key");
        assert_eq!(reason(&both, &two, NOW).state, "nothing-sent");
        // If two peers are at the same host, only the port distinguishes them.
        two.peer.endpoint = Some("192.0.2.2:8".parse().unwrap());
        let both = interface(&[&one, &two]);
        assert_eq!(reason(&both, &one, NOW).state, "nothing-sent");
        one.peer.endpoint = Some("192.0.2.2:9".parse().unwrap());
        let both = interface(&[&one, &two]);
        assert_eq!(reason(&both, &one, NOW).state, "wrong-key");
        assert_eq!(reason(&both, &two, NOW).state, "nothing-sent");
    }
}
