//! Waits until descriptors become readable, or until another thread wakes the waiting thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

/// Wakes a thread that is in [`wait`]. It is an eventfd: signals accumulate until they are drained.
#[derive(Debug)]
pub struct Waker(EventFd);

impl Waker {
    /// A waker without signals.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Waker(EventFd::from_value_and_flags(0, flags)?))
    }

    /// Makes the descriptor readable until [`Waker::drain`]. Never blocks.
    pub fn signal(&self) {
        // This fails only if the counter is at its limit; then the descriptor is readable anyway.
        let _ = self.0.write(1);
    }

    /// Takes all signals so far. Returns whether there was at least one.
    pub fn drain(&self) -> bool {
        self.0.read().is_ok()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The state of one descriptor, as poll(2) reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Something can be read (POLLIN).
    pub readable: bool,
    /// POLLERR: a socket has a pending error, or the device of a TUN is gone.
    pub error: bool,
    /// POLLHUP or POLLNVAL: the other end, or the descriptor itself, is closed.
    pub closed: bool,
}

impl Ready {
    /// Whether any of them is set.
    pub fn any(self) -> bool {
        self != Ready::default()
    }

    fn from_flags(flags: PollFlags) -> Self {
        Ready {
            readable: flags.contains(PollFlags::POLLIN),
            error: flags.contains(PollFlags::POLLERR),
            closed: flags.intersects(PollFlags::POLLHUP | PollFlags::POLLNVAL),
        }
    }
}

/// The condition to wait for. Errors and hang-ups always end the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// The descriptor is readable.
    Readable,
    /// The descriptor has an error or a hang-up. For a TUN this excludes packets.
    Broken,
}

/// Up to `N` descriptors that are waited for again and again, each at a fixed place. Unlike [`wait`], this
/// does not name all of them to the kernel each time, which saves up to a third of the CPU time of a wait.
#[derive(Debug)]
pub struct PollSet<const N: usize> {
    epoll: Epoll,
    wanted: [Option<Interest>; N],
}

impl<const N: usize> PollSet<N> {
    /// A set without descriptors.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        Ok(PollSet {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            wanted: [None; N],
        })
    }

    /// Sets the interest in `fd`, which is the descriptor at this place until the interest is `None`.
    /// It must not be closed before. No system call is made if nothing changes.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC; EEXIST and ENOENT if another descriptor is at this place.
    pub fn want(
        &mut self,
        place: usize,
        fd: BorrowedFd<'_>,
        interest: Option<Interest>,
    ) -> io::Result<()> {
        let former = self.wanted[place];
        if former == interest {
            return Ok(());
        }
        match interest {
            None => self.epoll.delete(fd)?,
            Some(interest) => {
                let flags = match interest {
                    Interest::Readable => EpollFlags::EPOLLIN,
                    // A TUN that lost its link wakes only those who wait for input, and urgent data
                    // counts as input. A TUN never has urgent data.
                    Interest::Broken => EpollFlags::EPOLLPRI,
                };
                let mut event = EpollEvent::new(flags, place as u64);
                match former {
                    None => self.epoll.add(fd, event)?,
                    Some(_) => self.epoll.modify(fd, &mut event)?,
                }
            }
        }
        self.wanted[place] = interest;
        Ok(())
    }

    /// Waits until a descriptor is readable or broken, for at most `timeout` (`None`: without limit), which
    /// is rounded up to milliseconds. No descriptor is ready after a timeout or after an interrupting signal.
    ///
    /// # Errors
    /// None in practice.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<[Ready; N]> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(timeout) => {
                let millis = timeout.as_nanos().div_ceil(1_000_000);
                EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
            }
        };
        let mut events = [EpollEvent::empty(); N];
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            count => count?,
        };
        let mut ready = [Ready::default(); N];
        for event in &events[..count] {
            let flags = event.events();
            ready[event.data() as usize] = Ready {
                readable: flags.contains(EpollFlags::EPOLLIN),
                error: flags.contains(EpollFlags::EPOLLERR),
                closed: flags.contains(EpollFlags::EPOLLHUP),
            };
        }
        Ok(ready)
    }
}

/// Waits until one of `fds` is readable or broken, for at most `timeout` (`None`: without limit).
/// No descriptor is ready after a timeout or after an interrupting signal.
///
/// # Errors
/// ENOMEM.
pub fn wait<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[Ready; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match ppoll(&mut polled, timeout.map(TimeSpec::from_duration), None) {
        Ok(0) | Err(Errno::EINTR) => Ok([Ready::default(); N]),
        Ok(_) => Ok(polled.map(|fd| fd.revents().map_or_else(Ready::default, Ready::from_flags))),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until `fd` accepts more bytes, for at most `timeout`. False after a timeout.
///
/// # Errors
/// ENOMEM.
pub fn wait_writable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut polled = [PollFd::new(fd, PollFlags::POLLOUT)];
    match ppoll(&mut polled, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn signals_are_kept_until_drained() {
        let waker = Waker::new().unwrap();
        assert_eq!(wait([waker.as_fd()], NOW).unwrap(), [Ready::default()]);
        assert!(!waker.drain());
        waker.signal();
        waker.signal();
        assert!(wait([waker.as_fd()], NOW).unwrap()[0].readable);
        assert!(waker.drain());
        assert!(!waker.drain());
        assert!(!wait([waker.as_fd()], NOW).unwrap()[0].any());
    }

    #[test]
    fn another_thread_ends_the_wait() {
        let waker = Waker::new().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait([waker.as_fd()], None));
            waker.signal();
            assert!(waiting.join().unwrap().unwrap()[0].readable);
        });
    }

    #[test]
    fn a_closed_peer_differs_from_silence() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let waker = Waker::new().unwrap();
        drop(theirs);
        let [socket, idle] = wait([ours.as_fd(), waker.as_fd()], None).unwrap();
        assert!(socket.closed && socket.readable);
        assert!(!idle.any());
    }

    #[test]
    fn a_set_reports_what_is_wanted_at_its_place() {
        let [first, second] = [0, 1].map(|_| Waker::new().unwrap());
        let mut set = PollSet::<3>::new().unwrap();
        let ready = |set: &PollSet<3>| set.wait(NOW).unwrap().map(Ready::any);
        second.signal();
        assert_eq!(ready(&set), [false; 3]);
        set.want(0, first.as_fd(), Some(Interest::Readable))
            .unwrap();
        set.want(2, second.as_fd(), Some(Interest::Readable))
            .unwrap();
        assert_eq!(ready(&set), [false, false, true]);
        first.signal();
        assert_eq!(ready(&set), [true, false, true]);
        set.want(2, second.as_fd(), Some(Interest::Broken)).unwrap();
        assert_eq!(ready(&set), [true, false, false]);
        set.want(2, second.as_fd(), None).unwrap();
        set.want(0, first.as_fd(), None).unwrap();
        assert_eq!(ready(&set), [false; 3]);
        // The place is free for another descriptor.
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        set.want(0, ours.as_fd(), Some(Interest::Broken)).unwrap();
        assert!(set.wait(NOW).unwrap()[0].closed);
    }

    #[test]
    fn the_timeout_is_respected() {
        let waker = Waker::new().unwrap();
        let start = std::time::Instant::now();
        assert!(!wait([waker.as_fd()], Some(Duration::from_millis(20))).unwrap()[0].any());
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
