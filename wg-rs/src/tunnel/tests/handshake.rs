//! Initiations and responses, including changed and repeated ones.

use crate::model::Change;
use crate::tunnel::drops::DropReason;
use crate::tunnel::sim::*;

/// tailscale-rs#334, and boringtun: an invalid response clears a pending handshake.
#[test]
fn tailscale_rs_334_bad_response_clears_pending_handshake() {
    let mut sim = Sim::pair();
    sim.faults.delay = 100 * MILLI;
    sim.send(0, 1, 1);
    sim.run(150 * MILLI);
    // Forgeries of the true response arrive before it.
    let response = sim.last(1, RESPONSE);
    sim.faults.delay = MILLI;
    for at in [12, 44, 59] {
        let mut forged = response.bytes.clone();
        forged[at] ^= 1;
        // mac1 is not secret: an attacker can compute it.
        let keys = wg_crypto::MacKeys::new(&sim.hosts[0].public());
        keys.sign(&mut forged, None);
        sim.inject("203.0.113.9:666".parse().unwrap(), response.to, &forged);
    }
    sim.run(20 * MILLI);
    assert_eq!(sim.hosts[0].drops(DropReason::BadResponse), 3);
    assert_eq!(
        sim.hosts[0].peer().endpoint,
        Some(sim.hosts[1].addr),
        "the endpoint did not move"
    );
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].payloads(), [1]);
    assert_eq!(sim.count(0, INITIATION), 1);
}

/// mullvadvpn-app#9975: responses were dropped if the round trip took more than a quarter of a
/// second.
#[test]
fn gotatun_slow_handshakes_fail() {
    for delay in [200, 1000, 2490] {
        let mut sim = Sim::pair();
        sim.faults.delay = delay * MILLI;
        sim.send(0, 1, 1);
        sim.run(10 * SECOND);
        assert_eq!(sim.hosts[1].payloads(), [1], "{delay} ms one way");
        assert_eq!(sim.count(0, INITIATION), 1);
    }
}

#[test]
fn a_response_to_an_earlier_initiation_is_refused() {
    let mut sim = Sim::pair();
    sim.faults.delay = 3 * SECOND;
    sim.send(0, 1, 1);
    sim.run(7 * SECOND);
    assert_eq!(sim.count(0, INITIATION), 2);
    assert_eq!(sim.hosts[0].drops(DropReason::UnexpectedResponse), 1);
}

#[test]
fn a_replayed_initiation_is_refused() {
    let mut sim = Sim::session();
    sim.run(121 * SECOND);
    sim.send(0, 1, 1);
    sim.run(SECOND);
    let initiation = sim.last(0, INITIATION);
    sim.seen.clear();
    sim.inject(
        "203.0.113.9:666".parse().unwrap(),
        initiation.to,
        &initiation.bytes,
    );
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].drops(DropReason::ReplayedInitiation), 1);
    assert_eq!(sim.count(1, RESPONSE), 0);
    assert_eq!(sim.hosts[1].peer().endpoint, Some(sim.hosts[0].addr));
}

#[test]
fn an_initiation_of_an_earlier_time_is_refused() {
    let mut sim = Sim::session();
    sim.run(60 * SECOND);
    // The clock of host 0 is set back. The kernel refuses its initiations until the clock has
    // caught up, and so do we.
    sim.hosts[0].wall_error = -3600;
    sim.down(0);
    sim.up(0);
    sim.send(0, 1, 1);
    sim.run(20 * SECOND);
    assert!(sim.hosts[1].drops(DropReason::ReplayedInitiation) >= 3);
    assert!(sim.hosts[1].delivered.is_empty());
    sim.hosts[0].wall_error = 0;
    sim.run(6 * SECOND);
    assert_eq!(sim.hosts[1].payloads(), [1]);
}

