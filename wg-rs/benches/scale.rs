//! The cost of a change with 100 and with 100 000 peers: adding a peer, removing a peer, moving a
//! network to another peer, and answering a handshake. Also a `set` of all peers, and the memory for
//! each.
//!
//! ```text
//! cargo bench -p wg-rs --bench scale              # the table
//! cargo bench -p wg-rs --bench scale -- --check   # exit code 1 if a required ratio is not reached
//! ```
//!
//! `--quick` uses fewer samples. Both devices are used in turn, each time with another peer, so that
//! the large one has its data in memory and not in the caches.

use std::env;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wg_crypto::{AeadBackend, Identity, MacKeys, PrivateKey, PublicKey, Tai64n, create_initiation};
use wg_rs::model::{AllowedIp, Change, Wall};
use wg_rs::tunnel::config::NoLinks;
use wg_rs::tunnel::device::Device;
use wg_rs::tunnel::ingress::HandshakeBacklog;
use wg_rs::tunnel::peer::Endpoint;
use wg_rs::tunnel::time::Time;

const FEW: usize = 100;
const MANY: usize = 100_000;
/// The greatest allowed ratio of the cost at `MANY` to the cost at `FEW`.
const FLAT: f64 = 3.0;
/// The limits for one `set` of `MANY` peers, and for the bytes of each peer.
const SET: Duration = Duration::from_secs(2);
const MEMORY: usize = 4096;
/// Peers of each device whose private keys we have.
const KNOWN: usize = 64;

/// A device with its peers.
struct Hub {
    device: Device,
    identity: PrivateKey,
    peers: Vec<(PublicKey, AllowedIp)>,
    known: Vec<PrivateKey>,
    rng: ChaCha20Rng,
    /// A peer may initiate every 20 ms, so the time advances.
    tick: u64,
    /// The time of the `set`, and its memory in bytes.
    took: Duration,
    memory: usize,
}

fn allow(ip: AllowedIp) -> Change {
    Change::AllowedIp { ip, remove: false }
}

fn address(rng: &mut ChaCha20Rng) -> AllowedIp {
    AllowedIp::new(Ipv4Addr::from_bits(rng.random()).into(), 32).expect("an address has 32 bits")
}

fn endpoint(rng: &mut ChaCha20Rng) -> Change {
    Change::Endpoint(([198, 51, 100, rng.random()], 51820).into())
}

impl Hub {
    fn new(count: usize) -> Hub {
        let mut rng = ChaCha20Rng::seed_from_u64(count as u64);
        let identity = PrivateKey::from_bytes([7; 32]);
        let mut device = Device::new(
            Box::new(ChaCha20Rng::seed_from_u64(1)),
            AeadBackend::fastest(),
        );
        let key = Change::PrivateKey(Some(Box::new(identity.clone())));
        device.set(&[key], &mut NoLinks, Time::ZERO).unwrap();
        device.up(&mut NoLinks).unwrap();
        let known: Vec<_> = (0..KNOWN)
            .map(|_| PrivateKey::from_bytes(rng.random()))
            .collect();
        let peers: Vec<_> = (0..count)
            .map(|n| {
                // The peers that are used later are spread among the others.
                let key = match known.get(n / (count / KNOWN)) {
                    Some(key) if n % (count / KNOWN) == 0 => key.public_key(),
                    _ => PublicKey::from_bytes(rng.random()),
                };
                (key, address(&mut rng))
            })
            .collect();
        let changes: Vec<_> = peers
            .iter()
            .flat_map(|(key, ip)| {
                let to = endpoint(&mut rng);
                [
                    Change::Peer(*key),
                    to,
                    Change::ReplaceAllowedIps,
                    allow(*ip),
                ]
            })
            .collect();
        let before = resident();
        let start = Instant::now();
        device.set(&changes, &mut NoLinks, Time::ZERO).unwrap();
        Hub {
            took: start.elapsed(),
            memory: resident().saturating_sub(before),
            device,
            identity,
            peers,
            known,
            rng,
            tick: 0,
        }
    }

