//! One TCP connection: a smoltcp interface and a socket set of its own, so that no packet walks the
//! sockets of others.
//!
//! ```text
//! driver   receive: a packet of it came     transmit: the next packet of it, or none
//! stream   read, write, close               both under the flow's lock
//! ```
//! Whoever changes a flow asks for it to be driven afterwards (`Host::drive`): what there is to send leaves
//! then, and its timer is set anew.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::socket::tcp::{self, CongestionControl, RecvError, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};

use super::packet::{Tuple, Unreachable, header_of};
use crate::datapath::virtio;
use crate::tunnel::time::Time;

/// How long the other end may take to answer a connection attempt of ours, or to complete one of its own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what was sent may stay without an answer: about as long as Linux repeats it.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// An idle connection is asked about so often.
const KEEP_ALIVE: Duration = Duration::from_secs(5 * 60);
/// How long a connection that nobody has any longer may take to end.
const LINGER: Duration = Duration::from_secs(60);
/// For so long after its end smoltcp's clock goes on for a connection that may yet be read: when its
/// TIME-WAIT is over, smoltcp forgets what was not read.
const UNREAD: Duration = Duration::from_secs(5);
/// The longest packet that smoltcp writes, to be cut into segments.
const LONGEST: usize = 65535;
/// Path MTUs below these are not believed (RFC 1191, section 3; RFC 8201, section 4).
const LEAST_MTU: (usize, usize) = (576, 1280);

/// How a connection ended that did not end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The other end reset it.
    Reset,
    /// It refused it.
    Refused,
    /// It did not answer for too long.
    Silent,
    /// The destination cannot be reached, as a router says.
    Unreachable,
    /// It was given up here.
    Aborted,
}

/// Where a connection that was asked for goes.
pub(super) trait Accepts: Send + Sync {
    /// It is established.
    fn ready(&self, flow: Arc<Flow>);
    /// It ended before it was established.
    fn withdrawn(&self);
}

/// What is to become of a flow after it was driven.
pub(super) enum Next {
    /// It is over.
    Over,
    /// It is to be driven at this time at the latest.
    At(Option<Time>),
}

/// A connection. See the head of the file.
pub(super) struct Flow {
    /// No other flow has it.
    pub id: u64,
    pub tuple: Tuple,
    /// Bytes of its buffers, for the budget.
    pub memory: usize,
    /// It waits to be driven.
    pub queued: AtomicBool,
    /// For when its timer is set, in nanoseconds; 0 for not.
    pub armed: AtomicU64,
    state: Mutex<Inner>,
}

struct Inner {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    mtu: usize,
    seed: u64,
    /// Where it goes once it is established.
    backlog: Option<Arc<dyn Accepts>>,
    established: bool,
    /// Nobody reads or writes it any longer; until when it may end in order.
    orphaned: Option<Time>,
    /// When it was first seen in TIME-WAIT.
    waits_since: Option<Time>,
    ended: Option<Ended>,
}

fn instant(now: Time) -> Instant {
    Instant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

/// As a smoltcp duration.
fn lasting(duration: Duration) -> Option<smoltcp::time::Duration> {
    Some(duration.into())
}

/// What a smoltcp interface sends and receives by, for the length of one call.
pub(super) struct Link<'a> {
    mtu: usize,
    incoming: Option<&'a [u8]>,
    /// Room for a packet behind its virtio header, and how much of it is used.
    room: &'a mut [u8],
    used: &'a mut usize,
}

impl<'a> Link<'a> {
    pub fn new(
        mtu: usize,
        incoming: Option<&'a [u8]>,
        room: &'a mut [u8],
        used: &'a mut usize,
    ) -> Self {
        *used = 0;
        Link {
            mtu,
            incoming,
            room,
            used,
        }
    }
}

pub(super) struct Incoming<'a>(&'a [u8]);

pub(super) struct Outgoing<'a> {
    room: &'a mut [u8],
    used: &'a mut usize,
    segment: Option<u16>,
}

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let packet = &mut self.room[virtio::LEN..virtio::LEN + len];
        packet.fill(0);
        let result = write(packet);
        let header = header_of(packet, self.segment);
        self.room[..virtio::LEN].copy_from_slice(&header);
        *self.used = virtio::LEN + len;
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map(u16::from);
    }
}

