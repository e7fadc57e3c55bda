//! The hubs that we use: for each, whether it answers, and what it said.
//!
//! ```text
//! no session   every HELLO that is due asks for a handshake instead
//! answering    YOU came in this session or the one before: a HELLO that is not answered is repeated
//!              after a second; after another second, a handshake
//! mute         no YOU after three HELLOs: a HELLO in ten minutes, because each is an error there
//! ```
//! A hub that was started again has another epoch: it must be told our sessions anew (`by_hubs.rs`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::frame::Answer;
use super::peer::{Endpoint, Peer};
use super::plane::Plane;
use super::time::Time;
use crate::model::status::{HubStatus, Nat};

/// The time between two HELLOs, if the hub does not say otherwise.
const HELLO_INTERVAL: Duration = Duration::from_secs(25);
/// What a hub may say.
const NEXT_MIN: u16 = 5;
const NEXT_MAX: u16 = 60;
/// HELLOs are spread by up to this in both directions.
const HELLO_JITTER: Duration = Duration::from_secs(2);
/// How long to wait for YOU.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// How long an answer is recent enough to send an initiation without asking again.
const LATELY: Duration = Duration::from_secs(3);
/// HELLOs before a handshake, if the hub has answered before, and before it is mute.
const TRIES: u32 = 2;
const TRIES_AT_FIRST: u32 = 3;
const MUTE_INTERVAL: Duration = Duration::from_secs(600);
/// A hub that has not answered for this long is not chosen.
const FRESH: Duration = Duration::from_secs(60);

/// What to do for a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HubStep {
    /// Send a HELLO with this number.
    Hello(u32),
    Handshake,
}

/// A hub.
pub(super) struct UsedHub {
    pub(super) peer: Arc<Peer>,
    /// Its address when we last looked.
    addr: Option<SocketAddr>,
    /// When the next step is due.
    due: Option<Time>,
    seq: u32,
    sent: Time,
    /// HELLOs since the last YOU or the beginning of the session.
    unanswered: u32,
    /// Whether YOU came in this session, and in the one before.
    answered: [bool; 2],
    is_mute: bool,
    heard: Option<Time>,
    rtt: Option<Duration>,
    epoch: Option<u32>,
    relays: bool,
    sees: Option<SocketAddr>,
}

