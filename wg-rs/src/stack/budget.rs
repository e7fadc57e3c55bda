//! Memory for the windows of connections: each new connection gets a share of the memory that is left, apart from
//! what is reserved for the smallest share of every further connection.

/// Bytes for the windows of all connections together.
const BUDGET: usize = 128 << 20;
/// The largest share of a connection in bytes, for both directions together.
const MOST: usize = 2 << 20;
/// The smallest share in bytes.
const LEAST: usize = 32 << 10;
/// A new connection gets its smallest share, and the memory that is left divided by this.
const PART: usize = 8;
/// Maximum number of connections at a time.
pub(super) const MOST_FLOWS: usize = 2048;

/// The memory and the connections in use.
#[derive(Debug, Default)]
pub(super) struct Budget {
    used: usize,
    flows: usize,
}

impl Budget {
    /// Takes the share of a new connection, in bytes. `None` if there are too many connections.
    pub fn take(&mut self) -> Option<usize> {
        if self.flows >= MOST_FLOWS {
            return None;
        }
        let reserved = LEAST * (MOST_FLOWS - self.flows);
        let left = BUDGET - self.used - reserved;
        let share = (LEAST + left / PART).min(MOST);
        // A buffer for each direction, of whole pages.
        let share = share & !0x1fff;
        self.used += share;
        self.flows += 1;
        Some(share)
    }

    /// Returns the share of a connection that has ended.
    pub fn give_back(&mut self, share: usize) {
        self.used -= share;
        self.flows -= 1;
    }

    /// Whether ended connections should be removed without waiting, as more than half of the maximum exist.
    pub fn is_crowded(&self) -> bool {
        self.flows > MOST_FLOWS / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connections_get_the_largest_shares_and_the_sum_is_bounded() {
        let mut budget = Budget::default();
        let shares: Vec<_> = std::iter::from_fn(|| budget.take()).collect();
        assert_eq!(shares.len(), MOST_FLOWS);
        assert_eq!((shares[0], shares[MOST_FLOWS - 1]), (MOST, LEAST));
        assert!(shares.is_sorted_by(|a, b| a >= b));
        assert!(shares.iter().sum::<usize>() <= BUDGET);
        for share in shares {
            assert_eq!(share % 8192, 0);
            budget.give_back(share);
        }
        assert_eq!((budget.used, budget.flows), (0, 0));
        assert_eq!(budget.take(), Some(MOST));
    }
}
