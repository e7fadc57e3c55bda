//! The byte-level parts of the data path: checksums, segmentation, coalescing.

use std::hint::black_box;
use std::ops::Range;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wg_rs::datapath::checksum::Sum;
use wg_rs::datapath::coalesce::{Coalescer, Offer};
use wg_rs::datapath::segment::Segmenter;
use wg_rs::datapath::virtio::{self, VirtioNetHdr};

const HEADERS: usize = 20 + 32; // IPv4, and TCP with timestamps
const MSS: usize = 1368;
const PACKETS: usize = 45;

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [64, 1420, 65536] {
        let src = vec![0xa5; len];
        let mut dst = vec![0; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("sum/{len}"), |b| {
            b.iter(|| Sum::of(black_box(&src)).checksum());
        });
        group.bench_function(format!("copy and sum/{len}"), |b| {
            b.iter(|| Sum::copy(black_box(&mut dst), black_box(&src)).checksum());
        });
    }
    group.finish();
}

/// A TSO super-packet of the kernel: its header, and the sum of the pseudo header in the packet.
fn super_packet(payload: usize) -> (VirtioNetHdr, Vec<u8>) {
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    packet.extend([
        0xa0, 0, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x10, 1, 0xf6, 0, 0, 0, 0,
    ]);
    packet.extend([1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9]);
    packet.extend((0..payload).map(|i| (i * 31) as u8));
    let pseudo = Sum::pseudo_header(&packet[12..20], 6, packet.len() - 20).fold();
    packet[36..38].copy_from_slice(&pseudo);
    let hdr = VirtioNetHdr {
        flags: virtio::NEEDS_CSUM,
        gso_type: virtio::GSO_TCPV4,
        hdr_len: HEADERS as u16,
        gso_size: MSS as u16,
        csum_start: 20,
        csum_offset: 16,
        ..VirtioNetHdr::default()
    };
    (hdr, packet)
}

/// The packets of a super-packet, at a stride as they arrive.
fn burst(hdr: VirtioNetHdr, packet: &[u8]) -> (Vec<u8>, Vec<Range<usize>>) {
    let segmenter = Segmenter::new(hdr, packet).unwrap();
    let mut bytes = Vec::new();
    let mut ranges = Vec::new();
    for i in 0..segmenter.count() {
        let start = bytes.len() + 16;
        bytes.resize(start + segmenter.segment_len(i) + 16, 0);
        let range = start..bytes.len() - 16;
        segmenter.write(i, &mut bytes[range.clone()]);
        ranges.push(range);
    }
    (bytes, ranges)
}

fn segment(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    let (hdr, packet) = super_packet(65535 - HEADERS);
    let (mut bytes, ranges) = burst(hdr, &packet);
    group.throughput(Throughput::Bytes(packet.len() as u64));
    group.bench_function("TSO 64 KiB at 1368", |b| {
        b.iter(|| {
            let segmenter = Segmenter::new(black_box(hdr), black_box(&packet)).unwrap();
            for (i, range) in ranges.iter().enumerate() {
                segmenter.write(i, &mut bytes[range.clone()]);
            }
        });
    });
    group.finish();
}

fn coalesce(c: &mut Criterion) {
    let mut group = c.benchmark_group("coalesce");
    let (hdr, packet) = super_packet(PACKETS * MSS);
    let (mut bytes, ranges) = burst(hdr, &packet);
    let mut coalescer = Coalescer::new();
    let offer = Offer {
        tcp: true,
        udp: true,
    };
    group.throughput(Throughput::Bytes(packet.len() as u64));
    group.bench_function("45 packets of one flow", |b| {
        b.iter(|| {
            coalescer.plan(black_box(&mut bytes), &ranges, offer);
            assert_eq!(coalescer.writes().len(), 1);
            coalescer.restore(&mut bytes, 0).len()
        });
    });
    group.bench_function("45 packets, nothing offered", |b| {
        b.iter(|| {
            coalescer.plan(black_box(&mut bytes), &ranges, Offer::default());
            coalescer.writes().len()
        });
    });
    group.finish();
}

criterion_group!(benches, checksum, segment, coalesce);
criterion_main!(benches);
