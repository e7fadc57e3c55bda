//! Data packets: routes, order, padding, checks, counters.

use std::sync::Arc;

use super::elsewhere;
use crate::model::Change;
use crate::tunnel::drops::DropReason;
use crate::tunnel::messages::{DATA_OVERHEAD, MAX_STAGED_PACKETS};
use crate::tunnel::peer::Endpoint;
use crate::tunnel::send::{OutBuffer, Prepared, Unroutable};
use crate::tunnel::sim::*;

#[test]
fn staged_packets_go_first_and_in_order() {
    let mut sim = Sim::pair();
    for i in 0..100 {
        sim.send(0, 1, i);
        sim.run(MILLI);
    }
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].payloads(), (0..100).collect::<Vec<_>>());
}

#[test]
fn the_oldest_staged_packets_are_dropped() {
    let mut sim = Sim::pair();
    for i in 0..200 {
        sim.send(0, 1, i);
    }
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].payloads(), (72..200).collect::<Vec<_>>());
    assert_eq!(
        sim.hosts[0].drops(DropReason::StagedOverflow),
        200 - MAX_STAGED_PACKETS as u64
    );
}

#[test]
fn staged_packets_of_any_size_and_tos_keep_their_order() {
    let mut sim = Sim::pair();
    let mut packets = Vec::new();
    for i in 0..60u8 {
        let mut inner = packet(0, 1, &vec![i; 1 + usize::from(i) * 37 % 1400]);
        inner[1] = i % 4;
        packets.push(inner);
    }
    sim.send_packets(0, &packets);
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].payloads(), (0..60).collect::<Vec<_>>());
    for (sent, (_, got)) in packets.iter().zip(&sim.hosts[1].delivered) {
        assert_eq!(sent[20..], got[20..]);
    }
}

#[test]
fn bursts_of_one_size_share_a_stride() {
    let mut sim = Sim::session();
    let packets: Vec<_> = (0..100).map(|i| packet(0, 1, &[i; 1300])).collect();
    sim.send_packets(0, &packets);
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].payloads(), (0..100).collect::<Vec<_>>());
    let counters: Vec<_> = sim
        .seen
        .iter()
        .filter(|seen| seen.from == 0)
        .map(|seen| u64::from_le_bytes(seen.bytes[8..16].try_into().unwrap()))
        .collect();
    assert_eq!(counters, (1..101).collect::<Vec<_>>());
}

/// boringtun#494: no padding to 16.
#[test]
fn boringtun_494_no_padding() {
    let mut sim = Sim::session();
    for (len, datagram) in [
        (21, 64),
        (32, 64),
        (33, 80),
        (1408, 1440),
        (1409, 1452),
        (1420, 1452),
    ] {
        sim.send_packets(0, &[packet(0, 1, &vec![1; len - 20])]);
        assert_eq!(sim.last(0, DATA).bytes.len(), datagram, "packet of {len}");
    }
    sim.hosts[0].device.plane().set_mtu(1280);
    sim.send_packets(0, &[packet(0, 1, &[1; 1250])]);
    assert_eq!(
        sim.last(0, DATA).bytes.len(),
        1280 + 32,
        "1270 is padded to the MTU of 1280"
    );
    sim.send_packets(0, &[packet(0, 1, &[1; 1300])]);
    assert_eq!(
        sim.last(0, DATA).bytes.len(),
        1280 + 48 + 32,
        "1320 is one MTU and 40 bytes"
    );
    sim.run(SECOND);
    let lens: Vec<_> = sim.hosts[1]
        .delivered
        .iter()
        .map(|(_, packet)| packet.len())
        .collect();
    assert_eq!(
        lens,
        [21, 32, 33, 1408, 1409, 1420, 1270, 1320],
        "the receiver removes the padding"
    );
}

#[test]
fn large_packets_are_delivered() {
    let mut sim = Sim::session();
    sim.hosts[0].device.plane().set_mtu(65_000);
    for len in [9000, 65_000, 100] {
        sim.send_packets(0, &[packet(0, 1, &vec![5; len - 20])]);
    }
    sim.run(SECOND);
    let lens: Vec<_> = sim.hosts[1]
        .delivered
        .iter()
        .map(|(_, packet)| packet.len())
        .collect();
    assert_eq!(lens, [9000, 65_000, 100]);
}

