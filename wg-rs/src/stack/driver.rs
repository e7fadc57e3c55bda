//! The thread that moves all packets of a tunnel in this process, and the protocol thread beside it.
//!
//! ```text
//! sockets ─► SocketReader ─► Host::send ─► flows, mailboxes ─► tasks
//! sockets ◄─ TunReader    ◄─ Host::recv ◄─ flows, datagrams ◄─ tasks
//! ```
//! The data path is the daemon's, with the host in the place of the TUN device: bursts, segmentation and
//! coalescing are the same.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rand_core::{OsRng, TryRngCore};
use wg_crypto::{AeadBackend, PublicKey, wipe_stack_after};

use super::error::Error;
use super::host::{Host, HostInputs};
use super::lookup::Lookup;
use crate::config::ConfigEndpoint;
use crate::datapath::inbound::{Delivery, SocketReader};
use crate::datapath::inbox::Inbox;
use crate::datapath::network::{Network, Parts, ReadsSockets};
use crate::datapath::now;
use crate::datapath::outbound::TunReader;
use crate::datapath::protocol::{Owner, Protocol};
use crate::datapath::sockets::Sockets;
use crate::datapath::turn::Turn;
use crate::model::status::Status;
use crate::model::{Change, Interface};
use crate::sys::netlink::Changes;
use crate::sys::poll;
use crate::sys::udp::segmentation_corrupts;
use crate::tunnel::device::Device;
use crate::tunnel::time::Time;

/// How long connections may take to end when the tunnel is closed.
const CLOSING: Duration = Duration::from_secs(10);
/// How often it is checked whether they have ended.
const LOOK_AT_CLOSING: Duration = Duration::from_millis(100);

/// A running tunnel. After this is dropped, it ends as soon as the data written to its connections is sent.
pub(super) struct Running {
    pub host: Arc<Host>,
    protocol: Arc<Protocol<Network>>,
    /// Looks up names of endpoints until this is dropped. `None` if there are no names.
    _lookup: Option<Lookup>,
}

/// The sockets, on their way to the driver's thread.
#[derive(Default)]
struct Handoff {
    waiting: Mutex<Option<Vec<SocketReader>>>,
    taken: Condvar,
    stopped: AtomicBool,
}

struct Hands {
    handoff: Arc<Handoff>,
    host: Arc<Host>,
}

impl ReadsSockets for Hands {
    fn set_sockets(&self, sockets: Vec<SocketReader>) {
        let mut waiting = self.handoff.waiting.lock();
        *waiting = Some(sockets);
        self.host.waker.signal();
        self.handoff.taken.wait_while(&mut waiting, |waiting| {
            waiting.is_some() && !self.handoff.stopped.load(Ordering::Acquire)
        });
    }
}

struct Driver {
    host: Arc<Host>,
    tun_reader: TunReader,
    sockets: Vec<SocketReader>,
    handoff: Arc<Handoff>,
    senders: Arc<Sockets>,
    /// Changes of routes; `None` if the system does not report them.
    changes: Option<Changes>,
    inbox: Arc<Inbox>,
}

impl Running {
    /// Starts a tunnel whose local end has these addresses. `names` are the endpoints that are names.
    ///
    /// # Errors
    /// Threads or descriptors cannot be created, or the configuration is refused.
    pub fn start(
        addresses: Vec<IpAddr>,
        mtu: usize,
        changes: &[Change],
        names: Vec<(PublicKey, ConfigEndpoint)>,
    ) -> Result<Self, Error> {
        let device = Device::new(Box::new(OsRng.unwrap_err()), AeadBackend::fastest());
        let plane = device.plane().clone();
        plane.set_mtu(mtu);
        let running = || -> io::Result<_> {
            let inbox = Arc::new(Inbox::new()?);
            plane.set_waker(Box::new({
                let inbox = inbox.clone();
                move || inbox.notify()
            }));
            let inputs = HostInputs { now, random };
            let host = Arc::new(Host::new(addresses, mtu, plane.clone(), inputs)?);
            let senders = Arc::new(Sockets::default());
            let handoff = Arc::new(Handoff::default());
            let driver = Driver {
                tun_reader: TunReader::new(plane.clone(), host.clone(), senders.clone(), 0)?,
                host: host.clone(),
                sockets: Vec::new(),
                handoff: handoff.clone(),
                senders: senders.clone(),
                changes: Changes::open().ok(),
                inbox: inbox.clone(),
            };
            let network = Network::new(Parts {
                plane: plane.clone(),
                sockets: senders.clone(),
                readers: Box::new(Hands {
                    handoff,
                    host: host.clone(),
                }),
                inbox: inbox.clone(),
                delivery: Arc::new(Delivery::new(host.clone())),
                gso: !segmentation_corrupts(),
                gro: true,
                workers: 0,
            });
            let protocol = Arc::new(Protocol::new(device, network, senders, inbox));
            let thread = |name: &str| std::thread::Builder::new().name(name.into());
            let mut running = Running {
                host,
                protocol: protocol.clone(),
                _lookup: None,
            };
            // If this fails, there is no driver that the drop of `running` could end.
            thread("wg-stack").spawn(move || driver.run())?;
            thread("wg-protocol").spawn({
                let protocol = protocol.clone();
                move || protocol.run()
            })?;
            if !names.is_empty() {
                running._lookup = Some(Lookup::start(protocol, names)?);
            }
            Ok(running)
        };
        let running = running().map_err(Error::Start)?;
        running.set(changes)?;
        let mut owner = running.protocol.owner();
        let Owner { device, network } = &mut *owner;
        device.up(network)?;
        drop(owner);
        running.protocol.inbox.notify();
        Ok(running)
    }

