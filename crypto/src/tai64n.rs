//! The timestamp of an initiation: TAI64N with reduced precision.
//!
//! A peer's initiations must have strictly increasing timestamps, so that a recorded initiation
//! cannot be replayed (paper, section 5.1). The low bits are cleared to reveal little about the
//! sender's clock.

/// TAI64N: 8 bytes of seconds and 4 bytes of nanoseconds, big-endian, so that the byte order is the
/// time order. The default, zero, is before every real timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tai64n([u8; 12]);

/// The label of 1970-01-01 00:00:00 UTC: 2^62, plus the ten seconds by which TAI was ahead.
const UNIX_EPOCH: u64 = (1 << 62) + 10;
/// Nanoseconds are rounded down to a multiple of this: 16.8 ms. Two initiations are at least 20 ms
/// apart, so each still has a later timestamp than the one before.
const GRANULARITY: u32 = 1 << 24;

impl Tai64n {
    /// From the time since the Unix epoch. Leap seconds are ignored, as in all implementations.
    pub fn from_unix(secs: u64, nanos: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&UNIX_EPOCH.wrapping_add(secs).to_be_bytes());
        bytes[8..].copy_from_slice(&(nanos & !(GRANULARITY - 1)).to_be_bytes());
        Self(bytes)
    }

    /// From the 12 bytes in a message. Any bytes are accepted.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The 12 bytes for a message.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_and_layout() {
        let bytes = [0x40, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0];
        assert_eq!(Tai64n::from_unix(0, 0).as_bytes(), &bytes);
        // 2^24 * 59 = 989855744 is the last step below a second.
        let last = Tai64n::from_unix(1, 999_999_999);
        assert_eq!(
            last.as_bytes(),
            &[0x40, 0, 0, 0, 0, 0, 0, 0x0b, 0x3b, 0, 0, 0]
        );
        assert_eq!(Tai64n::from_bytes(*last.as_bytes()), last);
    }

    #[test]
    fn nanoseconds_are_rounded_but_20_ms_remain_distinct() {
        assert_eq!(
            Tai64n::from_unix(7, 0),
            Tai64n::from_unix(7, GRANULARITY - 1)
        );
        for step in 0..49 {
            let at = |i: u32| Tai64n::from_unix(7, i * 20_000_000);
            assert!(at(step) < at(step + 1));
        }
    }

    #[test]
    fn order_follows_time() {
        let rising = [
            (0, 0),
            (0, GRANULARITY),
            (1, 0),
            (255, 0),
            (256, 0),
            (1 << 32, 0),
        ];
        let rising: Vec<_> = rising
            .iter()
            .map(|&(s, n)| Tai64n::from_unix(s, n))
            .collect();
        assert!(rising.is_sorted_by(|a, b| a < b));
        assert!(Tai64n::default() < rising[0]);
    }
}
