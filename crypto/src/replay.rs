//! The sliding window of counters (RFC 6479).
//!
//! The window is a ring of 128 words with 64 counters each. Moving it forward clears whole words
//! and never shifts. The newest word is only partly filled, so 8192 bits make a window of 8128
//! counters.

/// Counters from here on are never used (paper, section 6.1).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - WINDOW - 1;

const BITS: u64 = 8192;
const WORD: u64 = 64;
const WORDS: u64 = BITS / WORD;
/// How far below the greatest received counter another counter may still be accepted.
const WINDOW: u64 = BITS - WORD;

/// The set of counters that a session has received.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    greatest: u64,
    ring: [u64; WORDS as usize],
}

impl ReplayWindow {
    /// A window that has received no counter.
    pub const fn new() -> Self {
        Self {
            greatest: 0,
            ring: [0; WORDS as usize],
        }
    }

    /// Records the counter of an authenticated packet. Returns false and changes nothing if the
    /// counter was recorded before, is older than the window, or is at or above
    /// [`REJECT_AFTER_MESSAGES`].
    #[must_use]
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter >= REJECT_AFTER_MESSAGES || self.greatest.saturating_sub(counter) > WINDOW {
            return false;
        }
        if counter > self.greatest {
            let (old, new) = (self.greatest / WORD, counter / WORD);
            for word in old + 1..=new.min(old + WORDS) {
                self.ring[(word % WORDS) as usize] = 0;
            }
            self.greatest = counter;
        }
        let word = &mut self.ring[(counter / WORD % WORDS) as usize];
        let bit = 1 << (counter % WORD);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha20Rng;
    use std::collections::HashSet;

    /// One more than the window: the smallest distance that is too far.
    const LIMIT: u64 = WINDOW + 1;

    /// The cases of the kernel's self-test, in our own words: around 0, around the window's width,
    /// a jump of several windows, and around the last counter.
    #[test]
    fn kernel_selftest_cases() {
        let last = REJECT_AFTER_MESSAGES - 1;
        let kernel_selftest_cases = [
            (0, true),
            (1, true),
            (1, false),
            (9, true),
            (8, true),
            (7, true),
            (7, false),
            (LIMIT, true),
            (LIMIT - 1, true),
            (LIMIT - 1, false),
            (LIMIT - 2, true),
            (2, true),
            (2, false),
            (LIMIT + 16, true),
            (3, false),
            (LIMIT + 16, false),
            (LIMIT * 4, true),
            (LIMIT * 4 - (LIMIT - 1), true),
            (10, false),
            (LIMIT * 4 - LIMIT, false),
            (LIMIT * 4 - (LIMIT + 1), false),
            (LIMIT * 4 - (LIMIT - 2), true),
            (LIMIT * 4 + 1 - LIMIT, false),
            (0, false),
            (REJECT_AFTER_MESSAGES, false),
            (last, true),
            (REJECT_AFTER_MESSAGES, false),
            (last, false),
            (last - 1, true),
            (REJECT_AFTER_MESSAGES + 1, false),
            (REJECT_AFTER_MESSAGES + 2, false),
            (u64::MAX, false),
            (last - 2, true),
            (last - 2, false),
            (last - WINDOW, true),
            (last - LIMIT, false),
            (0, false),
        ];
        let mut window = ReplayWindow::new();
        for (i, (counter, expected)) in kernel_selftest_cases.into_iter().enumerate() {
            assert_eq!(window.accept(counter), expected, "step {i}: {counter}");
        }
    }

    #[test]
    fn sweeps_of_a_whole_window() {
        let sweep = |counters: &mut dyn Iterator<Item = u64>, after: &[(u64, bool)]| {
            let mut window = ReplayWindow::new();
            for counter in counters {
                assert!(window.accept(counter), "{counter}");
            }
            for &(counter, expected) in after {
                assert_eq!(window.accept(counter), expected, "{counter} afterwards");
            }
        };
        sweep(&mut (1..=WINDOW), &[(0, true), (0, false)]);
        sweep(&mut (2..=WINDOW + 1), &[(1, true), (0, false)]);
        sweep(
            &mut (0..=WINDOW).rev(),
            &[(WINDOW, false), (0, false), (WINDOW + 1, true)],
        );
        sweep(&mut (2..=WINDOW + 1).rev(), &[(1, true), (0, false)]);
        sweep(&mut (1..=WINDOW).rev(), &[(WINDOW + 1, true), (0, false)]);
        sweep(&mut (1..=WINDOW).rev(), &[(0, true), (WINDOW + 1, true)]);
    }

    #[test]
    fn an_empty_window_takes_any_first_counter() {
        for first in [
            0,
            1,
            63,
            64,
            8127,
            8128,
            8192,
            1 << 40,
            REJECT_AFTER_MESSAGES - 1,
        ] {
            let mut window = ReplayWindow::new();
            assert!(window.accept(first));
            assert!(!window.accept(first));
            assert_eq!(
                window.accept(0),
                (1..=WINDOW).contains(&first),
                "0 after {first}"
            );
        }
    }

    #[test]
    fn agrees_with_a_hash_set() {
        let mut rng = ChaCha20Rng::seed_from_u64(6479);
        for _ in 0..40 {
            let mut window = ReplayWindow::new();
            let mut seen = HashSet::new();
            let mut greatest: u64 = 0;
            // Half of the random walks end at the last counter.
            if rng.random() {
                greatest = REJECT_AFTER_MESSAGES - rng.random_range(1..30_000);
                assert!(window.accept(greatest));
                seen.insert(greatest);
            }
            for _ in 0..20_000 {
                let counter = match rng.random_range(0..10) {
                    0..4 => greatest.saturating_sub(rng.random_range(0..70)),
                    4..7 => greatest.saturating_sub(rng.random_range(0..WINDOW + 100)),
                    7..9 => greatest.saturating_add(rng.random_range(0..130)),
                    _ => greatest.saturating_add(rng.random_range(0..10_000)),
                };
                let expected = counter < REJECT_AFTER_MESSAGES
                    && greatest.saturating_sub(counter) <= WINDOW
                    && seen.insert(counter);
                assert_eq!(window.accept(counter), expected, "{counter} of {greatest}");
                if expected {
                    greatest = greatest.max(counter);
                }
            }
        }
    }
}
