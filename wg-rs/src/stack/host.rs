//! The host at this end of the tunnel, as the peers see it: its addresses, connections and ports. The data
//! path uses it as a TUN device.
//!
//! ```text
//! data path ── send ─► the packet's flow │ a listener │ a mailbox │ otherwise an answer
//! data path ◄─ recv ── answers and datagrams ◄── outgoing
//!                   └─ the next packet of the next ready flow; smoltcp writes it into the reader's buffer
//! ```
//! Packets are made as the data path asks for them, so no queue of them can grow.
//!
//! Locks: the lock of a flow and that of the tables are never held together. Locks of queues may be taken
//! while either is held.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smoltcp::iface::Interface;
use tokio::sync::Notify;

use super::backlog::Backlog;
use super::budget::{Budget, MOST_FLOWS};
use super::error::Error;
use super::flow::{self, Flow, Next};
use super::link::{self, ROOM};
use super::mailbox::Mailbox;
use super::outgoing::Outgoing;
use super::packet::{self, Packet, Tuple};
use crate::datapath::tun_io::TunIo;
use crate::datapath::virtio::{self, VirtioNetHdr};
use crate::sys::poll::Waker;
use crate::sys::process::memory;
use crate::sys::tun::TunOffloads;
use crate::tunnel::peer::Peer;
use crate::tunnel::plane::Plane;
use crate::tunnel::time::Time;

/// The local ports of outgoing connections (RFC 6335, section 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49152..=65535;
/// How many random ports are tried to find a free one.
const PORT_TRIES: usize = 256;
/// The shortest time after which a timer fires.
const SOON: Duration = Duration::from_millis(1);

/// The clock and the random numbers of a host: the system's, or those of a simulation.
pub(super) struct HostInputs {
    pub now: fn() -> Time,
    pub random: fn() -> u64,
}

/// The host, see the head of the file.
pub(super) struct Host {
    inputs: HostInputs,
    /// None if this end only relays.
    addresses: Vec<IpAddr>,
    mtu: usize,
    plane: Arc<Plane>,
    /// Wakes the driver. It is signalled only while the driver sleeps.
    pub waker: Waker,
    sleeps: AtomicBool,
    tables: Mutex<Tables>,
    /// Flows to be driven.
    ready: Mutex<VecDeque<Arc<Flow>>>,
    /// The time at which each flow must be driven at the latest.
    timers: Mutex<BTreeMap<(Time, u64), Arc<Flow>>>,
    outgoing: Outgoing,
    bench: Mutex<Bench>,
    next_id: AtomicU64,
    closing: AtomicBool,
    /// Whether the driver has ended.
    ended: AtomicBool,
    over: Notify,
}

#[derive(Default)]
struct Tables {
    flows: HashMap<Tuple, Arc<Flow>>,
    listeners: HashMap<u16, Vec<Arc<Backlog>>>,
    ports: HashMap<u16, Arc<Mailbox>>,
    budget: Budget,
}

/// State that only the driver's thread uses.
struct Bench {
    gathered: Vec<u8>,
    answer: Box<[u8]>,
    /// Answers packets that belong to no flow; its address is set for each packet.
    nobody: Interface,
}

impl Host {
    /// Creates a host with these addresses.
    ///
    /// # Errors
    /// A descriptor cannot be created.
    pub fn new(
        addresses: Vec<IpAddr>,
        mtu: usize,
        plane: Arc<Plane>,
        inputs: HostInputs,
    ) -> io::Result<Self> {
        let HostInputs { now, random } = inputs;
        let nobody = link::interface(Ipv4Addr::UNSPECIFIED.into(), mtu, random(), now());
        Ok(Host {
            inputs,
            addresses,
            mtu,
            plane,
            waker: Waker::new()?,
            sleeps: AtomicBool::new(false),
            tables: Mutex::default(),
            ready: Mutex::default(),
            timers: Mutex::default(),
            outgoing: Outgoing::default(),
            bench: Mutex::new(Bench {
                gathered: Vec::new(),
                answer: vec![0; ROOM].into_boxed_slice(),
                nobody,
            }),
            next_id: AtomicU64::new(1),
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            over: Notify::new(),
        })
    }

    /// The current time.
    pub fn now(&self) -> Time {
        (self.inputs.now)()
    }

    fn random(&self) -> u64 {
        (self.inputs.random)()
    }

    /// The addresses of this end.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Has the flow driven: its due packets are sent, and its timer is set again.
    pub fn drive(&self, flow: &Arc<Flow>) {
        if flow.queue() {
            self.ready.lock().push_back(flow.clone());
            self.wake();
        }
    }

    fn wake(&self) {
        if self.sleeps.swap(false, Ordering::SeqCst) {
            self.waker.signal();
        }
    }

