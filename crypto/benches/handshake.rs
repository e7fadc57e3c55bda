//! Handshakes per second on one core, including the MACs: as responder (which an attacker can
//! trigger) and as initiator; and the cost of refusing a message with a wrong MAC or from a
//! stranger.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wg_crypto::{
    AeadBackend, Identity, Initiation, MacKeys, PresharedKey, PrivateKey, SessionKeys,
    SharedSecret, Tai64n, create_initiation, receive_initiation,
};

struct Pair {
    rng: ChaCha20Rng,
    initiator: Identity,
    responder: Identity,
    ss: SharedSecret,
    psk: PresharedKey,
    macs_i: MacKeys,
    macs_r: MacKeys,
}

impl Pair {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let initiator = Identity::new(&PrivateKey::from_bytes(rng.random()));
        let responder = Identity::new(&PrivateKey::from_bytes(rng.random()));
        let ss = initiator.static_static(&responder.public_key()).unwrap();
        let psk = PresharedKey::from_bytes(rng.random());
        let macs_i = MacKeys::new(&initiator.public_key());
        let macs_r = MacKeys::new(&responder.public_key());
        Self {
            rng,
            initiator,
            responder,
            ss,
            psk,
            macs_i,
            macs_r,
        }
    }

    fn initiate(&mut self) -> (Initiation, [u8; 148]) {
        let mut message = [0; 148];
        let initiation = create_initiation(
            &self.initiator,
            &self.responder.public_key(),
            &self.ss,
            PrivateKey::from_bytes(self.rng.random()),
            1,
            Tai64n::from_unix(1, 0),
            &mut message,
        )
        .unwrap();
        self.macs_r.sign(&mut message, None);
        (initiation, message)
    }

    fn respond(&mut self, message: &[u8; 148]) -> (SessionKeys, [u8; 92]) {
        assert!(self.macs_r.verify_mac1(message));
        let received = receive_initiation(&self.responder, message).unwrap();
        let (_, responder) = received.finish(&self.ss).unwrap();
        let mut response = [0; 92];
        let ephemeral = PrivateKey::from_bytes(self.rng.random());
        let keys = responder
            .respond(
                &self.psk,
                ephemeral,
                2,
                AeadBackend::fastest(),
                &mut response,
            )
            .unwrap();
        self.macs_i.sign(&mut response, None);
        (keys, response)
    }
}

fn handshake(c: &mut Criterion) {
    let mut pair = Pair::new();
    let (initiation, message) = pair.initiate();
    let (_, response) = pair.respond(&message);
    let mut group = c.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    group.bench_function("responder", |b| {
        b.iter(|| pair.respond(black_box(&message)))
    });
    group.bench_function("initiator", |b| {
        b.iter(|| {
            let made = pair.initiate();
            assert!(pair.macs_i.verify_mac1(black_box(&response)));
            (
                made,
                initiation
                    .finish(
                        &pair.initiator,
                        &pair.psk,
                        AeadBackend::fastest(),
                        &response,
                    )
                    .unwrap(),
            )
        });
    });
    group.bench_function("refuse a wrong mac1", |b| {
        b.iter(|| pair.macs_i.verify_mac1(black_box(&message)));
    });
    group.bench_function("read the static key", |b| {
        b.iter(|| {
            receive_initiation(&pair.responder, black_box(&message))
                .unwrap()
                .remote()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = handshake
}
criterion_main!(benches);
