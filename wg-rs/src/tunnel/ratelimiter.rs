//! Limits how often a source can cause the public-key operations of a handshake: a token bucket for
//! each IPv4 address or IPv6 /64. It is used only for a source that has proved its address with a
//! cookie (paper, section 5.3).
//!
//! A bucket is removed one second after the last message of its source. By then it is full, so
//! removing it gives the source no advantage. The table is bounded, and a source that does not fit
//! is refused.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use super::time::Time;

/// The cost of a handshake message: at 20 per second, this much time in the bucket.
const COST: Duration = Duration::from_millis(1000 / 20);
/// The capacity of a bucket: five messages at once.
const FULL: Duration = COST.saturating_mul(5);
/// After this time a silent source is removed, and this is also how often sources are checked.
const FORGET: Duration = Duration::from_secs(1);
/// Most sources in the table.
pub const MAX_SOURCES: usize = 65536;

/// The buckets of all sources of the last one or two seconds.
pub struct RateLimiter {
    buckets: HashMap<SourcePrefix, Bucket, Seeded>,
    swept: Time,
}

/// A sender: an IPv4 address, or an IPv6 network.
#[derive(PartialEq, Eq, Hash)]
pub(crate) enum SourcePrefix {
    V4(u32),
    /// The /64: a host may have any address in it.
    V6(u64),
}

impl From<IpAddr> for SourcePrefix {
    fn from(source: IpAddr) -> Self {
        match source {
            IpAddr::V4(addr) => SourcePrefix::V4(addr.to_bits()),
            IpAddr::V6(addr) => SourcePrefix::V6((addr.to_bits() >> 64) as u64),
        }
    }
}

struct Bucket {
    tokens: Duration,
    heard: Time,
}

/// SipHash with a secret prefix, so that nobody can choose addresses that collide.
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
    /// An empty table. `seed` is random and secret, to prevent chosen collisions.
    pub fn new(seed: [u8; 16]) -> Self {
        RateLimiter {
            buckets: HashMap::with_hasher(Seeded(seed)),
            swept: Time::ZERO,
        }
    }

    /// Whether a message from `source` may be processed now; if so, it is counted.
    pub fn allow(&mut self, source: IpAddr, now: Time) -> bool {
        if now.saturating_since(self.swept) >= FORGET {
            self.buckets
                .retain(|_, bucket| now.saturating_since(bucket.heard) <= FORGET);
            self.swept = now;
        }
        let source = SourcePrefix::from(source);
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
            "a bucket never exceeds its capacity"
        );
    }

    #[test]
    fn sources_are_ipv4_addresses_and_ipv6_64_networks() {
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
        // Equal 32 bits, or 64 leading zeros, do not make addresses of different families equal.
        assert_eq!(allowed(&mut l, "::1.1.1.1", at(0), 9), 5);
        assert_eq!(allowed(&mut l, "0.0.0.0", at(0), 9), 5);
    }

    #[test]
    fn a_full_table_refuses_new_sources_until_others_are_removed() {
        let mut l = limiter();
        for i in 0..MAX_SOURCES as u32 {
            assert!(l.allow(Ipv4Addr::from_bits(i).into(), at(0)));
        }
        assert_eq!(allowed(&mut l, "200.0.0.1", at(0), 1), 0);
        assert_eq!(allowed(&mut l, "200.0.0.1", at(999), 1), 0);
        assert_eq!(
            allowed(&mut l, "0.0.0.9", at(999), 9),
            5,
            "a known source is still allowed"
        );
        assert_eq!(l.buckets.len(), MAX_SOURCES);
        assert_eq!(allowed(&mut l, "200.0.0.1", at(1_001), 1), 1);
        assert_eq!(l.buckets.len(), 2, "0.0.0.9 and the new source");
        assert_eq!(allowed(&mut l, "200.0.0.1", at(3_000), 1), 1);
        assert_eq!(l.buckets.len(), 1);
    }

    proptest! {
        /// Removing buckets must not circumvent the limit: in any period a source gets five
        /// messages plus one for each 50 ms.
        #[test]
        fn no_pattern_exceeds_the_rate(steps in prop::collection::vec(0u64..1500, 1..200)) {
            let mut l = limiter();
            let source = Ipv6Addr::LOCALHOST.into();
            let (mut now, mut passed) = (0, vec![]);
            for step in steps {
                // Most steps are short.
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