    /// Called before the driver sleeps. Returns the time until which it may sleep, if that is limited. `None`
    /// if it must not sleep, as there is work.
    pub fn sleep(&self) -> Option<Option<Time>> {
        self.sleeps.store(true, Ordering::SeqCst);
        let idle = self.ready.lock().is_empty() && self.outgoing.is_empty();
        if !idle {
            self.sleeps.store(false, Ordering::SeqCst);
            return None;
        }
        let timers = self.timers.lock();
        Some(timers.keys().next().map(|(at, _)| *at))
    }

    /// Called when the driver wakes: makes flows whose time has come ready.
    pub fn awake(&self, now: Time) {
        self.sleeps.store(false, Ordering::SeqCst);
        loop {
            let due = {
                let mut timers = self.timers.lock();
                match timers.first_entry() {
                    Some(entry) if entry.key().0 <= now => entry.remove(),
                    _ => return,
                }
            };
            due.armed.store(0, Ordering::Relaxed);
            self.drive(&due);
        }
    }

    /// Returns the local address from which `remote` can be reached.
    fn source(&self, remote: SocketAddr) -> Result<IpAddr, Error> {
        let ip = remote.ip();
        let is_host = match ip {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        };
        if remote.port() == 0 || !is_host {
            return Err(Error::NoDestination(remote));
        }
        let same_family = |address: &&IpAddr| address.is_ipv4() == ip.is_ipv4();
        let source = self.addresses.iter().find(same_family);
        let source = *source.ok_or(Error::NoSource(ip))?;
        match self.peer_of(ip) {
            None => Err(Error::NoPeer(ip)),
            Some(peer) if !peer.has_endpoint() => Err(Error::NoEndpoint(ip)),
            Some(_) => Ok(source),
        }
    }

    /// The peer that has this address among its allowed IPs.
    pub fn peer_of(&self, ip: IpAddr) -> Option<Arc<Peer>> {
        let routes = self.plane.routes();
        let peer = match ip {
            IpAddr::V4(ip) => routes.lookup_v4(ip),
            IpAddr::V6(ip) => routes.lookup_v6(ip),
        };
        peer.cloned()
    }

    /// Begins a connection to `remote`.
    pub fn connect(&self, remote: SocketAddr) -> Result<Arc<Flow>, Error> {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let local = self.source(remote)?;
        let mut tables = self.tables.lock();
        self.check_open()?;
        let tuple = (0..PORT_TRIES)
            .map(|_| Tuple {
                local: SocketAddr::new(local, ephemeral(self.random())),
                remote,
            })
            .find(|tuple| !tables.flows.contains_key(tuple))
            .ok_or(Error::TooMany(MOST_FLOWS))?;
        let memory = tables.budget.take().ok_or(Error::TooMany(MOST_FLOWS))?;
        let id = self.new_id();
        let flow = Flow::connecting(id, tuple, memory, self.mtu, self.random(), self.now());
        let flow = Arc::new(flow);
        tables.flows.insert(tuple, flow.clone());
        drop(tables);
        self.drive(&flow);
        Ok(flow)
    }

    fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Listens on a port (0: any free one) of this address, or of all addresses.
    pub fn listen(&self, address: Option<IpAddr>, port: u16) -> Result<(u16, Arc<Backlog>), Error> {
        if let Some(ip) = address.filter(|ip| !self.addresses.contains(ip)) {
            return Err(Error::NotOurs(ip));
        }
        let mut tables = self.tables.lock();
        self.check_open()?;
        let is_free = |port: u16| {
            let on_port = tables.listeners.get(&port).into_iter().flatten();
            !{ on_port }.any(|backlog| backlog.overlaps(address))
        };
        let port = self.free_port(port, is_free)?;
        let backlog = Arc::new(Backlog::new(address));
        let on_port = tables.listeners.entry(port).or_default();
        on_port.push(backlog.clone());
        Ok((port, backlog))
    }

    /// Stops listening.
    pub fn unlisten(&self, port: u16, backlog: &Arc<Backlog>) {
        let mut tables = self.tables.lock();
        if let Some(on_port) = tables.listeners.get_mut(&port) {
            on_port.retain(|other| !Arc::ptr_eq(other, backlog));
            if on_port.is_empty() {
                tables.listeners.remove(&port);
            }
        }
        drop(tables);
        for flow in backlog.close() {
            flow.abort();
            self.drive(&flow);
        }
    }

    /// Opens a UDP port (0: any free one).
    pub fn bind(&self, port: u16) -> Result<(u16, Arc<Mailbox>), Error> {
        let mut tables = self.tables.lock();
        self.check_open()?;
        let port = self.free_port(port, |port| !tables.ports.contains_key(&port))?;
        let mailbox = Arc::new(Mailbox::default());
        tables.ports.insert(port, mailbox.clone());
        Ok((port, mailbox))
    }