    /// Changes the configuration.
    pub fn set(&self, changes: &[Change]) -> Result<(), Error> {
        let mut owner = self.protocol.owner();
        let Owner { device, network } = &mut *owner;
        // Requests leave copies of keys on the stack, because keys are moved.
        let result = wipe_stack_after(|| device.set(changes, network, now()));
        drop(owner);
        self.protocol.inbox.notify();
        Ok(result?)
    }

    /// Returns the configuration and the state.
    pub fn get(&self) -> Interface {
        wipe_stack_after(|| self.protocol.informed_owner().device.get())
    }

    /// Returns the status, without what only a daemon has.
    pub fn status(&self) -> Status {
        let status = wipe_stack_after(|| self.protocol.informed_owner().device.status(now()));
        Status {
            version: Some(env!("CARGO_PKG_VERSION").into()),
            ..status
        }
    }

    /// Returns the peers that answer and those that do not, without the peers of which nothing is known.
    pub fn answers(&self) -> Vec<(PublicKey, bool)> {
        self.protocol.owner().device.answers(now()).collect()
    }

    /// The endpoint of the peer of this address, if that peer does not answer.
    pub fn silent_endpoint(&self, ip: IpAddr) -> Option<SocketAddr> {
        let peer = self.host.peer_of(ip)?;
        let is_silent = self.answers().contains(&(*peer.public_key(), false));
        peer.endpoint().filter(|_| is_silent).map(|to| to.addr)
    }

    /// Begins a handshake with every peer that has an endpoint and no session.
    pub fn greet(&self) {
        self.protocol.owner().device.greet(now());
        self.protocol.inbox.notify();
    }

    /// Returns the reasons for which packets were dropped, each with the number of packets.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let drops = self.protocol.plane.drops();
        crate::tunnel::drops::DropReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), drops.get(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// A random number of the system.
pub(super) fn random() -> u64 {
    OsRng.try_next_u64().expect("the system has random numbers")
}

impl Drop for Running {
    fn drop(&mut self) {
        self.host.close();
    }
}

impl Driver {
    fn run(mut self) {
        let mut end: Option<Time> = None;
        while self.turn() {
            if let Some(all_ended) = self.host.is_closing() {
                let now = now();
                let end = *end.get_or_insert(now + CLOSING);
                if all_ended || now >= end {
                    break;
                }
            }
        }
        self.handoff.stopped.store(true, Ordering::Release);
        {
            let mut waiting = self.handoff.waiting.lock();
            *waiting = None;
            self.handoff.taken.notify_all();
        }
        self.host.end();
        self.inbox.close();
    }

    /// Does the work at hand, or waits for work. False if the driver must end.
    fn turn(&mut self) -> bool {
        let more = match self.tun_reader.turn() {
            Ok(Turn::More) => true,
            Ok(Turn::Nothing | Turn::Lone | Turn::Drained) => false,
            Ok(Turn::Failing) | Err(_) => return false,
        };
        let until = if more { None } else { self.host.sleep() };
        let timeout = match until {
            // There is work at hand: do not wait.
            None => Some(Duration::ZERO),
            Some(at) => at.map(|at| at.saturating_since(now())),
        };
        let closing = self.host.is_closing().map(|_| LOOK_AT_CLOSING);
        let timeout = [timeout, closing].into_iter().flatten().min();
        let waker = self.host.waker.as_fd();
        // The waker stands in for sources that are absent.
        let socket = |i: usize| self.sockets.get(i).map_or(waker, AsFd::as_fd);
        let changes = self.changes.as_ref().map_or(waker, AsFd::as_fd);
        let wanted = [waker, socket(0), socket(1), changes];
        let Ok([woken, first, second, changed]) = poll::wait(wanted, timeout) else {
            return false;
        };
        self.host.awake(now());
        if let Some(changes) = &self.changes
            && changed.any()
            && changes.take()
        {
            self.senders.sources.changed();
            self.tun_reader.plane().network_changed();
        }
        if woken.any() {
            self.host.waker.drain();
            if let Some(sockets) = self.handoff.waiting.lock().take() {
                self.sockets = sockets;
                self.handoff.taken.notify_all();
                return true;
            }
        }
        for (socket, ready) in self.sockets.iter_mut().zip([first, second]) {
            if ready.any() {
                // The next poll reports packets that this turn leaves.
                socket.turn();
            }
        }
        true
    }
}
