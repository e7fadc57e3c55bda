//! The rules for merging packets: each test is named after its rule.

use wg_rs::datapath::coalesce::{Coalescer, MAX_PACKETS, Offer};
use wg_rs::datapath::virtio::{self, VirtioNetHdr};

use super::check::{ALL, Burst, plan};
use super::packet::*;

/// The numbers of the packets in each write.
fn writes(packets: &[Vec<u8>]) -> Vec<Vec<usize>> {
    offered(packets, ALL)
}

fn offered(packets: &[Vec<u8>], offer: Offer) -> Vec<Vec<usize>> {
    let writes = plan(&mut Burst::new(packets), offer, &mut Coalescer::new());
    writes.into_iter().map(|write| write.packets).collect()
}

/// Packets of one flow, of which the second of three is changed. Later packets follow the unchanged
/// flow.
fn second_changed(v6: bool, protocol: u8, change: impl Fn(&mut Packet)) -> Vec<Vec<usize>> {
    let first = Packet::new(v6, protocol, 100);
    let mut second = first.next();
    let third = second.next();
    change(&mut second);
    writes(&[first.bytes(), second.bytes(), third.bytes()])
}

fn second_damaged(v6: bool, protocol: u8, damage: impl Fn(&mut Vec<u8>)) -> Vec<Vec<usize>> {
    let first = Packet::new(v6, protocol, 100);
    let mut second = first.next().bytes();
    damage(&mut second);
    writes(&[first.bytes(), second, first.next().next().bytes()])
}

const EACH: [(bool, u8); 4] = [(false, TCP), (true, TCP), (false, UDP), (true, UDP)];

fn three_writes() -> Vec<Vec<usize>> {
    vec![vec![0], vec![1], vec![2]]
}

#[test]
fn a_run_becomes_one_write() {
    for (v6, protocol) in EACH {
        assert_eq!(second_changed(v6, protocol, |_| ()), [[0, 1, 2]]);
    }
}

#[test]
fn the_header_says_what_it_is() {
    let expected = [
        (virtio::GSO_TCPV4, 52, 20, 16),
        (virtio::GSO_TCPV6, 72, 40, 16),
    ];
    let udp = [
        (virtio::GSO_UDP_L4, 28, 20, 6),
        (virtio::GSO_UDP_L4, 48, 40, 6),
    ];
    for ((v6, protocol), kind) in EACH.into_iter().zip(expected.into_iter().chain(udp)) {
        let first = Packet::new(v6, protocol, 100);
        let burst = &mut Burst::new(&[first.bytes(), first.next().bytes()]);
        let (gso_type, hdr_len, csum_start, csum_offset) = kind;
        let flags = virtio::NEEDS_CSUM;
        let hdr = VirtioNetHdr {
            flags,
            gso_type,
            hdr_len,
            gso_size: 100,
            csum_start,
            csum_offset,
            ..VirtioNetHdr::default()
        };
        assert_eq!(plan(burst, ALL, &mut Coalescer::new())[0].hdr, hdr);
    }
}

#[test]
fn nothing_is_merged_without_offload() {
    for (v6, protocol) in EACH {
        let first = Packet::new(v6, protocol, 100);
        let packets = [first.bytes(), first.next().bytes()];
        let (tcp, udp) = (protocol == TCP, protocol == UDP);
        assert_eq!(offered(&packets, Offer::default()), [[0], [1]]);
        assert_eq!(
            offered(
                &packets,
                Offer {
                    tcp: !tcp,
                    udp: !udp
                }
            ),
            [[0], [1]]
        );
        assert_eq!(offered(&packets, Offer { tcp, udp }), [[0, 1]]);
    }
}

#[test]
fn flows_are_merged_separately() {
    for (v6, protocol) in EACH {
        let a = Packet::new(v6, protocol, 100);
        let changes: [fn(&mut Packet); 4] = [
            |p| p.source = 9,
            |p| p.destination = 9,
            |p| p.ports.0 = 9,
            |p| p.ports.1 = 9,
        ];
        for change in changes {
            let mut b = a.clone();
            change(&mut b);
            let packets = [a.bytes(), b.bytes(), a.next().bytes(), b.next().bytes()];
            assert_eq!(writes(&packets), [[0, 2], [1, 3]]);
        }
    }
}

#[test]
fn tcp_and_udp_between_the_same_ports_are_two_flows() {
    let (a, b) = (Packet::new(false, TCP, 100), Packet::new(false, UDP, 100));
    let packets = [a.bytes(), b.bytes(), a.next().bytes(), b.next().bytes()];
    assert_eq!(writes(&packets), [[0, 2], [1, 3]]);
}