impl UsedHub {
    fn new(peer: &Arc<Peer>) -> Self {
        UsedHub {
            peer: peer.clone(),
            addr: peer.endpoint().map(|endpoint| endpoint.addr),
            due: None,
            seq: 0,
            sent: Time::ZERO,
            unanswered: 0,
            answered: [false; 2],
            is_mute: false,
            heard: None,
            rtt: None,
            epoch: None,
            relays: false,
            sees: None,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.peer.id
    }

    /// Whether packets can be sent to the hub now.
    pub(super) fn is_live(&self, now: Time) -> bool {
        matches!(&*self.peer.keypairs.current(), Some(current) if current.can_send(now))
            && self.peer.endpoint().is_some()
    }

    /// Whether it has recently said that it relays for us.
    pub(super) fn is_fresh(&self, now: Time) -> bool {
        let is_recent = |heard| now.saturating_since(heard) < FRESH;
        self.relays && self.heard.is_some_and(is_recent) && self.is_live(now)
    }

    /// The next step, if it is due.
    pub(super) fn step(&mut self, now: Time) -> Option<HubStep> {
        self.due.take_if(|at| *at <= now)?;
        if !self.is_live(now) {
            self.due = Some(now + HELLO_INTERVAL);
            return Some(HubStep::Handshake);
        }
        let may_answer = self.answered.contains(&true);
        if may_answer && self.unanswered >= TRIES {
            self.due = Some(now + HELLO_INTERVAL);
            return Some(HubStep::Handshake);
        }
        self.is_mute |= !may_answer && self.unanswered >= TRIES_AT_FIRST;
        self.due = Some(match self.is_mute {
            true => now + MUTE_INTERVAL,
            false => now + ANSWER_TIME,
        });
        self.seq = self.seq.wrapping_add(1);
        self.sent = now;
        self.unanswered = self.unanswered.saturating_add(1);
        Some(HubStep::Hello(self.seq))
    }

    /// Whether a YOU with this number answers a HELLO since the last YOU. By any other YOU, a hub could make us
    /// send all our sessions to an address of its choice.
    pub(super) fn awaits(&self, seq: u32) -> bool {
        self.seq.wrapping_sub(seq) < self.unanswered
    }

    /// Handles a YOU. `random` spreads the next HELLO. Returns whether the hub must be told our
    /// sessions.
    pub(super) fn answered(&mut self, you: Answer, random: u32, now: Time) -> bool {
        if you.seq == self.seq && self.unanswered > 0 {
            self.rtt = Some(now.saturating_since(self.sent));
        }
        self.unanswered = 0;
        self.answered[0] = true;
        self.is_mute = false;
        self.heard = Some(now);
        self.relays = you.relays;
        self.sees = you.seen;
        let next = Duration::from_secs(you.next.clamp(NEXT_MIN, NEXT_MAX).into());
        let spread = HELLO_JITTER.mul_f64(2.0 * f64::from(random) / f64::from(u32::MAX));
        self.due = Some(now + (next + spread).saturating_sub(HELLO_JITTER));
        self.epoch.replace(you.epoch) != Some(you.epoch)
    }

    /// A new session with the hub began.
    pub(super) fn session_begun(&mut self, now: Time) {
        self.answered = [false, self.answered[0]];
        self.unanswered = 0;
        if !self.is_mute {
            self.due = Some(now);
        }
    }

    /// Makes the next HELLO due now, unless one waits for its answer.
    pub(super) fn check(&mut self, plane: &Plane, now: Time) {
        if self.unanswered == 0 && !self.is_mute {
            self.due = Some(now);
            plane.look_at(&self.peer);
        }
    }

    /// Like `check`, but only if it has not answered lately.
    pub(super) fn check_unless_heard(&mut self, plane: &Plane, now: Time) {
        if self
            .heard
            .is_none_or(|heard| now.saturating_since(heard) > LATELY)
        {
            self.check(plane, now);
        }
    }

    /// Begins anew: the device came up, or the peer became a hub.
    pub(super) fn start(&mut self) {
        self.is_mute = false;
        self.unanswered = 0;
        self.due = Some(Time::ZERO);
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
        self.answered = [false; 2];
    }

    /// Its address, ours as it has lately seen it, and our address that it sends to.
    fn view(&self, now: Time) -> Option<View> {
        let endpoint = self.peer.endpoint()?;
        let is_recent = |heard| now.saturating_since(heard) < FRESH;
        self.heard.is_some_and(is_recent).then_some(View {
            hub: endpoint.addr,
            sees: self.sees?,
            ours: endpoint.src.map(|source| source.ip),
        })
    }

    pub(super) fn status(&self, now: Time) -> HubStatus {
        HubStatus {
            heard: self.heard.map(|heard| now.saturating_since(heard)),
            rtt: self.rtt,
            sees: self.sees,
            is_mute: self.is_mute,
        }
    }
}

/// How a hub sees us.
struct View {
    hub: SocketAddr,
    sees: SocketAddr,
    ours: Option<IpAddr>,
}

/// The NAT that explains these views of one address family, of which there is at least one.
fn nat(views: &[View], listen_port: u16) -> Nat {
    let is_ours =
        |view: &View| view.ours == Some(view.sees.ip()) && view.sees.port() == listen_port;
    let first = &views[0];
    let others = || views.iter().filter(|view| view.hub != first.hub);
    if views.iter().all(is_ours) {
        Nat::None
    } else if others().any(|view| view.sees.port() != first.sees.port()) {
        Nat::Hard
    } else if others().next().is_some() || first.sees.port() == listen_port {
        Nat::Easy
    } else {
        Nat::Unknown
    }
}

/// The hubs that we use.
#[derive(Default)]
pub(super) struct Hubs(Vec<UsedHub>);

impl Hubs {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &UsedHub> {
        self.0.iter()
    }