    fn timed(&mut self, changes: &[Change]) -> Duration {
        let start = Instant::now();
        let done = self.device.set(changes, &mut NoLinks, Time::ZERO);
        let took = start.elapsed();
        done.unwrap();
        took
    }

    /// Adds a peer, and removes it. Returns the time of each.
    fn add_and_remove(&mut self) -> [Duration; 2] {
        let key = PublicKey::from_bytes(self.rng.random());
        let (to, ip) = (endpoint(&mut self.rng), address(&mut self.rng));
        let added = self.timed(&[Change::Peer(key), to, allow(ip)]);
        [added, self.timed(&[Change::Peer(key), Change::Remove])]
    }

    /// Gives one peer's network to another.
    fn move_network(&mut self) -> Duration {
        let [from, to] = [0, 1].map(|_| self.rng.random_range(0..self.peers.len()));
        let (key, ip) = (self.peers[to].0, self.peers[from].1);
        self.timed(&[Change::Peer(key), allow(ip)])
    }

    /// Answers an initiation: MACs, Diffie-Hellman, session, response.
    fn respond(&mut self) -> Duration {
        self.tick += 1;
        let now = Time::from_nanos(self.tick * 25_000_000);
        let wall = Wall {
            secs: self.tick,
            nanos: 0,
        };
        let identity = Identity::new(&self.known[self.rng.random_range(0..KNOWN)]);
        let remote = self.identity.public_key();
        let secret = identity.static_static(&remote).unwrap();
        let mut message = [0; 148];
        let ephemeral = PrivateKey::from_bytes(self.rng.random());
        let stamp = Tai64n::from_unix(wall.secs, wall.nanos);
        create_initiation(
            &identity,
            &remote,
            &secret,
            ephemeral,
            1,
            stamp,
            &mut message,
        )
        .unwrap();
        MacKeys::new(&remote).sign(&mut message, None);
        let from = Endpoint::from(std::net::SocketAddr::from(([198, 51, 100, 1], 1)));
        let mut out = Vec::with_capacity(1 << 16);
        let start = Instant::now();
        let device = &mut self.device;
        device.handle_message(now, wall, from, &message, HandshakeBacklog::default());
        let answered = device.poll_transmit(now, wall, &mut out).is_some();
        let took = start.elapsed();
        assert!(answered);
        while black_box(device.poll_transmit(now, wall, &mut out)).is_some() {}
        took
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<usize>().ok()).unwrap() * 1024
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() -> ExitCode {
    let given = |name| env::args().any(|argument| argument == name);
    let samples = if given("--quick") { 501 } else { 5001 };
    let mut hubs = [FEW, MANY].map(Hub::new);
    let [_, many] = &hubs;
    let each = many.memory / MANY;
    let took = many.took;
    println!("one set of {MANY} peers: {took:.2?} <= {SET:?}");
    println!("memory: {each} bytes per peer <= {MEMORY}\n");
    let mut short = took > SET || each > MEMORY;

    let names = ["add a peer", "remove a peer", "move a network", "handshake"];
    let mut times: [[Vec<Duration>; 2]; 4] = Default::default();
    for sample in 0..samples {
        for (side, hub) in hubs.iter_mut().enumerate() {
            let [added, removed] = hub.add_and_remove();
            times[0][side].push(added);
            times[1][side].push(removed);
            times[2][side].push(hub.move_network());
            // A handshake takes a hundred times as long as the others.
            if sample % 8 == 0 {
                times[3][side].push(hub.respond());
            }
        }
    }
    println!("{:<16}{FEW:>9}{MANY:>10} peers, median µs", "");
    for (name, sides) in names.into_iter().zip(times) {
        let [few, many] = sides.map(median);
        let ratio = many / few;
        let mark = if ratio > FLAT { "!" } else { "" };
        println!("{name:<16}{few:>9.2}{many:>10.2}  {ratio:.2} <= {FLAT}{mark}");
        short |= ratio > FLAT;
    }
    if short {
        println!("Lines marked with ! exceed a limit.");
    }
    ExitCode::from(u8::from(short && given("--check")))
}
