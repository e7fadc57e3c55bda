//! Which thread reads what.
//!
//! ```text
//! socket thread   the sockets; and the TUN, while there is little to do
//! TUN thread      the TUN, while there is much; asleep otherwise
//! ```
//!
//! A wakeup of another thread costs more than moving a packet. So while the TUN is quiet one
//! thread does everything: an answer to what it just delivered is sent by the same thread, without a
//! wakeup between; and while it receives a lot, what it is to send are mostly a few acknowledgements,
//! which then leave together. As soon as the TUN leaves work behind, it gets its own thread, until
//! it has been quiet for a while.
//!
//! Invariants: whoever reads the TUN holds its lock for that turn; only the thread that `tun_is_apart`
//! names waits for it. The set of sockets is the socket thread's own; it is exchanged by message, and
//! whoever exchanges it waits until the former sockets are closed. Without sockets the TUN is left
//! alone: a packet that is there before we have heard that the link is up waits in it, and is not lost.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::inbound::SocketReader;
use super::network::ReadsSockets;
use super::outbound::TunReader;
use super::sockets::Sockets;
use super::turn::Turn;
use crate::sys::netlink::Changes;
use crate::sys::poll::Wanted::{Broken, Readable};
use crate::sys::poll::{self, Ready, Waker};
use crate::sys::tun::Tun;

/// So long without a packet, and the TUN is quiet.
const QUIET: Duration = Duration::from_millis(5);
/// A TUN on which every read fails is left alone for so long.
const REST: Duration = Duration::from_millis(50);

/// The threads that move data. Dropping this ends them.
pub struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

type OnGone = Box<dyn FnOnce(io::Error) + Send>;

struct Shared {
    tun: Arc<Tun>,
    tun_reader: Mutex<TunReader>,
    tun_is_apart: AtomicBool,
    /// Of routes. Seen by the poll that also sees the first packet after a change.
    changes: Changes,
    senders: Arc<Sockets>,
    wake_tun_thread: Waker,
    wake_socket_thread: Waker,
    /// What the socket thread is to read instead; `taken` says that it does.
    sockets: Mutex<Option<Vec<SocketReader>>>,
    taken: Condvar,
    stop: AtomicBool,
    gone: Mutex<Option<OnGone>>,
}

/// A panic in another thread aborts the release build; a test that panicked has failed already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    /// Reads the TUN from now on, and no socket yet; `senders` are told of changes of routes. `gone` is
    /// called when the link was deleted.
    ///
    /// # Errors
    /// Of making threads and a netlink socket.
    pub fn start(
        tun: Arc<Tun>,
        tun_reader: TunReader,
        senders: Arc<Sockets>,
        gone: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            tun,
            tun_reader: Mutex::new(tun_reader),
            tun_is_apart: AtomicBool::new(false),
            changes: Changes::open()?,
            senders,
            wake_tun_thread: Waker::new()?,
            wake_socket_thread: Waker::new()?,
            sockets: Mutex::new(None),
            taken: Condvar::new(),
            stop: AtomicBool::new(false),
            gone: Mutex::new(Some(Box::new(gone))),
        });
        let mut readers = Readers {
            shared,
            threads: Vec::new(),
        };
        readers.spawn("wg-socket", Shared::read_sockets)?;
        readers.spawn("wg-tun", Shared::read_tun)?;
        Ok(readers)
    }

    fn spawn(&mut self, name: &str, run: fn(&Shared) -> io::Result<()>) -> io::Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.into());
        self.threads.push(thread.spawn(move || {
            if let Err(error) = run(&shared) {
                shared.end(error);
            }
        })?);
        Ok(())
    }
}

impl ReadsSockets for Readers {
    fn set_sockets(&self, sockets: Vec<SocketReader>) {
        let mut waiting = lock(&self.shared.sockets);
        *waiting = Some(sockets);
        self.shared.wake_socket_thread.signal();
        let still_waiting = |waiting: &mut Option<_>| {
            waiting.is_some() && !self.shared.stop.load(Ordering::Acquire)
        };
        let taken = self.shared.taken.wait_while(waiting, still_waiting);
        drop(taken.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.stop_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn read_sockets(&self) -> io::Result<()> {
        let mut sockets: Vec<SocketReader> = Vec::new();
        // Until when the TUN is left alone.
        let mut resting: Option<Instant> = None;
        loop {
            let waker = Readable(self.wake_socket_thread.as_fd());
            let tun_is_here = !self.tun_is_apart.load(Ordering::Acquire);
            let rest = resting.map(|until| until.saturating_duration_since(Instant::now()));
            let tun = match (tun_is_here && rest.is_none(), sockets.is_empty()) {
                (false, _) => waker,
                (true, true) => Broken(self.tun.as_fd()),
                (true, false) => Readable(self.tun.as_fd()),
            };
            // What is absent is waited for in the shape of the waker.
            let socket = |i: usize| sockets.get(i).map_or(waker, |s| Readable(s.as_fd()));
            let changes = Readable(self.changes.as_fd());
            let wanted = [waker, tun, socket(0), socket(1), changes];
            let [woken, tun, first, second, changed] = poll::wait(wanted, rest)?;
            resting = resting.filter(|until| Instant::now() < *until);
            if changed.any() && self.changes.take() {
                self.senders.sources.changed();
            }
            if woken.any() {
                self.wake_socket_thread.drain();
                if self.stop.load(Ordering::Acquire) {
                    return Ok(());
                }
                let mut waiting = lock(&self.sockets);
                if let Some(new) = waiting.take() {
                    sockets = new;
                    self.taken.notify_all();
                }
                continue;
            }
            let mut received = false;
            for (socket, ready) in sockets.iter_mut().zip([first, second]) {
                if ready.any() {
                    received |= socket.turn() != Turn::Nothing;
                }
            }
            if !tun_is_here || resting.is_some() {
                continue;
            }
            // What was delivered may have been answered by now.
            if tun.any() || received {
                match lock(&self.tun_reader).turn()? {
                    Turn::Nothing | Turn::Drained => {}
                    Turn::More => {
                        self.tun_is_apart.store(true, Ordering::Release);
                        self.wake_tun_thread.signal();
                    }
                    Turn::Failing => resting = Some(Instant::now() + REST),
                }
            }
        }
    }

    fn read_tun(&self) -> io::Result<()> {
        let waker = self.wake_tun_thread.as_fd();
        loop {
            poll::wait([waker], None)?;
            self.wake_tun_thread.drain();
            while self.tun_is_apart.load(Ordering::Acquire) {
                let [tun, woken] = match lock(&self.tun_reader).turn()? {
                    Turn::More => continue,
                    Turn::Nothing | Turn::Drained => {
                        poll::wait([self.tun.as_fd(), waker], Some(QUIET))?
                    }
                    Turn::Failing => {
                        let [woken] = poll::wait([waker], Some(REST))?;
                        // As if it were quiet: the other thread goes on with it.
                        [Ready::default(), woken]
                    }
                };
                if woken.any() || !tun.any() {
                    self.tun_is_apart.store(false, Ordering::Release);
                    self.wake_socket_thread.signal();
                }
            }
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
        }
    }

    fn stop_all(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake_socket_thread.signal();
        self.wake_tun_thread.signal();
        // Under the lock, so that it cannot fall between a look at `stop` and the wait.
        let _waiting = lock(&self.sockets);
        self.taken.notify_all();
    }

    /// The TUN is gone: nothing more will be read.
    fn end(&self, error: io::Error) {
        self.stop_all();
        if let Some(gone) = lock(&self.gone).take() {
            gone(error);
        }
    }
}
