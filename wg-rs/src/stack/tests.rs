//! Streams of two hosts over the simulated network, with its clock: it delays, loses, repeats and reorders the
//! datagrams of the tunnel between them. Each run follows from one seed.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::backlog::Backlog;
use super::flow::{Ended, Flow};
use super::host::{Host, HostInputs};
use super::link::ROOM;
use crate::datapath::segment::Segmenter;
use crate::datapath::tun_io::TunIo;
use crate::datapath::virtio::{self, VirtioNetHdr};
use crate::tunnel::sim::{Faults, MILLI, SECOND, Sim};
use crate::tunnel::time::Time;

const MTU: usize = 1420;
const PORT: u16 = 7;

thread_local! {
    static NOW: Cell<Time> = const { Cell::new(Time::ZERO) };
    static RANDOM: RefCell<ChaCha20Rng> = RefCell::new(ChaCha20Rng::seed_from_u64(0));
}

fn random() -> u64 {
    RANDOM.with_borrow_mut(RngCore::next_u64)
}

/// The two hosts: 0 connects, and 1 listens.
struct Net {
    sim: Sim,
    hosts: [Host; 2],
    room: Vec<u8>,
}

impl Net {
    fn new(seed: u64, faults: Faults) -> Net {
        let mut sim = Sim::hosts(2, seed);
        sim.introduce(0, 1);
        sim.introduce(1, 0);
        sim.faults = faults;
        NOW.set(sim.now);
        RANDOM.set(ChaCha20Rng::seed_from_u64(seed));
        let hosts = [0, 1].map(|i| {
            let plane = sim.hosts[i].device.plane().clone();
            plane.set_mtu(MTU);
            let inputs = HostInputs {
                now: || NOW.get(),
                random,
            };
            Host::new(addresses(i), MTU, plane, inputs).unwrap()
        });
        Net {
            sim,
            hosts,
            room: vec![0; ROOM],
        }
    }

    /// Moves all packets that can be moved now.
    fn pump(&mut self) {
        let mut has_moved = true;
        while has_moved {
            has_moved = false;
            for (i, host) in self.hosts.iter().enumerate() {
                host.awake(self.sim.now);
                while let Ok(len) = host.recv(&mut self.room) {
                    self.sim.send_packets(i, &packets(&self.room[..len]));
                    has_moved = true;
                }
                for (_, packet) in std::mem::take(&mut self.sim.hosts[i].delivered) {
                    let parts = [IoSlice::new(&[0; virtio::LEN]), IoSlice::new(&packet)];
                    host.send(&parts).unwrap();
                    has_moved = true;
                }
            }
        }
    }

    /// Goes to the next event, at most to `end`.
    fn wait(&mut self, end: Time) {
        let mut until = end;
        for host in &self.hosts {
            match host.sleep() {
                // There is work already.
                None => return,
                Some(at) => until = at.map_or(until, |at| at.min(until)),
            }
        }
        let until = until.max(self.sim.now);
        if !self.sim.step(until) {
            self.sim.now = until;
        }
        self.sim.seen.clear();
        NOW.set(self.sim.now);
    }
}

fn addresses(host: usize) -> Vec<IpAddr> {
    let last = host as u8 + 1;
    vec![
        Ipv4Addr::new(10, 0, 0, last).into(),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
    ]
}

/// Cuts what a host sends into packets, as the data path does.
fn packets(sent: &[u8]) -> Vec<Vec<u8>> {
    let (header, packet) = VirtioNetHdr::parse(sent).unwrap();
    let segmenter = Segmenter::new(header, packet).unwrap();
    let packet = |i| {
        let mut packet = vec![0; segmenter.segment_len(i)];
        segmenter.write(i, &mut packet);
        packet
    };
    (0..segmenter.count()).map(packet).collect()
}

/// One end of a stream: it sends its bytes and then closes its side, and reads until the other side is closed.
struct End {
    flow: Arc<Flow>,
    bytes: Vec<u8>,
    written: usize,
    closed: bool,
    got: Vec<u8>,
    /// Whether everything was read, and how.
    ended: Option<Result<(), Ended>>,
}

impl End {
    fn new(flow: Arc<Flow>, bytes: Vec<u8>) -> End {
        End {
            flow,
            bytes,
            written: 0,
            closed: false,
            got: Vec::new(),
            ended: None,
        }
    }

