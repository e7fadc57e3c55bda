//! Detects that the machine was suspended and has resumed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::process::clock;

/// Largest difference, in nanoseconds, between two clocks that are read one after the other.
const BLUR: u64 = 100_000_000;
/// A time that is never reached, for a clock with 63 bits of nanoseconds.
const FAR_AWAY: Duration = Duration::from_secs(9_000_000_000);

/// Becomes readable when the machine resumes, and also when the wall clock is set: the kernel does
/// not distinguish the two, but [`Resumes::take`] does.
#[derive(Debug)]
pub struct Resumes {
    timer: TimerFd,
    /// How long the machine had been asleep at the last check, in nanoseconds.
    asleep: u64,
}

impl Resumes {
    /// Starts watching.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        timer.set(
            Expiration::OneShot(TimeSpec::from_duration(FAR_AWAY)),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
        )?;
        Ok(Resumes {
            timer,
            asleep: clock::asleep(),
        })
    }

    /// Whether the machine has slept since the last call. Makes the descriptor unreadable again.
    pub fn take(&mut self) -> bool {
        // The timer stays armed.
        let _ = self.timer.wait();
        self.has_slept(clock::asleep())
    }

    fn has_slept(&mut self, asleep: u64) -> bool {
        let more = asleep.saturating_sub(self.asleep) > BLUR;
        if more {
            self.asleep = asleep;
        }
        more
    }
}

impl AsFd for Resumes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;

    #[test]
    fn a_machine_that_stays_awake_does_not_resume() {
        let mut resumes = Resumes::new().unwrap();
        let ready = poll::wait([resumes.as_fd()], Some(Duration::ZERO)).unwrap();
        assert!(!ready[0].any());
        assert!(!resumes.take());
    }

    #[test]
    fn each_sleep_is_reported_once() {
        let mut resumes = Resumes::new().unwrap();
        let before = resumes.asleep;
        assert!(
            !resumes.has_slept(before + BLUR / 2),
            "only the clock was set"
        );
        assert!(resumes.has_slept(before + 5_000_000_000));
        assert!(!resumes.has_slept(before + 5_000_000_000));
        assert!(resumes.has_slept(before + 7_000_000_000));
    }
}
