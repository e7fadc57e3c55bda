//! One TCP connection: a smoltcp interface and socket set of its own, so that no packet is compared with
//! the sockets of other connections.
//!
//! ```text
//! driver   receive: takes a packet          transmit: writes the next packet, if any
//! stream   read, write, close               each of these holds the flow's lock
//! ```
//! After a change of a flow, the caller must have it driven (`Host::drive`): packets that became due are
//! sent, and the flow's timer is set again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, CongestionControl, RecvError, State};
use smoltcp::wire::IpListenEndpoint;

use super::link::{Link, instant, interface};
use super::nudge::Nudge;
use super::packet::{Tuple, Unreachable};
use crate::datapath::virtio;
use crate::tunnel::time::Time;

/// Time limit for the handshake of a connection, in either direction.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long sent data may stay unacknowledged: about as long as Linux retransmits.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The interval of keep-alive packets on an idle connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5 * 60);
/// If smoltcp's own timer fires within this time, data is not repeated earlier.
const SOON: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(500);
/// How long a connection may take to end after its stream was dropped.
const LINGER: Duration = Duration::from_secs(60);
/// How long after its end the smoltcp clock of a connection that may still be read goes on. It must stop
/// before TIME-WAIT is over, as smoltcp then discards the data that was not read.
const UNREAD: Duration = Duration::from_secs(5);
/// Smaller path MTUs are not believed, for IPv4 and IPv6 (RFC 1191, section 3; RFC 8201, section 4).
const LEAST_MTU: (usize, usize) = (576, 1280);

/// How a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The other end reset the connection.
    Reset,
    /// The other end refused the connection.
    Refused,
    /// The other end did not answer for too long.
    Silent,
    /// An ICMP error said that the destination cannot be reached.
    Unreachable,
    /// This end aborted the connection.
    Aborted,
}

/// What receives an incoming connection.
pub(super) trait Accepts: Send + Sync {
    /// The connection is established.
    fn ready(&self, flow: Arc<Flow>);
    /// The connection ended before it was established.
    fn withdrawn(&self);
}

/// What the driver does with a flow after it was driven.
pub(super) enum Next {
    /// The flow has ended: remove it.
    Over,
    /// Drive the flow again at this time at the latest; `None` if it has no timer.
    At(Option<Time>),
}

/// A TCP connection, see the head of the file.
pub(super) struct Flow {
    /// An ID that no other flow has.
    pub id: u64,
    pub tuple: Tuple,
    /// Bytes of its buffers, returned to the budget at its end.
    pub memory: usize,
    /// Whether it is in the queue of flows to be driven.
    pub queued: AtomicBool,
    /// When its timer fires, in nanoseconds; 0 if it is not set.
    pub armed: AtomicU64,
    state: Mutex<Inner>,
}

struct Inner {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    mtu: usize,
    seed: u64,
    /// Receives the connection once it is established.
    backlog: Option<Arc<dyn Accepts>>,
    established: bool,
    /// Set when its stream was dropped: the time until which it may end in order.
    orphaned: Option<Time>,
    /// When the flow was first seen in TIME-WAIT.
    waits_since: Option<Time>,
    ended: Option<Ended>,
    nudge: Nudge,
}

/// Converts to a smoltcp duration.
fn lasting(duration: Duration) -> Option<smoltcp::time::Duration> {
    Some(duration.into())
}

impl Flow {
    /// Creates the flow of an outgoing connection.
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
            // The ends were checked before; if they are wrong nevertheless, the connection is refused at once.
            socket.connect(interface.context(), remote, local).is_ok()
        })
    }

    /// Creates the flow of an incoming connection; the caller must pass the SYN to `receive` next.
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
        // This must not be set later: a keep-alive is due as soon as it is set, and if it is the first packet
        // after the handshake, a Linux that sent a SYN cookie reads a spurious byte before the data.
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
                nudge: Nudge::default(),
            }),
        }
    }

    /// Takes a packet of this flow. Writes an answer that must leave at once to `room`, and returns its
    /// length, 0 if there is none.
    pub fn receive(self: &Arc<Self>, packet: &[u8], room: &mut [u8], now: Time) -> usize {
        let mut inner = self.state.lock();
        inner.nudge.received(packet, now);
        let used = inner.poll(Some(packet), room, now);
        inner.look(Ended::Reset);
        if inner.established
            && let Some(backlog) = inner.backlog.take()
        {
            drop(inner);
            backlog.ready(self.clone());
        }
        used
    }

    /// Takes an ICMP error about a packet of this flow. It does not end an established connection (RFC 5461).
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

    /// Writes the next packet that is due to `room`, after its virtio header. Returns its length, 0 if none
    /// is due.
    pub fn transmit(&self, room: &mut [u8], now: Time) -> usize {
        let mut inner = self.state.lock();
        if inner.orphaned.is_some_and(|until| now >= until) {
            inner.end(Ended::Aborted);
        }
        let now = inner.clock(now);
        let used = match inner.repeat(&self.tuple, room, now) {
            0 => inner.poll(None, room, now),
            used => used,
        };
        inner.look(Ended::Silent);
        used
    }

    /// Says what to do with the flow when it has nothing to transmit. With `crowded`, an ended connection does
    /// not wait for packets that may still be on their way.
    pub fn next(&self, now: Time, crowded: bool) -> Next {
        let mut inner = self.state.lock();
        let socket = inner.socket();
        let over = match socket.state() {
            // While the socket knows its remote end, it has yet to send a reset.
            State::Closed => socket.remote_endpoint().is_none(),
            // The other end withdrew its attempt to connect.
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
        let at = match inner.nudge_at() {
            Some(nudge) => at.map(|at| at.min(nudge.max(now))),
            None => at,
        };
        // Nothing becomes due while the clock is stopped.
        let at = at.filter(|_| clock == now);
        Next::At(match inner.orphaned {
            Some(until) => Some(at.map_or(until, |at| at.min(until))),
            None => at,
        })
    }

    /// Called when the host removed the flow: readers and writers find it ended.
    pub fn removed(&self) {
        let mut inner = self.state.lock();
        if let Some(backlog) = inner.backlog.take() {
            backlog.withdrawn();
        }
        inner.end(Ended::Aborted);
    }

    /// Whether the connection is established, or how it failed. `None` if neither is known yet; then `waker`
    /// is woken later.
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

    /// Reads into `room` and returns the number of bytes, 0 at the end of the stream. `None` if there is no
    /// data yet; then `waker` is woken later. Also says whether the flow must be driven to announce the
    /// larger window.
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

    /// Takes the beginning of `bytes` to be sent and returns how many bytes it took. `None` if there is no
    /// room; then `waker` is woken later.
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

    /// Closes the sending side: nothing more will be written.
    pub fn close(&self) {
        self.state.lock().socket().close();
    }

    /// Called when the stream is dropped. Data that was written is still sent; if received data was not
    /// read, the connection is reset, as by Linux.
    pub fn orphan(&self, now: Time) {
        let mut inner = self.state.lock();
        inner.orphaned = Some(now + LINGER);
        inner.socket().close();
        if inner.socket().recv_queue() > 0 {
            inner.end(Ended::Aborted);
        }
    }

    /// Ends the connection with a reset.
    pub fn abort(&self) {
        self.state.lock().end(Ended::Aborted);
    }

    /// Sets `Flow::queued`. False if it was set already.
    pub fn queue(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }
}