#[test]
fn the_last_timestamp_is_kept_without_session_and_link() {
    let mut sim = Sim::session();
    sim.run(10 * SECOND);
    sim.hosts[1].deaf = true;
    sim.down(0);
    sim.up(0);
    sim.send(0, 1, 1);
    let recorded = sim.last(0, INITIATION);
    sim.run(SECOND);
    sim.hosts[1].deaf = false;
    sim.inject(recorded.to, recorded.to, &recorded.bytes);
    sim.run(600 * SECOND);
    sim.down(1);
    sim.up(1);
    let refused = sim.hosts[1].drops(DropReason::ReplayedInitiation);
    sim.inject(recorded.to, recorded.to, &recorded.bytes);
    sim.run(SECOND);
    assert_eq!(
        sim.hosts[1].drops(DropReason::ReplayedInitiation),
        refused + 1
    );
}

#[test]
fn initiations_within_20_milliseconds_are_refused() {
    let mut sim = Sim::pair();
    let changes = [Change::PrivateKey(None)];
    let key = Box::new(sim.hosts[0].key.clone());
    // Each change of the key causes an initiation at once.
    sim.faults.delay = MILLI;
    sim.hosts[0].deaf = true;
    for step in [25, 19, 25, 10, 25] {
        sim.set(0, &changes).unwrap();
        sim.set(0, &[Change::PrivateKey(Some(key.clone()))])
            .unwrap();
        sim.send(0, 1, 1);
        sim.run(step * MILLI);
    }
    assert_eq!(sim.count(0, INITIATION), 5);
    assert_eq!(
        sim.count(1, RESPONSE) as u64
            + sim.hosts[1].drops(DropReason::FloodedInitiation)
            + sim.hosts[1].drops(DropReason::ReplayedInitiation),
        5
    );
    assert!(sim.hosts[1].drops(DropReason::FloodedInitiation) >= 1);
}

/// boringtun#53: nanoseconds in the timestamp reveal the precise clock to the receiver.
#[test]
fn boringtun_53_timestamp_is_a_time_oracle() {
    let mut sim = Sim::session();
    let entry = sim.hosts[1].device.peers.iter().next().unwrap();
    let timestamp = entry
        .handshake
        .as_ref()
        .unwrap()
        .latest_timestamp()
        .unwrap();
    let bytes = timestamp.as_bytes();
    let nanos = u32::from_be_bytes(bytes[8..12].try_into().unwrap());
    assert_eq!(nanos % (1 << 24), 0);
    sim.run(SECOND);
}

#[test]
fn strangers_and_reflections_are_dropped() {
    let mut sim = Sim::hosts(3, 5);
    sim.introduce(0, 1);
    sim.introduce(1, 0);
    sim.introduce(2, 1); // 1 does not know 2
    sim.send(2, 1, 1);
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].drops(DropReason::UnknownPeer), 1);
    assert_eq!(sim.count(1, RESPONSE), 0);
    sim.send(0, 1, 1);
    let initiation = sim.last(0, INITIATION);
    let to = sim.hosts[0].addr;
    sim.inject(initiation.to, to, &initiation.bytes);
    sim.run(SECOND);
    assert_eq!(
        sim.hosts[0].drops(DropReason::BadMac1),
        1,
        "our own initiation is sent back to us"
    );
}

#[test]
fn malformed_messages_are_counted() {
    let mut sim = Sim::session();
    let (from, to) = ("203.0.113.9:666".parse().unwrap(), sim.hosts[1].addr);
    for (bytes, reason) in [
        (vec![0; 148], DropReason::Malformed),
        (vec![1; 148], DropReason::Malformed),
        (vec![1, 0, 0, 0], DropReason::Malformed),
        ([&[1, 0, 0, 0][..], &[0; 144]].concat(), DropReason::BadMac1),
        ([&[2, 0, 0, 0][..], &[0; 88]].concat(), DropReason::BadMac1),
        (
            [&[3, 0, 0, 0][..], &[0; 60]].concat(),
            DropReason::BadCookie,
        ),
        (
            [&[4, 0, 0, 0][..], &[0; 27]].concat(),
            DropReason::Malformed,
        ),
        (
            [&[4, 0, 0, 0][..], &[0; 28]].concat(),
            DropReason::UnknownIndex,
        ),
    ] {
        let before = sim.hosts[1].drops(reason);
        sim.inject(from, to, &bytes);
        sim.run(SECOND);
        assert_eq!(
            sim.hosts[1].drops(reason),
            before + 1,
            "{:?} {reason:?}",
            &bytes[..4]
        );
    }
    assert_eq!(sim.hosts[1].peer().endpoint, Some(sim.hosts[0].addr));
}

