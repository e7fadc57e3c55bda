//! What the owner keeps of a peer that may be reached through hubs (`by_hubs.rs`).

use std::collections::VecDeque;
use std::time::Duration;

use super::messages::INITIATION_SIZE;
use super::peer::Peer;
use super::time::Time;

/// The shortest time after which a PING counts as unanswered.
const PATIENCE: Duration = Duration::from_millis(300);

/// A peer that may be reached through hubs.
#[derive(Default)]
pub(super) struct Relayed {
    /// The hubs that have relayed a handshake with the peer.
    pub(super) hubs: Vec<HubPath>,
    pub(super) initiation: Option<SentInitiation>,
    pub(super) speaks: bool,
    pub(super) prove_by: Option<Time>,
    pub(super) choose_until: Time,
    /// When to look at the paths, while they are used.
    pub(super) look: Option<Time>,
    /// Since when the endpoint is not trusted although it is used.
    pub(super) doubt: Option<Time>,
    /// Whether an initiation was sent by the other hubs in this doubt.
    pub(super) others_asked: bool,
}

/// The last initiation, until it is answered.
pub(super) struct SentInitiation {
    pub(super) message: [u8; INITIATION_SIZE],
    pub(super) index: u32,
    /// The hubs by which it has not been sent yet.
    pub(super) unsent: Vec<u64>,
    /// When to send it by the hubs that have a session.
    pub(super) rest_at: Option<Time>,
}

/// The path through one hub.
pub(super) struct HubPath {
    pub(super) hub: u64,
    /// Our index in the session that the hub relays.
    pub(super) holds: Option<u32>,
    pub(super) bind: Option<Bind>,
    /// PINGs that are not answered: their numbers and times.
    pub(super) pings: VecDeque<(u64, Time)>,
    pub(super) pinged: Option<Time>,
    /// When the last PING left that was answered.
    pub(super) answered: Option<Time>,
    pub(super) rtt: Option<Duration>,
}

/// A session that a hub is told.
pub(super) struct Bind {
    pub(super) mine: u32,
    pub(super) theirs: u32,
    pub(super) tries: usize,
    /// None: it was accepted, or the tries are used up, or the hub must answer a HELLO first.
    pub(super) due: Option<Time>,
}

impl HubPath {
    pub(super) fn new(hub: u64) -> Self {
        HubPath {
            hub,
            holds: None,
            bind: None,
            pings: VecDeque::new(),
            pinged: None,
            answered: None,
            rtt: None,
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.rtt.map_or(PATIENCE, |rtt| PATIENCE.max(rtt * 2))
    }

    /// Whether a PING should have been answered by now.
    pub(super) fn is_silent(&self, now: Time) -> bool {
        let first = self.pings.front();
        first.is_some_and(|(_, sent)| now.saturating_since(*sent) >= self.patience())
    }
}

impl Relayed {
    /// The earliest of its timers.
    pub(super) fn due(&self) -> Option<Time> {
        let rest = self.initiation.as_ref().and_then(|sent| sent.rest_at);
        let binds = self.hubs.iter().filter_map(|path| path.bind.as_ref()?.due);
        let others = [rest, self.look, self.prove_by].into_iter().flatten();
        binds.chain(others).min()
    }

    pub(super) fn path(&mut self, hub: u64) -> Option<&mut HubPath> {
        self.hubs.iter_mut().find(|path| path.hub == hub)
    }

    /// Called when sessions end and timers stop.
    pub(super) fn stop(&mut self) {
        *self = Relayed::default();
    }
}

/// The current session's index of ours, and the peer's.
pub(super) fn session(peer: &Peer, now: Time) -> Option<(u32, u32)> {
    let current = peer.keypairs.current();
    let current = current.as_ref().filter(|current| current.can_send(now))?;
    Some((current.local, current.receiver))
}
