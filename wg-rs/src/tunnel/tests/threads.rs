//! The tunnel with threads, as in the daemon: on each of two hosts one thread reads packets, one
//! receives datagrams, one is the owner, and one configures. A fast clock makes sessions expire
//! during the test. Nothing is lost or repeated, and the order is kept, also for staged packets.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wg_crypto::{AeadBackend, PrivateKey, PublicKey};

use crate::model::{Change, Wall};
use crate::tunnel::device::Device;
use crate::tunnel::drops::DropReason;
use crate::tunnel::ingress::HandshakeBacklog;
use crate::tunnel::peer::Endpoint;
use crate::tunnel::plane::Plane;
use crate::tunnel::receive::InBurst;
use crate::tunnel::send::{OpenBurst, OutBuffer, Prepared, route};
use crate::tunnel::sim::{Sockets, allow, packet};
use crate::tunnel::time::Time;

/// When the test begins and ends, in nanoseconds: enough time for sixteen renewals.
const START: u64 = 1_000_000_000_000;
const END: u64 = START + 2_000_000_000_000;
/// How far the sender may be ahead: the number of packets that can be staged.
const WINDOW: u64 = 128;
/// The time that passes with each packet, in nanoseconds.
const TICK: u64 = 10_000_000;

/// The limit for a side that is ahead of the other, in packets. Without it, while the machine lets
/// one thread sleep, the other side would continue until packets in flight are too old for their
/// keys and are rightly refused.
const APART: u64 = 4 * WINDOW;
/// The clock stands still while an owner has not looked at its timers for this time, in
/// nanoseconds.
const LATE: u64 = 20_000_000_000;

/// The stride and the bytes.
type Datagrams = (usize, Vec<u8>);

struct Node {
    number: usize,
    device: Mutex<Device>,
    plane: Arc<Plane>,
    clock: Arc<AtomicU64>,
    /// The number of handshake messages on the way, of both nodes. The clock stands still meanwhile.
    /// Otherwise a slow owner could make two handshakes follow each other, and a burst whose thread
    /// sleeps would be sent in a session that is then the last but one.
    handshaking: Arc<AtomicU64>,
    network: Mutex<Sender<Datagrams>>,
    control: Mutex<Sender<Vec<u8>>>,
    /// The number of packets that were sent; `u64::MAX` until all are sent.
    sent: AtomicU64,
    delivered: AtomicU64,
    /// The time of the owner's last look at its timers.
    looked: AtomicU64,
    stop: AtomicBool,
}

