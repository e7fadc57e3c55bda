//! The control thread: configuration, changes of the link, and signals.

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
use super::link::{LinkState, LinkWatch};
use super::machine::{Happened, Machine};
use super::report::Report;
use super::seen::Seen;
use super::undelivered::IcmpErrors;
use crate::model::Wall;
use crate::sys::async_fd;
use crate::sys::netlink::Events;
use crate::uapi::socket::SocketFile;

/// How often to look for a link that is moving to another namespace. Events of that namespace may
/// not arrive yet.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How often to look at a link whose events do not arrive, or that is not visible.
const LOOK_REGULARLY: Duration = Duration::from_secs(1);
/// Moving a link sets it down. If it is up again within this time, the tunnel does not treat it as
/// down: sessions and sockets are kept.
const MOVE: Duration = Duration::from_secs(3);
/// Most events that are read before other tasks run.
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

/// The signals that end the daemon. They are queued from the creation of this value on.
pub struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// Must be created within a tokio runtime, before there is anything to clean up, and before
    /// other threads, which block the same signals.
    ///
    /// # Errors
    /// The kernel is out of resources.
    pub fn new() -> io::Result<Self> {
        let signals = EndSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        // The process that started the daemon may have blocked some signals; those stay blocked.
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

/// Follows the link until the daemon should end.
pub struct Control<'a> {
    interface: &'a RunningInterface,
    watch: LinkWatch,
    events: Events,
    ready: AsyncFd<OwnedFd>,
    /// The file is named after the link.
    socket: Option<Arc<SocketFile>>,
    up: bool,
    /// The link was set down since the last look, and may be up again.
    set_down: bool,
    mtu: u32,
    /// Until this time, the link may be down because it was moved.
    moving: Option<Instant>,
    /// When to look at the link even without an event.
    look_again: Option<Instant>,
    report: Report,
    icmp: IcmpErrors,
    seen: Seen,
}

impl<'a> Control<'a> {
    /// Starts with the link's current state. `socket` follows the link's name. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// Those of netlink.
    pub fn new(
        interface: &'a RunningInterface,
        watch: LinkWatch,
        events: Events,
        socket: Option<Arc<SocketFile>>,
        icmp: IcmpErrors,
        seen: Seen,
    ) -> io::Result<Self> {
        let ready = async_fd::readable(events.as_fd().try_clone_to_owned()?)?;
        let mut control = Control {
            interface,
            watch,
            events,
            ready,
            socket,
            up: false,
            set_down: false,
            mtu: 0,
            moving: None,
            look_again: None,
            report: Report::new(),
            icmp,
            seen,
        };
        control.look()?;
        Ok(control)
    }

    /// Runs until a signal arrives, the socket is removed, or `tun_gone` reports that the TUN
    /// device can no longer be read, as after it was deleted.
    ///
    /// # Errors
    /// Waiting fails, or the TUN device can no longer be read although it was not deleted.
    pub async fn run(
        mut self,
        mut signals: EndSignals,
        tun_gone: oneshot::Receiver<io::Error>,
    ) -> io::Result<End> {
        tokio::pin!(tun_gone);
        let mut machine = Machine::watch();
        let mut icmp_from = Instant::now();
        let mut report_at = Report::next();
        let mut see_at = Seen::next();
        let mut forget_at = Some(Seen::end_of_life());
        loop {
            let look_again = self.look_again;
            tokio::select! {
                () = signals.recv() => return Ok(End::Signal),
                error = &mut tun_gone => return match error {
                    Ok(error) if error.raw_os_error() != Some(libc::EBADFD) => Err(error),
                    _ => Ok(End::LinkGone),
                },
                ready = self.ready.readable() => {
                    let mut ready = ready?;
                    let meaning = read(&mut self.events, &mut self.watch)?;
                    if meaning.all {
                        ready.clear_ready();
                    }
                    drop(ready);
                    self.note(&meaning);
                    if meaning.look && self.look()? == LinkState::Gone {
                        return Ok(End::LinkGone);
                    }
                }
                () = at(look_again) => {
                    if self.look()? == LinkState::Gone {
                        return Ok(End::LinkGone);
                    }
                }
                happened = machine.happens() => match happened? {
                    Happened::Copied => self.interface.copied(),
                    Happened::Resumed => self.interface.resumed(),
                },
                errors = self.icmp.recv(icmp_from) => {
                    self.interface.undelivered(&errors);
                    icmp_from = IcmpErrors::next();
                }
                () = at(report_at) => {
                    self.log_drops();
                    report_at = Report::next();
                }
                () = sleep_until(see_at) => {
                    self.remember_clients();
                    see_at = Seen::next();
                }
                () = at(forget_at) => {
                    self.interface.clients_were_at(std::iter::empty());
                    forget_at = None;
                }
                () = self.interface.level_changed.notified() => report_at = Report::next(),
            }
        }
    }

