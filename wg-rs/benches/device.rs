//! The owner: a `set` that adds 100 000 peers, and handshakes answered per second on one core.
//! `scale.rs` shows how these grow with the number of peers.

use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wg_crypto::{AeadBackend, Identity, MacKeys, PrivateKey, PublicKey, Tai64n, create_initiation};
use wg_rs::model::{AllowedIp, Change, Wall};
use wg_rs::tunnel::config::NoLinks;
use wg_rs::tunnel::device::Device;
use wg_rs::tunnel::ingress::HandshakeBacklog;
use wg_rs::tunnel::peer::Endpoint;
use wg_rs::tunnel::time::Time;

const PEERS: u32 = 100_000;

fn device(key: &PrivateKey) -> Device {
    let mut device = Device::new(
        Box::new(ChaCha20Rng::seed_from_u64(1)),
        AeadBackend::fastest(),
    );
    let key = Change::PrivateKey(Some(Box::new(key.clone())));
    device.set(&[key], &mut NoLinks, Time::ZERO).unwrap();
    device.up(&mut NoLinks).unwrap();
    device
}

fn peers() -> Vec<Change> {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    (0..PEERS)
        .flat_map(|i| {
            let addr = Ipv4Addr::from_bits(10 << 24 | i).into();
            [
                Change::Peer(PublicKey::from_bytes(rng.random())),
                Change::Endpoint(format!("198.51.100.1:{}", 1 + i % 60_000).parse().unwrap()),
                Change::ReplaceAllowedIps,
                Change::AllowedIp {
                    ip: AllowedIp::new(addr, 32).unwrap(),
                    remove: false,
                },
            ]
        })
        .collect()
}

fn configure(c: &mut Criterion) {
    let changes = peers();
    let key = PrivateKey::from_bytes([7; 32]);
    let mut kept = device(&key);
    kept.set(&changes, &mut NoLinks, Time::ZERO).unwrap();

    let mut group = c.benchmark_group("set");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    group.bench_function("100000_peers", |b| {
        b.iter_batched_ref(
            || device(&key),
            |device| device.set(&changes, &mut NoLinks, Time::ZERO).unwrap(),
            BatchSize::PerIteration,
        );
    });
    // Adds one more peer to all these: the cost of a live change.
    let one = [
        Change::Peer(PublicKey::from_bytes([1; 32])),
        changes[3].clone(),
    ];
    group.bench_function("1_peer_among_100000", |b| {
        b.iter(|| kept.set(&one, &mut NoLinks, Time::ZERO).unwrap());
    });
    group.finish();
}

/// Each handshake as the daemon answers it: MACs, Diffie-Hellman, session, response.
fn respond(c: &mut Criterion) {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let [ours, theirs] = [rng.random(), rng.random()].map(PrivateKey::from_bytes);
    let mut device = device(&ours);
    device
        .set(
            &[Change::Peer(theirs.public_key())],
            &mut NoLinks,
            Time::ZERO,
        )
        .unwrap();
    let identity = Identity::new(&theirs);
    let remote = ours.public_key();
    let ss = identity.static_static(&remote).unwrap();
    let macs = MacKeys::new(&remote);
    let from = Endpoint::from("198.51.100.1:1".parse::<std::net::SocketAddr>().unwrap());
    let mut out = Vec::new();
    let mut tick = 0;
    c.bench_function("respond", |b| {
        b.iter_batched(
            || {
                // A peer may initiate every 20 ms, so the time advances.
                tick += 1;
                let now = Time::from_nanos(tick * 25_000_000);
                let wall = Wall {
                    secs: tick,
                    nanos: 0,
                };
                let mut message = [0; 148];
                let ephemeral = PrivateKey::from_bytes(rng.random());
                let stamp = Tai64n::from_unix(wall.secs, wall.nanos);
                create_initiation(&identity, &remote, &ss, ephemeral, 1, stamp, &mut message)
                    .unwrap();
                macs.sign(&mut message, None);
                (now, wall, message)
            },
            |(now, wall, message)| {
                device.handle_message(now, wall, from, &message, HandshakeBacklog::default());
                assert!(device.poll_transmit(now, wall, &mut out).is_some());
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, configure, respond);
criterion_main!(benches);
