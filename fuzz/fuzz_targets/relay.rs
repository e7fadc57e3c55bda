//! Sends messages of any kind, from any address, to a hub whose peers move and change their groups. The
//! hub may relay a message only unchanged, and only to the current address of a peer that shares a group
//! with a peer at the sender's address, never back to the sender. Otherwise it may only send a cookie to
//! the sender.

#![no_main]

#[allow(dead_code)]
mod pair;

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use wg_crypto::{AeadBackend, MacKeys, PrivateKey, PublicKey};
use wg_rs::model::{Change, Extension, Groups, Wall};
use wg_rs::tunnel::config::NoLinks;
use wg_rs::tunnel::device::Device;
use wg_rs::tunnel::ingress::HandshakeBacklog;
use wg_rs::tunnel::peer::Endpoint;
use wg_rs::tunnel::receive::InBurst;
use wg_rs::tunnel::time::Time;

use pair::Counter;

const MEMBERS: u8 = 6;
const ADDRESSES: u8 = 8;

#[derive(Arbitrary, Debug)]
enum Event {
    /// The receiver whose key the message is signed for; `MEMBERS` stands for the hub itself.
    Initiation { from: u8, to: u8, index: u8 },
    Response { from: u8, to: u8, sender: u8, receiver: u8 },
    Cookie { from: u8, receiver: u8, byte: u8 },
    Data { from: u8, receivers: Vec<u8>, len: u8 },
    Raw { from: u8, bytes: Vec<u8> },
    Move { member: u8, to: u8 },
    Groups { member: u8, groups: u8 },
    Remove { member: u8 },
    Load { on: bool },
    Wait { millis: u16 },
}

/// Addresses in two IPv6 networks, and IPv4 addresses.
fn addr(n: u8) -> SocketAddr {
    let n = n % ADDRESSES;
    match n {
        0..4 => ([192, 0, 2, n], 51820).into(),
        4..6 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()], 51820).into(),
        _ => ([0x2001, 0xdb8, 0, 1, 0, 0, 0, n.into()], 51820).into(),
    }
}

/// Whether two addresses are equal, or may belong to the same host in an initiation.
fn is_near(a: SocketAddr, b: SocketAddr) -> bool {
    match (a, b) {
        (SocketAddr::V6(a), SocketAddr::V6(b)) => {
            a.port() == b.port() && a.ip().segments()[..4] == b.ip().segments()[..4]
        }
        (a, b) => a == b,
    }
}

fn public(member: u8) -> PublicKey {
    PrivateKey::from_bytes([1 + member; 32]).public_key()
}

#[derive(Clone, Copy, Default)]
struct Member {
    groups: u8,
    at: Option<SocketAddr>,
}

struct Hub {
    device: Device,
    members: [Member; MEMBERS as usize],
    now: Time,
    backlog: HandshakeBacklog,
    burst: InBurst,
}

impl Hub {
    fn set(&mut self, changes: &[Change]) {
        let result = self.device.set(changes, &mut NoLinks, self.now);
        result.expect("these changes cannot fail");
        self.flush();
    }

    /// Takes the messages that the hub itself creates.
    fn flush(&mut self) {
        let mut out = Vec::new();
        while let Some(transmit) = self.device.poll_transmit(self.now, Wall::default(), &mut out) {
            assert!(transmit.peer().is_some(), "only received messages are relayed");
        }
    }

    /// Whether packets from one address may be relayed to another.
    fn may_send(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let at = |place: SocketAddr| {
            let is_there = move |member: &&Member| member.at.is_some_and(|at| is_near(at, place));
            self.members.iter().filter(is_there)
        };
        let exactly = |member: &&Member| member.at == Some(to);
        from != to
            && at(to).filter(exactly).any(|to| at(from).any(|from| from.groups & to.groups != 0))
    }

    fn message(&mut self, from: SocketAddr, bytes: &[u8]) {
        let wall = Wall::default();
        self.device.handle_message(self.now, wall, Endpoint::from(from), bytes, self.backlog);
        let mut out = Vec::new();
        while let Some(transmit) = self.device.poll_transmit(self.now, wall, &mut out) {
            if transmit.peer().is_some() {
                continue;
            }
            let to = transmit.to.addr;
            let is_cookie = out.len() == 64 && out[0] == 3 && to == from && bytes.len() > 64;
            assert!(is_cookie || out == bytes && self.may_send(from, to));
        }
    }