    fn turn(&mut self, host: &Host) {
        let waker = Waker::noop();
        match self.flow.poll_established(waker) {
            Some(Ok(())) => {}
            Some(Err(ended)) => return self.ended = Some(Err(ended)),
            None => return,
        }
        while self.written < self.bytes.len() {
            match self.flow.poll_write(&self.bytes[self.written..], waker) {
                Some(Ok(len)) => self.written += len,
                Some(Err(ended)) => return self.ended = Some(Err(ended)),
                None => break,
            }
        }
        if self.written == self.bytes.len() && !self.closed {
            self.flow.close();
            self.closed = true;
        }
        let mut room = [0; 4096];
        while self.ended.is_none() {
            match self.flow.poll_read(&mut room, waker, host.now()).0 {
                Some(Ok(0)) => self.ended = Some(Ok(())),
                Some(Ok(len)) => self.got.extend_from_slice(&room[..len]),
                Some(Err(ended)) => self.ended = Some(Err(ended)),
                None => break,
            }
        }
        host.drive(&self.flow);
    }
}

fn accept(backlog: &Backlog) -> Option<Arc<Flow>> {
    match pin!(backlog.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(flow) => flow,
        Poll::Pending => None,
    }
}

/// Runs streams over a network with these faults, both ways at the same time, and checks what arrives. Returns
/// the time until all have ended.
fn run(seed: u64, faults: Faults, streams: usize, longest: usize, limit: Duration) -> Duration {
    let mut net = Net::new(seed, faults);
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut bytes = || {
        let mut bytes = vec![0; rng.random_range(0..=longest)];
        rng.fill_bytes(&mut bytes);
        bytes
    };
    let start = net.sim.now;
    let end = start + limit;
    let (_, backlog) = net.hosts[1].listen(None, PORT).unwrap();
    let to = |n: usize| SocketAddr::new(addresses(1)[n % 2], PORT);
    let mut clients: Vec<End> = (0..streams)
        .map(|n| End::new(net.hosts[0].connect(to(n)).unwrap(), bytes()))
        .collect();
    let mut servers: Vec<End> = Vec::new();
    loop {
        net.pump();
        while let Some(flow) = accept(&backlog) {
            servers.push(End::new(flow, bytes()));
        }
        clients.iter_mut().for_each(|end| end.turn(&net.hosts[0]));
        servers.iter_mut().for_each(|end| end.turn(&net.hosts[1]));
        net.pump();
        let all = || clients.iter().chain(&servers);
        if servers.len() == streams && all().all(|end| end.ended.is_some()) {
            break;
        }
        assert!(net.sim.now < end, "seed {seed}: a stream is stuck");
        net.wait(end);
    }
    let time = net.sim.now.saturating_since(start);
    for client in &clients {
        let local = client.flow.tuple.local;
        let server = servers.iter().find(|end| end.flow.tuple.remote == local);
        let server = server.expect("each connection was accepted");
        for (here, there) in [(client, server), (server, client)] {
            assert_eq!(here.ended, Some(Ok(())), "seed {seed}");
            assert_eq!(here.got.len(), there.bytes.len(), "seed {seed}");
            assert!(
                here.got == there.bytes,
                "seed {seed}: other bytes than those sent"
            );
        }
    }
    // Both hosts are rid of all connections in the end.
    let end = net.sim.now + limit;
    net.hosts.iter().for_each(Host::close);
    while net.hosts.iter().any(|host| host.is_closing() != Some(true)) {
        assert!(net.sim.now < end, "seed {seed}: a connection does not end");
        net.pump();
        net.wait(end);
    }
    time
}

/// Runs streams with each of these seeds, over networks that lose these parts of a thousand datagrams.
fn run_all(seeds: Range<u64>, lose: Range<u32>, limit: Duration) {
    for seed in seeds {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let faults = Faults {
            delay: rng.random_range(1..80) * MILLI,
            spread: rng.random_range(0..60) * MILLI,
            lose: rng.random_range(lose.clone()),
            repeat: rng.random_range(0..30),
        };
        run(seed, faults, rng.random_range(1..4), 60_000, limit);
    }
}

#[test]
fn streams_arrive_whole_over_a_path_that_loses_repeats_and_reorders() {
    run_all(0..200, 0..60, 60 * SECOND);
}

#[test]
fn streams_arrive_whole_over_a_path_that_loses_every_fifth_packet() {
    run_all(1000..1050, 100..200, 600 * SECOND);
}

#[test]
fn a_stream_is_fast_over_a_path_without_faults() {
    let faults = Faults::default();
    let time = run(1, faults, 2, 2_000_000, 60 * SECOND);
    // A round trip takes 20 ms.
    assert!(time < 3 * SECOND, "{time:?}");
}
