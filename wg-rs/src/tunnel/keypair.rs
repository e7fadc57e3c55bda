//! Sessions, and the three sessions that a peer may have: previous, current and next.
//!
//! Invariants:
//! - A `Keypair` never changes, except for its counter, its replay window and its two validity
//!   flags, which only go from true to false.
//! - Senders read `current` without a lock. All three slots change while the mutex is held, and
//!   `current` is only stored then.
//! - A session is in the device's index exactly as long as it is in a slot; both are removed
//!   together. Its keys are wiped when the last burst that uses it is dropped.
//! - A session has a weak reference to its peer, to avoid a cycle. The peer's type is a parameter,
//!   `P`, because the file of peers uses this file.
//! - The initiator uses its session at once. The responder's session waits in `next` until the
//!   first data packet proves that the initiator has the keys (key confirmation), and only then
//!   becomes current.

use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use wg_crypto::{OpeningKey, ReplayWindow, SealingKey, SessionKeys};

use super::messages::REJECT_AFTER_MESSAGES;
use super::time::Time;
use super::timers::REJECT_AFTER_TIME;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How a session was created.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Our index.
    pub local: u32,
    /// The peer's index.
    pub receiver: u32,
    /// Whether we sent the initiation.
    pub is_initiator: bool,
    /// Random, between 0 and `REKEY_TIMEOUT_JITTER_MAX`.
    pub jitter: Duration,
    /// The time of creation.
    pub created: Time,
}

/// A session of a peer: two keys, and the counters of messages in both directions.
pub struct Keypair<P> {
    pub(crate) sealing: SealingKey,
    pub(crate) opening: OpeningKey,
    /// The peer's index, for packets that are sent.
    pub(crate) receiver: u32,
    /// Our index, for packets that are received.
    pub(crate) local: u32,
    pub(crate) created: Time,
    pub(crate) is_initiator: bool,
    /// Added to the new-handshake timer. Chosen once for each session, because the data path has no
    /// random source.
    pub(crate) jitter: Duration,
    pub(crate) replay: Mutex<ReplayWindow>,
    counter: AtomicU64,
    sends: AtomicBool,
    receives: AtomicBool,
    unconfirmed: AtomicBool,
    peer: Weak<P>,
}

impl<P> Keypair<P> {
    /// A new session of `peer`.
    pub fn new(peer: &Arc<P>, keys: SessionKeys, origin: Origin) -> Arc<Self> {
        let Origin {
            local,
            receiver,
            is_initiator,
            jitter,
            created,
        } = origin;
        Arc::new(Self {
            sealing: keys.sealing,
            opening: keys.opening,
            receiver,
            local,
            created,
            is_initiator,
            jitter,
            replay: Mutex::new(ReplayWindow::new()),
            counter: AtomicU64::new(0),
            sends: AtomicBool::new(true),
            receives: AtomicBool::new(true),
            unconfirmed: AtomicBool::new(!is_initiator),
            peer: Arc::downgrade(peer),
        })
    }

    /// Our index, which the peer puts in its packets.
    pub fn local(&self) -> u32 {
        self.local
    }

    /// The peer. None if the peer was removed.
    pub fn peer(&self) -> Option<Arc<P>> {
        self.peer.upgrade()
    }

    /// The time since the handshake.
    pub(crate) fn age(&self, now: Time) -> Duration {
        now.saturating_since(self.created)
    }

    /// The number of messages sent.
    pub(crate) fn counter(&self) -> u64 {
        self.counter.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn set_counter(&self, counter: u64) {
        self.counter.store(counter, Ordering::Relaxed);
    }

    pub(crate) fn can_send(&self, now: Time) -> bool {
        self.sends.load(Ordering::Acquire) && self.age(now) < REJECT_AFTER_TIME
    }

    pub(crate) fn can_receive(&self, now: Time) -> bool {
        self.receives.load(Ordering::Acquire) && self.age(now) < REJECT_AFTER_TIME
    }

    /// The first of `n` consecutive counters. None if this session cannot send them.
    pub(crate) fn reserve(&self, n: u64, now: Time) -> Option<u64> {
        if !self.can_send(now) {
            return None;
        }
        let first = self.counter.fetch_add(n, Ordering::Relaxed);
        if first
            .checked_add(n)
            .is_some_and(|end| end <= REJECT_AFTER_MESSAGES)
        {
            return Some(first);
        }
        self.sends.store(false, Ordering::Release);
        None
    }

    /// Ends the session in both directions.
    pub(crate) fn expire(&self) {
        self.sends.store(false, Ordering::Release);
        self.receives.store(false, Ordering::Release);
    }

    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.load(Ordering::Acquire)
    }
}

