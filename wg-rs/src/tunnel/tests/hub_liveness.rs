//! A path through a hub that is silent is doubted, and another hub is used.

use super::hub_clients::{A, B, PING, count_of, longest_gap, path, talking};
use super::relay::received;
use crate::tunnel::drops::DropReason;
use crate::tunnel::sim::*;

#[test]
fn a_silent_hub_is_replaced_by_the_second_one_within_3500_ms() {
    let mut sim = talking(2);
    let (a, b) = (2, 3);
    longest_gap(&mut sim, [a, b], 20 * SECOND);
    for round in 0..3 {
        let key = path(&sim, a, b).hub.unwrap();
        let used = (0..2).find(|hub| sim.hosts[*hub].public() == key).unwrap();
        sim.hosts[used].deaf = true;
        let gaps = longest_gap(&mut sim, [a, b], 20 * SECOND);
        assert!(
            gaps.iter().all(|gap| *gap <= 3500 * MILLI),
            "{round}: {gaps:?}"
        );
        assert_ne!(path(&sim, a, b).hub, Some(key));
        assert_ne!(path(&sim, b, a).hub, Some(key));
        assert_eq!(path(&sim, a, b).doubt, None);
        sim.hosts[used].deaf = false;
        // Its sessions may have ended.
        longest_gap(&mut sim, [a, b], 40 * SECOND);
    }
}

/// After the second hub was used once, both hold the session.
#[test]
fn with_two_hubs_that_hold_the_session_nothing_is_lost_after_a_pause() {
    let mut sim = talking(2);
    let (a, b) = (2, 3);
    longest_gap(&mut sim, [a, b], 10 * SECOND);
    sim.hosts[0].deaf = true;
    longest_gap(&mut sim, [a, b], 20 * SECOND);
    sim.hosts[0].deaf = false;
    // Until after the next handshake of the pair.
    longest_gap(&mut sim, [a, b], 140 * SECOND);
    sim.run(20 * SECOND);
    sim.hosts[1].deaf = true;
    for end in [a, b] {
        sim.hosts[end].delivered.clear();
    }
    for n in 0..100 {
        sim.send(a, b, n);
        sim.send(b, a, n);
        sim.run(100 * MILLI);
    }
    for end in [a, b] {
        assert_eq!(received(&sim, end), (0..100).collect::<Vec<_>>());
    }
    assert!(
        sim.hosts[b].drops(DropReason::Replayed) == 0,
        "the other copy was lost"
    );
}

#[test]
fn a_single_lost_ping_makes_no_doubt() {
    let mut sim = talking(1);
    longest_gap(&mut sim, [A, B], 5 * SECOND);
    let mut doubted = 0;
    for n in 0..600 {
        // One datagram in a hundred is lost.
        sim.faults.lose = 10;
        sim.send(A, B, n as u8);
        sim.run(100 * MILLI);
        doubted += u32::from(path(&sim, A, B).doubt.is_some());
    }
    assert_eq!(doubted, 0);
}

#[test]
fn an_idle_pair_sends_nothing_but_hellos() {
    let mut sim = talking(1);
    sim.run(30 * SECOND);
    sim.seen.clear();
    sim.run(600 * SECOND);
    assert_eq!(count_of(&sim, A, PING), 0);
    let sent = |from| sim.seen.iter().filter(|seen| seen.from == from).count();
    assert!(sent(A) <= 40, "{}", sent(A));
    // The first packet after it arrives, in a new session.
    sim.send(A, B, 3);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [3]);
}

#[test]
fn a_used_peer_gets_a_ping_each_two_seconds() {
    let mut sim = talking(1);
    longest_gap(&mut sim, [A, B], 5 * SECOND);
    sim.seen.clear();
    longest_gap(&mut sim, [A, B], 60 * SECOND);
    let pings = count_of(&sim, A, PING);
    assert!((24..=32).contains(&pings), "{pings}");
}

#[test]
fn under_random_faults_a_packet_arrives_soon_after_the_network_recovers() {
    let mut sim = talking(2);
    let (a, b) = (2, 3);
    for round in 0..20u32 {
        sim.faults.lose = [0, 50, 200][round as usize % 3];
        sim.faults.repeat = 50;
        sim.faults.spread = 20 * MILLI;
        for hub in 0..2 {
            sim.hosts[hub].deaf = round >> hub & 1 == 1;
        }
        longest_gap(&mut sim, [a, b], 7 * SECOND);
        for hub in 0..2 {
            sim.hosts[hub].deaf = false;
        }
        sim.faults.lose = 0;
        let gaps = longest_gap(&mut sim, [a, b], 15 * SECOND);
        assert!(
            gaps.iter().all(|gap| *gap <= 6 * SECOND),
            "{round}: {gaps:?}"
        );
    }
}
