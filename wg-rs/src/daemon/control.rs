//! The control thread: configuration, what happens to the link, and signals.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::SigSet;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::interface::RunningInterface;
use super::link::{LinkWatch, State};
use super::machine::{Happened, Machine};
use super::report::{PERIOD, Report};
use crate::sys::async_fd;
use crate::sys::netlink::Events;
use crate::uapi::socket::SocketFile;

/// A link on its way to another namespace is looked for this often: the namespace may be one whose
/// events are not heard yet.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A link of which nothing is heard, or that may not be seen, is looked at this often.
const LOOK_REGULARLY: Duration = Duration::from_secs(1);
/// A link that was up is set down by the kernel when it is moved. If it is up again within this time,
/// it never was down to the tunnel: sessions and sockets stay.
const MOVE: Duration = Duration::from_secs(3);
/// Events read at a time before others get their turn.
const EVENTS_AT_ONCE: usize = 64;

/// Why the daemon ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// SIGTERM or SIGINT.
    Signal,
    /// The link was deleted.
    LinkGone,
    /// The configuration socket was removed.
    SocketRemoved,
}

/// The signals that end the daemon: from when this is made, they wait to be heard.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// To be made within a tokio runtime, before there is anything to leave behind, and before other
    /// threads, which block what this one does.
    ///
    /// # Errors
    /// Only the kernel's own trouble.
    pub fn new() -> io::Result<Self> {
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        // Whoever started the daemon may have blocked some for its own sake, and they stay so.
        SigSet::empty().thread_set_mask()?;
        Ok(signals)
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Follows the link until the daemon is to end.
pub struct Control<'a> {
    interface: &'a RunningInterface,
    watch: LinkWatch,
    events: Events,
    ready: AsyncFd<OwnedFd>,
    /// Has the name of the link.
    socket: Option<Arc<SocketFile>>,
    up: bool,
    mtu: u32,
    /// Until when the link may be down for having been moved.
    moving: Option<Instant>,
    /// When to look at the link although nothing was heard of it.
    look_again: Option<Instant>,
    report: Option<Report>,
}

impl<'a> Control<'a> {
    /// Takes up the state that the link is in; `socket` is to follow its name. Within a tokio runtime.
    ///
    /// # Errors
    /// Of netlink.
    pub fn new(
        interface: &'a RunningInterface,
        watch: LinkWatch,
        events: Events,
        socket: Option<Arc<SocketFile>>,
    ) -> io::Result<Self> {
        let ready = async_fd::readable(events.as_fd().try_clone_to_owned()?)?;
        let mut control = Control {
            interface,
            watch,
            events,
            ready,
            socket,
            up: false,
            mtu: 0,
            moving: None,
            look_again: None,
            report: Report::new(),
        };
        control.look()?;
        Ok(control)
    }

    /// Runs until a signal, or until `tun_gone` says that the TUN device is no more.
    ///
    /// # Errors
    /// Of waiting.
    pub async fn run(
        mut self,
        mut signals: Signals,
        tun_gone: oneshot::Receiver<io::Error>,
    ) -> io::Result<End> {
        tokio::pin!(tun_gone);
        let mut machine = Machine::watch();
        let mut report_at = self.report.as_ref().map(|_| Instant::now() + PERIOD);
        loop {
            let look_again = self.look_again;
            tokio::select! {
                () = signals.recv() => return Ok(End::Signal),
                _ = &mut tun_gone => return Ok(End::LinkGone),
                ready = self.ready.readable() => {
                    let mut ready = ready?;
                    let heard = hear(&mut self.events, &self.watch)?;
                    if heard.all {
                        ready.clear_ready();
                    }
                    drop(ready);
                    self.note(&heard);
                    if heard.look && self.look()? == State::Gone {
                        return Ok(End::LinkGone);
                    }
                }
                () = at(look_again) => {
                    if self.look()? == State::Gone {
                        return Ok(End::LinkGone);
                    }
                }
                happened = machine.happens() => match happened? {
                    Happened::Copied => self.interface.copied(),
                    Happened::Resumed => self.interface.resumed(),
                },
                () = at(report_at) => {
                    self.tell_drops();
                    report_at = Some(Instant::now() + PERIOD);
                }
            }
        }
    }

