//! The segmenter: it equals the model, all checksums are right, and invalid input is refused.

use proptest::prelude::*;
use wg_rs::datapath::segment::{MAX_SEGMENTS, Malformed};
use wg_rs::datapath::virtio::{self, VirtioNetHdr};

use super::check::{hdr, segments};
use super::model;
use super::packet::*;

fn extensions() -> Vec<u8> {
    let mut bytes = vec![0]; // hop-by-hop first, then destination options, then TCP or UDP
    bytes.extend([60, 0, 1, 4, 0, 0, 0, 0]);
    bytes.extend([TCP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let shape = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        0usize..4,
        0usize..6000,
    );
    let fields = (
        any::<u32>(),
        any::<u16>(),
        any::<u8>(),
        any::<u8>(),
        any::<bool>(),
    );
    (shape, fields).prop_map(|((v6, tcp, between, options, payload), fields)| {
        let mut packet = Packet::new(v6, if tcp { TCP } else { UDP }, payload);
        (packet.seq, packet.id, packet.flags, packet.tos, packet.df) = fields;
        if tcp {
            packet.options = vec![1; options * 4];
        }
        if between {
            packet.between = if v6 { extensions() } else { vec![1; 8] };
            if v6 {
                packet.between[9] = packet.protocol;
            }
        }
        packet
    })
}

proptest! {
    #[test]
    fn equals_the_model(packet in any_packet(), size in 1u16..3000, ecn: bool) {
        let mut hdr = hdr(&packet, size);
        let expected = model::segment(hdr, &packet.super_bytes());
        if ecn && packet.protocol == TCP {
            hdr.gso_type |= virtio::GSO_ECN;
        }
        prop_assert_eq!(segments(hdr, &packet.super_bytes()).unwrap(), expected);
    }

    /// Without NEEDS_CSUM the packet is complete, and so are its segments.
    #[test]
    fn finished_super_packets(packet in any_packet(), size in 1u16..3000) {
        let mut hdr = hdr(&packet, size);
        let expected = model::segment(hdr, &packet.bytes());
        hdr.flags = virtio::DATA_VALID;
        (hdr.csum_start, hdr.csum_offset) = (0, 0);
        prop_assert_eq!(segments(hdr, &packet.bytes()).unwrap(), expected);
    }

    #[test]
    fn one_packet_with_its_checksum_to_complete(packet in any_packet()) {
        let mut hdr = hdr(&packet, 0);
        hdr.gso_type = virtio::GSO_NONE;
        let segments = segments(hdr, &packet.super_bytes()).unwrap();
        prop_assert_eq!(segments.len(), 1);
        prop_assert!(model::same_packet(&packet.bytes(), &segments[0]));
        let sum = pseudo_sum(&segments[0], packet.protocol, segments[0].len() - packet.transport());
        prop_assert_eq!(fold(sum + self::sum(&segments[0][packet.transport()..])), 0xffff);
    }

    #[test]
    fn one_finished_packet_is_left_alone(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        prop_assert_eq!(segments(VirtioNetHdr::default(), &bytes).unwrap(), vec![bytes]);
    }

    /// Any accepted packet can be written, within bounds, as segments that contain the whole
    /// payload.
    #[test]
    fn damaged_super_packets(
        packet in any_packet(),
        size: u16,
        damage in proptest::collection::vec((0usize..100, any::<u8>()), 0..4),
        header in proptest::option::of((0usize..10, any::<u8>())),
        cut in proptest::option::of(0usize..200),
    ) {
        let mut bytes = hdr(&packet, size).emit().to_vec();
        bytes.extend(packet.super_bytes());
        if let Some((at, value)) = header {
            bytes[at] = value;
        }
        for (at, value) in damage {
            let at = (virtio::LEN + at).min(bytes.len() - 1);
            bytes[at] = value;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        if let Some((hdr, packet)) = VirtioNetHdr::parse(&bytes)
            && let Ok(segments) = segments(hdr, packet)
        {
            prop_assert!(segments.len() <= MAX_SEGMENTS);
            prop_assert!(segments.iter().rev().skip(1).all(|s| s.len() == segments[0].len()));
        }
    }

    #[test]
    fn garbage(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Some((hdr, packet)) = VirtioNetHdr::parse(&bytes) {
            let _ = segments(hdr, packet);
        }
    }
}

/// The kernel's sum uses the last address of a routing header, which is not in the IP header.
#[test]
fn pseudo_header_of_a_routing_header() {
    let mut packet = Packet::new(true, TCP, 3000);
    packet.between = vec![43, TCP, 2, 0, 1, 0, 0, 0, 0];
    packet.between.extend([0xfd; 16]);
    let mut bytes = packet.super_bytes();
    let transport = packet.transport();
    let mut last = bytes.clone();
    last[24..40].fill(0xfd);
    let pseudo = fold(pseudo_sum(&last, TCP, bytes.len() - transport));
    put(&mut bytes, transport + 16, pseudo);
    for segment in segments(hdr(&packet, 1000), &bytes).unwrap() {
        let mut there = segment.clone();
        there[24..40].fill(0xfd);
        let whole = pseudo_sum(&there, TCP, there.len() - transport) + sum(&there[transport..]);
        assert_eq!(fold(whole), 0xffff);
    }
}

#[test]
fn fin_and_psh_are_on_the_last_segment_and_cwr_on_the_first() {
    let mut packet = Packet::new(false, TCP, 2500);
    packet.flags = ACK | PSH | FIN | CWR | ECE;
    let segments = segments(hdr(&packet, 1000), &packet.super_bytes()).unwrap();
    let flags: Vec<u8> = segments.iter().map(|s| s[33]).collect();
    assert_eq!(flags, [ACK | CWR | ECE, ACK | ECE, ACK | ECE | PSH | FIN]);
}

#[test]
fn identifications_and_sequence_numbers_wrap() {
    let packet = Packet::new(false, TCP, 3000);
    let segments = segments(hdr(&packet, 1000), &packet.super_bytes()).unwrap();
    let ids: Vec<u16> = segments.iter().map(|s| get(s, 4)).collect();
    assert_eq!(ids, [0xfffe, 0xffff, 0]);
    assert_eq!(segments[1][24..28], 744u32.to_be_bytes());
}

/// RFC 768: zero would mean that there is no checksum.
#[test]
fn udp_checksum_of_zero_is_sent_as_ones() {
    for v6 in [false, true] {
        let mut packet = Packet::new(v6, UDP, 2000);
        let at = packet.transport() + 6;
        let first = segments(hdr(&packet, 1000), &packet.super_bytes())
            .unwrap()
            .remove(0);
        let word = get(&packet.payload, 0);
        let carried = fold(u64::from(word) + u64::from(get(&first, at)));
        put(&mut packet.payload, 0, carried);
        let whole = segments(hdr(&packet, 1000), &packet.super_bytes()).unwrap();
        assert_eq!(get(&whole[0], at), 0xffff);

        packet.payload.truncate(1000);
        let mut none = hdr(&packet, 0);
        none.gso_type = virtio::GSO_NONE;
        let whole = segments(none, &packet.super_bytes()).unwrap();
        assert_eq!(get(&whole[0], at), 0xffff);
    }
}

/// TSO gives a little less than 64 KiB at most, plus the header for IPv6.
#[test]
fn the_largest_super_packets() {
    for v6 in [false, true] {
        let mut packet = Packet::new(v6, TCP, 0);
        packet.payload = vec![7; 65535 - packet.headers()];
        let segments = segments(hdr(&packet, 1368), &packet.super_bytes()).unwrap();
        assert_eq!(segments.len(), packet.payload.len().div_ceil(1368));
        let sizes = segments.iter().map(|s| s.len() - packet.headers());
        assert_eq!(sizes.sum::<usize>(), packet.payload.len());
    }
}

#[test]
fn every_malformed_input_has_its_reason() {
    let tcp = Packet::new(false, TCP, 3000);
    let udp = Packet::new(true, UDP, 3000);
    let refused = |packet: &Packet, change: &dyn Fn(&mut VirtioNetHdr, &mut Vec<u8>)| {
        let (mut hdr, mut bytes) = (hdr(packet, 1000), packet.super_bytes());
        change(&mut hdr, &mut bytes);
        segments(hdr, &bytes).unwrap_err()
    };
    assert_eq!(refused(&tcp, &|_, b| b.clear()), Malformed::Empty);
    assert_eq!(
        refused(&tcp, &|h, _| h.gso_type = virtio::GSO_TCPV6),
        Malformed::GsoType
    );
    assert_eq!(
        refused(&tcp, &|h, _| h.gso_type = virtio::GSO_UDP_L4),
        Malformed::GsoType
    );
    assert_eq!(
        refused(&tcp, &|h, _| h.gso_type = virtio::GSO_ECN),
        Malformed::GsoType
    );
    assert_eq!(refused(&tcp, &|h, _| h.gso_type = 3), Malformed::GsoType);
    assert_eq!(
        refused(&udp, &|h, _| h.gso_type |= virtio::GSO_ECN),
        Malformed::GsoType
    );
    assert_eq!(refused(&tcp, &|_, b| b[9] = 1), Malformed::GsoType);
    assert_eq!(refused(&tcp, &|h, _| h.gso_size = 0), Malformed::GsoSize);
    assert_eq!(
        refused(&tcp, &|h, _| h.csum_start = 24),
        Malformed::Checksum
    );
    assert_eq!(
        refused(&tcp, &|h, _| h.csum_offset = 6),
        Malformed::Checksum
    );
    assert_eq!(
        refused(&tcp, &|h, _| h.csum_start = 0xffff),
        Malformed::Checksum
    );
    assert_eq!(refused(&tcp, &|_, b| b[0] = 0x44), Malformed::Header);
    assert_eq!(refused(&tcp, &|_, b| b[0] = 0x54), Malformed::Header);
    assert_eq!(refused(&tcp, &|_, b| b[32] = 0x40), Malformed::Header);
    assert_eq!(refused(&tcp, &|_, b| b.truncate(45)), Malformed::Header);
    assert_eq!(refused(&tcp, &|_, b| b[6] = 0x20), Malformed::Fragment);
    assert_eq!(refused(&udp, &|_, b| b[44] ^= 1), Malformed::UdpLength);
    let long = |h: &mut VirtioNetHdr, b: &mut Vec<u8>| {
        h.gso_size = 0xffff;
        b.resize(70_000, 0);
    };
    assert_eq!(refused(&tcp, &long), Malformed::TooLong);
    let many = |h: &mut VirtioNetHdr, b: &mut Vec<u8>| {
        h.gso_size = 1;
        b.resize(MAX_SEGMENTS + 53, 0);
    };
    assert_eq!(refused(&tcp, &many), Malformed::TooMany);
    let mut none = hdr(&tcp, 0);
    none.gso_type = virtio::GSO_NONE;
    none.csum_offset = 3000;
    assert_eq!(
        segments(none, &tcp.bytes()[..100]).unwrap_err(),
        Malformed::Checksum
    );
}
