//! Sealing and opening data messages: single packets, and bursts of 45 as sent with UDP_SEGMENT.
//!
//! Opening needs a sealed packet each time, so the measured time includes a copy of the ciphertext.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wg_crypto::{AeadBackend, HEADER, OpeningKey, SealingKey, TAG};

const BURST: usize = 45;

fn single(c: &mut Criterion) {
    let (sealing, opening) = (
        SealingKey::new(AeadBackend::fastest(), &[7; 32]),
        OpeningKey::new(AeadBackend::fastest(), &[7; 32]),
    );
    for len in [64, 128, 576, 1424, 8192] {
        let mut datagram = vec![1; HEADER + len + TAG];
        let mut counter = 0;
        let mut group = c.benchmark_group("seal");
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter(|| {
                counter += 1;
                sealing.seal(1, counter, black_box(&mut datagram));
            });
        });
        group.finish();

        sealing.seal(1, 1, &mut datagram);
        let mut buffer = datagram.clone();
        let mut group = c.benchmark_group("open");
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter(|| {
                buffer.copy_from_slice(&datagram);
                assert!(opening.open(black_box(&mut buffer)));
            });
        });
        group.finish();
    }
}

fn burst(c: &mut Criterion) {
    let (sealing, opening) = (
        SealingKey::new(AeadBackend::fastest(), &[7; 32]),
        OpeningKey::new(AeadBackend::fastest(), &[7; 32]),
    );
    for len in [64, 1424] {
        let stride = HEADER + len + TAG;
        let mut datagrams = vec![1; stride * BURST];
        let mut counter = 0;
        let mut group = c.benchmark_group("seal burst of 45");
        group.throughput(Throughput::Elements(BURST as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter(|| {
                counter += BURST as u64;
                sealing.seal_burst(1, counter, black_box(&mut datagrams), stride);
            });
        });
        group.finish();

        let mut buffer = datagrams.clone();
        let mut accepted = Vec::with_capacity(BURST);
        let mut group = c.benchmark_group("open burst of 45");
        group.throughput(Throughput::Elements(BURST as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter(|| {
                buffer.copy_from_slice(&datagrams);
                opening.open_burst(black_box(&mut buffer), stride, &mut accepted);
                assert!(accepted.iter().all(|&accepted| accepted));
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = single, burst
}
criterion_main!(benches);
