//! What the initiations that a hub relays cost it with 10 000 peers in one group: the search for a destination
//! that nobody has, and an initiation of a pair that is known.
//!
//! ```text
//! cargo bench -p wg-rs --bench relay              # the two times, each the median of all samples
//! cargo bench -p wg-rs --bench relay -- --check   # exit code 1 if a limit is exceeded
//! ```
//!
//! `--quick` uses fewer samples.

use std::env;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use wg_crypto::{AeadBackend, MacKeys, PrivateKey, PublicKey};
use wg_rs::model::{Change, Extension, Wall};
use wg_rs::tunnel::config::NoLinks;
use wg_rs::tunnel::device::Device;
use wg_rs::tunnel::ingress::HandshakeBacklog;
use wg_rs::tunnel::peer::Endpoint;
use wg_rs::tunnel::time::Time;

const PEERS: u16 = 10_000;
/// The limits of a search, and of an initiation of a known pair.
const SEARCH: Duration = Duration::from_millis(5);
const KNOWN: Duration = Duration::from_micros(50);
/// The time between two initiations. The limits of searches and of pairs allow one in this time.
const PAUSE: Duration = Duration::from_secs(11);

fn key(n: u16) -> PublicKey {
    let mut key = [0x5a; 32];
    key[..2].copy_from_slice(&n.to_le_bytes());
    PublicKey::from_bytes(key)
}

fn at(n: u16) -> SocketAddr {
    ([192, 0, 2, 7], 1 + n).into()
}

struct Hub {
    device: Device,
    now: Time,
    index: u32,
}

impl Hub {
    fn new() -> Hub {
        let rng = ChaCha20Rng::seed_from_u64(1);
        let mut device = Device::new(Box::new(rng), AeadBackend::fastest());
        let identity = PrivateKey::from_bytes([7; 32]);
        let group = || Extension::Relay("lab".parse().expect("a group"));
        let peers = (0..PEERS).flat_map(|n| {
            let peer = [Change::Peer(key(n)), Change::Extension(group())];
            peer.into_iter().chain([Change::Endpoint(at(n))])
        });
        let own = Change::PrivateKey(Some(Box::new(identity)));
        let changes: Vec<_> = [own].into_iter().chain(peers).collect();
        device.set(&changes, &mut NoLinks, Time::ZERO).unwrap();
        device.up(&mut NoLinks).unwrap();
        Hub {
            device,
            now: Time::ZERO,
            index: 0,
        }
    }

    /// Receives an initiation from the first peer for the owner of `to`, whose content is nonsense. Returns
    /// the time and the number of datagrams that the hub sends.
    fn initiation(&mut self, to: &MacKeys) -> (Duration, usize) {
        self.index += 1;
        self.now = self.now + PAUSE;
        let mut message = vec![0x11; 148];
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        message[4..8].copy_from_slice(&self.index.to_le_bytes());
        to.sign(&mut message, None);
        let (from, wall) = (Endpoint::from(at(0)), Wall::default());
        let (device, now) = (&mut self.device, self.now);
        let start = Instant::now();
        device.handle_message(now, wall, from, &message, HandshakeBacklog::default());
        let took = start.elapsed();
        let (mut out, mut sent) = (Vec::new(), 0);
        while device.poll_transmit(now, wall, &mut out).is_some() {
            sent += 1;
        }
        (took, sent)
    }

    /// The median time of many initiations, each of which makes the hub send this number of datagrams.
    fn median(&mut self, to: &MacKeys, samples: usize, sends: usize) -> Duration {
        let mut times: Vec<_> = (0..samples)
            .map(|_| {
                let (took, sent) = self.initiation(to);
                assert_eq!(sent, sends);
                took
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    }
}

fn main() -> ExitCode {
    let given = |name| env::args().any(|argument| argument == name);
    let samples = if given("--quick") { 51 } else { 1001 };
    let mut hub = Hub::new();
    let search = hub.median(&MacKeys::new(&key(PEERS)), samples, 0);
    let partner = MacKeys::new(&key(PEERS - 1));
    hub.initiation(&partner);
    let known = hub.median(&partner, samples, 1);
    println!("{PEERS} peers: search for an unknown destination {search:.2?} <= {SEARCH:?}");
    println!("{PEERS} peers: initiation of a known pair {known:.2?} <= {KNOWN:?}");
    let slow = search > SEARCH || known > KNOWN;
    ExitCode::from(u8::from(slow && given("--check")))
}
