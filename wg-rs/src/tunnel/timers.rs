//! The timers of a peer that the data path arms, and the rules for arming them.
//!
//! ```text
//! retransmit_handshake  5 s + jitter after an initiation           (owner only: handshake.rs)
//! send_keepalive        10 s after data was received, if nothing was sent since
//! new_handshake         15 s + jitter after data was sent, if nothing was received since
//! zero_key_material     540 s after the last session was created   (owner only)
//! persistent_keepalive  its interval after anything authenticated was sent or received
//! ```
//!
//! A timer is an atomic deadline. The data path arms and clears it without notifying anybody. The
//! owner sleeps until the peer's `wake_at`, fires the timers that are due, and then sleeps until
//! the earliest pending one. Only a deadline before `wake_at` is reported to the owner, so a busy
//! peer causes one event in ten seconds, and an idle peer none.
//!
//! The race: the data path stores the deadline and then reads `wake_at`; the owner stores `wake_at`
//! and then reads the deadlines. All four operations are SeqCst, so at least one side sees the
//! change of the other.

use std::time::Duration;

use super::time::Time;
use crate::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::SeqCst};

/// By how much each time below is shortened. A build with the feature `fast-timers` is for long tests: it
/// changes keys every six seconds, and has trouble with peers that have the usual timers.
pub const SPEED: u32 = if cfg!(feature = "fast-timers") { 20 } else { 1 };

const fn scaled(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64 / SPEED as u64)
}

/// How long to wait for a response to an initiation, and the minimum time between two initiations
/// to a peer.
pub const REKEY_TIMEOUT: Duration = scaled(Duration::from_secs(5));
/// Exclusive upper bound of the random addition to `REKEY_TIMEOUT`, which prevents two peers from
/// staying in step.
pub const REKEY_TIMEOUT_JITTER_MAX: Duration = scaled(Duration::from_millis(333));
/// A session's initiator that sends requests a new handshake after this age.
pub const REKEY_AFTER_TIME: Duration = scaled(Duration::from_secs(120));
/// A session of this age neither sends nor receives.
pub const REJECT_AFTER_TIME: Duration = scaled(Duration::from_secs(180));
/// Time after received data without a packet sent, after which a passive keepalive is sent.
pub const KEEPALIVE_TIMEOUT: Duration = scaled(Duration::from_secs(10));
/// A handshake is given up when it has had more retries than this: after 20 initiations.
pub const MAX_TIMER_HANDSHAKES: u32 = 18;

/// A time, or never.
pub(crate) struct Deadline(AtomicU64);

const NEVER: u64 = u64::MAX;

impl Default for Deadline {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

impl Deadline {
    pub(crate) fn get(&self) -> Option<Time> {
        Some(self.0.load(SeqCst))
            .filter(|&at| at != NEVER)
            .map(Time::from_nanos)
    }

    pub(crate) fn set(&self, at: Time) {
        self.0.store(at.as_nanos(), SeqCst);
    }

    pub(crate) fn clear(&self) {
        // Most calls find no pending timer, so the cache line is not written without need.
        if self.0.load(SeqCst) != NEVER {
            self.0.store(NEVER, SeqCst);
        }
    }

    /// Sets the deadline unless one is pending. Returns whether it was set.
    fn set_if_clear(&self, at: Time) -> bool {
        self.0.load(SeqCst) == NEVER
            && self
                .0
                .compare_exchange(NEVER, at.as_nanos(), SeqCst, SeqCst)
                .is_ok()
    }

    /// Clears the deadline if it is due. Returns whether it was due.
    pub(crate) fn take_due(&self, now: Time) -> bool {
        let at = self.0.load(SeqCst);
        at <= now.as_nanos()
            && at != NEVER
            && self.0.compare_exchange(at, NEVER, SeqCst, SeqCst).is_ok()
    }

    /// Moves the deadline forward to `at` if it is later. Returns whether it was moved.
    fn bring_forward(&self, at: Time) -> bool {
        self.0.load(SeqCst) > at.as_nanos()
            && self.0.fetch_min(at.as_nanos(), SeqCst) > at.as_nanos()
    }
}

/// The timers of a peer.
#[derive(Default)]
pub(crate) struct Timers {
    pub(crate) send_keepalive: Deadline,
    pub(crate) new_handshake: Deadline,
    pub(crate) persistent_keepalive: Deadline,
    /// When the owner will next look at this peer.
    pub(crate) wake_at: Deadline,
    need_another_keepalive: AtomicBool,
    /// Interval in seconds; 0 means off.
    persistent_interval: AtomicU16,
}

/// Whether the owner must be notified that a deadline was armed.
#[must_use]
pub(crate) struct Wake(pub(crate) bool);

impl Timers {
    fn armed(&self, at: Time) -> Wake {
        Wake(self.wake_at.bring_forward(at))
    }

    /// Called when data was sent, not a keepalive.
    pub(crate) fn data_sent(&self, now: Time, jitter: Duration) -> Wake {
        let at = now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + jitter;
        if self.new_handshake.set_if_clear(at) {
            self.armed(at)
        } else {
            Wake(false)
        }
    }

    /// Called when `packets` of data were received, not counting keepalives.
    pub(crate) fn data_received(&self, now: Time, packets: usize) -> Wake {
        if packets == 0 {
            return Wake(false);
        }
        let at = now + KEEPALIVE_TIMEOUT;
        let was_clear = self.send_keepalive.set_if_clear(at);
        if (!was_clear || packets > 1) && !self.need_another_keepalive.load(SeqCst) {
            self.need_another_keepalive.store(true, SeqCst);
        }
        if was_clear {
            self.armed(at)
        } else {
            Wake(false)
        }
    }

