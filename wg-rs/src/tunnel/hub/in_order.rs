//! Things in the order in which they expire. Most of them end before that: they are left in the queue, and
//! removed when it has become twice as long as it was without them.

use std::collections::VecDeque;

use super::super::time::Time;

/// A queue that is shorter than this is not worth clearing.
const SHORT: usize = 64;

/// A queue of things that expire after the same time.
pub(super) struct InOrder<T> {
    queue: VecDeque<(Time, T)>,
    /// The length at which those that have ended are removed.
    cleared_at: usize,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        InOrder {
            queue: VecDeque::new(),
            cleared_at: SHORT,
        }
    }
}

impl<T> InOrder<T> {
    /// Adds what expires last. `is_there`: whether a thing has not ended before.
    pub(super) fn push(&mut self, until: Time, thing: T, is_there: impl Fn(Time, &T) -> bool) {
        if self.queue.len() >= self.cleared_at {
            self.queue.retain(|(until, thing)| is_there(*until, thing));
            self.cleared_at = SHORT.max(self.queue.len() * 2);
            self.queue.shrink_to(self.cleared_at);
        }
        self.queue.push_back((until, thing));
    }

    /// The next thing that has expired. It may have ended before.
    pub(super) fn next(&mut self, now: Time) -> Option<T> {
        self.queue.front().filter(|(until, _)| *until <= now)?;
        self.queue.pop_front().map(|(_, thing)| thing)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn things_expire_in_order_and_those_that_ended_take_little_memory() {
        let start = Time::from_nanos(1_000_000_000_000);
        let at = |n: u32| start + Duration::from_millis(1) * n;
        let mut queue = InOrder::default();
        // Only every hundredth does not end at once.
        let is_there = |n: &u32| n.is_multiple_of(100);
        for n in 0..100_000 {
            queue.push(at(n), n, |until, n| {
                assert_eq!(until, at(*n));
                is_there(n)
            });
            let there = n as usize / 100 + 1;
            assert!(queue.len() <= 2 * there + SHORT);
        }
        let mut expired = Vec::new();
        while let Some(n) = queue.next(at(50_000)) {
            expired.push(n);
        }
        let there: Vec<u32> = expired.iter().copied().filter(is_there).collect();
        assert_eq!(there, (0..=50_000).step_by(100).collect::<Vec<_>>());
        assert!(expired.is_sorted());
        assert_eq!(queue.next(at(50_000)), None);
    }
}
