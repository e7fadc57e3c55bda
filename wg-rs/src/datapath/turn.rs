//! The result of a reader's turn, and how long a turn is.

use std::time::Duration;

use crate::tunnel::time::Time;

/// The result of a turn: whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There was nothing to read.
    Nothing,
    /// Everything was read, or one packet that is assumed to be the only one.
    Drained,
    /// There is more than one turn may read.
    More,
    /// All reads failed: the device must not be read for a while.
    Failing,
}

/// A packet that arrives this long after the last one is assumed to be the only one.
const LONE_AFTER: Duration = Duration::from_micros(100);

/// Decides whether a packet is probably the only one. A reader usually checks for another packet after
/// each. After a single packet there rarely is one, and the check would be a system call that delays a
/// round trip. If there is another packet after all, the next poll reports it at once.
#[derive(Debug, Default)]
pub struct Lone {
    last: Time,
}

impl Lone {
    /// Called at the beginning of a turn: whether its packet is probably the only one.
    pub fn is_lone(&self, now: Time) -> bool {
        now.saturating_since(self.last) > LONE_AFTER
    }

    /// Called when a packet was read.
    pub fn found(&mut self, now: Time) {
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_lone_some_time_after_the_last() {
        let at = |micros: u64| Time::from_nanos(1_000_000_000 + micros * 1000);
        let mut lone = Lone::default();
        assert!(lone.is_lone(at(0)), "the very first packet");
        lone.found(at(0));
        assert!(!lone.is_lone(at(100)));
        assert!(lone.is_lone(at(101)));
        lone.found(at(101));
        assert!(!lone.is_lone(at(150)));
    }
}
