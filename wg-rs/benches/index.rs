//! Looks up sessions by index, with 1, 1000 and 100 000 peers that have a session each.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wg_crypto::{AeadBackend, OpeningKey, PublicKey, SealingKey, SessionKeys};
use wg_rs::tunnel::index::Index;
use wg_rs::tunnel::keypair::{Keypair, Origin};
use wg_rs::tunnel::peer::Peer;
use wg_rs::tunnel::time::Time;

const SIZES: [u64; 3] = [1, 1000, 100_000];
/// Looked up in turn, so that the caches contain the table and not only one path.
const QUERIES: usize = 1 << 16;

fn lookup(c: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut group = c.benchmark_group("index_lookup");
    for peers in SIZES {
        let index = Index::default();
        let sessions: Vec<Arc<Keypair<Peer>>> = (0..peers)
            .map(|id| {
                let peer = Arc::new(Peer::new(id, PublicKey::from_bytes(rng.random())));
                let keys = SessionKeys {
                    sealing: SealingKey::new(AeadBackend::fastest(), &rng.random()),
                    opening: OpeningKey::new(AeadBackend::fastest(), &rng.random()),
                };
                let origin = Origin {
                    local: index.reserve(&mut rng),
                    receiver: rng.random(),
                    is_initiator: true,
                    jitter: Duration::ZERO,
                    created: Time::ZERO,
                };
                let session = Keypair::new(&peer, keys, origin);
                index.insert(&session);
                session
            })
            .collect();
        let queries: Vec<u32> = (0..QUERIES)
            .map(|_| sessions[rng.random_range(0..sessions.len())].local())
            .collect();
        let mut turn = 0;
        group.bench_function(BenchmarkId::from_parameter(peers), |b| {
            b.iter(|| {
                turn = (turn + 1) % QUERIES;
                let session = black_box(index.lookup(queries[turn]));
                assert!(session.is_some(), "all are there");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
