//! An alarm: a descriptor that becomes readable at a given time, even if the machine sleeps until
//! then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timerfd on CLOCK_BOOTTIME. The timeout of poll(2) or of a futex does not advance while the
/// machine is suspended; this alarm is due as soon as the machine resumes.
#[derive(Debug)]
pub struct Alarm(TimerFd);

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Alarm(TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?))
    }

    /// Makes the descriptor readable from `at` on, in nanoseconds of CLOCK_BOOTTIME; with `None`,
    /// never.
    ///
    /// # Errors
    /// Never with a valid descriptor.
    pub fn set(&self, at: Option<u64>) -> io::Result<()> {
        match at {
            None => self.0.unset()?,
            Some(nanos) => {
                // Zero would disarm the timer.
                let at = TimeSpec::from_duration(Duration::from_nanos(nanos.max(1)));
                let absolute = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
                self.0.set(Expiration::OneShot(at), absolute)?;
            }
        }
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;
    use crate::sys::process::clock::boottime;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn an_alarm_is_due_from_its_time_until_it_is_set_again() {
        let alarm = Alarm::new().unwrap();
        let due = || poll::wait([alarm.as_fd()], NOW).unwrap()[0].readable;
        assert!(!due());
        let at = boottime() + 20_000_000;
        alarm.set(Some(at)).unwrap();
        poll::wait([alarm.as_fd()], None).unwrap();
        assert!(boottime() >= at);
        assert!(due(), "remains due");
        alarm.set(Some(boottime() + 60_000_000_000)).unwrap();
        assert!(!due());
        alarm.set(Some(0)).unwrap();
        assert!(due(), "a time in the past is due at once");
        alarm.set(None).unwrap();
        assert!(!due());
    }
}
