//! A rate limit, as a token bucket: one action per interval, and a few at once.

use std::time::Duration;

use super::time::Time;

/// When the last action would have happened, if all had kept to the interval.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace(Time);

impl Pace {
    /// Whether an action is allowed now; if so, it is counted. It costs `cost`, and after a pause
    /// actions that cost `ahead` in total are allowed at once.
    pub(crate) fn take(&mut self, now: Time, cost: Duration, ahead: Duration) -> bool {
        let due = self.0.max(now) + cost;
        if due.saturating_since(now) > ahead {
            return false;
        }
        self.0 = due;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_few_at_once_then_one_per_interval() {
        let mut pace = Pace::default();
        let start = Time::from_nanos(1_000_000_000_000);
        let mut taken = |after: Duration| {
            let take = |_: &i32| pace.take(start + after, SECOND, 5 * SECOND);
            (0..9).take_while(take).count()
        };
        assert_eq!(taken(Duration::ZERO), 5);
        assert_eq!(taken(SECOND / 2), 0);
        assert_eq!(taken(SECOND), 1);
        assert_eq!(taken(3 * SECOND), 2);
        assert_eq!(taken(60 * SECOND), 5, "rest earns no more than that");
    }

    #[test]
    fn an_action_above_the_budget_is_never_allowed() {
        let mut pace = Pace::default();
        assert!(!pace.take(Time::from_nanos(1), 6 * SECOND, 5 * SECOND));
        assert!(pace.take(Time::from_nanos(1), 5 * SECOND, 5 * SECOND));
    }
}