    /// Closes a UDP port.
    pub fn unbind(&self, port: u16) {
        self.tables.lock().ports.remove(&port);
    }

    /// Sends a datagram. Waits for room if there is none.
    pub async fn send_datagram(
        &self,
        port: u16,
        remote: SocketAddr,
        payload: &[u8],
    ) -> Result<(), Error> {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let local = SocketAddr::new(self.source(remote)?, port);
        let most = packet::most_payload(self.mtu, remote.is_ipv6());
        if payload.len() > most {
            return Err(Error::TooLong {
                len: payload.len(),
                most,
            });
        }
        let packet = packet::datagram(&Tuple { local, remote }, payload);
        let is_closed = || self.check_open().is_err();
        let put = self.outgoing.put_later(packet, is_closed).await;
        put.map_err(|_| Error::Closed)?;
        self.wake();
        Ok(())
    }

    /// Begins to close: nothing new may begin, and connections end when the data written to them is sent.
    pub fn close(&self) {
        let tables = self.tables.lock();
        self.closing.store(true, Ordering::Release);
        let flows: Vec<_> = tables.flows.values().cloned().collect();
        let listeners: Vec<_> = tables
            .listeners
            .iter()
            .flat_map(|(port, on_port)| on_port.iter().map(|backlog| (*port, backlog.clone())))
            .collect();
        drop(tables);
        for (port, backlog) in listeners {
            self.unlisten(port, &backlog);
        }
        for flow in flows {
            flow.close();
            self.drive(&flow);
        }
        self.outgoing.wake();
        self.sleeps.store(false, Ordering::SeqCst);
        self.waker.signal();
    }

    /// `None` if the host is not closing; else whether all connections have ended.
    pub fn is_closing(&self) -> Option<bool> {
        let closing = self.closing.load(Ordering::Acquire);
        closing.then(|| self.tables.lock().flows.is_empty())
    }

    /// Called when the driver has ended: ends everything that waits for it.
    pub fn end(&self) {
        let Tables { flows, ports, .. } = std::mem::take(&mut *self.tables.lock());
        self.timers.lock().clear();
        self.ready.lock().clear();
        flows.values().for_each(|flow| flow.removed());
        ports.values().for_each(|mailbox| mailbox.close());
        self.ended.store(true, Ordering::Release);
        self.over.notify_waiters();
    }

