//! ECN between the inner and the outer header: RFC 6040.

use super::elsewhere;
use crate::tunnel::messages::DATA_OVERHEAD;
use crate::tunnel::peer::Endpoint;
use crate::tunnel::receive::InBurst;
use crate::tunnel::sim::*;

#[test]
fn the_outer_ecn_follows_the_inner() {
    let mut sim = Sim::session();
    for (inner, outer) in [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 2),
        (0xb8, 0),
        (0xfd, 1),
        (0xff, 2),
    ] {
        let mut v4 = packet(0, 1, &[1; 20]);
        v4[1] = inner;
        sim.send_packets(0, &[v4]);
        assert_eq!(sim.last(0, DATA).tos, outer, "IPv4 {inner:#x}");
        let mut v6 = packet_between(
            "fd00::1".parse().unwrap(),
            "fd00::2".parse().unwrap(),
            &[1; 20],
        );
        v6[0] |= inner >> 4;
        v6[1] |= inner << 4;
        sim.send_packets(0, &[v6]);
        assert_eq!(sim.last(0, DATA).tos, outer, "IPv6 {inner:#x}");
    }
}

#[test]
fn the_inner_ecn_follows_outer_congestion() {
    let sim = Sim::session();
    let current = sim.hosts[0].session();
    let plane = sim.hosts[1].device.plane().clone();
    let mut burst = InBurst::new();
    let mut counter = 1000;
    for (inner, outer, want) in [
        (0, 3, 0), // inner Not-ECT is delivered unchanged
        (1, 3, 3),
        (2, 3, 3),
        (3, 0, 3),
        (2, 1, 1),
        (1, 2, 1),
        (2, 0, 2),
        (0xb9, 3, 0xbb),
    ] {
        for v6 in [false, true] {
            let mut packet = if v6 {
                packet_between(
                    "fd00::1".parse().unwrap(),
                    "fd00::2".parse().unwrap(),
                    &[1; 8],
                )
            } else {
                packet(0, 1, &[1; 8])
            };
            if v6 {
                packet[0] |= inner >> 4;
                packet[1] |= inner << 4;
            } else {
                packet[1] = inner;
                packet[10..12].fill(0);
                let sum = checksum(&packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            let len = DATA_OVERHEAD + packet.len();
            burst.buffer()[16..16 + packet.len()].copy_from_slice(&packet);
            current
                .sealing
                .seal(current.receiver, counter, &mut burst.buffer()[..len]);
            counter += 1;
            burst.received(len, 0, Endpoint::from(elsewhere()), outer);
            burst.classify(&plane, sim.now, |_, _| unreachable!());
            burst.open();
            burst.accept(&plane, sim.now);
            let got = &burst.bytes()[burst.packets()[0].clone()];
            let tos = if v6 {
                got[0] << 4 | got[1] >> 4
            } else {
                got[1]
            };
            assert_eq!(tos, want, "inner {inner:#x}, outer {outer}");
            assert!(v6 || checksum(&got[..20]) == 0);
        }
    }
}
