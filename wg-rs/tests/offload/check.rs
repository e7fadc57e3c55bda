//! Properties that hold for every input, shared by the tests and the fuzz targets.

use std::ops::Range;

use wg_rs::datapath::coalesce::{Coalescer, Offer};
use wg_rs::datapath::segment::{Malformed, Segmenter};
use wg_rs::datapath::virtio::{self, VirtioNetHdr};

use super::model;
use super::packet::{Packet, TCP, checksum_offset};

/// The kernel's header for a super-packet. `hdr_len` is too long, as it may be.
pub fn hdr(packet: &Packet, size: u16) -> VirtioNetHdr {
    VirtioNetHdr {
        flags: virtio::NEEDS_CSUM,
        gso_type: match (packet.protocol, packet.v6) {
            (TCP, false) => virtio::GSO_TCPV4,
            (TCP, true) => virtio::GSO_TCPV6,
            _ => virtio::GSO_UDP_L4,
        },
        hdr_len: packet.headers() as u16 + 200,
        gso_size: size,
        csum_start: packet.transport() as u16,
        csum_offset: checksum_offset(packet.protocol) as u16,
        ..VirtioNetHdr::default()
    }
}

pub fn segments(hdr: VirtioNetHdr, packet: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let segmenter = Segmenter::new(hdr, packet)?;
    let write = |i| {
        let mut out = vec![0xa5; segmenter.segment_len(i)];
        segmenter.write(i, &mut out);
        out
    };
    Ok((0..segmenter.count()).map(write).collect())
}

pub const ALL: Offer = Offer {
    tcp: true,
    udp: true,
};

/// A burst as in the receive path: the packets are in one buffer, with other bytes between them.
pub struct Burst {
    pub bytes: Vec<u8>,
    pub ranges: Vec<Range<usize>>,
}

impl Burst {
    pub fn new(packets: &[Vec<u8>]) -> Burst {
        let mut burst = Burst {
            bytes: Vec::new(),
            ranges: Vec::new(),
        };
        for packet in packets {
            burst.bytes.extend([0xee; 16]);
            let start = burst.bytes.len();
            burst.bytes.extend(packet);
            burst.ranges.push(start..burst.bytes.len());
        }
        burst
    }
}

pub fn plan(burst: &mut Burst, offer: Offer, coalescer: &mut Coalescer) -> Vec<model::Write> {
    coalescer.plan(&mut burst.bytes, &burst.ranges, offer);
    let writes = coalescer.writes().map(|write| {
        let inside = |part: &Range<usize>| {
            let within = |range: &Range<usize>| range.start <= part.start && part.end <= range.end;
            burst.ranges.iter().position(within).unwrap()
        };
        let (hdr, rest) = VirtioNetHdr::parse(&write.hdr).unwrap();
        assert!(rest.is_empty());
        assert_eq!(write.parts.len(), write.packets);
        model::Write {
            hdr,
            bytes: write
                .parts
                .iter()
                .flat_map(|part| &burst.bytes[part.clone()])
                .copied()
                .collect(),
            packets: write.parts.iter().map(inside).collect(),
        }
    });
    writes.collect()
}

/// Each packet is in one write; segmenting a write gives the original packets; and `restore` leaves
/// the buffer as it was.
pub fn check_undone(packets: &[Vec<u8>]) {
    let mut coalescer = Coalescer::new();
    let mut burst = Burst::new(packets);
    let before = burst.bytes.clone();
    let writes = plan(&mut burst, ALL, &mut coalescer);
    let mut numbers: Vec<usize> = writes.iter().flat_map(|w| w.packets.clone()).collect();
    for write in &writes {
        assert!(write.packets.is_sorted());
        if let [only] = write.packets[..] {
            assert_eq!(
                (write.hdr, &write.bytes),
                (VirtioNetHdr::default(), &packets[only])
            );
            continue;
        }
        let segmenter = Segmenter::new(write.hdr, &write.bytes).unwrap();
        assert_eq!(segmenter.count(), write.packets.len());
        for (i, &number) in write.packets.iter().enumerate() {
            let mut out = vec![0; segmenter.segment_len(i)];
            segmenter.write(i, &mut out);
            assert!(
                model::same_packet(&packets[number], &out),
                "{:x?} {out:x?}",
                packets[number]
            );
        }
    }
    for (i, write) in writes.iter().enumerate() {
        let ranges: Vec<_> = coalescer.restore(&mut burst.bytes, i).collect();
        let expected: Vec<_> = write
            .packets
            .iter()
            .map(|n| burst.ranges[*n].clone())
            .collect();
        assert_eq!(ranges, expected);
    }
    assert_eq!(burst.bytes, before);
    numbers.sort();
    assert!(numbers.into_iter().eq(0..packets.len()));
}