#[test]
fn the_oldest_flow_is_closed_for_a_new_one() {
    let flow = |port| Packet {
        ports: (port, 9),
        ..Packet::new(false, UDP, 100)
    };
    let mut packets: Vec<_> = (0..17).map(|port| flow(port).bytes()).collect();
    packets.push(flow(1).next().bytes());
    packets.push(flow(0).next().bytes());
    let writes = writes(&packets);
    assert_eq!(writes.len(), 18);
    assert_eq!(
        (&writes[0][..], &writes[1][..], &writes[17][..]),
        (&[0][..], &[1, 17][..], &[18][..])
    );
}

#[test]
fn tos_or_traffic_class_must_be_equal() {
    for (v6, protocol) in EACH {
        // 3 is CE: only some packets met congestion.
        assert_eq!(second_changed(v6, protocol, |p| p.tos = 3), three_writes());
        assert_eq!(
            second_changed(v6, protocol, |p| p.tos = 0xb8),
            three_writes()
        );
    }
}

#[test]
fn ttl_or_hop_limit_must_be_equal() {
    for (v6, protocol) in EACH {
        assert_eq!(second_changed(v6, protocol, |p| p.ttl = 63), three_writes());
    }
}

#[test]
fn flow_label_must_be_equal() {
    for protocol in [TCP, UDP] {
        assert_eq!(
            second_changed(true, protocol, |p| p.label = 1),
            three_writes()
        );
    }
}

#[test]
fn df_must_be_equal() {
    for protocol in [TCP, UDP] {
        assert_eq!(
            second_changed(false, protocol, |p| p.df = false),
            three_writes()
        );
    }
}

#[test]
fn ids_must_increase() {
    for protocol in [TCP, UDP] {
        for df in [false, true] {
            let first = Packet {
                df,
                ..Packet::new(false, protocol, 100)
            };
            let mut second = first.next();
            assert_eq!(writes(&[first.bytes(), second.bytes()]), [[0, 1]]);
            second.id = second.id.wrapping_add(1);
            assert_eq!(writes(&[first.bytes(), second.bytes()]), [[0], [1]]);
        }
    }
}

#[test]
fn ids_may_be_fixed_with_df() {
    for protocol in [TCP, UDP] {
        for df in [false, true] {
            let first = Packet {
                df,
                ..Packet::new(false, protocol, 100)
            };
            let second = Packet {
                id: first.id,
                ..first.next()
            };
            let third = Packet {
                id: first.id,
                ..second.next()
            };
            let writes = writes(&[first.bytes(), second.bytes(), third.bytes()]);
            assert_eq!(
                writes,
                if df {
                    vec![vec![0, 1, 2]]
                } else {
                    three_writes()
                }
            );
        }
    }
}

#[test]
fn ids_increase_or_are_fixed_but_not_both() {
    let first = Packet::new(false, TCP, 100);
    let fixed = Packet {
        id: first.id,
        ..first.next()
    };
    let risen = Packet {
        id: first.id.wrapping_add(2),
        ..fixed.next()
    };
    assert_eq!(
        writes(&[first.bytes(), fixed.bytes(), risen.bytes()]),
        [vec![0, 1], vec![2]]
    );
    let fixed = Packet {
        id: first.id,
        ..first.next().next()
    };
    let packets = [first.bytes(), first.next().bytes(), fixed.bytes()];
    assert_eq!(writes(&packets), [vec![0, 1], vec![2]]);
}