impl phy::Device for Link<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, now: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), self.transmit(now)?))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        // One packet at a time.
        (*self.used == 0).then_some(Outgoing {
            room: self.room,
            used: self.used,
            segment: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // Verified before, completed behind.
        capabilities.checksum.tcp = Checksum::None;
        // Not for IPv6: smoltcp 0.14 drops what is longer than the MTU there, whoever would cut it. The data
        // path gathers those segments into bursts all the same.
        capabilities.segmentation.tcpv4 = LONGEST.try_into().ok();
        capabilities
    }
}

/// A smoltcp interface with this one address, which reaches everything.
pub(super) fn interface(address: IpAddr, mtu: usize, seed: u64, now: Time) -> Interface {
    let mut used = 0;
    let mut link = Link::new(mtu, None, &mut [], &mut used);
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut link, instant(now));
    set_address(&mut interface, address);
    interface
}

/// Gives a smoltcp interface this address instead of the one it has.
pub(super) fn set_address(interface: &mut Interface, address: IpAddr) {
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        // There is room for two.
        let _ = addresses.push(IpCidr::new(address.into(), prefix));
    });
    // Any gateway will do, as there is no link layer. There is room for a route of each family.
    let routes = interface.routes_mut();
    let _ = match address {
        IpAddr::V4(address) => routes.add_default_ipv4_route(address),
        IpAddr::V6(address) => routes.add_default_ipv6_route(address),
    };
}

/// Answers a packet that is for no flow and no socket: a reset, an ICMP error, an echo reply. The length of
/// the answer in `room`, 0 for none.
pub(super) fn answer(
    interface: &mut Interface,
    mtu: usize,
    packet: &[u8],
    room: &mut [u8],
    now: Time,
) -> usize {
    let mut used = 0;
    let mut link = Link::new(mtu, Some(packet), room, &mut used);
    let mut nobody = SocketSet::new(Vec::new());
    interface.poll_ingress_single(instant(now), &mut link, &mut nobody);
    used
}

impl Flow {
    /// A connection attempt of ours.
    pub fn connecting(
        id: u64,
        tuple: Tuple,
        memory: usize,
        mtu: usize,
        seed: u64,
        now: Time,
    ) -> Self {
        Self::new(id, tuple, memory, mtu, seed, now, |socket, interface| {
            let local = IpListenEndpoint {
                addr: Some(tuple.local.ip().into()),
                port: tuple.local.port(),
            };
            let remote = (tuple.remote.ip(), tuple.remote.port());
            // The ends were checked; if they were wrong after all, it is refused at once.
            socket.connect(interface.context(), remote, local).is_ok()
        })
    }

    /// A flow that waits for the packet which asks for a connection, to be given to `receive`.
    pub fn accepting(
        id: u64,
        tuple: Tuple,
        memory: usize,
        mtu: usize,
        seed: u64,
        now: Time,
        backlog: Arc<dyn Accepts>,
    ) -> Self {
        let flow = Self::new(id, tuple, memory, mtu, seed, now, |socket, _| {
            let local = (tuple.local.ip(), tuple.local.port());
            socket.listen(local).is_ok()
        });
        flow.state.lock().backlog = Some(backlog);
        flow
    }

