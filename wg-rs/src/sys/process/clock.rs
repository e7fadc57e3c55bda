//! The two clocks of the protocol, and the time that the machine was asleep.

use std::time::{Duration, SystemTime};

/// Nanoseconds since boot, including sleep (CLOCK_BOOTTIME). The age of sessions is measured by
/// this clock.
pub fn boottime() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

/// Nanoseconds that the machine was suspended since boot. The error is the time between reading two
/// clocks.
pub fn asleep() -> u64 {
    let awake = read(libc::CLOCK_MONOTONIC);
    boottime().saturating_sub(awake)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one timespec. It cannot fail: both clocks exist since Linux 2.6.39.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Time since the Unix epoch (UTC, CLOCK_REALTIME); zero before it.
pub fn wall() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_agrees_with_proc() {
        let uptime = || -> f64 {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        // /proc/uptime has a resolution of hundredths of a second.
        let (before, now, after) = (uptime(), boottime() as f64 / 1e9, uptime());
        assert!(
            before - 0.011 <= now && now <= after + 0.011,
            "{before} {now} {after}"
        );
        assert!(boottime() <= boottime());
    }

    #[test]
    fn wall_is_this_century() {
        assert!(wall().as_secs() > 1_700_000_000);
    }
}
