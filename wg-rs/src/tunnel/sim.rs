//! A simulated network: a queue of datagrams, and a clock that jumps from one event to the next.
//! The simulated devices are the real code: `Device`, `OpenBurst`, `InBurst`.
//!
//! The network delays, loses, repeats and reorders datagrams according to `Faults`, from one seed.
//! All sent datagrams are recorded. A host's `addr` is the address that others see: changing it
//! simulates roaming, or a NAT that forgot its state.

mod packet;
mod sockets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wg_crypto::{AeadBackend, PresharedKey, PrivateKey, PublicKey};

use super::config::ConfigError;
use super::device::Device;
use super::drops::DropReason;
use super::ingress::HandshakeBacklog;
use super::keypair::Keypair;
use super::peer::{Endpoint, Peer, Source};
use super::receive::InBurst;
use super::send::{OpenBurst, OutBuffer, Prepared, Unroutable, outer_tos, route};
use super::time::Time;
use crate::model::{self, AllowedIp, Change, Extension, Groups, Wall};
use crate::sys::udp::OuterHeader;

pub(crate) use packet::{checksum, packet, packet_between};
pub(crate) use sockets::Sockets;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MILLI: Duration = Duration::from_millis(1);

/// What the network does to datagrams. Probabilities are in thousandths.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub delay: Duration,
    /// A random addition to the delay, up to this; it causes reordering.
    pub spread: Duration,
    pub lose: u32,
    pub repeat: u32,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: 10 * MILLI,
            spread: Duration::ZERO,
            lose: 0,
            repeat: 0,
        }
    }
}

/// A recorded datagram.
#[derive(Clone)]
pub(crate) struct Seen {
    pub at: Time,
    pub from: usize,
    pub to: SocketAddr,
    pub tos: u8,
    pub bytes: Vec<u8>,
}

impl Seen {
    pub fn kind(&self) -> u8 {
        self.bytes[0]
    }
}

pub(crate) const INITIATION: u8 = 1;
pub(crate) const RESPONSE: u8 = 2;
pub(crate) const COOKIE: u8 = 3;
pub(crate) const DATA: u8 = 4;
pub(crate) const KEEPALIVE_LEN: usize = 32;

#[derive(Clone)]
struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    header: OuterHeader,
    stride: usize,
    bytes: Vec<u8>,
}

pub(crate) struct Host {
    pub device: Device,
    pub sockets: Sockets,
    pub key: PrivateKey,
    /// The address that others see.
    pub addr: SocketAddr,
    /// Datagrams to this host are lost.
    pub deaf: bool,
    /// The host's network accepts no datagrams.
    pub unplugged: bool,
    /// The backlog that is reported for each handshake message.
    pub backlog: HandshakeBacklog,
    /// Packets that were written to the TUN.
    pub delivered: Vec<(Time, Vec<u8>)>,
    /// Packets that the data path would answer with ICMP.
    pub unroutable: Vec<Unroutable>,
    /// The error of the host's wall clock in seconds.
    pub wall_error: i64,
    /// The open burst, and memory for the next one.
    out: Option<OpenBurst>,
    free: Option<OutBuffer>,
    r#in: InBurst,
}

impl Host {
    pub fn public(&self) -> PublicKey {
        self.key.public_key()
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.device.plane().drops().get(reason)
    }

    /// The host's first peer.
    pub fn first(&self) -> Arc<Peer> {
        self.device.peers().next().unwrap().clone()
    }

    /// The current session with that peer.
    pub fn session(&self) -> Arc<Keypair<Peer>> {
        self.first().keypairs.current().clone().unwrap()
    }

    /// That peer as `get` shows it.
    pub fn peer(&self) -> model::Peer {
        self.device.get().peers.remove(0)
    }

    /// The delivered payloads: for each packet the first byte after the IP header.
    pub fn payloads(&self) -> Vec<u8> {
        self.delivered
            .iter()
            .map(|(_, packet)| packet[header_len(packet)])
            .collect()
    }
}

fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

pub(crate) struct Sim {
    pub now: Time,
    pub hosts: Vec<Host>,
    pub faults: Faults,
    pub seen: Vec<Seen>,
    pub rng: ChaCha20Rng,
    /// Ordered by arrival, then by the order of sending.
    flights: BTreeMap<(Time, u64), Flight>,
    sent: u64,
}