    pub(crate) fn any_authenticated_packet_sent(&self) {
        self.send_keepalive.clear();
    }

    pub(crate) fn any_authenticated_packet_received(&self) {
        self.new_handshake.clear();
    }

    pub(crate) fn any_authenticated_packet_traversal(&self, now: Time) -> Wake {
        match self.persistent_interval() {
            None => Wake(false),
            Some(interval) => {
                let at = now + interval;
                self.persistent_keepalive.set(at);
                self.armed(at)
            }
        }
    }

    /// Makes the persistent keepalive due within its interval, if it is enabled.
    pub(crate) fn start_persistent_keepalive(&self, now: Time) {
        if let Some(interval) = self.persistent_interval() {
            self.persistent_keepalive.set_if_clear(now + interval);
        }
    }

    /// Whether another passive keepalive is needed after the due one. Resets the flag.
    pub(crate) fn take_need_another_keepalive(&self) -> bool {
        self.need_another_keepalive.swap(false, SeqCst)
    }

    pub(crate) fn keepalive_again(&self, now: Time) -> Wake {
        let at = now + KEEPALIVE_TIMEOUT;
        self.send_keepalive.set(at);
        self.armed(at)
    }

    pub(crate) fn persistent_interval(&self) -> Option<Duration> {
        match self.persistent_interval.load(SeqCst) {
            0 => None,
            seconds => Some(Duration::from_secs(seconds.into())),
        }
    }

    /// Sets the interval. Returns the former one, in seconds.
    pub(crate) fn set_persistent_interval(&self, seconds: u16) -> u16 {
        if seconds == 0 {
            self.persistent_keepalive.clear();
        }
        self.persistent_interval.swap(seconds, SeqCst)
    }

    /// Called by the owner when it has handled all that is due. Returns the time until which it may
    /// sleep: the earliest deadline, of those here and the owner's `own`.
    pub(crate) fn sleep(&self, own: Option<Time>) -> Option<Time> {
        let earliest = || self.earliest().into_iter().chain(own).min();
        loop {
            let at = earliest();
            match at {
                Some(at) => self.wake_at.set(at),
                None => self.wake_at.clear(),
            }
            // Another thread may have armed a timer after it saw the old `wake_at`.
            if earliest() == at {
                return at;
            }
        }
    }

    /// The earliest of the deadlines here.
    pub(crate) fn earliest(&self) -> Option<Time> {
        [
            &self.send_keepalive,
            &self.new_handshake,
            &self.persistent_keepalive,
        ]
        .into_iter()
        .filter_map(Deadline::get)
        .min()
    }

    /// Clears all deadlines, as when the link goes down.
    pub(crate) fn clear(&self) {
        self.send_keepalive.clear();
        self.new_handshake.clear();
        self.persistent_keepalive.clear();
        self.need_another_keepalive.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Time = Time::from_nanos(1_000_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_ping_pong_notifies_the_owner_once() {
        let timers = Timers::default();
        let mut told = 0;
        for i in 0..1000 {
            let now = T + Duration::from_millis(i);
            timers.any_authenticated_packet_sent();
            told += u32::from(timers.any_authenticated_packet_traversal(now).0);
            told += u32::from(timers.data_sent(now, Duration::ZERO).0);
            timers.any_authenticated_packet_received();
            told += u32::from(timers.any_authenticated_packet_traversal(now).0);
            told += u32::from(timers.data_received(now, 1).0);
        }
        // 15 s from the first packet sent, 10 s from the first packet received.
        assert_eq!(told, 2);
    }

    #[test]
    fn new_handshake_counts_from_the_first_unanswered_packet() {
        let timers = Timers::default();
        assert!(timers.data_sent(T, SECOND / 4).0);
        assert!(!timers.data_sent(T + SECOND, SECOND / 3).0);
        assert_eq!(
            timers.new_handshake.get(),
            Some(T + SECOND * 15 + SECOND / 4)
        );
        timers.any_authenticated_packet_received();
        assert_eq!(timers.new_handshake.get(), None);
    }

    #[test]
    fn a_second_packet_while_a_keepalive_waits_asks_for_another() {
        let timers = Timers::default();
        let _ = timers.data_received(T, 1);
        assert!(timers.send_keepalive.take_due(T + SECOND * 10));
        assert!(!timers.take_need_another_keepalive());
        let _ = timers.data_received(T, 1);
        let _ = timers.data_received(T + SECOND, 1);
        assert_eq!(
            timers.send_keepalive.get(),
            Some(T + SECOND * 10),
            "the deadline is not postponed"
        );
        assert!(timers.send_keepalive.take_due(T + SECOND * 10));
        assert!(timers.take_need_another_keepalive());
        assert!(!timers.take_need_another_keepalive());
    }

    #[test]
    fn a_deadline_fires_once_and_not_early() {
        let deadline = Deadline::default();
        assert!(!deadline.take_due(Time::from_nanos(u64::MAX)));
        deadline.set(T);
        assert!(!deadline.take_due(Time::from_nanos(T.as_nanos() - 1)));
        assert!(deadline.take_due(T));
        assert!(!deadline.take_due(T));
    }
}
