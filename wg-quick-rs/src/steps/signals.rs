//! SIGINT, SIGQUIT, SIGTERM and SIGHUP do not end this process at once: it looks for them between two
//! steps, and they end its waits. So do the end of a program and a [`SignalWaker`].

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
    /// A signal ends the work, and what was done is undone.
    Doing,
    /// A signal has no effect until the rest is done: it is too late to undo.
    Committed,
    /// A signal has no effect: the work is being undone.
    Undoing,
}

/// The signals that arrived since this was created.
#[derive(Debug)]
pub struct Signals {
    /// The signal that was not noticed yet; 0 for none.
    new: Arc<AtomicUsize>,
    /// The first signal; 0 for none.
    first: AtomicUsize,
    /// The number of signals noticed.
    count: AtomicUsize,
    wakes: UnixStream,
    waker: UnixStream,
    in_background: bool,
    /// What a signal does now.
    pub phase: Phase,
}

/// Ends a [`Signals::wait`] from another thread.
#[derive(Debug)]
pub struct SignalWaker(UnixStream);

impl Signals {
    /// Begins to catch signals.
    ///
    /// # Errors
    /// No file descriptors are left.
    pub fn new() -> io::Result<Self> {
        let (wakes, waker) = UnixStream::pair()?;
        wakes.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let new = Arc::new(AtomicUsize::new(0));
        let in_background = is_ignored(SIGINT);
        for signal in [SIGINT, SIGQUIT, SIGTERM, SIGHUP] {
            // nohup(1) has SIGHUP ignored, and so it stays.
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

    /// Whether a shell started this process in the background: then SIGINT was ignored at the start.
    pub fn in_background(&self) -> bool {
        self.in_background
    }

    /// The signal that ends the work, if one arrived.
    pub fn caught(&self) -> Option<i32> {
        self.count();
        match self.first.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// The number of signals so far. Several at the same time may count as one.
    pub fn count(&self) -> usize {
        let new = self.new.swap(0, Ordering::Relaxed);
        if new != 0 {
            self.count.fetch_add(1, Ordering::Relaxed);
            let (order, none) = (Ordering::Relaxed, 0);
            let _ = self.first.compare_exchange(none, new, order, order);
        }
        self.count.load(Ordering::Relaxed)
    }

    /// Waits for a signal, the end of a program, a [`SignalWaker`], or until `at_most` has passed. It may also
    /// return early without a reason.
    pub fn wait(&self, at_most: Option<Duration>) {
        let timeout = at_most.map_or(PollTimeout::NONE, |time| {
            PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(self.wakes.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, timeout);
        while (&self.wakes).read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
    }

    /// A waker, with which another thread can end a wait.
    pub fn waker(&self) -> io::Result<SignalWaker> {
        self.waker.try_clone().map(SignalWaker)
    }
}

impl SignalWaker {
    /// Ends the wait.
    pub fn wake(&self) {
        // A full socket wakes the waiting thread already.
        let _ = (&self.0).write(&[0]);
    }
}

/// The name of a signal, such as `SIGTERM`.
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