impl Node {
    fn now(&self) -> Time {
        Time::from_nanos(self.clock.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Wall {
        let nanos = self.now().as_nanos();
        Wall {
            secs: nanos / 1_000_000_000,
            nanos: (nanos % 1_000_000_000) as u32,
        }
    }

    fn emit(&self, stride: usize, datagrams: &[u8]) {
        if matches!(datagrams.first(), Some(1..=3)) {
            self.handshaking.fetch_add(1, Ordering::SeqCst);
        }
        // At the end the other side no longer exists.
        let _ = self
            .network
            .lock()
            .unwrap()
            .send((stride, datagrams.to_vec()));
    }

    fn transmit(&self, device: &mut Device) {
        let mut out = Vec::new();
        while let Some(transmit) = device.poll_transmit(self.now(), self.wall(), &mut out) {
            self.emit(transmit.stride, &out);
            transmit.sent(&self.plane, out.len(), self.now());
        }
    }

    fn read_tun(&self, other: &Node) {
        let mut free = Some(OutBuffer::new());
        let mut next = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let clock = self.clock.load(Ordering::SeqCst);
            if clock >= END {
                break;
            }
            let ahead = next - other.delivered.load(Ordering::SeqCst);
            let apart = next.saturating_sub(self.delivered.load(Ordering::SeqCst));
            if ahead + 40 > WINDOW || apart > APART {
                thread::yield_now();
                continue;
            }
            let late = [self, other]
                .iter()
                .any(|node| clock.saturating_sub(node.looked.load(Ordering::SeqCst)) > LATE);
            let tick = match late || self.handshaking.load(Ordering::SeqCst) > 0 {
                true => 0,
                false => TICK,
            };
            let mut open: Option<OpenBurst> = None;
            for _ in 0..1 + next % 40 {
                let mut payload = vec![0; 20 + (next % 7) as usize * 16];
                payload[..8].copy_from_slice(&next.to_be_bytes());
                let packet = packet(self.number, other.number, &payload);
                let routes = self.plane.routes();
                let peer = route(&routes, &packet).unwrap();
                if let Some(full) = open.take_if(|burst| !burst.fits(peer, 0, packet.len(), 1420)) {
                    free = Some(self.send(full));
                }
                let burst =
                    open.get_or_insert_with(|| free.take().unwrap_or_default().start(peer, 0));
                burst.push(packet.len(), 1420).copy_from_slice(&packet);
                next += 1;
                self.clock.fetch_add(tick, Ordering::SeqCst);
            }
            free = open.map(|burst| self.send(burst)).or(free);
        }
        self.sent.store(next, Ordering::SeqCst);
    }

    fn send(&self, burst: OpenBurst) -> OutBuffer {
        match self.plane.prepare(burst, self.now()) {
            Prepared::Staged(buffer) => buffer,
            Prepared::Ready(burst) => {
                let burst = burst.seal();
                self.plane.sending(&burst, self.now());
                self.emit(burst.stride(), burst.datagrams());
                let taken = burst.datagrams().len();
                self.plane.sent(burst, taken, self.now())
            }
        }
    }

    fn receive(&self, network: &Receiver<Datagrams>) {
        let mut burst = InBurst::new();
        let from = Endpoint::from("192.0.2.1:1".parse::<std::net::SocketAddr>().unwrap());
        let control = self.control.lock().unwrap().clone();
        while let Ok((stride, datagrams)) = network.recv() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            burst.buffer()[..datagrams.len()].copy_from_slice(&datagrams);
            burst.received(datagrams.len(), stride, from, 0);
            burst.classify(&self.plane, self.now(), |message, _| {
                control.send(message.to_vec()).unwrap();
            });
            burst.open();
            burst.accept(&self.plane, self.now());
            for range in burst.packets() {
                let payload = &burst.bytes()[range.start + 20..range.start + 28];
                let number = u64::from_be_bytes(payload.try_into().unwrap());
                let expected = self.delivered.fetch_add(1, Ordering::SeqCst);
                let drops = self.plane.drops();
                assert_eq!(
                    number, expected,
                    "lost, repeated or out of order: {drops:?}"
                );
            }
        }
    }