impl Sim {
    /// Hosts that are up and do not know each other. Host `i` has the address 192.0.2.(i+1):51820
    /// and the inner addresses 10.0.0.(i+1) and fd00::(i+1).
    pub fn hosts(count: usize, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let hosts = (0..count).map(|i| {
            let key = PrivateKey::from_bytes(rng.random());
            let mut device = Device::new(
                Box::new(ChaCha20Rng::from_seed(rng.random())),
                AeadBackend::fastest(),
            );
            let mut sockets = Sockets::default();
            device
                .set(
                    &[
                        Change::PrivateKey(Some(Box::new(key.clone()))),
                        Change::ListenPort(51820),
                    ],
                    &mut sockets,
                    Time::ZERO,
                )
                .unwrap();
            device.up(&mut sockets).unwrap();
            Host {
                device,
                sockets,
                key,
                addr: format!("192.0.2.{}:51820", i + 1).parse().unwrap(),
                deaf: false,
                unplugged: false,
                backlog: HandshakeBacklog::default(),
                delivered: Vec::new(),
                unroutable: Vec::new(),
                wall_error: 0,
                out: None,
                free: None,
                r#in: InBurst::new(),
            }
        });
        let hosts = hosts.collect();
        Self {
            now: Time::from_nanos(1_000_000_000_000),
            hosts,
            faults: Faults::default(),
            seen: Vec::new(),
            rng,
            flights: BTreeMap::new(),
            sent: 0,
        }
    }

    /// Two hosts that know each other and have no session yet.
    pub fn pair() -> Self {
        let mut sim = Self::hosts(2, 1);
        sim.introduce(0, 1);
        sim.introduce(1, 0);
        sim
    }

    /// Two hosts with a session that host 0 started, and no packets in flight.
    pub fn session() -> Self {
        let mut sim = Self::pair();
        sim.assert_passes(0, 1, 0);
        sim.hosts[1].delivered.clear();
        sim.seen.clear();
        sim
    }

    /// Makes `peer` a peer of `host`.
    pub fn introduce(&mut self, host: usize, peer: usize) {
        let endpoint = self.hosts[peer].addr;
        self.set_peer(
            host,
            peer,
            &[
                Change::Endpoint(endpoint),
                allow(&format!("10.0.0.{}/32", peer + 1)),
                allow(&format!("fd00::{:x}/128", peer + 1)),
            ],
        );
    }

    pub fn set(&mut self, host: usize, changes: &[Change]) -> Result<(), ConfigError> {
        let Host {
            device, sockets, ..
        } = &mut self.hosts[host];
        let result = device.set(changes, sockets, self.now);
        self.pump(host);
        result
    }

    /// Makes `members` peers of the hub. Each can reach the hub, and the other members through it.
    pub fn join(&mut self, hub: usize, members: &[usize]) {
        let endpoint = Change::Endpoint(self.hosts[hub].addr);
        for &member in members {
            let inner = allow(&format!("10.0.0.{}/32", member + 1));
            self.set_peer(
                hub,
                member,
                &[inner, Change::Extension(Extension::Relay(Groups::on()))],
            );
            self.introduce(member, hub);
            self.set_peer(member, hub, &[Change::PersistentKeepalive(25)]);
            for &other in members.iter().filter(|other| **other != member) {
                let inner = allow(&format!("10.0.0.{}/32", other + 1));
                self.set_peer(member, other, &[endpoint.clone(), inner]);
            }
        }
    }

    /// Changes the settings of `peer` in `host`.
    pub fn set_peer(&mut self, host: usize, peer: usize, changes: &[Change]) {
        let mut all = vec![Change::Peer(self.hosts[peer].public())];
        all.extend_from_slice(changes);
        self.set(host, &all).unwrap();
    }

    pub fn down(&mut self, host: usize) {
        let Host {
            device, sockets, ..
        } = &mut self.hosts[host];
        device.down(sockets);
        self.pump(host);
    }

    pub fn up(&mut self, host: usize) {
        let Host {
            device, sockets, ..
        } = &mut self.hosts[host];
        device.up(sockets).unwrap();
        self.pump(host);
    }

    /// The TUN of `from` gets a packet for `to`, whose payload consists of bytes `payload`.
    pub fn send(&mut self, from: usize, to: usize, payload: u8) {
        self.send_packets(from, &[packet(from, to, &[payload; 20])]);
    }

    /// Sends a packet as [`Self::send`] does: within a second it is delivered, as the first one.
    #[track_caller]
    pub fn assert_passes(&mut self, from: usize, to: usize, payload: u8) {
        self.send(from, to, payload);
        self.run(SECOND);
        assert_eq!(self.hosts[to].payloads(), [payload]);
    }

