//! How long a thread waits for a core, and the share of a core that it gets.
//!
//! Where all cores are busy, a thread that wakes up waits until a running thread has used up its slice of
//! time, which is 3 ms by default. A packet passes four threads on its way there and back, two of ours at
//! each end. A thread that asks for a short slice is scheduled earlier after it wakes up (EEVDF, since Linux
//! 6.12). It gets no larger share of the core.
//!
//! In one run on two cores that also ran a bulk stream and other programs, the median of a round trip fell from
//! 4.8 to 1.9 ms. What the slice costs a stream on an idle machine was not measured.

use std::io;
use std::time::Duration;

/// The slice of our threads. The kernel allows 0.1 to 100 ms.
const SLICE: Duration = Duration::from_micros(400);

/// By how much a priority is lowered (nice). Beside one other thread on its core, this one gets a quarter.
const LOWER: i32 = 5;

/// Asks for a short slice for this thread and those that it starts. Older kernels ignore it, and a realtime
/// policy that somebody has set is kept.
///
/// # Errors
/// EPERM: a filter forbids it. Everything works without it.
pub fn shorten() -> io::Result<()> {
    set(|attributes| attributes.sched_runtime = SLICE.as_nanos() as u64)
}

/// Lowers the priority of this thread alone: it gets a smaller share where all cores are busy. A realtime policy
/// that somebody has set is kept.
///
/// # Errors
/// EPERM: a filter forbids it. Everything works without it.
pub fn lower_priority() -> io::Result<()> {
    set(|attributes| attributes.sched_nice = (attributes.sched_nice + LOWER).min(19))
}

/// Changes the parameters of this thread, unless it has a realtime policy.
fn set(change: impl FnOnce(&mut libc::sched_attr)) -> io::Result<()> {
    let mut attributes = get()?;
    let policy = i32::try_from(attributes.sched_policy).unwrap_or(-1);
    if policy != libc::SCHED_OTHER && policy != libc::SCHED_BATCH {
        return Ok(());
    }
    change(&mut attributes);
    // SAFETY: the call reads the struct, whose size is in it. 0 is this thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The policy and its parameters for this thread.
fn get() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut now = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the call writes at most `size` bytes. 0 is this thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, size, 0) };
    match done {
        0 => Ok(now),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_thread_inherits_the_short_slice_and_nothing_else_changes() {
        let attributes = || {
            let now = get().unwrap();
            (now.sched_policy, now.sched_nice)
        };
        let before = attributes();
        shorten().unwrap();
        let inherited = std::thread::spawn(|| get().unwrap().sched_runtime);
        let (here, there) = (get().unwrap().sched_runtime, inherited.join().unwrap());
        assert_eq!(here, there);
        // Linux before 6.12 has no slices of threads.
        assert!([0, SLICE.as_nanos() as u64].contains(&here), "{here}");
        assert_eq!(attributes(), before);
    }

    #[test]
    fn only_the_calling_thread_gets_a_lower_priority() {
        let before = get().unwrap();
        let there = std::thread::spawn(|| {
            lower_priority().unwrap();
            get().unwrap()
        });
        let there = there.join().unwrap();
        assert_eq!(there.sched_nice, (before.sched_nice + LOWER).min(19));
        assert_eq!(there.sched_runtime, before.sched_runtime);
        assert_eq!(get().unwrap().sched_nice, before.sched_nice);
    }
}
