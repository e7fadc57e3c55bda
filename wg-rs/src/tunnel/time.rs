//! The tunnel's clock. Functions get the time as an argument and never read it.

use std::ops::Add;
use std::time::Duration;

/// A time in nanoseconds since an arbitrary origin. The daemon uses `CLOCK_BOOTTIME`, so sessions
/// also age while the machine is suspended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub(crate) u64);

impl Time {
    /// The origin.
    pub const ZERO: Time = Time(0);

    /// The time `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Time(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`; zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The first multiple of `grain` from here on.
    pub(crate) fn round_up(self, grain: Duration) -> Time {
        let grain = grain.as_nanos() as u64;
        Time(self.0.checked_next_multiple_of(grain).unwrap_or(u64::MAX))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, rest: Duration) -> Time {
        let nanos = u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}