    fn new(
        id: u64,
        tuple: Tuple,
        memory: usize,
        mtu: usize,
        seed: u64,
        now: Time,
        begin: impl FnOnce(&mut tcp::Socket<'static>, &mut Interface) -> bool,
    ) -> Self {
        let mut interface = interface(tuple.local.ip(), mtu, seed, now);
        let buffer = || tcp::SocketBuffer::new(vec![0; memory / 2]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket.set_timeout(lasting(CONNECT_TIMEOUT));
        // Not later: a keep-alive is due as soon as it is set, and one that is the first packet after the
        // handshake puts a byte before the data of a Linux that sent a SYN cookie.
        socket.set_keep_alive(lasting(KEEP_ALIVE));
        let begun = begin(&mut socket, &mut interface);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Flow {
            id,
            tuple,
            memory,
            queued: AtomicBool::new(false),
            armed: AtomicU64::new(0),
            state: Mutex::new(Inner {
                interface,
                sockets,
                handle,
                mtu,
                seed,
                backlog: None,
                established: false,
                orphaned: None,
                waits_since: None,
                ended: (!begun).then_some(Ended::Unreachable),
            }),
        }
    }

    /// Takes a packet of this flow. An answer that must leave at once is written to `room`; its length, 0
    /// for none.
    pub fn receive(self: &Arc<Self>, packet: &[u8], room: &mut [u8], now: Time) -> usize {
        let mut inner = self.state.lock();
        let Inner {
            interface,
            sockets,
            mtu,
            ..
        } = &mut *inner;
        let mut used = 0;
        let mut link = Link::new(*mtu, Some(packet), room, &mut used);
        interface.poll_ingress_single(instant(now), &mut link, sockets);
        inner.look(Ended::Reset);
        if inner.established
            && let Some(backlog) = inner.backlog.take()
        {
            drop(inner);
            backlog.ready(self.clone());
        }
        used
    }

    /// Takes what an ICMP error says about a packet of this flow. An established connection outlives it
    /// (RFC 5461).
    pub fn unreachable(&self, what: Unreachable, now: Time) {
        let mut inner = self.state.lock();
        match what {
            Unreachable::TooBig(mtu) => inner.shrink(&self.tuple, mtu, now),
            Unreachable::Port | Unreachable::Host if inner.socket().state() == State::SynSent => {
                inner.end(if what == Unreachable::Port {
                    Ended::Refused
                } else {
                    Ended::Unreachable
                });
            }
            Unreachable::Port | Unreachable::Host => {}
        }
    }

    /// Writes the next packet that is due to `room`, behind its virtio header. Its length, 0 for none.
    pub fn transmit(&self, room: &mut [u8], now: Time) -> usize {
        let mut inner = self.state.lock();
        if inner.orphaned.is_some_and(|until| now >= until) {
            inner.end(Ended::Aborted);
        }
        let now = inner.clock(now);
        let Inner {
            interface,
            sockets,
            mtu,
            ..
        } = &mut *inner;
        let mut used = 0;
        let mut link = Link::new(*mtu, None, room, &mut used);
        interface.poll_egress(instant(now), &mut link, sockets);
        inner.look(Ended::Silent);
        used
    }

    /// What is to become of it, when there is nothing to transmit. `crowded`: a connection that ended need
    /// not wait for what may still be on its way.
    pub fn next(&self, now: Time, crowded: bool) -> Next {
        let mut inner = self.state.lock();
        let socket = inner.socket();
        let over = match socket.state() {
            // A reset is yet to be sent as long as it knows to whom.
            State::Closed => socket.remote_endpoint().is_none(),
            // The attempt was withdrawn.
            State::Listen => true,
            State::TimeWait => crowded,
            _ => false,
        };
        if over {
            return Next::Over;
        }
        let clock = inner.clock(now);
        let Inner {
            interface, sockets, ..
        } = &mut *inner;
        let at = interface.poll_at(instant(clock), sockets).map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or_default();
            Time::from_nanos(micros.saturating_mul(1000)).max(now)
        });
        // With the clock stopped, nothing becomes due.
        let at = at.filter(|_| clock == now);
        Next::At(match inner.orphaned {
            Some(until) => Some(at.map_or(until, |at| at.min(until))),
            None => at,
        })
    }

    /// It left the host's table: whoever still has it finds it ended.
    pub fn removed(&self) {
        let mut inner = self.state.lock();
        if let Some(backlog) = inner.backlog.take() {
            backlog.withdrawn();
        }
        inner.end(Ended::Aborted);
    }

    /// Whether it is established, or how it ended instead. `waker` is woken when that is known.
    pub fn poll_established(&self, waker: &Waker) -> Option<Result<(), Ended>> {
        let mut inner = self.state.lock();
        if inner.established {
            return Some(Ok(()));
        }
        if let Some(ended) = inner.ended {
            return Some(Err(ended));
        }
        inner.socket().register_send_waker(waker);
        None
    }

