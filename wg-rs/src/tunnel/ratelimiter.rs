//! How often one source may make us do the public-key work of a handshake: a token bucket per IPv4
//! address or IPv6 /64, asked once a source has proved by a cookie that it is where it says
//! (whitepaper section 5.3).
//!
//! A bucket is forgotten a second after its source was last heard. By then it is full again, so
//! forgetting it grants nothing. The table is bounded, and a source that no longer fits is refused.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use super::time::Time;

/// What one handshake message costs: at 20 a second, this much of the bucket's time.
const COST: Duration = Duration::from_millis(1000 / 20);
/// A full bucket: five messages at once.
const FULL: Duration = COST.saturating_mul(5);
/// When a silent source is forgotten, and how often that is looked after.
const FORGET: Duration = Duration::from_secs(1);
/// Sources remembered at a time.
pub const MAX_SOURCES: usize = 65536;

/// The buckets of all sources heard in the last second or two.
pub struct RateLimiter {
    buckets: HashMap<Source, Bucket, Seeded>,
    swept: Time,
}

#[derive(PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    /// The /64: below it, a host may have whatever address it likes.
    V6(u64),
}

struct Bucket {
    tokens: Duration,
    heard: Time,
}

/// SipHash behind a secret prefix: nobody can choose addresses that collide.
struct Seeded([u8; 16]);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.0);
        hasher
    }
}

impl RateLimiter {
    /// An empty table. `seed` is random and secret, against chosen collisions.
    pub fn new(seed: [u8; 16]) -> Self {
        RateLimiter {
            buckets: HashMap::with_hasher(Seeded(seed)),
            swept: Time::ZERO,
        }
    }

    /// Whether a message from `source` may be worked on now; if so, it is counted.
    pub fn allow(&mut self, source: IpAddr, now: Time) -> bool {
        if now.saturating_since(self.swept) >= FORGET {
            self.buckets
                .retain(|_, bucket| now.saturating_since(bucket.heard) <= FORGET);
            self.swept = now;
        }
        let source = match source {
            IpAddr::V4(addr) => Source::V4(addr.to_bits()),
            IpAddr::V6(addr) => Source::V6((addr.to_bits() >> 64) as u64),
        };
        let Some(bucket) = self.buckets.get_mut(&source) else {
            if self.buckets.len() >= MAX_SOURCES {
                return false;
            }
            self.buckets.insert(
                source,
                Bucket {
                    tokens: FULL - COST,
                    heard: now,
                },
            );
            return true;
        };
        bucket.tokens = FULL.min(bucket.tokens + now.saturating_since(bucket.heard));
        bucket.heard = now;
        let Some(left) = bucket.tokens.checked_sub(COST) else {
            return false;
        };
        bucket.tokens = left;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const START: Time = Time::from_nanos(1_000_000_000_000);

    fn at(millis: u64) -> Time {
        START + Duration::from_millis(millis)
    }

    fn limiter() -> RateLimiter {
        RateLimiter::new([7; 16])
    }

    fn allowed(limiter: &mut RateLimiter, source: &str, now: Time, tries: usize) -> usize {
        let source = source.parse().unwrap();
        (0..tries).filter(|_| limiter.allow(source, now)).count()
    }

    #[test]
    fn five_at_once_then_one_each_fifty_milliseconds() {
        let mut l = limiter();
        let source = "1.1.1.1";
        assert_eq!(allowed(&mut l, source, at(0), 6), 5);
        assert_eq!(allowed(&mut l, source, at(49), 2), 0);
        assert_eq!(allowed(&mut l, source, at(50), 2), 1);
        assert_eq!(allowed(&mut l, source, at(150), 3), 2);
        assert_eq!(allowed(&mut l, source, at(150 + 250), 9), 5);
        assert_eq!(
            allowed(&mut l, source, at(60_000), 9),
            5,
            "never more than full"
        );
    }

    #[test]
    fn sources_are_ipv4_addresses_and_ipv6_networks_of_64() {
        let mut l = limiter();
        for source in [
            "1.1.1.1",
            "1.1.1.2",
            "1.2.1.1",
            "2001:db8::1",
            "2001:db8:0:1::1",
        ] {
            assert_eq!(allowed(&mut l, source, at(0), 9), 5, "{source}");
        }
        assert_eq!(allowed(&mut l, "2001:db8::2", at(0), 1), 0);
        assert_eq!(allowed(&mut l, "2001:db8::ffff:1.1.1.1", at(0), 1), 0);
        // The same 32 bits or 64 zeros in front make no address of the other family.
        assert_eq!(allowed(&mut l, "::1.1.1.1", at(0), 9), 5);
        assert_eq!(allowed(&mut l, "0.0.0.0", at(0), 9), 5);
    }

    #[test]
    fn a_full_table_refuses_strangers_until_it_forgets() {
        let mut l = limiter();
        for i in 0..MAX_SOURCES as u32 {
            assert!(l.allow(Ipv4Addr::from_bits(i).into(), at(0)));
        }
        assert_eq!(allowed(&mut l, "200.0.0.1", at(0), 1), 0);
        assert_eq!(allowed(&mut l, "200.0.0.1", at(999), 1), 0);
        assert_eq!(
            allowed(&mut l, "0.0.0.9", at(999), 9),
            5,
            "who is known is served"
        );
        assert_eq!(l.buckets.len(), MAX_SOURCES);
        assert_eq!(allowed(&mut l, "200.0.0.1", at(1_001), 1), 1);
        assert_eq!(l.buckets.len(), 2, "0.0.0.9 and the stranger");
        assert_eq!(allowed(&mut l, "200.0.0.1", at(3_000), 1), 1);
        assert_eq!(l.buckets.len(), 1);
    }

    proptest! {
        /// Forgetting must not be a way around the limit: over any stretch of time a source gets
        /// five and one for each 50 ms.
        #[test]
        fn no_pattern_beats_the_rate(steps in prop::collection::vec(0u64..1500, 1..200)) {
            let mut l = limiter();
            let source = Ipv6Addr::LOCALHOST.into();
            let (mut now, mut passed) = (0, vec![]);
            for step in steps {
                // Mostly short steps.
                now += step * step / 1500;
                if l.allow(source, at(now)) {
                    passed.push(now);
                }
            }
            for (i, from) in passed.iter().enumerate() {
                for (j, to) in passed.iter().enumerate().skip(i) {
                    prop_assert!((j - i) as u64 <= 4 + (to - from) / 50);
                }
            }
        }
    }
}