    /// The TUN of `from` gets packets, which are read together.
    pub fn send_packets(&mut self, from: usize, packets: &[Vec<u8>]) {
        let plane = self.hosts[from].device.plane().clone();
        let mtu = plane.mtu();
        let routes = plane.routes();
        for packet in packets {
            let host = &mut self.hosts[from];
            match route(&routes, packet) {
                Err(reason) => {
                    plane.drop_packets(reason.into(), 1);
                    host.unroutable.push(reason);
                }
                Ok(peer) => {
                    let tos = outer_tos(packet);
                    let fits = |open: &OpenBurst| open.fits(peer, tos, packet.len(), mtu);
                    if !host.out.as_ref().is_some_and(fits) {
                        self.finish_burst(from);
                    }
                    let Host { out, free, .. } = &mut self.hosts[from];
                    let open =
                        out.get_or_insert_with(|| free.take().unwrap_or_default().start(peer, tos));
                    open.push(packet.len(), mtu).copy_from_slice(packet);
                }
            }
        }
        self.finish_burst(from);
        self.pump(from);
    }

    fn finish_burst(&mut self, from: usize) {
        let Some(burst) = self.hosts[from].out.take() else {
            return;
        };
        let plane = self.hosts[from].device.plane().clone();
        let free = match plane.prepare(burst, self.now) {
            Prepared::Ready(burst) => {
                let burst = burst.seal();
                let destination = burst.peer().destination(true, self.now).unwrap();
                plane.note(burst.peer(), &destination);
                let header = OuterHeader::with_tos(burst.tos());
                let (stride, datagrams) = (burst.stride(), burst.datagrams());
                if let Some(also) = destination.also {
                    self.transmit(from, also.addr, header, stride, datagrams);
                }
                let to = destination.to.addr;
                plane.sending(&burst, self.now);
                let taken = self.transmit(from, to, header, stride, datagrams);
                plane.sent(burst, taken, self.now)
            }
            Prepared::Staged(buffer) => buffer,
        };
        self.hosts[from].free = Some(free);
    }

    /// Returns the number of bytes that the network accepted.
    fn transmit(
        &mut self,
        from: usize,
        to: SocketAddr,
        header: OuterHeader,
        stride: usize,
        bytes: &[u8],
    ) -> usize {
        if self.hosts[from].unplugged {
            return 0;
        }
        let addr = self.hosts[from].addr;
        let at = self.now;
        for datagram in bytes.chunks(stride) {
            let bytes = datagram.to_vec();
            self.seen.push(Seen {
                at,
                from,
                to,
                tos: header.tos,
                bytes,
            });
        }
        let Faults {
            delay,
            spread,
            lose,
            repeat,
        } = self.faults;
        if lose == 0 && repeat == 0 && spread.is_zero() {
            self.fly(
                delay,
                Flight {
                    from: addr,
                    to,
                    header,
                    stride,
                    bytes: bytes.to_vec(),
                },
            );
            return bytes.len();
        }
        for datagram in bytes.chunks(stride) {
            let bytes = datagram.to_vec();
            let flight = Flight {
                from: addr,
                to,
                header,
                stride: bytes.len(),
                bytes,
            };
            let copies = 1 + u32::from(self.rng.random_ratio(repeat, 1000));
            for _ in 0..copies {
                if !self.rng.random_ratio(lose, 1000) {
                    let extra = self.rng.random_range(0..=spread.as_nanos() as u64);
                    self.fly(delay + Duration::from_nanos(extra), flight.clone());
                }
            }
        }
        bytes.len()
    }

    fn fly(&mut self, delay: Duration, flight: Flight) {
        self.sent += 1;
        self.flights.insert((self.now + delay, self.sent), flight);
    }