    fn data(&mut self, from: SocketAddr, bytes: &[u8], stride: usize) {
        let plane = self.device.plane().clone();
        self.burst.buffer()[..bytes.len()].copy_from_slice(bytes);
        self.burst.received(bytes.len(), stride, Endpoint::from(from), 0);
        self.burst.classify(&plane, self.now, |_, _| {});
        let mut seen = 0;
        for (datagrams, index) in self.burst.strangers() {
            assert!(datagrams.chunks(stride).all(|one| one[4..8] == index.to_le_bytes()));
            seen += datagrams.len();
            let relay = plane.relay().expect("there are no strangers otherwise");
            if let Ok(route) = relay.route(index, from, self.now) {
                assert!(self.may_send(from, route.to.addr));
                route.sent(datagrams.len(), self.now);
            }
        }
        assert!(seen <= bytes.len());
    }
}

fuzz_target!(|events: Vec<Event>| {
    let mut device = Device::new(Box::new(Counter(1)), AeadBackend::Library);
    let key = PrivateKey::from_bytes([1 + MEMBERS; 32]);
    let key = Change::PrivateKey(Some(Box::new(key)));
    device.set(&[key], &mut NoLinks, Time::ZERO).expect("a key");
    device.up(&mut NoLinks).expect("sockets");
    let mut hub = Hub {
        device,
        members: Default::default(),
        now: Time::from_nanos(1_000_000_000_000),
        backlog: HandshakeBacklog::default(),
        burst: InBurst::new(),
    };
    for event in events.into_iter().take(200) {
        match event {
            Event::Initiation { from, to, index } => {
                let mut message = vec![0x11; 148];
                message[..8].copy_from_slice(&[1, 0, 0, 0, index, 0, 0, 0]);
                MacKeys::new(&public(to % (MEMBERS + 1))).sign(&mut message, None);
                hub.message(addr(from), &message);
            }
            Event::Response { from, to, sender, receiver } => {
                let mut message = vec![0x22; 92];
                message[..8].copy_from_slice(&[2, 0, 0, 0, sender, 0, 0, 0]);
                message[8..12].copy_from_slice(&[receiver, 0, 0, 0]);
                MacKeys::new(&public(to % (MEMBERS + 1))).sign(&mut message, None);
                hub.message(addr(from), &message);
            }
            Event::Cookie { from, receiver, byte } => {
                let mut message = vec![byte; 64];
                message[..8].copy_from_slice(&[3, 0, 0, 0, receiver, 0, 0, 0]);
                hub.message(addr(from), &message);
            }
            Event::Data { from, receivers, len } => {
                let stride = 32 + usize::from(len);
                let mut bytes = Vec::new();
                for receiver in receivers.into_iter().take(40) {
                    let mut one = vec![receiver; stride];
                    one[..8].copy_from_slice(&[4, 0, 0, 0, receiver, 0, 0, 0]);
                    bytes.extend(one);
                }
                if !bytes.is_empty() {
                    hub.data(addr(from), &bytes, stride);
                }
            }
            Event::Raw { from, bytes } => {
                if !bytes.is_empty() && bytes.len() <= 2000 {
                    hub.data(addr(from), &bytes, bytes.len());
                    hub.message(addr(from), &bytes);
                }
            }
            Event::Move { member, to } => {
                let member = member % MEMBERS;
                hub.set(&[Change::Peer(public(member)), Change::Endpoint(addr(to))]);
                hub.members[usize::from(member)].at = Some(addr(to));
            }
            Event::Groups { member, groups } => {
                let member = member % MEMBERS;
                let groups = groups & 7;
                let names = ["a", "b", "c"].into_iter().enumerate();
                let names = names.filter(|(bit, _)| groups >> bit & 1 == 1);
                let names = names.map(|(_, name)| name).collect::<Vec<_>>().join(",");
                let relay: Groups = names.parse().expect("names of groups");
                let relay = Change::Extension(Extension::Relay(relay));
                hub.set(&[Change::Peer(public(member)), relay]);
                hub.members[usize::from(member)].groups = groups;
            }
            Event::Remove { member } => {
                let member = member % MEMBERS;
                hub.set(&[Change::Peer(public(member)), Change::Remove]);
                hub.members[usize::from(member)] = Member::default();
            }
            Event::Load { on } => hub.backlog.initiations = if on { 512 } else { 0 },
            Event::Wait { millis } => {
                hub.now = hub.now + Duration::from_millis(u64::from(millis) * 4);
                hub.device.handle_timeout(hub.now, Wall::default());
                hub.flush();
            }
        }
    }
});