    fn own(&self, control: &Receiver<Vec<u8>>) {
        let from = Endpoint::from("192.0.2.1:1".parse::<std::net::SocketAddr>().unwrap());
        while !self.stop.load(Ordering::Relaxed) {
            // The waker sends an empty message.
            let message = match control.recv_timeout(Duration::from_millis(20)) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut device = self.device.lock().unwrap();
            if !message.is_empty() {
                device.handle_message(
                    self.now(),
                    self.wall(),
                    from,
                    &message,
                    HandshakeBacklog::default(),
                );
            }
            let clock = self.clock.load(Ordering::SeqCst);
            device.handle_timeout(self.now(), self.wall());
            self.transmit(&mut device);
            self.looked.store(clock, Ordering::SeqCst);
            if !message.is_empty() {
                self.handshaking.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Changes that must not disturb traffic.
    fn configure(&self, other: PublicKey) {
        let mut sockets = Sockets::default();
        let mut turn = 0_u16;
        let mut last = 0;
        while !self.stop.load(Ordering::Relaxed) {
            // Every third change sends a keepalive. Without this limit, thousands of them would be
            // received before a burst whose thread sleeps between `prepare` and `emit`, which
            // would then be older than the replay window.
            let clock = self.clock.load(Ordering::SeqCst);
            if clock == last {
                thread::yield_now();
                continue;
            }
            last = clock;
            turn = turn.wrapping_add(1);
            let guest = PublicKey::from_bytes([turn as u8; 32]);
            let changes = [
                Change::Peer(guest),
                allow("10.99.0.0/16"),
                Change::Peer(other),
                // Like every `set` and `syncconf`; the data path never sees a state without the
                // networks.
                Change::ReplaceAllowedIps,
                allow(&format!("10.0.0.{}/32", 2 - self.number)),
                allow("10.98.0.0/16"),
                Change::PersistentKeepalive(turn % 3),
                Change::Peer(guest),
                Change::Remove,
            ];
            let mut device = self.device.lock().unwrap();
            device.set(&changes, &mut sockets, self.now()).unwrap();
            self.transmit(&mut device);
            drop(device);
            thread::yield_now();
        }
    }
}

#[test]
fn many_threads_lose_nothing_and_keep_the_order() {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let keys = [rng.random(), rng.random()].map(PrivateKey::from_bytes);
    let clock = Arc::new(AtomicU64::new(START));
    let handshaking = Arc::new(AtomicU64::new(0));
    let (to_0, network_0) = channel();
    let (to_1, network_1) = channel();
    let (control_to_0, control_0) = channel();
    let (control_to_1, control_1) = channel();
    let nodes: Vec<_> = [(0, to_1, control_to_0), (1, to_0, control_to_1)]
        .into_iter()
        .map(|(number, network, control): (usize, _, Sender<Vec<u8>>)| {
            let mut device = Device::new(
                Box::new(ChaCha20Rng::from_seed(rng.random())),
                AeadBackend::fastest(),
            );
            let other = 1 - number;
            let changes = [
                Change::PrivateKey(Some(Box::new(keys[number].clone()))),
                Change::Peer(keys[other].public_key()),
                Change::Endpoint("192.0.2.1:1".parse().unwrap()),
                allow(&format!("10.0.0.{}/32", other + 1)),
            ];
            let mut sockets = Sockets::default();
            device.set(&changes, &mut sockets, Time::ZERO).unwrap();
            device.up(&mut sockets).unwrap();
            let plane = device.plane().clone();
            let waker = Mutex::new(control.clone());
            plane.set_waker(Box::new(move || {
                let _ = waker.lock().unwrap().send(Vec::new());
            }));
            Node {
                number,
                device: Mutex::new(device),
                plane,
                clock: clock.clone(),
                handshaking: handshaking.clone(),
                network: Mutex::new(network),
                control: Mutex::new(control),
                sent: AtomicU64::new(u64::MAX),
                delivered: AtomicU64::new(0),
                looked: AtomicU64::new(clock.load(Ordering::SeqCst)),
                stop: AtomicBool::new(false),
            }
        })
        .collect();

    thread::scope(|scope| {
        let [a, b] = [&nodes[0], &nodes[1]];
        let receivers = [
            scope.spawn(move || a.receive(&network_0)),
            scope.spawn(move || b.receive(&network_1)),
        ];
        scope.spawn(move || a.own(&control_0));
        scope.spawn(move || b.own(&control_1));
        scope.spawn(|| a.configure(keys[1].public_key()));
        scope.spawn(|| b.configure(keys[0].public_key()));
        let readers = [scope.spawn(|| a.read_tun(b)), scope.spawn(|| b.read_tun(a))];

        let patience = Instant::now() + Duration::from_secs(120);
        let done = || {
            let [sent, delivered] = [&a.sent, &b.delivered].map(|n| n.load(Ordering::SeqCst));
            let [back, returned] = [&b.sent, &a.delivered].map(|n| n.load(Ordering::SeqCst));
            (sent, back) == (delivered, returned)
        };
        while !done() && Instant::now() < patience && !receivers.iter().any(|r| r.is_finished()) {
            thread::sleep(Duration::from_millis(5));
        }
        let complete = done();
        for node in &nodes {
            node.stop.store(true, Ordering::Relaxed);
        }
        // Wakes the receivers, so that they see that both must stop.
        for node in &nodes {
            node.emit(1, &[]);
        }
        for thread in readers.into_iter().chain(receivers) {
            thread.join().unwrap();
        }
        let delivered = [a, b].map(|node| node.delivered.load(Ordering::SeqCst));
        assert!(complete, "stuck at {delivered:?}");
    });
    for node in &nodes {
        let peer = node.device.lock().unwrap().get().peers.remove(0);
        let last = peer.last_handshake.unwrap().secs;
        assert!(last > 2800, "renewed to the end, last at {last}");
        let drops = node.plane.drops();
        for reason in [
            DropReason::StagedOverflow,
            DropReason::StagedPurged,
            DropReason::Replayed,
            DropReason::Forged,
        ] {
            assert_eq!(drops.get(reason), 0, "{reason:?}");
        }
    }
}
