//! The pairs that this hub relays between: pending handshakes, sessions, and their limits.
//!
//! Handshakes and sessions expire in the order in which they began, whenever something else is
//! relayed: there is no timer. The data path checks the age itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use wg_crypto::Cookie;

use super::super::messages::{COOKIE_SECRET_LATENCY, COOKIE_SECRET_MAX_AGE};
use super::super::pace::Pace;
use super::super::peer::Peer;
use super::super::relay::{Pair, Relay, Session};
use super::super::time::Time;
use super::super::timers::REJECT_AFTER_TIME;
use super::in_order::InOrder;

/// How long to wait for a response.
const PENDING_LIFE: Duration = Duration::from_secs(15);
/// The ends of a session refuse its packets after `REJECT_AFTER_TIME`; some may still be in flight.
const SESSION_LIFE: Duration = REJECT_AFTER_TIME.saturating_add(Duration::from_secs(10));
/// Most pending handshakes, and most sessions, in one pair.
const PENDING_IN_PAIR: usize = 4;
const SESSIONS_IN_PAIR: usize = 4;
/// Most pairs that one peer may open, and most pairs in all.
const OPENED_BY_PEER: usize = 1024;
const MAX_PAIRS: usize = 65_536;
/// The time between two initiations from one end of a pair to the other. After a pause, five are
/// allowed at once. Initiations with a cookie have a limit of their own of the same size. Only someone who
/// receives at the sender's address can use it up.
const INITIATION_INTERVAL: Duration = Duration::from_secs(1);
const INITIATIONS_AHEAD: Duration = INITIATION_INTERVAL.saturating_mul(5);
/// The time between two searches for pairs that can be removed.
const CLEARANCE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a cookie that we have relayed is valid.
const COOKIE_LIFE: Duration = COOKIE_SECRET_MAX_AGE.saturating_sub(COOKIE_SECRET_LATENCY);

/// An initiation, identified by its receiver and the sender's index.
pub(super) type Ticket = (u64, u32);

/// An initiation whose response has not come yet.
pub(super) struct Pending {
    /// The possible senders, the most likely first: several peers may have the same address.
    pub(super) senders: Vec<u64>,
    /// Needed to open a cookie reply to the initiation.
    pub(super) mac1: [u8; 16],
    until: Time,
}

/// There can be no further pair.
#[derive(Debug)]
pub(super) struct NoRoom;

struct Open {
    shared: Arc<Pair>,
    pending: VecDeque<Ticket>,
    sessions: VecDeque<Arc<Session>>,
    /// The limits from each end to the other.
    initiations: [Pace; 2],
    /// The same for initiations with a cookie.
    proved: [Pace; 2],
    /// The same for cookie replies.
    replies: [Pace; 2],
    /// The cookie that each end uses in its initiations to the other, and when it was received.
    cookies: [Option<(Cookie, Time)>; 2],
}

impl Open {
    /// The end that a peer is.
    fn end(&self, id: u64) -> usize {
        usize::from(self.shared.ends[1].id == id)
    }

    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.sessions.is_empty()
    }
}

/// The pairs of one peer.
#[derive(Default)]
struct Ends {
    /// The peers that it has a pair with, the last used first.
    partners: VecDeque<u64>,
    /// The number of these pairs that it opened.
    opened: usize,
}

#[derive(Default)]
pub(super) struct Pairs {
    pairs: HashMap<Key, Open>,
    ends: HashMap<u64, Ends>,
    pending: HashMap<Ticket, Pending>,
    pending_in_order: InOrder<Ticket>,
    sessions_in_order: InOrder<Weak<Session>>,
    /// Limits the searches for pairs that can be removed.
    clearances: Pace,
}

/// The identifiers of two peers, the lower one first.
type Key = (u64, u64);

fn key(a: u64, b: u64) -> Key {
    (a.min(b), a.max(b))
}

impl Pairs {
    /// All pairs, also those that have had no session yet.
    pub(super) fn each(&self) -> impl Iterator<Item = &Arc<Pair>> {
        self.pairs.values().map(|open| &open.shared)
    }