#[test]
fn unroutable_packets_have_a_reason_and_are_not_staged() {
    let mut sim = Sim::pair();
    sim.send(0, 7, 1);
    let key = sim.hosts[1].public();
    sim.set(
        0,
        &[
            Change::ReplacePeers,
            Change::Peer(key),
            allow("10.0.0.2/32"),
        ],
    )
    .unwrap();
    sim.send(0, 1, 1);
    sim.send_packets(
        0,
        &[vec![0x45; 19], vec![0x60; 39], vec![0x50; 60], Vec::new()],
    );
    let not_ip = Unroutable::NotIp;
    assert_eq!(
        sim.hosts[0].unroutable,
        [
            Unroutable::NoPeer,
            Unroutable::NoEndpoint,
            not_ip,
            not_ip,
            not_ip,
            not_ip
        ]
    );
    assert!(
        sim.hosts[0]
            .device
            .peers()
            .all(|peer| peer.staged.is_idle())
    );
    for (reason, count) in [
        (DropReason::NoPeer, 1),
        (DropReason::NoEndpoint, 1),
        (DropReason::NotIp, 4),
    ] {
        assert_eq!(sim.hosts[0].drops(reason), count);
    }
    assert!(sim.seen.is_empty());
}

#[test]
fn inner_ipv6_is_delivered() {
    let mut sim = Sim::session();
    let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    sim.send_packets(0, &[packet_between(a, b, &[6; 30])]);
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].payloads(), [6]);
    assert_eq!(sim.hosts[1].delivered[0].1.len(), 70);
}

/// Fixed in gotatun 0.7.2, and still in boringtun and NepTUN: the owner of a /24 can send from a
/// /32 in it that belongs to another peer, because each peer has a table of its own.
#[test]
fn gotatun_0_7_2_spoofed_source() {
    let mut sim = Sim::hosts(3, 4);
    sim.introduce(0, 1);
    sim.introduce(0, 2);
    sim.introduce(1, 0);
    sim.set_peer(0, 1, &[allow("10.9.0.0/24")]);
    sim.set_peer(0, 2, &[allow("10.9.0.9/32")]);
    let from =
        |text: &str| packet_between(text.parse().unwrap(), "10.0.0.1".parse().unwrap(), &[1]);
    sim.send_packets(1, &[from("10.9.0.8"), from("10.9.0.9"), from("10.8.0.1")]);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].delivered.len(), 1);
    assert_eq!(sim.hosts[0].drops(DropReason::NotAllowed), 2);

    // A network that changed owners is not accepted from the former owner.
    sim.set_peer(0, 2, &[allow("10.9.0.0/24")]);
    sim.send_packets(1, &[from("10.9.0.8")]);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].drops(DropReason::NotAllowed), 3);
}

#[test]
fn malformed_inner_packets_are_dropped() {
    let mut sim = Sim::session();
    let current = sim.hosts[0].session();
    let good = packet(0, 1, &[1; 12]);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut inner = good.clone();
        change(&mut inner);
        inner
    };
    let bad = [
        with(&|p| p[0] = 0x55),
        with(&|p| p[3] = 19),
        with(&|p| p[3] = 33),
        with(&|p| p[2] = 1),
        with(&|p| p.truncate(16)),
        with(&|p| p[0] = 0x65),
        packet_between(
            "fd00::1".parse().unwrap(),
            "fd00::2".parse().unwrap(),
            &[1; 24],
        )[..48]
            .to_vec(),
    ];
    for (i, inner) in bad.iter().enumerate() {
        let mut datagram = vec![0; DATA_OVERHEAD + inner.len()];
        datagram[16..16 + inner.len()].copy_from_slice(inner);
        current
            .sealing
            .seal(current.receiver, 100 + i as u64, &mut datagram);
        let (from, to) = (sim.hosts[0].addr, sim.hosts[1].addr);
        sim.inject(from, to, &datagram);
    }
    sim.run(SECOND);
    assert_eq!(
        sim.hosts[1].drops(DropReason::InnerMalformed),
        bad.len() as u64
    );
    assert!(sim.hosts[1].delivered.is_empty());
}

