//! Packets of one peer that wait for a session.
//!
//! Order: while the queue is `busy` (it holds packets, or the owner is sending what it held) later
//! packets join its end instead of overtaking. A sender that never pauses could stay behind the
//! owner for ever, so from `ROUNDS` bursts on it should wait a moment for the owner to finish
//! (`is_long`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::messages::{MAX_QUEUED_PACKETS, MAX_STAGED_PACKETS};

const ROUNDS: u32 = 16;

/// A packet as it came from the TUN, not yet padded.
pub(crate) struct StagedPacket {
    pub(crate) tos: u8,
    pub(crate) bytes: Box<[u8]>,
}

#[derive(Default)]
pub(crate) struct StagedQueue {
    busy: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    packets: VecDeque<StagedPacket>,
    /// Bursts taken since the owner began to send; 0: it is not sending.
    rounds: u32,
}

impl StagedQueue {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Must a new packet go through the queue to keep its place?
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Has the owner been sending for long?
    pub(crate) fn is_long(&self) -> bool {
        self.inner().rounds > ROUNDS
    }

    /// Neither packets nor a sender of them.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let inner = self.inner();
        inner.packets.is_empty() && inner.rounds == 0
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.inner().packets.len()
    }

    /// Appends. Returns how many of the oldest gave way.
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

    /// Takes packets from the front for as long as `fits` says so. None left: the queue is free.
    pub(crate) fn take(&self, mut fits: impl FnMut(&StagedPacket) -> bool) -> Vec<StagedPacket> {
        let mut inner = self.inner();
        let n = inner.packets.iter().position(|packet| !fits(packet));
        let n = n.unwrap_or(inner.packets.len());
        let taken: Vec<_> = inner.packets.drain(..n).collect();
        inner.rounds = if taken.is_empty() {
            0
        } else {
            inner.rounds + 1
        };
        if inner.packets.is_empty() {
            inner.packets.shrink_to_fit();
        }
        let busy = !taken.is_empty() || !inner.packets.is_empty();
        self.busy.store(busy, Ordering::Release);
        taken
    }

    /// Undoes a `take` that found no session after all.
    pub(crate) fn put_back(&self, packets: Vec<StagedPacket>) {
        let mut inner = self.inner();
        inner.rounds = 0;
        for packet in packets.into_iter().rev() {
            inner.packets.push_front(packet);
        }
        self.busy
            .store(!inner.packets.is_empty(), Ordering::Release);
    }

    /// Drops all. Returns how many there were.
    pub(crate) fn purge(&self) -> u64 {
        let mut inner = self.inner();
        inner.rounds = 0;
        self.busy.store(false, Ordering::Release);
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
    fn the_oldest_give_way() {
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
    fn a_sender_that_never_pauses_is_made_to() {
        let queue = StagedQueue::default();
        queue.push([packet(0)].into_iter());
        let mut rounds = 0;
        while !queue.is_long() {
            queue.take(|_| true);
            queue.push([packet(0)].into_iter());
            rounds += 1;
            assert!(rounds < 100);
        }
        while !queue.take(|_| true).is_empty() {}
        assert!(!queue.is_busy() && !queue.is_long());
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