#[test]
fn ip_options_and_extension_headers_are_not_merged() {
    for protocol in [TCP, UDP] {
        let options = |p: &mut Packet| p.between = vec![1; 4];
        assert_eq!(second_changed(false, protocol, options), three_writes());
        let extension = |p: &mut Packet| p.between = vec![60, p.protocol, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(second_changed(true, protocol, extension), three_writes());
    }
}

/// tailscale#20320. The second fragment has no ports, but must not be overtaken.
#[test]
fn fragments_are_not_merged() {
    for protocol in [TCP, UDP] {
        for fragment in [0x2000, 0x2001, 0x0001] {
            let damage = |packet: &mut Vec<u8>| {
                put(packet, 6, fragment);
                put(packet, 10, 0);
                let checksum = !fold(sum(&packet[..20]));
                put(packet, 10, checksum);
            };
            assert_eq!(second_damaged(false, protocol, damage), three_writes());
        }
        let extension = |p: &mut Packet| p.between = vec![44, p.protocol, 0, 0, 9, 0, 0, 0, 1];
        assert_eq!(second_changed(true, protocol, extension), three_writes());
    }
}

#[test]
fn a_fragment_between_other_hosts_closes_no_group() {
    let first = Packet::new(false, UDP, 100);
    let mut fragment = Packet {
        source: 7,
        ..first.next()
    }
    .bytes();
    put(&mut fragment, 6, 5);
    let packets = [first.bytes(), fragment, first.next().bytes()];
    assert_eq!(writes(&packets), [vec![0, 2], vec![1]]);
}

#[test]
fn only_ack_and_psh_are_merged() {
    for v6 in [false, true] {
        for flags in [
            FIN | ACK,
            SYN | ACK,
            RST | ACK,
            URG | ACK,
            ECE | ACK,
            CWR | ACK,
            0,
            PSH,
        ] {
            assert_eq!(
                second_changed(v6, TCP, |p| p.flags = flags),
                three_writes(),
                "{flags:#x}"
            );
        }
        for flags in [FIN, SYN, RST, URG, ECE, CWR] {
            let first = Packet {
                flags: flags | ACK,
                ..Packet::new(v6, TCP, 100)
            };
            assert_eq!(writes(&[first.bytes(), first.next().bytes()]), [[0], [1]]);
        }
        let accurate_ecn = |packet: &mut Vec<u8>| {
            let transport = if v6 { 40 } else { 20 };
            packet[transport + 12] |= 1;
            finish(packet, transport, TCP);
        };
        assert_eq!(second_damaged(v6, TCP, accurate_ecn), three_writes());
        let first = Packet::new(v6, TCP, 100);
        let mut packets = [first.bytes(), first.next().bytes()];
        packets.iter_mut().for_each(accurate_ecn);
        assert_eq!(writes(&packets), [[0], [1]]);
    }
}

#[test]
fn psh_ends_a_run() {
    for v6 in [false, true] {
        let flags = |p: &mut Packet| p.flags = PSH | ACK;
        assert_eq!(second_changed(v6, TCP, flags), [vec![0, 1], vec![2]]);
        let first = Packet {
            flags: PSH | ACK,
            ..Packet::new(v6, TCP, 100)
        };
        let packets = [
            first.bytes(),
            Packet {
                flags: ACK,
                ..first.next()
            }
            .bytes(),
        ];
        assert_eq!(writes(&packets), [[0], [1]]);
    }
}

#[test]
fn psh_is_carried_over() {
    let first = Packet::new(false, TCP, 100);
    let second = Packet {
        flags: PSH | ACK,
        ..first.next()
    };
    let burst = &mut Burst::new(&[first.bytes(), second.bytes()]);
    assert_eq!(
        plan(burst, ALL, &mut Coalescer::new())[0].bytes[33],
        PSH | ACK
    );
}

#[test]
fn seq_must_be_contiguous() {
    for v6 in [false, true] {
        assert_eq!(
            second_changed(v6, TCP, |p| p.seq = p.seq.wrapping_add(1)),
            three_writes()
        );
        let retransmitted = |p: &mut Packet| p.seq = p.seq.wrapping_sub(100);
        // The third packet follows the first of the run, which the second has closed.
        assert_eq!(second_changed(v6, TCP, retransmitted), three_writes());
    }
}

#[test]
fn ack_window_and_urgent_pointer_must_be_equal() {
    for v6 in [false, true] {
        assert_eq!(second_changed(v6, TCP, |p| p.ack += 1), three_writes());
        assert_eq!(second_changed(v6, TCP, |p| p.window += 1), three_writes());
        assert_eq!(second_changed(v6, TCP, |p| p.urgent += 1), three_writes());
    }
}

#[test]
fn tcp_options_must_be_equal() {
    for v6 in [false, true] {
        assert_eq!(
            second_changed(v6, TCP, |p| p.options[7] += 1),
            three_writes()
        );
        assert_eq!(
            second_changed(v6, TCP, |p| p.options.clear()),
            three_writes()
        );
        assert_eq!(
            second_changed(v6, TCP, |p| p.options.extend([1; 4])),
            three_writes()
        );
    }
}

#[test]
fn a_shorter_packet_ends_a_run() {
    for (v6, protocol) in EACH {
        let first = Packet::new(v6, protocol, 100);
        let mut second = first.next();
        second.payload.truncate(60);
        let third = Packet {
            payload: vec![1; 60],
            ..second.next()
        };
        let packets = [first.bytes(), second.bytes(), third.bytes()];
        assert_eq!(writes(&packets), [vec![0, 1], vec![2]]);
    }
}

#[test]
fn a_longer_packet_begins_a_run() {
    for (v6, protocol) in EACH {
        let first = Packet::new(v6, protocol, 100);
        let second = Packet {
            payload: vec![1; 101],
            ..first.next()
        };
        let packets = [first.bytes(), second.bytes(), second.next().bytes()];
        assert_eq!(writes(&packets), [vec![0], vec![1, 2]]);
    }
}

#[test]
fn packets_without_payload_are_not_merged() {
    for (v6, protocol) in EACH {
        assert_eq!(
            second_changed(v6, protocol, |p| p.payload.clear()),
            three_writes()
        );
    }
}

/// Coalescing would hide the wrong checksum, so the packet is delivered alone and unchanged.
#[test]
fn a_bad_checksum_is_not_hidden() {
    for (v6, protocol) in EACH {
        let payload = |packet: &mut Vec<u8>| *packet.last_mut().unwrap() ^= 1;
        assert_eq!(second_damaged(v6, protocol, payload), three_writes());
    }
    let header = |packet: &mut Vec<u8>| packet[10] ^= 1;
    assert_eq!(second_damaged(false, TCP, header), three_writes());
    assert_eq!(second_damaged(false, UDP, header), three_writes());
}

#[test]
fn a_bad_first_checksum_is_not_hidden() {
    for (v6, protocol) in EACH {
        let first = Packet::new(v6, protocol, 100);
        let mut bad = first.bytes();
        *bad.last_mut().unwrap() ^= 1;
        let packets = [bad, first.next().bytes(), first.next().next().bytes()];
        assert_eq!(writes(&packets), [vec![0], vec![1, 2]]);
    }
}

#[test]
fn udp_without_checksum_is_not_merged() {
    for v6 in [false, true] {
        let none = |packet: &mut Vec<u8>| put(packet, if v6 { 46 } else { 26 }, 0);
        assert_eq!(second_damaged(v6, UDP, none), three_writes());
    }
}

/// A sender writes all ones if the sum is zero, but zero still means "none".
#[test]
fn udp_without_checksum_is_not_merged_by_chance() {
    for v6 in [false, true] {
        let first = Packet::new(v6, UDP, 100);
        let mut second = first.next();
        let field = second.transport() + 6;
        let carried = u64::from(get(&second.payload, 0)) + u64::from(get(&second.bytes(), field));
        put(&mut second.payload, 0, fold(carried));
        let mut bytes = second.bytes();
        assert_eq!(get(&bytes, field), 0xffff);
        assert_eq!(writes(&[first.bytes(), bytes.clone()]), [[0, 1]]);
        put(&mut bytes, field, 0);
        assert_eq!(writes(&[first.bytes(), bytes]), [[0], [1]]);
    }
}

#[test]
fn lengths_must_agree() {
    for (v6, protocol) in EACH {
        assert_eq!(second_damaged(v6, protocol, |p| p.push(0)), three_writes());
        assert_eq!(
            second_damaged(v6, protocol, |p| p.truncate(p.len() - 1)),
            three_writes()
        );
    }
    for v6 in [false, true] {
        let length = |packet: &mut Vec<u8>| packet[if v6 { 45 } else { 25 }] -= 1;
        assert_eq!(second_damaged(v6, UDP, length), three_writes());
    }
}

#[test]
fn merging_stops_before_the_maximum_length() {
    for (v6, protocol) in EACH {
        let mut packets = vec![Packet::new(v6, protocol, 1400)];
        (0..100).for_each(|_| packets.push(packets.last().unwrap().next()));
        let packets: Vec<_> = packets.iter().map(Packet::bytes).collect();
        let full = (65535 - (packets[0].len() - 1400)) / 1400;
        let counts: Vec<_> = writes(&packets).iter().map(Vec::len).collect();
        assert_eq!(counts, [full, full, 101 - 2 * full]);
    }
}

#[test]
fn merging_reaches_the_maximum_length() {
    for (v6, protocol) in EACH {
        for (over, expected) in [(0, 1), (1, 2)] {
            let mut packets = vec![Packet::new(v6, protocol, 1400)];
            (0..46).for_each(|_| packets.push(packets.last().unwrap().next()));
            let last = packets.last_mut().unwrap();
            let headers = last.headers();
            last.payload.truncate(65535 - headers - 46 * 1400 + over);
            let packets: Vec<_> = packets.iter().map(Packet::bytes).collect();
            assert_eq!(writes(&packets).len(), expected);
        }
    }
}

#[test]
fn no_more_parts_than_allowed() {
    let mut packets = vec![Packet::new(false, UDP, 10)];
    (0..MAX_PACKETS).for_each(|_| packets.push(packets.last().unwrap().next()));
    let packets: Vec<_> = packets.iter().map(Packet::bytes).collect();
    let counts: Vec<_> = writes(&packets).iter().map(Vec::len).collect();
    assert_eq!(counts, [MAX_PACKETS, 1]);
}

#[test]
fn other_protocols_are_delivered_unchanged() {
    let icmp = |packet: &mut Vec<u8>| packet[9] = 1;
    assert_eq!(second_damaged(false, UDP, icmp), three_writes());
    assert_eq!(
        writes(&[vec![], vec![0x45], vec![0x60; 39]]),
        three_writes()
    );
}