#[test]
fn forged_and_replayed_packets_have_no_effect() {
    let mut sim = Sim::session();
    sim.send(0, 1, 1);
    sim.run(SECOND);
    let seen = sim.last(0, DATA);
    sim.inject(elsewhere(), seen.to, &seen.bytes);
    for at in [8, 16, seen.bytes.len() - 1] {
        let mut forged = seen.bytes.clone();
        forged[at] ^= 0x80;
        sim.inject(elsewhere(), seen.to, &forged);
    }
    let mut unknown = seen.bytes.clone();
    unknown[4] ^= 1;
    sim.inject(elsewhere(), seen.to, &unknown);
    sim.run(SECOND);
    let host = &sim.hosts[1];
    assert_eq!(
        (
            host.drops(DropReason::Replayed),
            host.drops(DropReason::Forged)
        ),
        (1, 3)
    );
    assert_eq!(host.drops(DropReason::UnknownIndex), 1);
    assert_eq!(
        host.peer().endpoint,
        Some(sim.hosts[0].addr),
        "the endpoint did not move"
    );
    assert_eq!(host.delivered.len(), 1);
}

/// A packet arrives after `bursts` bursts of 64 packets that were sent later.
fn overtaken(sim: &mut Sim, bursts: usize) {
    sim.faults.delay = SECOND;
    sim.send(0, 1, 1);
    sim.faults.delay = MILLI;
    for _ in 0..bursts {
        let packets: Vec<_> = (0..64).map(|_| packet(0, 1, &[2; 20])).collect();
        sim.send_packets(0, &packets);
    }
    sim.run(2 * SECOND);
}

#[test]
fn a_reordered_window_of_8128_packets_is_accepted() {
    let mut sim = Sim::session();
    overtaken(&mut sim, 127);
    assert_eq!(sim.hosts[1].delivered.len(), 8129, "8128 behind the newest");
    overtaken(&mut sim, 128);
    assert_eq!(
        sim.hosts[1].drops(DropReason::Replayed),
        1,
        "8192 behind the newest is too far"
    );
}

/// netns.sh 3: exact counters after ten pings.
#[test]
fn counters_equal_the_kernels() {
    let mut sim = Sim::pair();
    for _ in 0..10 {
        sim.send_packets(0, &[packet(0, 1, &[8; 64])]);
        sim.run(500 * MILLI);
        sim.send_packets(1, &[packet(1, 0, &[0; 64])]);
        sim.run(500 * MILLI);
    }
    let [a, b] = [0, 1].map(|host| sim.hosts[host].peer());
    assert_eq!((a.tx_bytes, a.rx_bytes), (1428, 1372));
    assert_eq!((b.tx_bytes, b.rx_bytes), (1372, 1428));
    sim.run(20 * SECOND);
    let [a, b] = [0, 1].map(|host| sim.hosts[host].peer());
    assert_eq!((a.tx_bytes, a.rx_bytes), (1428 + 32, 1372), "one keepalive");
    assert_eq!((b.tx_bytes, b.rx_bytes), (1372, 1428 + 32));
}

/// The answer to a packet may be received on another thread before the call that sent the packet returns.
#[test]
fn an_answer_during_the_send_is_answered_with_a_keepalive() {
    let sim = Sim::session();
    let (plane, peer) = (sim.hosts[0].device.plane(), sim.hosts[0].first());
    let mut burst = OutBuffer::new().start(&peer, 0);
    burst.push(20, 1420).fill(0x45);
    let Prepared::Ready(burst) = plane.prepare(burst, sim.now) else {
        panic!("there is a session");
    };
    let burst = burst.seal();
    plane.sending(&burst, sim.now);
    assert_eq!(peer.timers.send_keepalive.get(), None);
    let _ = peer.timers.data_received(sim.now, 1);
    let taken = burst.datagrams().len();
    plane.sent(burst, taken, sim.now);
    assert!(peer.timers.send_keepalive.get().is_some());
}