impl Inner {
    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// The time that smoltcp gets; it stops `UNREAD` after the end.
    fn clock(&mut self, now: Time) -> Time {
        if self.orphaned.is_some() || self.socket().state() != State::TimeWait {
            return now;
        }
        let since = *self.waits_since.get_or_insert(now);
        now.min(since + UNREAD)
    }

    /// Ends the connection from this side.
    fn end(&mut self, how: Ended) {
        self.ended.get_or_insert(how);
        self.socket().abort();
    }

    /// Passes a received packet to the socket; without one, the socket may send. Writes at most one packet to
    /// `room`, after its virtio header, and returns its length, 0 if there is none.
    fn poll(&mut self, packet: Option<&[u8]>, room: &mut [u8], now: Time) -> usize {
        let (now, mut used) = (instant(now), 0);
        let mut link = Link::new(self.mtu, packet, room, &mut used);
        if packet.is_some() {
            (self.interface).poll_ingress_single(now, &mut link, &mut self.sockets);
        } else {
            (self.interface).poll_egress(now, &mut link, &mut self.sockets);
        }
        if used > 0 {
            self.nudge.sent(&room[virtio::LEN..used]);
        }
        used
    }

    /// Whether all data was acknowledged, but not the FIN after it.
    fn has_unacknowledged_fin(&mut self) -> bool {
        let socket = self.socket();
        let has_closed = matches!(
            socket.state(),
            State::FinWait1 | State::Closing | State::LastAck
        );
        has_closed && socket.send_queue() == 0
    }

    /// The time at which unacknowledged data or a FIN must be repeated before smoltcp does so, if there is any.
    fn nudge_at(&mut self) -> Option<Time> {
        let waits = self.socket().send_queue() > 0 || self.has_unacknowledged_fin();
        self.nudge.due().filter(|_| self.established && waits)
    }

    /// Makes the socket repeat its oldest unacknowledged data, if that is due and smoltcp's own timer fires
    /// much later. Writes a FIN that must be repeated to `room`, and returns its length, 0 if there is none.
    fn repeat(&mut self, tuple: &Tuple, room: &mut [u8], now: Time) -> usize {
        if self.nudge_at().is_none_or(|at| now < at) {
            return 0;
        }
        let clock = instant(now);
        let at = self.interface.poll_at(clock, &self.sockets);
        if at.is_some_and(|at| at <= clock + SOON) {
            self.nudge.postpone(now);
            return 0;
        }
        if self.has_unacknowledged_fin() {
            let fin = self.nudge.fin(tuple, now).unwrap_or_default();
            let used = virtio::LEN + fin.len();
            room[..virtio::LEN].fill(0);
            room[virtio::LEN..used].copy_from_slice(&fin);
            return if fin.is_empty() { 0 } else { used };
        }
        // The other end did not send these packets, so it gets no answer to them.
        let mut answer = [0; virtio::LEN + 128];
        for packet in self.nudge.duplicates(tuple, now) {
            self.poll(Some(&packet), &mut answer, now);
        }
        0
    }

    /// Takes over a change of the socket's state. If the socket was closed, the reason is `why`.
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
        // This data came after the last reader had gone.
        if self.orphaned.is_some() && self.socket().recv_queue() > 0 {
            self.end(Ended::Aborted);
        }
    }

    /// Reduces the MTU to that of the path. smoltcp reads the MTU only when an interface is created.
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
