//! The peers that a hub calls when it starts: a hundred a second, so that the answers of thousands do
//! not come at once.

use std::collections::VecDeque;
use std::time::Duration;

use super::time::Time;

/// The time between two calls.
const CALL_INTERVAL: Duration = Duration::from_millis(10);
/// A hub that was busy for less than this makes up for the calls that it has missed.
const MAKE_UP: Duration = Duration::from_millis(100);

/// The peers to call, in order.
#[derive(Default)]
pub(super) struct Calls {
    waiting: VecDeque<u64>,
    /// When the next one may be made.
    due: Time,
}

impl Calls {
    pub(super) fn add(&mut self, peer: u64) {
        self.waiting.push_back(peer);
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// When `next` returns a peer. None if there is none.
    pub(super) fn due(&self) -> Option<Time> {
        (!self.waiting.is_empty()).then_some(self.due)
    }

    /// The next peer, if a call may be made now.
    pub(super) fn next(&mut self, now: Time) -> Option<u64> {
        match self.due <= now {
            true => self.waiting.pop_front(),
            false => None,
        }
    }

    /// Must be called after a call.
    pub(super) fn made(&mut self, now: Time) {
        if now.saturating_since(self.due) > MAKE_UP {
            self.due = now;
        }
        self.due = self.due + CALL_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_made_a_hundred_a_second_also_if_we_are_late() {
        let start = Time::from_nanos(1_000_000_000_000);
        let mut calls = Calls::default();
        assert_eq!(calls.due(), None);
        (0..1000).for_each(|peer| calls.add(peer));
        let mut made = 0;
        for late in 0..100 {
            // Each 37 milliseconds.
            let now = start + Duration::from_millis(37) * late;
            while let Some(peer) = calls.next(now) {
                assert_eq!(peer, made);
                made += 1;
                calls.made(now);
            }
        }
        assert_eq!(made, 367, "in 3.663 seconds");
        // What was missed in a longer time is not made up for.
        let later = start + Duration::from_secs(100);
        let at_once = (0..1000).take_while(|_| {
            let is_due = calls.next(later).is_some();
            calls.made(later);
            is_due
        });
        assert_eq!(at_once.count(), 1);
    }
}