/// As in the kernel: only bytes that the socket accepted are counted, and only accepted data starts
/// the timer for an answer.
#[test]
fn refused_packets_are_not_counted_and_expect_no_answer() {
    let mut sim = Sim::session();
    sim.hosts[0].unplugged = true;
    let before = sim.hosts[0].peer().tx_bytes;
    let last_handshake = sim.hosts[0].first().last_sent_handshake.get();
    sim.send(0, 1, 1);
    sim.run(SECOND * 30);
    let peer = sim.hosts[0].first();
    assert_eq!(peer.tx_bytes(), before);
    assert_eq!(peer.last_sent_handshake.get(), last_handshake, "no other");
    sim.hosts[0].unplugged = false;
    sim.send(0, 1, 2);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].peer().tx_bytes, before + 80);
    assert_eq!(*sim.hosts[1].payloads().last().unwrap(), 2);
}

/// The same for handshake messages and the packets that were staged for them.
#[test]
fn refused_handshake_messages_are_not_counted() {
    let mut sim = Sim::pair();
    sim.hosts[0].unplugged = true;
    sim.send(0, 1, 1);
    sim.run(SECOND * 6);
    assert_eq!(sim.hosts[0].peer().tx_bytes, 0);
    sim.hosts[0].unplugged = false;
    sim.run(SECOND * 6);
    // An initiation, and the packet that was staged.
    assert_eq!(sim.hosts[0].peer().tx_bytes, 148 + 80);
    assert_eq!(sim.hosts[1].peer().tx_bytes, 92);
}

/// A burst in which the kernel has combined two sessions, handshake messages and invalid datagrams.
#[test]
fn a_mixed_burst_is_separated() {
    use crate::tunnel::keypair::Keypair;
    use crate::tunnel::peer::Peer;
    use crate::tunnel::receive::InBurst;
    let mut sim = Sim::session();
    let old = sim.hosts[0].session();
    sim.run(121 * SECOND);
    sim.send(0, 1, 1);
    sim.run(SECOND);
    let new = sim.hosts[0].session();
    assert!(!Arc::ptr_eq(&old, &new));
    let plane = sim.hosts[1].device.plane().clone();
    let mut burst = InBurst::new();
    let stride = 148;
    let mut seal = |slot: usize, keypair: &Keypair<Peer>, counter, payload| {
        let inner = packet(0, 1, &[payload; 96]);
        let datagram = &mut burst.buffer()[slot * stride..(slot + 1) * stride];
        datagram[16..132].copy_from_slice(&inner);
        keypair.sealing.seal(keypair.receiver, counter, datagram);
    };
    seal(0, &old, 50, 1);
    seal(1, &old, 51, 2);
    seal(3, &new, 52, 3);
    seal(4, &old, 52, 4);
    seal(5, &old, 52, 5); // replayed
    seal(6, &new, 53, 6);
    burst.buffer()[2 * stride..3 * stride].fill(0);
    burst.buffer()[2 * stride] = 1; // looks like an initiation
    burst.buffer()[6 * stride + 100] ^= 1;
    let tail = 7 * stride;
    burst.buffer()[tail..tail + 20].fill(9);
    burst.received(tail + 20, stride, Endpoint::from(elsewhere()), 0);
    let mut control = 0;
    burst.classify(&plane, sim.now, |message, _| {
        assert_eq!(message.len(), stride);
        control += 1;
    });
    assert_eq!((control, burst.count()), (1, 6));
    burst.open();
    burst.accept(&plane, sim.now);
    let payloads: Vec<_> = burst
        .packets()
        .iter()
        .map(|packet| burst.bytes()[packet.start + 20])
        .collect();
    assert_eq!(payloads, [1, 2, 3, 4]);
    let drops = plane.drops();
    let counts = [
        DropReason::Replayed,
        DropReason::Forged,
        DropReason::Malformed,
    ]
    .map(|reason| drops.get(reason));
    assert_eq!(counts, [1, 1, 1]);
}
