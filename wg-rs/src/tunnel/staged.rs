//! A peer's packets that wait for a session.
//!
//! The queue is `busy` while it contains packets, or while the owner sends packets from it. Later
//! packets then join its end and do not overtake. A sender that never pauses could keep the owner
//! behind it without end. So after `ROUNDS` bursts the sender sleeps for a moment to let the owner
//! finish. If the owner does not finish, the sender waits again only after `ROUNDS` more bursts.

use std::collections::VecDeque;
use std::time::Duration;

use super::messages::{MAX_QUEUED_PACKETS, MAX_STAGED_PACKETS};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

const ROUNDS: u32 = 16;

/// A packet from the TUN, without padding.
pub(crate) struct StagedPacket {
    pub(crate) tos: u8,
    pub(crate) bytes: Box<[u8]>,
}

#[derive(Default)]
pub(crate) struct StagedQueue {
    busy: AtomicBool,
    inner: Mutex<Inner>,
    freed: Condvar,
}

#[derive(Default)]
struct Inner {
    packets: VecDeque<StagedPacket>,
    /// Number of bursts that were taken since the owner began to send; 0 if the owner is not
    /// sending.
    rounds: u32,
    /// The value of `rounds` when a sender last waited for the owner.
    waited_at: u32,
    is_waiting: bool,
}

impl StagedQueue {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a new packet must join the queue to keep its place.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// If the owner has been sending for a long time, waits for it. Returns whether the queue is
    /// free.
    pub(crate) fn wait_for_owner(&self, moment: Duration) -> bool {
        let mut inner = self.inner();
        if inner.rounds > inner.waited_at + ROUNDS {
            inner.waited_at = inner.rounds;
            inner.is_waiting = true;
            let waited = self
                .freed
                .wait_timeout_while(inner, moment, |_| self.is_busy());
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            inner.is_waiting = false;
        }
        drop(inner);
        !self.is_busy()
    }

    /// Called when the owner has finished, or the queue is empty.
    fn free(&self, inner: &mut Inner, busy: bool) {
        inner.rounds = 0;
        inner.waited_at = 0;
        self.busy.store(busy, Ordering::Release);
        if inner.is_waiting && !busy {
            self.freed.notify_all();
        }
    }

    /// Whether there are no packets, and nobody sends packets from the queue.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let inner = self.inner();
        inner.packets.is_empty() && inner.rounds == 0
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.inner().packets.len()
    }

    /// Appends packets. Returns how many of the oldest packets were dropped.
    pub(crate) fn push(&self, packets: impl Iterator<Item = StagedPacket>) -> u64 {
        let mut inner = self.inner();
        inner.packets.extend(packets);
        let limit = if inner.rounds > 0 {
            MAX_QUEUED_PACKETS
        } else {
            MAX_STAGED_PACKETS
        };
        let excess = inner.packets.len().saturating_sub(limit);
        inner.packets.drain(..excess);
        self.busy.store(true, Ordering::Release);
        excess as u64
    }

    /// Takes packets from the front while `fits` returns true. If no packets are left, the queue is
    /// free.
    pub(crate) fn take(&self, mut fits: impl FnMut(&StagedPacket) -> bool) -> Vec<StagedPacket> {
        let mut inner = self.inner();
        let n = inner.packets.iter().position(|packet| !fits(packet));
        let n = n.unwrap_or(inner.packets.len());
        let taken: Vec<_> = inner.packets.drain(..n).collect();
        if inner.packets.is_empty() {
            inner.packets.shrink_to_fit();
        }
        if taken.is_empty() {
            let busy = !inner.packets.is_empty();
            self.free(&mut inner, busy);
        } else {
            inner.rounds += 1;
            self.busy.store(true, Ordering::Release);
        }
        taken
    }

    /// Puts packets back that were taken, because there is no session after all.
    pub(crate) fn put_back(&self, packets: Vec<StagedPacket>) {
        let mut inner = self.inner();
        for packet in packets.into_iter().rev() {
            inner.packets.push_front(packet);
        }
        let busy = !inner.packets.is_empty();
        self.free(&mut inner, busy);
    }

    /// Drops all packets. Returns how many there were.
    pub(crate) fn purge(&self) -> u64 {
        let mut inner = self.inner();
        self.free(&mut inner, false);
        std::mem::take(&mut inner.packets).len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: u8) -> StagedPacket {
        StagedPacket {
            tos: 0,
            bytes: Box::new([n]),
        }
    }

    #[test]
    fn the_oldest_packets_are_dropped() {
        let queue = StagedQueue::default();
        assert_eq!(queue.push((0..100).map(packet)), 0);
        assert_eq!(queue.push((100..140).map(packet)), 12);
        assert_eq!(queue.len(), MAX_STAGED_PACKETS);
        let taken = queue.take(|_| true);
        assert!(taken.iter().map(|packet| packet.bytes[0]).eq(12..140));
    }

    #[test]
    fn later_packets_wait_until_the_taken_ones_are_sent() {
        let queue = StagedQueue::default();
        queue.push((0..3).map(packet));
        assert_eq!(queue.take(|packet| packet.bytes[0] < 2).len(), 2);
        assert_eq!(queue.take(|_| true).len(), 1);
        assert!(queue.is_busy(), "the last burst may not have been sent yet");
        assert!(queue.take(|_| true).is_empty());
        assert!(!queue.is_busy());
    }

    #[test]
    fn a_sender_that_never_pauses_sometimes_waits_for_the_owner() {
        const IN_VAIN: Duration = Duration::from_millis(20);
        let queue = StagedQueue::default();
        let round = || {
            queue.push([packet(0)].into_iter());
            assert_eq!(queue.take(|_| true).len(), 1);
        };
        let waits = || {
            let start = std::time::Instant::now();
            assert!(!queue.wait_for_owner(IN_VAIN), "the queue is still busy");
            start.elapsed() >= IN_VAIN
        };
        // At first, and directly after a wait without success, the sender does not wait.
        for _ in 0..2 {
            for _ in 0..ROUNDS {
                round();
                assert!(!queue.wait_for_owner(Duration::MAX), "returns at once");
            }
            round();
            assert!(waits());
            assert!(!queue.wait_for_owner(Duration::MAX), "returns at once");
        }
        // Waiting ends as soon as the owner is done.
        (0..=ROUNDS).for_each(|_| round());
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| queue.wait_for_owner(Duration::from_secs(60)));
            while !queue.inner().is_waiting {
                std::thread::yield_now();
            }
            assert!(queue.take(|_| true).is_empty());
            assert!(sender.join().unwrap());
        });
    }

    #[test]
    fn put_back_keeps_the_order() {
        let queue = StagedQueue::default();
        queue.push((0..4).map(packet));
        let taken = queue.take(|packet| packet.bytes[0] < 2);
        queue.put_back(taken);
        assert!(
            queue
                .take(|_| true)
                .iter()
                .map(|packet| packet.bytes[0])
                .eq(0..4)
        );
    }
}
