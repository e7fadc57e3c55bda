//! The machine's sleep: that it was suspended and has resumed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::process::clock;

/// What two clocks that are read one after the other may differ by.
const BLUR: u64 = 100_000_000;
/// Never, for a clock that counts seconds in 63 bits of nanoseconds.
const FAR_AWAY: Duration = Duration::from_secs(9_000_000_000);

/// Becomes readable when the machine resumes, and also when its clock is set, as the kernel makes no
/// difference: [`Resumes::take`] does.
#[derive(Debug)]
pub struct Resumes {
    timer: TimerFd,
    /// How long the machine had slept, in nanoseconds, when that was last looked at.
    asleep: u64,
}

impl Resumes {
    /// Watches from now on.
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

    /// Whether the machine has slept since the last call. Ends the readiness.
    pub fn take(&mut self) -> bool {
        // It stays armed for the next time.
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
    fn each_sleep_is_told_once() {
        let mut resumes = Resumes::new().unwrap();
        let before = resumes.asleep;
        assert!(!resumes.has_slept(before + BLUR / 2), "the clock was set");
        assert!(resumes.has_slept(before + 5_000_000_000));
        assert!(!resumes.has_slept(before + 5_000_000_000));
        assert!(resumes.has_slept(before + 7_000_000_000));
    }
}