    /// Sends a datagram from any address.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let flight = Flight {
            from,
            to,
            header: OuterHeader::default(),
            stride: bytes.len(),
            bytes: bytes.to_vec(),
        };
        self.fly(self.faults.delay, flight);
    }

    fn wall(&self, host: usize) -> Wall {
        let nanos = self.now.as_nanos();
        let secs = (1_700_000_000 + nanos / 1_000_000_000) as i64 + self.hosts[host].wall_error;
        Wall {
            secs: secs as u64,
            nanos: (nanos % 1_000_000_000) as u32,
        }
    }

    /// Sends everything that the host wants to send.
    pub fn pump(&mut self, host: usize) {
        let wall = self.wall(host);
        let mut out = Vec::new();
        while let Some(transmit) = self.hosts[host]
            .device
            .poll_transmit(self.now, wall, &mut out)
        {
            let to = transmit.to.addr;
            let header = OuterHeader::with_tos(transmit.tos);
            let taken = self.transmit(host, to, header, transmit.stride, &out);
            transmit.sent(self.hosts[host].device.plane(), taken, self.now);
        }
    }

    fn deliver(&mut self, flight: Flight) {
        let Some(i) = self.hosts.iter().position(|host| host.addr == flight.to) else {
            return;
        };
        let (now, wall) = (self.now, self.wall(i));
        let host = &mut self.hosts[i];
        if host.deaf || host.sockets.port.is_none() {
            return;
        }
        let plane = host.device.plane().clone();
        let src = Some(Source {
            ip: flight.to.ip(),
            ifindex: 2,
        });
        host.r#in.buffer()[..flight.bytes.len()].copy_from_slice(&flight.bytes);
        let from = Endpoint {
            addr: flight.from,
            src,
        };
        host.r#in
            .received(flight.bytes.len(), flight.stride, from, flight.header.tos);
        let (device, backlog) = (&mut host.device, host.backlog);
        host.r#in.classify(&plane, now, |message, from| {
            device.handle_message(now, wall, from, message, backlog);
        });
        let mut relayed = Vec::new();
        let hop_limit = flight.header.hop_limit;
        host.r#in
            .relay(&plane, now, hop_limit, |bytes, route, hops_left| {
                route.sent(bytes.len(), now);
                let header = OuterHeader {
                    hop_limit: Some(hops_left),
                    ..flight.header
                };
                relayed.push((route.to.addr, header, bytes.to_vec()));
            });
        host.r#in.open();
        host.r#in.accept(&plane, now);
        for range in host.r#in.packets() {
            host.delivered
                .push((now, host.r#in.bytes()[range.clone()].to_vec()));
        }
        for (to, header, bytes) in relayed {
            self.transmit(i, to, header, flight.stride, &bytes);
        }
        self.pump(i);
    }

    /// Lets `time` pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Goes to the next event, unless it is after `end`. Returns whether there was one.
    pub fn step(&mut self, end: Time) -> bool {
        let arrival = self.flights.keys().next().map(|(at, _)| *at);
        let timers = self.hosts.iter().map(|host| host.device.next_timeout());
        let Some(next) = timers
            .chain([arrival])
            .flatten()
            .min()
            .filter(|next| *next <= end)
        else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let (_, flight) = self.flights.pop_first().expect("just seen");
            self.deliver(flight);
            return true;
        }
        for i in 0..self.hosts.len() {
            if self.hosts[i]
                .device
                .next_timeout()
                .is_some_and(|at| at <= self.now)
            {
                let wall = self.wall(i);
                self.hosts[i].device.handle_timeout(self.now, wall);
                self.pump(i);
            }
        }
        true
    }

    /// When `from` sent messages of this kind.
    pub fn times(&self, from: usize, kind: u8) -> Vec<Time> {
        let seen = self
            .seen
            .iter()
            .filter(|seen| seen.from == from && seen.kind() == kind);
        seen.map(|seen| seen.at).collect()
    }

    /// How many messages of this kind `from` sent.
    pub fn count(&self, from: usize, kind: u8) -> usize {
        self.times(from, kind).len()
    }

    /// When `from` sent keepalives.
    pub fn keepalives(&self, from: usize) -> Vec<Time> {
        let keepalive = |seen: &&Seen| {
            seen.from == from && seen.kind() == DATA && seen.bytes.len() == KEEPALIVE_LEN
        };
        self.seen
            .iter()
            .filter(keepalive)
            .map(|seen| seen.at)
            .collect()
    }

    /// The last message of this kind that `from` sent.
    pub fn last(&self, from: usize, kind: u8) -> Seen {
        let mut seen = self.seen.iter().rev();
        seen.find(|seen| seen.from == from && seen.kind() == kind)
            .unwrap()
            .clone()
    }
}

pub(crate) fn allow(network: &str) -> Change {
    Change::AllowedIp {
        ip: network_of(network),
        remove: false,
    }
}

pub(crate) fn disallow(network: &str) -> Change {
    Change::AllowedIp {
        ip: network_of(network),
        remove: true,
    }
}

pub(crate) fn network_of(text: &str) -> AllowedIp {
    let (addr, cidr) = text.split_once('/').unwrap();
    AllowedIp::new(addr.parse().unwrap(), cidr.parse().unwrap()).unwrap()
}

pub(crate) fn psk(byte: u8) -> Change {
    Change::PresharedKey(Box::new(PresharedKey::from_bytes([byte; 32])))
}