    fn log_drops(&mut self) {
        self.report.log(self.interface.drops());
    }

    fn remember_clients(&mut self) {
        self.seen.update(self.interface.clients(), Wall::now());
    }

    /// Looks at the link, and reacts to changes.
    fn look(&mut self) -> io::Result<LinkState> {
        self.look_again = None;
        let state = match self.watch.look() {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(%error, "the link is not visible");
                let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
                let wait = if forbidden {
                    LOOK_REGULARLY
                } else {
                    LOOK_AGAIN
                };
                self.look_again = Some(Instant::now() + wait);
                return Ok(LinkState::Present {
                    up: self.up,
                    mtu: self.mtu,
                });
            }
        };
        let LinkState::Present { up, mtu } = state else {
            return Ok(state);
        };
        if let Some((former, name)) = self.watch.renamed() {
            self.seen.rename(&name);
            self.renamed(&former, &name);
        }
        if mtu != self.mtu {
            self.mtu = mtu;
            self.interface.set_mtu(mtu);
        }
        let is_set_down = self.up && (self.set_down || !up);
        if is_set_down {
            // All events up to those of the state that was seen have been read, and with them the
            // event of a move.
            let meaning = read(&mut self.events, &mut self.watch)?;
            self.note(&meaning);
            self.look_again = meaning.look.then(Instant::now);
        }
        self.set_down = false;
        match self.moving.filter(|until| Instant::now() < *until) {
            Some(until) if is_set_down && !up => {
                self.look_again.get_or_insert(until);
            }
            Some(_) if is_set_down => self.moving = None,
            _ => {
                self.moving = None;
                self.follow(is_set_down, up);
            }
        }
        if self.watch.is_unwatched() {
            let next = Instant::now() + LOOK_REGULARLY;
            let next = self.look_again.map_or(next, |at| at.min(next));
            self.look_again = Some(next);
        }
        Ok(state)
    }

    /// Sets the tunnel down and up as the link was. The kernel module ends its sessions each time that
    /// its link is set down.
    fn follow(&mut self, is_set_down: bool, up: bool) {
        if is_set_down {
            tracing::info!(up = false, "link");
            self.interface.down();
        }
        let was_up = self.up && !is_set_down;
        self.up = up;
        if up && !was_up {
            tracing::info!(up, "link");
            self.watch.forbid_redirects();
            self.open_sockets();
        } else if up && !self.interface.is_up() {
            // The program that used the port may have ended.
            let _ = self.interface.up();
        }
    }

    fn renamed(&self, former: &str, name: &str) {
        tracing::info!(from = former, to = name, "link renamed");
        let followed = self.socket.as_ref().map(|file| file.follow(name));
        if let Some(Err(error)) = followed {
            tracing::error!(%error, "the configuration socket cannot be renamed to {name}");
        }
    }

    /// The kernel module would refuse to set the link up without sockets. A TUN is already up, so
    /// it is set down again.
    fn open_sockets(&mut self) {
        let Err(error) = self.interface.up() else {
            return;
        };
        match self.watch.set_down() {
            Ok(()) => tracing::error!(%error, "the link is set down again"),
            // The link is in another namespace.
            Err(down) => tracing::error!(
                %error, %down,
                "the link is up without sockets until its port is changed or it is set up again"
            ),
        }
    }

    fn note(&mut self, meaning: &Meaning) {
        if meaning.moved {
            self.moving = Some(Instant::now() + MOVE);
        }
        self.set_down |= meaning.set_down;
    }
}

impl Drop for Control<'_> {
    fn drop(&mut self) {
        self.log_drops();
        self.remember_clients();
    }
}

/// The meaning of some events.
#[derive(Default)]
struct Meaning {
    /// The link may have changed.
    look: bool,
    /// The link was moved.
    moved: bool,
    /// The link was set down, also before a move.
    set_down: bool,
    /// There are no more events.
    all: bool,
}

/// Reads all queued events, up to a limit.
fn read(events: &mut Events, watch: &mut LinkWatch) -> io::Result<Meaning> {
    let mut meaning = Meaning::default();
    for _ in 0..EVENTS_AT_ONCE {
        match events.recv() {
            Ok(event) => {
                meaning.look |= watch.concerns(&event);
                meaning.moved |= watch.is_move(&event);
                meaning.set_down |= watch.is_set_down(&event);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                meaning.all = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(meaning)
}

/// Waits until this time; without a time, never returns.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
