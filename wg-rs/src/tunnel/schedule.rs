//! When the owner must look at each peer next.
//!
//! Invariant: a peer is in the schedule at most once, at its [`ScheduledAt`]. A peer without a
//! pending timer is not in it, so idle peers cost nothing.

use std::collections::BTreeSet;

use super::time::Time;

/// The peers, ordered by the time at which the owner must look at them.
#[derive(Default)]
pub(super) struct Schedule(BTreeSet<(Time, u64)>);

/// The time at which a peer is in the schedule. None if it is not.
#[derive(Default)]
pub(super) struct ScheduledAt(Option<Time>);

impl Schedule {
    /// The time of the first peer.
    pub(super) fn first(&self) -> Option<Time> {
        self.0.first().map(|(at, _)| *at)
    }

    /// A peer that is due. It stays due until it is moved.
    pub(super) fn due(&self, now: Time) -> Option<u64> {
        let (_, id) = self.0.first().filter(|(at, _)| *at <= now)?;
        Some(*id)
    }

    /// Moves a peer to `at`, or removes it.
    pub(super) fn put(&mut self, id: u64, scheduled: &mut ScheduledAt, at: Option<Time>) {
        if scheduled.0 == at {
            return;
        }
        if let Some(former) = scheduled.0 {
            self.0.remove(&(former, id));
        }
        if let Some(at) = at {
            self.0.insert((at, id));
        }
        scheduled.0 = at;
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_scheduled_once() {
        let at = |nanos| Some(Time::from_nanos(nanos));
        let mut schedule = Schedule::default();
        let (mut one, mut two) = (ScheduledAt::default(), ScheduledAt::default());
        schedule.put(1, &mut one, at(20));
        schedule.put(2, &mut two, at(10));
        schedule.put(1, &mut one, at(5));
        assert_eq!(schedule.first(), at(5));
        assert_eq!(schedule.due(Time::from_nanos(4)), None);
        assert_eq!(schedule.due(Time::from_nanos(5)), Some(1));
        schedule.put(1, &mut one, at(30));
        assert_eq!(schedule.due(Time::from_nanos(20)), Some(2));
        schedule.put(2, &mut two, None);
        assert_eq!(schedule.due(Time::from_nanos(29)), None);
        schedule.put(1, &mut one, None);
        assert!(schedule.is_empty());
    }
}
