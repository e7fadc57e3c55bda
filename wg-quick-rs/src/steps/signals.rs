//! SIGINT, SIGQUIT, SIGTERM and SIGHUP do not end us: they are asked for between two steps, and while
//! something is waited for they wake us. So does the end of a program, and whatever else has a
//! [`Waker`].

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// What a signal does to the work that is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It ends the work, and what was done is undone.
    Doing,
    /// It does nothing: there is no way back, and the rest is done first.
    Committed,
    /// It does nothing: the work is being undone.
    Undoing,
}

/// The signals caught, from when this is made.
#[derive(Debug)]
pub struct Signals {
    /// The one that came and was not noticed yet; 0 for none.
    new: Arc<AtomicUsize>,
    /// The one that came first; 0 for none.
    first: AtomicUsize,
    /// How many were noticed.
    count: AtomicUsize,
    wakes: UnixStream,
    waker: UnixStream,
    in_background: bool,
    /// What they do now.
    pub phase: Phase,
}

/// Ends a [`Signals::wait`] from another thread.
#[derive(Debug)]
pub struct Waker(UnixStream);

impl Signals {
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Self> {
        let (wakes, waker) = UnixStream::pair()?;
        wakes.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let new = Arc::new(AtomicUsize::new(0));
        let in_background = is_ignored(SIGINT);
        for signal in [SIGINT, SIGQUIT, SIGTERM, SIGHUP] {
            // What nohup(1) had us ignore, we ignore.
            if signal == SIGHUP && is_ignored(signal) {
                continue;
            }
            flag::register_usize(signal, new.clone(), signal as usize)?;
            pipe::register(signal, waker.try_clone()?)?;
        }
        pipe::register(SIGCHLD, waker.try_clone()?)?;
        Ok(Signals {
            new,
            first: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            wakes,
            waker,
            in_background,
            phase: Phase::Doing,
        })
    }

    /// Whether a shell started us in the background: then it had us ignore SIGINT.
    pub fn in_background(&self) -> bool {
        self.in_background
    }

    /// The signal to end by, if one came.
    pub fn caught(&self) -> Option<i32> {
        self.count();
        match self.first.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// How many came so far. Those that come at once may count as one.
    pub fn count(&self) -> usize {
        let new = self.new.swap(0, Ordering::Relaxed);
        if new != 0 {
            self.count.fetch_add(1, Ordering::Relaxed);
            let (order, none) = (Ordering::Relaxed, 0);
            let _ = self.first.compare_exchange(none, new, order, order);
        }
        self.count.load(Ordering::Relaxed)
    }

    /// Waits for a signal, the end of a program, a [`Waker`], or for so long. It may also return
    /// for nothing.
    pub fn wait(&self, at_most: Option<Duration>) {
        let timeout = at_most.map_or(PollTimeout::NONE, |time| {
            PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(self.wakes.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, timeout);
        while (&self.wakes).read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
    }

    /// For another thread to end a wait with.
    pub fn waker(&self) -> io::Result<Waker> {
        self.waker.try_clone().map(Waker)
    }
}

impl Waker {
    /// Ends the wait.
    pub fn wake(&self) {
        // If it is full, it wakes.
        let _ = (&self.0).write(&[0]);
    }
}

/// SIGTERM is `SIGTERM`.
pub fn name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("a signal")
}

fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (signal - 1) != 0)
}
