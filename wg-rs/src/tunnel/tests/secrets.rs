//! Handshakes leave no secret on the stack of their thread.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::thread;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wg_crypto::{AeadBackend, PresharedKey, PrivateKey};

use crate::model::{Change, Wall};
use crate::tunnel::device::Device;
use crate::tunnel::ingress::HandshakeBacklog;
use crate::tunnel::peer::Endpoint;
use crate::tunnel::sim::Sockets;
use crate::tunnel::time::Time;

/// How many bytes of the stack are searched.
const SEARCHED: usize = 128 * 1024;

/// The bytes of a key that clamping does not change.
type Middle = [u8; 16];

fn middle(key: &[u8]) -> Middle {
    key[8..24].try_into().expect("16 bytes")
}

/// A random source that records the keys it has generated.
struct Noting(ChaCha20Rng, Arc<Mutex<Vec<Middle>>>);

impl RngCore for Noting {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
        if bytes.len() == 32 {
            self.1.lock().unwrap().push(middle(bytes));
        }
    }
}

/// Calls `work` with a frame further down than the caller's own frame.
#[inline(never)]
fn deeper(work: impl FnOnce()) {
    let room = black_box([0_u8; 4096]);
    work();
    black_box(room);
}

fn shake_hands(devices: &mut [Device], out: &mut Vec<u8>) {
    let (now, wall) = (Time::from_nanos(1_000_000_000), Wall { secs: 1, nanos: 0 });
    let from = Endpoint::from("192.0.2.1:1".parse::<std::net::SocketAddr>().unwrap());
    for turn in [0, 1] {
        assert!(devices[turn].poll_transmit(now, wall, out).is_some());
        devices[1 - turn].handle_message(now, wall, from, out, HandshakeBacklog::default());
    }
}

#[test]
fn a_handshake_leaves_no_key_on_the_stack() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let keys = [rng.random(), rng.random()].map(PrivateKey::from_bytes);
    let psk = PresharedKey::from_bytes(rng.random());
    let secrets = Arc::new(Mutex::new(vec![middle(psk.as_bytes())]));
    secrets
        .lock()
        .unwrap()
        .extend(keys.iter().map(|key| middle(key.as_bytes())));
    let mut devices: Vec<Device> = [0, 1]
        .map(|number| {
            let rng = Noting(ChaCha20Rng::from_seed(rng.random()), secrets.clone());
            let mut device = Device::new(Box::new(rng), AeadBackend::fastest());
            let changes = [
                Change::PrivateKey(Some(Box::new(keys[number].clone()))),
                Change::Peer(keys[1 - number].public_key()),
                Change::PresharedKey(Box::new(psk.clone())),
                Change::Endpoint("192.0.2.1:1".parse().unwrap()),
                // One of the two starts the handshake.
                Change::PersistentKeepalive(if number == 0 { 25 } else { 0 }),
            ];
            let mut sockets = Sockets::default();
            device.set(&changes, &mut sockets, Time::ZERO).unwrap();
            device.up(&mut sockets).unwrap();
            device
        })
        .into();

    // A thread with an unused stack.
    let search = move || {
        let mut message = Vec::new();
        let mut stack = vec![0; SEARCHED];
        let memory = File::open("/proc/self/mem").unwrap();
        deeper(|| shake_hands(&mut devices, &mut message));
        let here = 0_u8;
        let end = &raw const here as u64;
        memory
            .read_exact_at(&mut stack, end - SEARCHED as u64)
            .unwrap();

        let secrets = secrets.lock().unwrap();
        // Three keys that were given, and two ephemeral ones.
        assert!(secrets.len() >= 5, "{}", secrets.len());
        let session = devices[0].poll_transmit(
            Time::from_nanos(1_000_000_000),
            Wall { secs: 1, nanos: 0 },
            &mut message,
        );
        assert!(session.is_some(), "the handshake is complete");
        let found = secrets
            .iter()
            .filter(|secret| stack.windows(16).any(|window| window == *secret));
        assert_eq!(found.count(), 0, "keys on the stack");
    };
    let thread = thread::Builder::new().stack_size(4 * SEARCHED);
    thread.spawn(search).unwrap().join().unwrap();
}