    /// The number of pairs, and of handshakes and sessions that are kept until they expire.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        let (pending, sessions) = (&self.pending_in_order, &self.sessions_in_order);
        [self.pairs.len(), pending.len(), sessions.len()]
    }

    /// The peers that a peer has a pair with, the last used first.
    pub(super) fn partners(&self, id: u64) -> impl Iterator<Item = u64> {
        self.ends
            .get(&id)
            .into_iter()
            .flat_map(|ends| ends.partners.iter().copied())
    }

    /// Removes expired handshakes and sessions.
    pub(super) fn expire(&mut self, relay: &Relay, now: Time) {
        while let Some(ticket) = self.pending_in_order.next(now) {
            // An initiation that was repeated also has a later position in the order.
            let pending = self.pending.get(&ticket);
            if pending.is_some_and(|pending| pending.until <= now) {
                self.forget(ticket);
            }
        }
        while let Some(session) = self.sessions_in_order.next(now) {
            if let Some(session) = session.upgrade() {
                self.end(relay, &session);
            }
        }
    }

    /// Creates a pair if there is none, and marks it as the last used. Pairs without a session may
    /// be removed for it.
    pub(super) fn open(
        &mut self,
        opener: &Arc<Peer>,
        other: &Arc<Peer>,
        now: Time,
    ) -> Result<(), NoRoom> {
        let key = key(opener.id, other.id);
        if self.pairs.contains_key(&key) {
            self.touch(opener.id, other.id);
            self.touch(other.id, opener.id);
            return Ok(());
        }
        if self.is_full_for(opener.id) {
            self.clear_idle(now);
            if self.is_full_for(opener.id) {
                return Err(NoRoom);
            }
        }
        let open = Open {
            shared: Arc::new(Pair::new([opener.clone(), other.clone()])),
            pending: VecDeque::new(),
            sessions: VecDeque::new(),
            initiations: Default::default(),
            proved: Default::default(),
            replies: Default::default(),
            cookies: Default::default(),
        };
        self.pairs.insert(key, open);
        self.ends.entry(opener.id).or_default().opened += 1;
        for (id, other) in [(opener.id, other.id), (other.id, opener.id)] {
            self.ends.entry(id).or_default().partners.push_front(other);
        }
        Ok(())
    }

    fn touch(&mut self, id: u64, partner: u64) {
        if let Some(Ends { partners, .. }) = self.ends.get_mut(&id)
            && let Some(at) = partners.iter().position(|other| *other == partner)
            && at != 0
        {
            partners.remove(at);
            partners.push_front(partner);
        }
    }

    fn is_full_for(&self, opener: u64) -> bool {
        let opened = self.ends.get(&opener).map_or(0, |ends| ends.opened);
        opened >= OPENED_BY_PEER || self.pairs.len() >= MAX_PAIRS
    }

    fn clear_idle(&mut self, now: Time) {
        if !self
            .clearances
            .take(now, CLEARANCE_INTERVAL, CLEARANCE_INTERVAL)
        {
            return;
        }
        let idle = self.pairs.iter().filter(|(_, open)| open.is_idle());
        for key in idle.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) -> Option<Open> {
        let open = self.pairs.remove(&key)?;
        for (id, other) in [key, (key.1, key.0)] {
            if let Some(ends) = self.ends.get_mut(&id) {
                ends.partners.retain(|partner| *partner != other);
                ends.opened -= usize::from(open.shared.ends[0].id == id);
                if ends.partners.is_empty() {
                    self.ends.remove(&id);
                }
            }
        }
        Some(open)
    }

    /// Ends a pair, with its pending handshakes and sessions.
    pub(super) fn close(&mut self, a: u64, b: u64, relay: &Relay) {
        if let Some(open) = self.remove(key(a, b)) {
            open.sessions
                .iter()
                .for_each(|session| relay.remove(session));
            for ticket in open.pending {
                self.pending.remove(&ticket);
            }
        }
    }

    /// Whether an initiation from one peer to another is within the pair's limits; if so, it is
    /// counted. `mac2_fits`: whether it was made with a cookie.
    pub(super) fn may_initiate(
        &mut self,
        from: u64,
        to: u64,
        ours: &Cookie,
        mac2_fits: impl Fn(&Cookie) -> bool,
        now: Time,
    ) -> bool {
        let Some(open) = self.pairs.get_mut(&key(from, to)) else {
            return false;
        };
        let end = open.end(from);
        open.cookies[end].take_if(|(_, since)| now.saturating_since(*since) >= COOKIE_LIFE);
        let of_far_end = open.cookies[end].as_ref().map(|(cookie, _)| cookie);
        let is_proved = mac2_fits(ours) || of_far_end.is_some_and(mac2_fits);
        let take = |pace: &mut Pace| pace.take(now, INITIATION_INTERVAL, INITIATIONS_AHEAD);
        is_proved && take(&mut open.proved[end]) || take(&mut open.initiations[end])
    }

    /// Whether a cookie reply from one peer to another is within the pair's limits; if so, it is counted.
    /// Without a limit it could go round among several hubs, because the session stays after it.
    pub(super) fn may_reply(&mut self, from: u64, to: u64, now: Time) -> bool {
        let open = self.pairs.get_mut(&key(from, to));
        open.is_some_and(|open| {
            let end = open.end(from);
            open.replies[end].take(now, INITIATION_INTERVAL, INITIATIONS_AHEAD)
        })
    }

    /// Stores a cookie that one peer sent to the other through us.
    pub(super) fn cookie_given(&mut self, by: u64, to: u64, cookie: Cookie, now: Time) {
        if let Some(open) = self.pairs.get_mut(&key(by, to)) {
            let end = open.end(to);
            open.cookies[end] = Some((cookie, now));
        }
    }

    /// Records an initiation that was sent to `ticket.0`, and waits for its response.
    pub(super) fn wait(&mut self, ticket: Ticket, senders: Vec<u64>, mac1: [u8; 16], now: Time) {
        self.forget(ticket);
        let Some(first) = senders.first().copied() else {
            return;
        };
        let Some(open) = self.pairs.get_mut(&key(first, ticket.0)) else {
            return;
        };
        open.pending.push_back(ticket);
        if open.pending.len() > PENDING_IN_PAIR
            && let Some(oldest) = open.pending.pop_front()
        {
            self.pending.remove(&oldest);
        }
        let until = now + PENDING_LIFE;
        let pending = Pending {
            senders,
            mac1,
            until,
        };
        self.pending.insert(ticket, pending);
        let waits = |until, ticket: &Ticket| {
            let pending = self.pending.get(ticket);
            pending.is_some_and(|pending| pending.until == until)
        };
        self.pending_in_order.push(until, ticket, waits);
    }

    /// The initiation that this peer received with this index, if it still waits for a response.
    pub(super) fn pending(&self, ticket: Ticket, now: Time) -> Option<&Pending> {
        self.pending
            .get(&ticket)
            .filter(|pending| pending.until > now)
    }

    fn forget(&mut self, ticket: Ticket) {
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        let first = pending.senders.first().copied();
        let open = first.and_then(|first| self.pairs.get_mut(&key(first, ticket.0)));
        if let Some(open) = open {
            open.pending.retain(|other| *other != ticket);
        }
    }

    /// Starts relaying between the ends of a pair, each given as a peer and its index.
    pub(super) fn begin(&mut self, a: (u64, u32), b: (u64, u32), relay: &Relay, now: Time) {
        let Some(open) = self.pairs.get_mut(&key(a.0, b.0)) else {
            return;
        };
        let mut indices = [a.1, b.1];
        if open.end(a.0) == 1 {
            indices.reverse();
        }
        open.shared.used(now);
        // A repeated response starts nothing.
        if open
            .sessions
            .iter()
            .any(|session| session.indices == indices)
        {
            return;
        }
        let session = Arc::new(Session {
            pair: open.shared.clone(),
            indices,
            until: now + SESSION_LIFE,
        });
        relay.insert(&session);
        open.sessions.push_back(session.clone());
        if open.sessions.len() > SESSIONS_IN_PAIR
            && let Some(oldest) = open.sessions.pop_front()
        {
            relay.remove(&oldest);
        }
        let session = Arc::downgrade(&session);
        self.sessions_in_order
            .push(now + SESSION_LIFE, session, |_, session| {
                session.strong_count() > 0
            });
    }

    fn end(&mut self, relay: &Relay, session: &Arc<Session>) {
        relay.remove(session);
        let [a, b] = &session.pair.ends;
        if let Some(open) = self.pairs.get_mut(&key(a.id, b.id)) {
            open.sessions.retain(|other| !Arc::ptr_eq(other, session));
        }
    }
}
