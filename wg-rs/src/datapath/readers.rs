//! The two threads that read, and which of them reads the TUN.
//!
//! ```text
//! socket thread   the sockets; and the TUN while there is little traffic
//! TUN thread      the TUN while there is much traffic; otherwise it sleeps
//! ```
//!
//! Waking another thread costs more than moving a packet. So while there is little traffic on the
//! TUN, one thread does everything: it sends the answer to a packet that it has just delivered,
//! without a wake-up in between. While it receives much, it has usually only a few acknowledgements
//! to send, which it then sends together. As soon as the TUN has more packets than one turn reads,
//! it gets a thread of its own, until it has been quiet for a while.
//!
//! Invariants: the thread that reads the TUN holds its lock for that turn; only the thread that
//! `tun_is_apart` selects waits for it. The set of sockets belongs to the socket thread. It is
//! replaced by a message, and the sender of the message waits until the former sockets are closed.
//! Without sockets the TUN is not read: a packet that arrives before we know that the link is up
//! waits in the TUN and is not lost.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::inbound::SocketReader;
use super::network::ReadsSockets;
use super::now;
use super::outbound::TunReader;
use super::sockets::Sockets;
use super::turn::{Answers, Turn};
use crate::sys::netlink::Changes;
use crate::sys::poll::Interest::{Broken, Readable};
use crate::sys::poll::{self, PollSet, Ready, Waker};
use crate::sys::tun::Tun;
use crate::tunnel::plane::Plane;

/// The places in the set of descriptors of the socket thread.
const WAKER: usize = 0;
const CHANGES: usize = 1;
const TUN: usize = 2;
/// The first of two sockets, one for each family.
const SOCKETS: usize = 3;
const PLACES: usize = 5;
/// The TUN is quiet after this time without a packet.
const QUIET: Duration = Duration::from_millis(5);
/// A TUN that fails on every read is not read for this time.
const REST: Duration = Duration::from_millis(50);

/// The threads that move data. Dropping this stops them.
pub struct Readers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

type OnGone = Box<dyn FnOnce(io::Error) + Send>;

struct Shared {
    tun: Arc<Tun>,
    tun_reader: Mutex<TunReader>,
    tun_is_apart: AtomicBool,
    /// Changes of routes. The poll that reports the first packet after a change also reports the
    /// change.
    changes: Changes,
    senders: Arc<Sockets>,
    plane: Arc<Plane>,
    wake_tun_thread: Waker,
    wake_socket_thread: Waker,
    /// New sockets for the socket thread; `taken` reports that it uses them.
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
    /// Starts to read the TUN, without sockets. `senders` are told about changes of routes. `gone`
    /// is called when the link was deleted.
    ///
    /// # Errors
    /// A thread or a netlink socket cannot be created.
    pub fn start(
        tun: Arc<Tun>,
        tun_reader: TunReader,
        senders: Arc<Sockets>,
        gone: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            plane: tun_reader.plane().clone(),
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
        let mut set = PollSet::<PLACES>::new()?;
        set.want(WAKER, self.wake_socket_thread.as_fd(), Some(Readable))?;
        set.want(CHANGES, self.changes.as_fd(), Some(Readable))?;
        let mut answers = Answers::default();
        // The TUN is not read before this time.
        let mut resting: Option<Instant> = None;
        loop {
            let tun_is_here = !self.tun_is_apart.load(Ordering::Acquire);
            let rest = resting.map(|until| until.saturating_duration_since(Instant::now()));
            let tun = match (tun_is_here && rest.is_none(), sockets.is_empty()) {
                (false, _) => None,
                (true, true) => Some(Broken),
                (true, false) => Some(Readable),
            };
            set.want(TUN, self.tun.as_fd(), tun)?;
            let ready = set.wait(rest)?;
            resting = resting.filter(|until| Instant::now() < *until);
            if ready[CHANGES].any() && self.changes.take() {
                self.senders.sources.changed();
                self.plane.network_changed();
            }
            if ready[WAKER].any() {
                self.wake_socket_thread.drain();
                if self.stop.load(Ordering::Acquire) {
                    return Ok(());
                }
                let mut waiting = lock(&self.sockets);
                if let Some(new) = waiting.take() {
                    for (n, former) in sockets.iter().enumerate() {
                        set.want(SOCKETS + n, former.as_fd(), None)?;
                    }
                    sockets = new;
                    for (n, socket) in sockets.iter().enumerate() {
                        set.want(SOCKETS + n, socket.as_fd(), Some(Readable))?;
                    }
                    self.taken.notify_all();
                }
                continue;
            }
            let mut delivered = Turn::Nothing;
            for (socket, ready) in sockets.iter_mut().zip(&ready[SOCKETS..]) {
                if ready.any() {
                    delivered = match (delivered, socket.turn()) {
                        (delivered, Turn::Nothing) => delivered,
                        (Turn::Nothing, turn) => turn,
                        _ => Turn::Drained,
                    };
                }
            }
            if !tun_is_here || resting.is_some() {
                continue;
            }
            // There may already be answers to the delivered packets.
            let looks = match delivered {
                _ if ready[TUN].any() => {
                    answers.seen(now());
                    true
                }
                Turn::Nothing => false,
                Turn::Lone => answers.expected(now()),
                _ => true,
            };
            if looks {
                let turn = lock(&self.tun_reader).turn()?;
                if delivered == Turn::Lone {
                    answers.looked(turn != Turn::Nothing);
                }
                match turn {
                    Turn::Nothing | Turn::Lone | Turn::Drained => {}
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
                    Turn::Nothing | Turn::Lone | Turn::Drained => {
                        poll::wait([self.tun.as_fd(), waker], Some(QUIET))?
                    }
                    Turn::Failing => {
                        let [woken] = poll::wait([waker], Some(REST))?;
                        // The same as when the TUN is quiet: the other thread continues with it.
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
        // With the lock, so that the signal is not lost between the check of `stop` and the wait.
        let _waiting = lock(&self.sockets);
        self.taken.notify_all();
    }

    /// Called when the TUN was deleted and can no longer be read.
    fn end(&self, error: io::Error) {
        self.stop_all();
        if let Some(gone) = lock(&self.gone).take() {
            gone(error);
        }
    }
}