    pub(super) fn get(&self, id: u64) -> Option<&UsedHub> {
        self.0.iter().find(|hub| hub.id() == id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut UsedHub> {
        self.0.iter_mut().find(|hub| hub.id() == id)
    }

    pub(super) fn add(&mut self, peer: &Arc<Peer>) {
        if self.get(peer.id).is_none() {
            self.0.push(UsedHub::new(peer));
        }
        if let Some(hub) = self.get_mut(peer.id) {
            hub.start();
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.0.retain(|hub| hub.id() != id);
    }

    /// The hub with this address.
    pub(super) fn at(&self, addr: SocketAddr) -> Option<&UsedHub> {
        self.0.iter().find(|hub| hub.peer.is_at(addr))
    }

    /// Makes the next HELLO to each hub due now, at most one a second.
    pub(super) fn check_all(&mut self, plane: &Plane, now: Time) {
        let is_quiet = |hub: &&mut UsedHub| now.saturating_since(hub.sent) >= ANSWER_TIME;
        let quiet = self.0.iter_mut().filter(is_quiet);
        quiet.for_each(|hub| hub.check(plane, now));
    }

    /// When the next step for a hub is due.
    pub(super) fn due(&self, id: u64) -> Option<Time> {
        self.get(id)?.due
    }

    /// The NAT before us, as the hubs see it: the harder one, if it differs between IPv4 and IPv6.
    /// None without hubs.
    pub(super) fn nat(&self, listen_port: u16, now: Time) -> Option<Nat> {
        let views = self.0.iter().filter_map(|hub| hub.view(now));
        let (v4, v6): (Vec<_>, Vec<_>) = views.partition(|view| view.sees.is_ipv4());
        let kinds = [v4, v6].into_iter().filter(|views| !views.is_empty());
        let hardest = kinds.map(|views| nat(&views, listen_port)).max();
        (!self.is_empty()).then(|| hardest.unwrap_or(Nat::Unknown))
    }

    /// The current endpoint of a hub.
    pub(super) fn endpoint(&self, id: u64) -> Option<Endpoint> {
        self.get(id)?.peer.endpoint()
    }

    /// The addresses of all hubs.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let endpoints = self.0.iter().filter_map(|hub| hub.peer.endpoint());
        endpoints.map(|endpoint| endpoint.addr).collect()
    }

    /// Must be called when a hub may have moved. Returns its former address if so.
    pub(super) fn moved(&mut self, id: u64) -> Option<SocketAddr> {
        let hub = self.get_mut(id)?;
        let addr = hub.peer.endpoint().map(|endpoint| endpoint.addr);
        let former = std::mem::replace(&mut hub.addr, addr);
        former.filter(|former| addr != Some(*former))
    }

    /// All hubs by their `rank`, and those of the same rank by how fast they answer.
    pub(super) fn in_order(&self, rank: impl Fn(u64) -> u8) -> Vec<u64> {
        let mut hubs: Vec<&UsedHub> = self.0.iter().collect();
        hubs.sort_by_key(|hub| (rank(hub.id()), hub.rtt.unwrap_or(Duration::MAX)));
        hubs.into_iter().map(UsedHub::id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wg_crypto::PublicKey;

    const T: Time = Time::from_nanos(1_000_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn hub() -> UsedHub {
        let mut hub = UsedHub::new(&Arc::new(Peer::new(1, PublicKey::from_bytes([1; 32]))));
        hub.start();
        hub
    }

    fn you(seq: u32, epoch: u32) -> Answer {
        Answer {
            seq,
            epoch,
            relays: true,
            next: 25,
            seen: None,
        }
    }

    #[test]
    fn without_a_session_each_due_hello_asks_for_a_handshake() {
        let mut hub = hub();
        for n in 0..20 {
            let now = T + HELLO_INTERVAL * n;
            assert_eq!(hub.step(now), Some(HubStep::Handshake));
            assert_eq!(hub.step(now + SECOND), None);
        }
    }

    #[test]
    fn answers_set_the_next_hello_within_bounds() {
        let mut hub = hub();
        for (next, random, seconds) in [
            (25, 0, 23),
            (25, u32::MAX, 27),
            (0, u32::MAX, 7),
            (u16::MAX, 0, 58),
        ] {
            let answer = Answer { next, ..you(0, 1) };
            hub.answered(answer, random, T);
            assert_eq!(hub.due, Some(T + SECOND * seconds));
        }
    }

    #[test]
    fn the_kind_of_nat_follows_from_the_ports_that_hubs_see() {
        let view = |hub: u8, sees: &str, ours: Option<&str>| View {
            hub: ([192, 0, 2, hub], 1).into(),
            sees: sees.parse().unwrap(),
            ours: ours.map(|ip| ip.parse().unwrap()),
        };
        let (lan, public) = (Some("10.0.0.1"), Some("203.0.113.9"));
        let kept = |hub| view(hub, "203.0.113.9:51820", lan);
        for (views, kind) in [
            (vec![view(1, "203.0.113.9:51820", public)], Nat::None),
            (vec![kept(1)], Nat::Easy),
            (vec![view(1, "203.0.113.9:51820", None)], Nat::Easy),
            (vec![view(1, "203.0.113.9:51821", public)], Nat::Unknown),
            (vec![view(1, "203.0.113.9:7", lan)], Nat::Unknown),
            (
                vec![view(1, "203.0.113.9:7", lan), view(2, "203.0.113.9:7", lan)],
                Nat::Easy,
            ),
            // Two peers of one hub are one destination.
            (vec![kept(1), view(1, "203.0.113.9:7", lan)], Nat::Easy),
            (vec![kept(1), view(2, "203.0.113.9:7", lan)], Nat::Hard),
        ] {
            assert_eq!(nat(&views, 51820), kind);
        }
    }

    #[test]
    fn another_epoch_is_told() {
        let mut hub = hub();
        assert!(hub.answered(you(0, 1), 0, T), "the first one");
        assert!(!hub.answered(you(0, 1), 0, T));
        assert!(hub.answered(you(0, 2), 0, T));
    }
}