#[test]
fn psk_must_agree() {
    let mut sim = Sim::pair();
    sim.set_peer(0, 1, &[psk(1)]);
    sim.set_peer(1, 0, &[psk(2)]);
    sim.send(0, 1, 1);
    sim.run(20 * SECOND);
    assert!(sim.hosts[0].drops(DropReason::BadResponse) >= 3);
    assert!(sim.hosts[1].delivered.is_empty());
    sim.set_peer(1, 0, &[psk(1)]);
    sim.run(6 * SECOND);
    assert_eq!(sim.hosts[1].payloads(), [1]);
}

#[test]
fn low_order_peers_are_kept_but_nothing_is_sent() {
    let mut sim = Sim::hosts(1, 8);
    let low_order = [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }];
    for key in low_order {
        sim.set(
            0,
            &[
                Change::Peer(wg_crypto::PublicKey::from_bytes(key)),
                Change::Endpoint("198.51.100.1:1".parse().unwrap()),
                Change::PersistentKeepalive(1),
            ],
        )
        .unwrap();
    }
    sim.run(100 * SECOND);
    assert_eq!(sim.hosts[0].device.get().peers.len(), 2);
    assert!(sim.seen.is_empty());
}

/// As in the kernel, a failed attempt counts too. Otherwise every packet would cause one.
#[test]
fn an_initiation_that_cannot_be_created_is_not_tried_for_every_packet() {
    let mut sim = Sim::hosts(1, 8);
    let peer = wg_crypto::PublicKey::from_bytes([0; 32]);
    let changes = [
        Change::Peer(peer),
        Change::Endpoint("198.51.100.1:1".parse().unwrap()),
        allow("10.0.0.2/32"),
    ];
    sim.set(0, &changes).unwrap();
    let mut attempts = std::collections::BTreeSet::new();
    for n in 0..120 {
        sim.send(0, 1, n);
        attempts.insert(sim.hosts[0].first().last_sent_handshake.get());
        sim.run(SECOND / 10);
    }
    assert!(sim.seen.is_empty());
    assert_eq!(attempts.len(), 3, "in 12 seconds: {attempts:?}");
}

/// gotatun's audit: session indices are predictable. boringtun: peer ID << 8 | counter.
#[test]
fn boringtun_linkable_indices() {
    let mut sim = Sim::session();
    for _ in 0..20 {
        sim.run(121 * SECOND);
        sim.send(0, 1, 1);
        sim.run(SECOND);
    }
    let indices: Vec<u32> = sim
        .seen
        .iter()
        .filter(|seen| seen.kind() == INITIATION)
        .map(|seen| u32::from_le_bytes(seen.bytes[4..8].try_into().unwrap()))
        .collect();
    assert!(indices.len() >= 20);
    for byte in 0..4 {
        let mut values: Vec<_> = indices
            .iter()
            .map(|index| index.to_le_bytes()[byte])
            .collect();
        values.sort_unstable();
        values.dedup();
        assert!(values.len() > 12, "byte {byte} hardly varies: {values:?}");
    }
}

#[test]
fn handshakes_have_their_own_tos() {
    let mut sim = Sim::pair();
    sim.send(0, 1, 1);
    sim.run(SECOND);
    assert_eq!(sim.last(0, INITIATION).tos, 0x88);
    assert_eq!(sim.last(1, RESPONSE).tos, 0x88);
    assert_eq!(sim.last(0, DATA).tos, 0);
}
