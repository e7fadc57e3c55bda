//! Two devices that are each other's peers, with a fake clock and fake randomness, for the targets
//! about messages.

use std::net::SocketAddr;
use std::sync::Arc;

use rand_core::RngCore;
use wg_crypto::{AeadBackend, PrivateKey, PublicKey};
use wg_rs::model::{AllowedIp, Change, Wall};
use wg_rs::tunnel::config::NoLinks;
use wg_rs::tunnel::device::Device;
use wg_rs::tunnel::ingress::HandshakeBacklog;
use wg_rs::tunnel::peer::{Endpoint, Peer};
use wg_rs::tunnel::send::{OutBuffer, Prepared, route};
use wg_rs::tunnel::time::Time;

/// Not random, but never the same number twice.
pub struct Counter(pub u64);

impl RngCore for Counter {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }
    fn next_u64(&mut self) -> u64 {
        // SplitMix64's step.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 31)
    }
    fn fill_bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A and B. B owns 10.0.0.2, A 10.0.0.1.
pub struct Pair {
    pub a: Device,
    pub b: Device,
    pub now: Time,
}

pub const WALL: Wall = Wall {
    secs: 1_800_000_000,
    nanos: 0,
};

pub fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

pub fn addr(n: u8) -> SocketAddr {
    ([192, 0, 2, n], 51820).into()
}

impl Pair {
    pub fn new() -> Pair {
        let mut pair = Pair {
            a: Device::new(Box::new(Counter(1)), AeadBackend::fastest()),
            b: Device::new(Box::new(Counter(2)), AeadBackend::fastest()),
            now: Time::from_nanos(1_000_000_000_000),
        };
        for (device, own, other) in [(&mut pair.a, 1, 2), (&mut pair.b, 2, 1)] {
            let ip = AllowedIp::new([10, 0, 0, other].into(), 32).expect("32 bits");
            let changes = [
                Change::PrivateKey(Some(Box::new(key(own)))),
                Change::Peer(key(other).public_key()),
                Change::Endpoint(addr(other)),
                Change::AllowedIp { ip, remove: false },
            ];
            device.up(&mut NoLinks).expect("no sockets, no errors");
            device
                .set(&changes, &mut NoLinks, pair.now)
                .expect("good changes");
        }
        pair
    }

    /// Makes A send a packet, and returns its initiation.
    pub fn initiation(&mut self) -> Vec<u8> {
        assert!(
            self.send(&packet(1, 2, b"first")).is_none(),
            "there is no session yet"
        );
        let out = self.transmits_of_a();
        assert_eq!(out.len(), 1);
        out.into_iter().next().expect("one message")
    }

    /// A pair with a session.
    pub fn with_session() -> Pair {
        let mut pair = Pair::new();
        let initiation = pair.initiation();
        pair.b.handle_message(
            pair.now,
            WALL,
            Endpoint::from(addr(1)),
            &initiation,
            HandshakeBacklog::default(),
        );
        for response in transmits(&mut pair.b, pair.now) {
            pair.a.handle_message(
                pair.now,
                WALL,
                Endpoint::from(addr(2)),
                &response,
                HandshakeBacklog::default(),
            );
        }
        assert!(
            !pair.transmits_of_a().is_empty(),
            "the staged packet leaves"
        );
        pair
    }

    pub fn transmits_of_a(&mut self) -> Vec<Vec<u8>> {
        transmits(&mut self.a, self.now)
    }

    /// Makes A send a packet. Returns it sealed, or `None` if there is no session.
    pub fn send(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.send_instead(packet, packet)
    }

    /// Makes A send `packet` to the peer to which `routed` would go.
    pub fn send_instead(&mut self, routed: &[u8], packet: &[u8]) -> Option<Vec<u8>> {
        let plane = self.a.plane().clone();
        let routes = plane.routes();
        let peer: &Arc<Peer> = route(&routes, routed).expect("it is for B");
        let mut burst = OutBuffer::new().start(peer, 0);
        burst.push(packet.len(), 1420).copy_from_slice(packet);
        match plane.prepare(burst, self.now) {
            Prepared::Staged(_) => None,
            Prepared::Ready(burst) => {
                let burst = burst.seal();
                let sealed = burst.datagrams().to_vec();
                plane.sending(&burst, self.now);
                plane.sent(burst, sealed.len(), self.now);
                Some(sealed)
            }
        }
    }
}

pub fn transmits(device: &mut Device, now: Time) -> Vec<Vec<u8>> {
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while device.poll_transmit(now, WALL, &mut out).is_some() {
        all.push(std::mem::take(&mut out));
    }
    all
}

/// An IPv4 packet from 10.0.0.`from` to 10.0.0.`to`.
pub fn packet(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, from, 10, 0, 0, to,
    ];
    packet.extend(payload);
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet
}

pub fn public(n: u8) -> PublicKey {
    key(n).public_key()
}