impl<P> std::fmt::Debug for Keypair<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keypair")
            .field("local", &self.local)
            .field("receiver", &self.receiver)
            .field("is_initiator", &self.is_initiator)
            .finish_non_exhaustive()
    }
}

/// The sessions of one peer.
pub(crate) struct Keypairs<P> {
    current: ArcSwapOption<Keypair<P>>,
    others: Mutex<Others<P>>,
}

struct Others<P> {
    previous: Option<Arc<Keypair<P>>>,
    next: Option<Arc<Keypair<P>>>,
}

impl<P> Default for Keypairs<P> {
    fn default() -> Self {
        let others = Others {
            previous: None,
            next: None,
        };
        Self {
            current: ArcSwapOption::empty(),
            others: Mutex::new(others),
        }
    }
}

/// Sessions that left their slots, and must be removed from the index.
pub(crate) type Discarded<P> = [Option<Arc<Keypair<P>>>; 3];

impl<P> Keypairs<P> {
    pub(crate) fn current(&self) -> Guard<Option<Arc<Keypair<P>>>> {
        self.current.load()
    }

    fn others(&self) -> MutexGuard<'_, Others<P>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a packet with this receiver index may be one that we sent.
    pub(crate) fn sends_as(&self, receiver: u32) -> bool {
        let is_it = |keypair: &Arc<Keypair<P>>| keypair.receiver == receiver;
        self.current.load().as_ref().is_some_and(is_it)
            || self.others().previous.as_ref().is_some_and(is_it)
    }

    /// Adds a new session. Returns the sessions that were pushed out.
    pub(crate) fn add(&self, new: Arc<Keypair<P>>) -> Discarded<P> {
        let mut others = self.others();
        if new.is_initiator {
            // A `next` that was never confirmed becomes `previous`, because its initiator may still
            // use it.
            let current = self.current.swap(Some(new));
            match others.next.take() {
                Some(next) => [others.previous.replace(next), current, None],
                None => [std::mem::replace(&mut others.previous, current), None, None],
            }
        } else {
            [others.next.replace(new), others.previous.take(), None]
        }
    }

    /// Called when data was received with `keypair`. If `keypair` is `next`, it becomes current,
    /// and the sessions that were pushed out are returned.
    pub(crate) fn confirm(&self, keypair: &Arc<Keypair<P>>) -> Option<Discarded<P>> {
        if !keypair.is_unconfirmed() {
            return None;
        }
        let mut others = self.others();
        keypair.unconfirmed.store(false, Ordering::Release);
        let next = others.next.take_if(|next| Arc::ptr_eq(next, keypair))?;
        let current = self.current.swap(Some(next));
        Some([std::mem::replace(&mut others.previous, current), None, None])
    }

    /// Ends all sessions, and empties their slots.
    pub(crate) fn clear(&self) -> Discarded<P> {
        let mut others = self.others();
        let all = [
            others.next.take(),
            others.previous.take(),
            self.current.swap(None),
        ];
        for keypair in all.iter().flatten() {
            keypair.expire();
        }
        all
    }

    /// Removes sessions that are too old to be used.
    pub(crate) fn discard_outlasted(&self, now: Time) -> Discarded<P> {
        let mut others = self.others();
        let outlasted = |keypair: &Arc<Keypair<P>>| keypair.age(now) >= REJECT_AFTER_TIME;
        let current = self.current.load().as_ref().is_some_and(outlasted);
        [
            others.next.take_if(|next| outlasted(next)),
            others.previous.take_if(|previous| outlasted(previous)),
            current.then(|| self.current.swap(None)).flatten(),
        ]
    }

    /// Nothing more is sent in these sessions, but packets in them are received.
    pub(crate) fn end_sending(&self) {
        let others = self.others();
        for keypair in [&others.next, &*self.current.load()].into_iter().flatten() {
            keypair.sends.store(false, Ordering::Release);
        }
    }

    #[cfg(test)]
    pub(crate) fn slots(&self) -> [Option<u32>; 3] {
        let others = self.others();
        let local =
            |keypair: &Option<Arc<Keypair<P>>>| keypair.as_ref().map(|keypair| keypair.local);
        [
            local(&others.previous),
            local(&self.current.load()),
            local(&others.next),
        ]
    }
}