    fn tell_drops(&mut self) {
        if let Some(report) = &mut self.report {
            report.tell(self.interface.drops());
        }
    }

    /// Looks at the link and follows what changed.
    fn look(&mut self) -> io::Result<State> {
        self.look_again = None;
        let state = match self.watch.look() {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(%error, "the link is not to be seen");
                let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
                let wait = if forbidden {
                    LOOK_REGULARLY
                } else {
                    LOOK_AGAIN
                };
                self.look_again = Some(Instant::now() + wait);
                return Ok(State::Present {
                    up: self.up,
                    mtu: self.mtu,
                });
            }
        };
        let State::Present { up, mtu } = state else {
            return Ok(state);
        };
        if let Some((former, name)) = self.watch.renamed() {
            self.renamed(&former, &name);
        }
        if mtu != self.mtu {
            self.mtu = mtu;
            self.interface.set_mtu(mtu);
        }
        if self.up && !up {
            // Whatever set it down has been told by now, and that it was a move.
            let heard = hear(&mut self.events, &self.watch)?;
            self.note(&heard);
            self.look_again = heard.look.then(Instant::now);
        } else {
            self.moving = None;
        }
        if let Some(until) = self.moving.filter(|until| Instant::now() < *until) {
            self.look_again.get_or_insert(until);
        } else if up != self.up {
            self.up = up;
            tracing::info!(up, "link");
            if up {
                self.watch.forbid_redirects();
                self.open_sockets();
            } else {
                self.interface.down();
            }
        } else if up && !self.interface.is_up() {
            // Whoever had the port may be gone.
            let _ = self.interface.up();
        }
        if self.watch.is_out_of_hearing() {
            let next = Instant::now() + LOOK_REGULARLY;
            let next = self.look_again.map_or(next, |at| at.min(next));
            self.look_again = Some(next);
        }
        Ok(state)
    }

    fn renamed(&self, former: &str, name: &str) {
        tracing::info!(from = former, to = name, "link renamed");
        let followed = self.socket.as_ref().map(|file| file.follow(name));
        if let Some(Err(error)) = followed {
            tracing::error!(%error, "the configuration socket cannot be renamed to {name}");
        }
    }

    /// The kernel module would refuse to set the link up without sockets. A TUN is up by now, so it is
    /// set down again.
    fn open_sockets(&mut self) {
        let Err(error) = self.interface.up() else {
            return;
        };
        match self.watch.set_down() {
            Ok(()) => tracing::error!(%error, "the link is set down again"),
            // It is in another namespace.
            Err(down) => tracing::error!(
                %error, %down,
                "the link is up without sockets until it is given another port or set up again"
            ),
        }
    }

    fn note(&mut self, heard: &Heard) {
        if heard.moved {
            self.moving = Some(Instant::now() + MOVE);
        }
    }
}

impl Drop for Control<'_> {
    fn drop(&mut self) {
        self.tell_drops();
    }
}

/// What some events say.
#[derive(Default)]
struct Heard {
    /// The link may have changed.
    look: bool,
    /// It was moved.
    moved: bool,
    /// There are no more events.
    all: bool,
}

/// Reads the events that are there, or as many as others can wait for.
fn hear(events: &mut Events, watch: &LinkWatch) -> io::Result<Heard> {
    let mut heard = Heard::default();
    for _ in 0..EVENTS_AT_ONCE {
        match events.recv() {
            Ok(event) => {
                heard.look |= watch.concerns(&event);
                heard.moved |= watch.is_move(&event);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                heard.all = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(heard)
}

/// Waits until then, or for ever.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