    /// Reads into `room`: how much, 0 at the end of what the other end sent. `None`: nothing as yet, and
    /// `waker` is woken. Also tells whether the other end is to be told of the room that this made.
    pub fn poll_read(
        &self,
        room: &mut [u8],
        waker: &Waker,
        now: Time,
    ) -> (Option<Result<usize, Ended>>, bool) {
        let mut inner = self.state.lock();
        let read = match inner.socket().recv_slice(room) {
            Ok(0) if !room.is_empty() => {
                inner.socket().register_recv_waker(waker);
                return (None, false);
            }
            Ok(read) => Ok(read),
            Err(RecvError::Finished) => Ok(0),
            Err(RecvError::InvalidState) => Err(inner.ended.unwrap_or(Ended::Reset)),
        };
        let Inner {
            interface, sockets, ..
        } = &mut *inner;
        let at = interface.poll_at(instant(now), sockets);
        (Some(read), at.is_some_and(|at| at <= instant(now)))
    }

    /// Takes some of `bytes` to be sent: how many. `None`: there is no room, and `waker` is woken.
    pub fn poll_write(&self, bytes: &[u8], waker: &Waker) -> Option<Result<usize, Ended>> {
        let mut inner = self.state.lock();
        match inner.socket().send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => {
                inner.socket().register_send_waker(waker);
                None
            }
            Ok(written) => Some(Ok(written)),
            Err(_) => Some(Err(inner.ended.unwrap_or(Ended::Aborted))),
        }
    }

    /// Nothing more will be written.
    pub fn close(&self) {
        self.state.lock().socket().close();
    }

    /// Nobody reads or writes it any longer. What was written is still sent; if something was not read, the
    /// other end is told by a reset, as by Linux.
    pub fn orphan(&self, now: Time) {
        let mut inner = self.state.lock();
        inner.orphaned = Some(now + LINGER);
        inner.socket().close();
        if inner.socket().recv_queue() > 0 {
            inner.end(Ended::Aborted);
        }
    }

    /// Ends it with a reset.
    pub fn abort(&self) {
        self.state.lock().end(Ended::Aborted);
    }

    /// Asks for `Flow::queued` to be set. False: it was.
    pub fn queue(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }
}

impl Inner {
    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// The time, as smoltcp is told it.
    fn clock(&mut self, now: Time) -> Time {
        if self.orphaned.is_some() || self.socket().state() != State::TimeWait {
            return now;
        }
        let since = *self.waits_since.get_or_insert(now);
        now.min(since + UNREAD)
    }

    /// Ends it from this side.
    fn end(&mut self, how: Ended) {
        self.ended.get_or_insert(how);
        self.socket().abort();
    }

    /// Takes up what became of the socket; `why` it was closed if it was.
    fn look(&mut self, why: Ended) {
        let state = self.socket().state();
        match state {
            State::Closed if self.ended.is_none() => {
                let refused = why == Ended::Reset && !self.established;
                self.ended = Some(if refused { Ended::Refused } else { why });
            }
            State::Closed | State::Listen | State::SynSent | State::SynReceived => {}
            _ if !self.established => {
                self.established = true;
                let socket = self.socket();
                socket.set_timeout(lasting(TIMEOUT));
            }
            _ => {}
        }
        // It came after the last reader had gone.
        if self.orphaned.is_some() && self.socket().recv_queue() > 0 {
            self.end(Ended::Aborted);
        }
    }

    /// The path takes no longer packets than this. smoltcp reads the MTU when an interface is made.
    fn shrink(&mut self, tuple: &Tuple, mtu: usize, now: Time) {
        let local: SocketAddr = tuple.local;
        let least = if local.is_ipv4() {
            LEAST_MTU.0
        } else {
            LEAST_MTU.1
        };
        if mtu < self.mtu && mtu >= least {
            self.mtu = mtu;
            self.interface = interface(local.ip(), mtu, self.seed, now);
        }
    }
}
