//! Looks up routes with 1, 1000 and 100 000 peers that have one random host address each, and the
//! cost of a snapshot of the table.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wg_rs::tunnel::allowed_ips::AllowedIps;

const SIZES: [usize; 3] = [1, 1000, 100_000];
/// Looked up in turn, so that the caches contain the table and not only one path.
const QUERIES: usize = 1 << 16;

fn lookup(c: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut group = c.benchmark_group("route_lookup");
    for peers in SIZES {
        let v4: Vec<Ipv4Addr> = (0..peers)
            .map(|_| Ipv4Addr::from_bits(rng.random()))
            .collect();
        let v6: Vec<Ipv6Addr> = (0..peers)
            .map(|_| Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(rng.random::<u64>())))
            .collect();
        let mut table = AllowedIps::new();
        for (i, (v4, v6)) in v4.iter().zip(&v6).enumerate() {
            table.set_owner(i as u32, Arc::new(i));
            for (addr, cidr) in [((*v4).into(), 32), ((*v6).into(), 128)] {
                let position = table.position(addr, cidr);
                table.give(&position, i as u32);
            }
        }
        let order: Vec<usize> = (0..QUERIES).map(|_| rng.random_range(0..peers)).collect();
        let (q4, q6): (Vec<_>, Vec<_>) = order.iter().map(|&i| (v4[i], v6[i])).unzip();
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("v4", peers), |b| {
            b.iter(|| {
                turn = (turn + 1) % QUERIES;
                black_box(table.lookup_v4(q4[turn]));
            });
        });
        group.bench_function(BenchmarkId::new("v6", peers), |b| {
            b.iter(|| {
                turn = (turn + 1) % QUERIES;
                black_box(table.lookup_v6(q6[turn]));
            });
        });
        group.bench_function(BenchmarkId::new("snapshot", peers), |b| {
            b.iter(|| table.clone())
        });
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