    /// Waits until the driver has ended.
    pub async fn ended(&self) {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            over.await;
        }
    }

    /// Called when a flow has nothing to transmit: removes it if it has ended, or sets its timer.
    fn settle(&self, flow: &Arc<Flow>, now: Time) {
        let crowded =
            self.closing.load(Ordering::Acquire) || self.tables.lock().budget.is_crowded();
        let at = match flow.next(now, crowded) {
            Next::Over => return self.remove(flow),
            Next::At(at) => at,
        };
        let mut timers = self.timers.lock();
        disarm(&mut timers, flow);
        if let Some(at) = at {
            // Without `SOON`, a flow that is due but has nothing to transmit would be driven in a busy
            // loop. 0 would mean that the timer is not set.
            let nanos = at.max(now + SOON).as_nanos().max(1);
            flow.armed.store(nanos, Ordering::Relaxed);
            timers.insert((Time::from_nanos(nanos), flow.id), flow.clone());
        }
    }

    fn remove(&self, flow: &Arc<Flow>) {
        disarm(&mut self.timers.lock(), flow);
        let mut tables = self.tables.lock();
        let is_here = tables.flows.get(&flow.tuple);
        if is_here.is_some_and(|here| Arc::ptr_eq(here, flow)) {
            tables.flows.remove(&flow.tuple);
            tables.budget.give_back(flow.memory);
        }
        let is_last = tables.flows.is_empty();
        drop(tables);
        flow.removed();
        if is_last {
            memory::release_unused();
        }
    }

    /// The flow that a packet belongs to: a new one if the packet is a SYN for a listener.
    fn flow_of(&self, tuple: &Tuple, syn: bool) -> Option<Arc<Flow>> {
        let mut tables = self.tables.lock();
        if let Some(flow) = tables.flows.get(tuple) {
            return Some(flow.clone());
        }
        if !syn || self.closing.load(Ordering::Acquire) {
            return None;
        }
        let on_port = tables.listeners.get(&tuple.local.port())?;
        let backlog = on_port
            .iter()
            .find(|backlog| backlog.is_for(tuple.local.ip()))?
            .clone();
        // The other end repeats its SYN later.
        if !backlog.begin() {
            return None;
        }
        let Some(memory) = tables.budget.take() else {
            flow::Accepts::withdrawn(&*backlog);
            return None;
        };
        let id = self.new_id();
        let flow = Flow::accepting(
            id,
            *tuple,
            memory,
            self.mtu,
            self.random(),
            self.now(),
            backlog,
        );
        let flow = Arc::new(flow);
        tables.flows.insert(*tuple, flow.clone());
        Some(flow)
    }

    /// Whether something listens on this port. A SYN for it that has no flow is ignored, as there is no room
    /// for another connection, and is not refused.
    fn is_listening(&self, tuple: &Tuple) -> bool {
        let tables = self.tables.lock();
        let on_port = tables.listeners.get(&tuple.local.port());
        { on_port.into_iter().flatten() }.any(|backlog| backlog.is_for(tuple.local.ip()))
    }

    fn receive(&self, packet: &[u8], verified: bool, answer: &mut [u8], nobody: &mut Interface) {
        let Some((to, what)) = Packet::read(packet, verified) else {
            return;
        };
        if !self.addresses.contains(&to) {
            return;
        }
        let now = self.now();
        match what {
            Packet::Tcp { tuple, syn } => {
                if let Some(flow) = self.flow_of(&tuple, syn) {
                    let len = flow.receive(packet, answer, now);
                    self.put_answer(&answer[..len]);
                    return self.drive(&flow);
                }
                if syn && self.is_listening(&tuple) {
                    return;
                }
            }
            Packet::Udp { tuple, payload } => {
                let mailbox = self.tables.lock().ports.get(&tuple.local.port()).cloned();
                if let Some(mailbox) = mailbox {
                    mailbox.put(tuple.remote, payload);
                    return;
                }
            }
            Packet::Unreachable { tcp, tuple, what } => {
                let flow = self.tables.lock().flows.get(&tuple).cloned();
                if let Some(flow) = flow.filter(|_| tcp) {
                    flow.unreachable(what, now);
                    self.drive(&flow);
                }
                return;
            }
            Packet::Other => {}
        }
        link::set_address(nobody, to);
        let len = link::answer(nobody, self.mtu, packet, answer, now);
        self.put_answer(&answer[..len]);
    }

    /// Returns this port if it is free; for 0, any free port.
    fn free_port(&self, port: u16, is_free: impl Fn(u16) -> bool) -> Result<u16, Error> {
        match port {
            0 => (0..PORT_TRIES)
                .map(|_| ephemeral(self.random()))
                .find(|port| is_free(*port))
                .ok_or(Error::PortInUse(0)),
            _ if is_free(port) => Ok(port),
            _ => Err(Error::PortInUse(port)),
        }
    }

    fn put_answer(&self, answer: &[u8]) {
        if !answer.is_empty() {
            // Without room the answer is dropped, as if it had been lost on its way.
            let _ = self.outgoing.put(answer.to_vec());
            self.wake();
        }
    }
}

fn disarm(timers: &mut BTreeMap<(Time, u64), Arc<Flow>>, flow: &Flow) {
    let armed = flow.armed.swap(0, Ordering::Relaxed);
    if armed != 0 {
        timers.remove(&(Time::from_nanos(armed), flow.id));
    }
}

/// Returns the port of an outgoing connection for a random number.
fn ephemeral(random: u64) -> u16 {
    let (first, last) = EPHEMERAL.into_inner();
    let count = u64::from(last - first) + 1;
    first + (random % count) as u16
}

impl TunIo for Host {
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(packet) = self.outgoing.take() {
            buf[..packet.len()].copy_from_slice(&packet);
            return Ok(packet.len());
        }
        loop {
            let next = self.ready.lock().pop_front();
            let Some(flow) = next else {
                return Err(io::Error::from_raw_os_error(libc::EAGAIN));
            };
            // After this, a change of the flow queues it again.
            flow.queued.store(false, Ordering::Release);
            let now = self.now();
            let len = flow.transmit(buf, now);
            if len > 0 {
                // The flow may have more packets; the other flows have their turn first.
                if flow.queue() {
                    self.ready.lock().push_back(flow);
                }
                return Ok(len);
            }
            self.settle(&flow, now);
        }
    }

    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut bench = self.bench.lock();
        let Bench {
            gathered,
            answer,
            nobody,
        } = &mut *bench;
        let header = parts.first().and_then(|part| VirtioNetHdr::parse(part));
        let verified = header.is_some_and(|(header, _)| header.flags & virtio::NEEDS_CSUM != 0);
        match parts {
            [_, packet] => self.receive(packet, verified, answer, nobody),
            _ => {
                gathered.clear();
                let rest = parts.iter().skip(1);
                rest.for_each(|part| gathered.extend_from_slice(part));
                self.receive(gathered, verified, answer, nobody);
            }
        }
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn offloads(&self) -> TunOffloads {
        TunOffloads {
            vnet_hdr: true,
            tso: true,
            uso: false,
            tunnels: false,
        }
    }
}
