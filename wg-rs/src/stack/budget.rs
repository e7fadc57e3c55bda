//! Memory for the windows of connections: a share for each, of what is left.

/// What the windows of all connections may take, in bytes, as long as each gets more than the least.
const BUDGET: usize = 128 << 20;
/// The most that a connection gets, for both directions together.
const MOST: usize = 2 << 20;
/// And the least, which it gets even if nothing is left.
const LEAST: usize = 32 << 10;
/// A new connection gets this part of what is left.
const PART: usize = 8;
/// Connections at a time: all together take at most `BUDGET` and `LEAST` for each of these.
pub(super) const MOST_FLOWS: usize = 2048;

/// What is in use.
#[derive(Debug, Default)]
pub(super) struct Budget {
    used: usize,
    flows: usize,
}

impl Budget {
    /// Memory for one connection more; `None` if there are too many.
    pub fn take(&mut self) -> Option<usize> {
        if self.flows >= MOST_FLOWS {
            return None;
        }
        let share = (BUDGET.saturating_sub(self.used) / PART).clamp(LEAST, MOST);
        // A buffer for each direction, of whole pages.
        let share = share & !0x1fff;
        self.used += share;
        self.flows += 1;
        Some(share)
    }

    /// A connection is over that had this share.
    pub fn give_back(&mut self, share: usize) {
        self.used -= share;
        self.flows -= 1;
    }

    /// Whether it is time not to wait for connections that have ended.
    pub fn is_crowded(&self) -> bool {
        self.flows > MOST_FLOWS / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_get_the_most_and_all_together_stay_in_bounds() {
        let mut budget = Budget::default();
        let shares: Vec<_> = std::iter::from_fn(|| budget.take()).collect();
        assert_eq!(shares.len(), MOST_FLOWS);
        assert_eq!((shares[0], shares[MOST_FLOWS - 1]), (MOST, LEAST));
        assert!(shares.is_sorted_by(|a, b| a >= b));
        let thousand: usize = shares[..1000].iter().sum();
        assert!(thousand <= BUDGET + (32 << 20), "{thousand}");
        for share in shares {
            assert_eq!(share % 8192, 0);
            budget.give_back(share);
        }
        assert_eq!((budget.used, budget.flows), (0, 0));
        assert_eq!(budget.take(), Some(MOST));
    }
}
