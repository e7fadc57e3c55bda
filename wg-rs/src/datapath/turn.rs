//! The result of a reader's turn, and how long a turn is.

use std::time::Duration;

use crate::tunnel::time::Time;

/// The result of a turn: whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There was nothing to read.
    Nothing,
    /// One packet was read, which is assumed to be the only one.
    Lone,
    /// Everything was read.
    Drained,
    /// There is more than one turn may read.
    More,
    /// All reads failed: the device must not be read for a while.
    Failing,
}

/// A packet that arrives this long after the last one is assumed to be the only one.
const LONE_AFTER: Duration = Duration::from_micros(30);
/// An answer that is there this long after a delivery was there when the delivery returned.
const AT_ONCE: Duration = Duration::from_micros(10);

/// Decides whether a packet is probably the only one. A reader usually checks for another packet after
/// each. After a single packet there rarely is one, and the check would be a system call that delays a
/// round trip. If there is another packet after all, the next poll reports it at once.
#[derive(Debug, Default)]
pub struct Lone {
    /// When the last turn that read something ended.
    ended: Time,
    /// Whether that turn left something.
    more: bool,
}

impl Lone {
    /// Called at the beginning of a turn: whether its packet is probably the only one.
    pub fn is_lone(&self, now: Time) -> bool {
        !self.more && now.saturating_since(self.ended) > LONE_AFTER
    }

    /// Called at the end of a turn. A long turn must not make the packets that it left seem alone, so the
    /// time counts from here.
    pub fn ended(&mut self, turn: Turn, now: Time) {
        self.more = turn == Turn::More;
        if turn != Turn::Nothing {
            self.ended = now;
        }
    }
}

/// Decides whether to look for an answer directly after a lone packet was delivered. The kernel answers a
/// ping, or acknowledges TCP, before the delivery returns. A program needs longer, and then the look is a
/// system call for nothing. The last lone packet decides for the next one.
#[derive(Debug, Default)]
pub struct Answers {
    at_once: bool,
    /// When a packet was delivered without a look for an answer.
    delivered: Option<Time>,
}

impl Answers {
    /// Whether to look for an answer to the lone packet that was delivered by now.
    pub fn expected(&mut self, now: Time) -> bool {
        self.delivered = (!self.at_once).then_some(now);
        self.at_once
    }

    /// Called before a turn that is taken because the answer, or another packet, has been seen.
    pub fn seen(&mut self, now: Time) {
        if let Some(delivered) = self.delivered.take() {
            self.at_once = now.saturating_since(delivered) <= AT_ONCE;
        }
    }

    /// Called after a look: whether an answer was there.
    pub fn looked(&mut self, found: bool) {
        self.at_once = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_looked_for_if_the_last_one_came_at_once() {
        let at = |micros: u64| Time::from_nanos(1_000_000_000 + micros * 1000);
        let mut answers = Answers::default();
        assert!(!answers.expected(at(0)), "nothing is known yet");
        answers.seen(at(50));
        assert!(!answers.expected(at(100)), "a program answered");
        answers.seen(at(103));
        assert!(answers.expected(at(200)), "the kernel answered");
        answers.looked(true);
        assert!(answers.expected(at(300)));
        answers.looked(false);
        assert!(!answers.expected(at(400)));
        // A packet that was not preceded by a delivery says nothing.
        answers.seen(at(500));
        answers.seen(at(501));
        assert!(!answers.expected(at(600)));
    }

    #[test]
    fn a_packet_is_lone_some_time_after_the_last() {
        let at = |micros: u64| Time::from_nanos(1_000_000_000 + micros * 1000);
        let mut lone = Lone::default();
        assert!(lone.is_lone(at(0)), "the very first packet");
        lone.ended(Turn::Lone, at(0));
        assert!(!lone.is_lone(at(30)));
        assert!(lone.is_lone(at(31)));
        lone.ended(Turn::Nothing, at(32));
        assert!(
            lone.is_lone(at(33)),
            "a turn without a packet changes nothing"
        );
        lone.ended(Turn::Drained, at(40));
        assert!(!lone.is_lone(at(50)));
    }

    #[test]
    fn a_packet_that_the_last_turn_left_is_not_lone() {
        let at = |micros: u64| Time::from_nanos(1_000_000_000 + micros * 1000);
        let mut lone = Lone::default();
        lone.ended(Turn::More, at(0));
        assert!(
            !lone.is_lone(at(1000)),
            "the thread did not run for a while"
        );
        lone.ended(Turn::Drained, at(1000));
        assert!(lone.is_lone(at(2000)));
    }
}
