//! The five timers of a peer.

use std::time::Duration;

use std::sync::Arc;

use crate::model::Change;
use crate::tunnel::drops::DropReason;
use crate::tunnel::sim::*;
use crate::tunnel::time::Time;
use crate::tunnel::timers::REKEY_AFTER_TIME;
use crate::tunnel::way::Heard;

fn gaps(times: &[Time]) -> Vec<Duration> {
    times
        .windows(2)
        .map(|pair| pair[1].saturating_since(pair[0]))
        .collect()
}

#[test]
fn a_handshake_is_retried_19_times_with_jitter() {
    let mut sim = Sim::pair();
    sim.hosts[1].deaf = true;
    sim.send(0, 1, 0);
    sim.run(300 * SECOND);
    let initiations = sim.times(0, INITIATION);
    assert_eq!(initiations.len(), 20);
    let gaps = gaps(&initiations);
    assert!(
        gaps.iter()
            .all(|gap| (5 * SECOND..=5340 * MILLI).contains(gap)),
        "{gaps:?}"
    );
    assert!(
        gaps.iter().any(|gap| *gap > 5 * SECOND + 100 * MILLI),
        "jitter: {gaps:?}"
    );
    assert!(
        gaps.iter().any(|gap| *gap < 5 * SECOND + 230 * MILLI),
        "jitter: {gaps:?}"
    );
    assert_eq!(sim.hosts[0].drops(DropReason::StagedPurged), 1);

    // Only the timer that wipes the keys remains.
    sim.run(600 * SECOND);
    assert_eq!(sim.hosts[0].device.next_timeout(), None);
    assert_eq!(sim.count(0, INITIATION), 20);

    // Another packet starts another attempt.
    sim.hosts[1].deaf = false;
    sim.assert_passes(0, 1, 7);
}

#[test]
fn tailscale_rs_339_retries_never_stop() {
    let mut sim = Sim::pair();
    sim.hosts[1].deaf = true;
    sim.send(0, 1, 0);
    sim.run(3600 * SECOND);
    assert_eq!(sim.count(0, INITIATION), 20);
}

#[test]
fn new_packets_keep_a_handshake_going() {
    let mut sim = Sim::pair();
    sim.hosts[1].deaf = true;
    for _ in 0..300 {
        sim.send(0, 1, 0);
        sim.run(SECOND);
    }
    let initiations = sim.times(0, INITIATION);
    assert!(
        (55..=60).contains(&initiations.len()),
        "{}",
        initiations.len()
    );
}

#[test]
fn retries_forget_the_source_address() {
    let mut sim = Sim::session();
    let peer = sim.hosts[0].first();
    assert!(
        peer.endpoint().unwrap().src.is_some(),
        "the address is learned from the response"
    );
    sim.run(60 * SECOND);
    sim.hosts[1].deaf = true;
    sim.send(0, 1, 0);
    sim.run(16 * SECOND);
    assert_eq!(sim.count(0, INITIATION), 1);
    assert_eq!(peer.endpoint().unwrap().src, None, "new_handshake");
    let learned = crate::tunnel::peer::Endpoint {
        src: Some(crate::tunnel::peer::Source {
            ip: "192.0.2.1".parse().unwrap(),
            ifindex: 9,
        }),
        ..peer.endpoint().unwrap()
    };
    peer.heard(learned, Heard::Data, sim.now);
    sim.run(6 * SECOND);
    assert_eq!(sim.count(0, INITIATION), 2);
    assert_eq!(peer.endpoint().unwrap().src, None, "retransmit_handshake");
}

#[test]
fn a_keepalive_is_sent_10_seconds_after_received_data() {
    let mut sim = Sim::session();
    sim.run(60 * SECOND);
    sim.seen.clear();
    let sent = sim.now;
    sim.send(0, 1, 1);
    sim.run(60 * SECOND);
    assert_eq!(sim.keepalives(1), [sent + 10 * MILLI + 10 * SECOND], "one");
    assert!(sim.keepalives(0).is_empty(), "a keepalive is not answered");
    assert_eq!(sim.count(0, INITIATION) + sim.count(1, INITIATION), 0);
}

#[test]
fn an_answer_replaces_the_keepalive() {
    let mut sim = Sim::session();
    sim.run(60 * SECOND);
    sim.seen.clear();
    for _ in 0..3 {
        sim.send(0, 1, 1);
        sim.run(9 * SECOND);
        sim.send(1, 0, 1);
        sim.run(9 * SECOND);
    }
    assert!(sim.keepalives(0).is_empty() && sim.keepalives(1).is_empty());
}

#[test]
fn data_while_a_keepalive_waits_needs_another() {
    let mut sim = Sim::session();
    sim.run(60 * SECOND);
    sim.seen.clear();
    let sent = sim.now;
    sim.send(0, 1, 1);
    sim.run(5 * SECOND);
    sim.send(0, 1, 2);
    sim.run(60 * SECOND);
    let first = sent + 10 * MILLI + 10 * SECOND;
    assert_eq!(sim.keepalives(1), [first, first + 10 * SECOND]);
}

#[test]
fn unanswered_data_starts_a_handshake_after_15_seconds() {
    let mut sim = Sim::session();
    sim.run(60 * SECOND);
    sim.hosts[1].deaf = true;
    sim.seen.clear();
    let sent = sim.now;
    sim.send(0, 1, 1);
    sim.run(5 * SECOND);
    sim.send(0, 1, 2);
    sim.run(11 * SECOND);
    let initiations = sim.times(0, INITIATION);
    assert_eq!(initiations.len(), 1);
    let after = initiations[0].saturating_since(sent);
    assert!((15 * SECOND..15333 * MILLI).contains(&after), "{after:?}");
}

#[test]
fn tailscale_rs_332_no_new_handshake_timer() {
    // The responder lost its session in a restart: only a new handshake helps.
    let mut sim = Sim::session();
    sim.down(1);
    sim.up(1);
    sim.send(0, 1, 1);
    sim.run(14 * SECOND);
    assert!(sim.hosts[1].delivered.is_empty());
    sim.run(2 * SECOND);
    sim.assert_passes(0, 1, 2);
}

#[test]
fn a_sent_keepalive_expects_no_answer() {
    let mut sim = Sim::session();
    sim.run(100 * SECOND);
    assert_eq!(sim.keepalives(1).len(), 1);
    assert_eq!(sim.count(0, INITIATION) + sim.count(1, INITIATION), 0);
}

#[test]
fn key_material_is_wiped_540_seconds_after_the_last_session() {
    let mut sim = Sim::session();
    let sessions = [0, 1].map(|host: usize| Arc::downgrade(&sim.hosts[host].session()));
    sim.run(538 * SECOND);
    assert!(sessions.iter().all(|session| session.strong_count() > 0));
    sim.run(2 * SECOND);
    for (host, session) in sessions.iter().enumerate() {
        assert_eq!(session.strong_count(), 0, "dropped, and with that zeroed");
        assert_eq!(sim.hosts[host].device.plane().index.len(), 0);
        assert_eq!(sim.hosts[host].device.next_timeout(), None);
    }
}

#[test]
fn an_abandoned_handshake_is_wiped() {
    let mut sim = Sim::pair();
    sim.hosts[1].deaf = true;
    sim.send(0, 1, 0);
    sim.run(120 * SECOND);
    assert_eq!(
        sim.hosts[0].device.context.pending.len(),
        1,
        "a late response is still accepted"
    );
    sim.run(540 * SECOND);
    assert!(sim.hosts[0].device.context.pending.is_empty());
}

#[test]
fn a_persistent_keepalive_follows_the_last_packet_either_way() {
    let mut sim = Sim::session();
    let start = sim.now;
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(25)]);
    assert_eq!(sim.keepalives(0), [start], "at once");
    sim.run(20 * SECOND);
    sim.send(1, 0, 1);
    let received = sim.now + 10 * MILLI;
    sim.run(5 * SECOND);
    assert_eq!(sim.keepalives(0).len(), 1, "put off");
    sim.run(30 * SECOND);
    // The passive keepalive for the data comes first and postpones the persistent one.
    let passive = received + 10 * SECOND;
    assert_eq!(sim.keepalives(0), [start, passive]);
    sim.run(6 * SECOND);
    assert_eq!(sim.keepalives(0), [start, passive, passive + 25 * SECOND]);
}

#[test]
fn persistent_keepalive_starts_a_session_when_the_link_comes_up() {
    let mut sim = Sim::pair();
    sim.down(0);
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(25)]);
    sim.run(60 * SECOND);
    assert!(sim.seen.is_empty());
    sim.up(0);
    sim.run(SECOND);
    assert_eq!(sim.count(0, INITIATION), 1);
    assert_eq!(sim.keepalives(0).len(), 1, "which confirms the session");
    assert!(sim.hosts[1].peer().last_handshake.is_some());
}

/// boringtun 0.7.1: timers.rs returns before the keepalive after 90 or 540 seconds; gotatun does
/// the same.
#[test]
fn boringtun_persistent_keepalive_dies() {
    let mut sim = Sim::session();
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(25)]);
    sim.hosts[1].deaf = true;
    for hour in 0..3 {
        sim.seen.clear();
        sim.run(3600 * SECOND);
        let initiations = sim.times(0, INITIATION);
        let longest = gaps(&initiations).into_iter().max().unwrap();
        assert!(
            longest <= 31 * SECOND,
            "hour {hour}: {longest:?} without an attempt"
        );
    }
    sim.hosts[1].deaf = false;
    sim.run(31 * SECOND);
    let before = sim.hosts[0].peer().last_handshake.unwrap();
    sim.run(300 * SECOND);
    assert!(
        sim.hosts[0].peer().last_handshake.unwrap() > before,
        "the session is renewed without data"
    );
}

#[test]
fn a_persistent_keepalive_of_one_second_never_ends() {
    let mut sim = Sim::pair();
    sim.hosts[1].deaf = true;
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(1)]);
    sim.run(3600 * SECOND);
    let initiations = sim.times(0, INITIATION);
    assert!(
        gaps(&initiations)
            .iter()
            .all(|gap| *gap >= 5 * SECOND && *gap < 7 * SECOND)
    );
}

/// The kernel arms this timer only when something was sent. Here the session is over, and no
/// initiation may be sent because a response was just sent, which is not answered.
#[test]
fn a_persistent_keepalive_outlives_a_response_without_answer() {
    let mut sim = Sim::pair();
    sim.send(1, 0, 1);
    sim.run(SECOND);
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(3)]);
    sim.run(150 * SECOND);
    sim.hosts[1].deaf = true; // otherwise it would renew the session in the last minute
    sim.run(27 * SECOND);
    sim.down(1);
    sim.up(1);
    sim.seen.clear();
    sim.send(1, 0, 1);
    sim.run(4 * SECOND);
    assert_eq!((sim.count(0, RESPONSE), sim.count(0, INITIATION)), (1, 0));
    sim.hosts[1].deaf = false;
    sim.set_peer(1, 0, &[Change::Remove]);
    sim.run(60 * SECOND);
    assert!(sim.count(0, INITIATION) >= 9);
}

#[test]
fn a_disabled_persistent_keepalive_is_never_sent() {
    let mut sim = Sim::session();
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(25)]);
    sim.run(60 * SECOND);
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(0)]);
    sim.seen.clear();
    sim.run(1000 * SECOND);
    assert!(sim.seen.is_empty());
    assert_eq!(sim.hosts[0].device.next_timeout(), None);
}

/// boringtun mod.rs: `None => continue` for a peer without an endpoint, so its timers never run.
#[test]
fn boringtun_peer_without_endpoint_runs_no_timers() {
    let mut sim = Sim::pair();
    let key = sim.hosts[1].public();
    sim.set(
        0,
        &[
            Change::ReplacePeers,
            Change::Peer(key),
            Change::PersistentKeepalive(25),
        ],
    )
    .unwrap();
    sim.run(100 * SECOND);
    assert!(sim.seen.is_empty());
    // The endpoint is set: the keepalive is sent at once.
    let addr = sim.hosts[1].addr;
    sim.set_peer(0, 1, &[Change::Endpoint(addr)]);
    sim.run(SECOND);
    assert_eq!(sim.keepalives(0).len(), 1);

    // The endpoint is learned.
    let mut sim = Sim::pair();
    sim.set(
        0,
        &[
            Change::ReplacePeers,
            Change::Peer(key),
            Change::PersistentKeepalive(25),
        ],
    )
    .unwrap();
    sim.send(1, 0, 1);
    sim.run(100 * SECOND);
    assert!(sim.keepalives(0).len() >= 3);
}

#[test]
fn idle_peers_cause_no_wakeup() {
    let mut sim = Sim::hosts(1, 3);
    let changes = (0..10_000u32).flat_map(|i| {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&i.to_le_bytes());
        [
            Change::Peer(wg_crypto::PublicKey::from_bytes(key)),
            Change::Endpoint(format!("198.51.100.1:{}", 1 + i % 60_000).parse().unwrap()),
        ]
    });
    sim.set(0, &changes.collect::<Vec<_>>()).unwrap();
    assert_eq!(sim.hosts[0].device.next_timeout(), None);
    assert!(sim.seen.is_empty());
}

#[test]
fn nothing_is_pending_long_after_the_last_packet() {
    let mut sim = Sim::session();
    sim.send(1, 0, 1);
    sim.run(600 * SECOND);
    sim.seen.clear();
    assert!(
        sim.hosts
            .iter()
            .all(|host| host.device.next_timeout().is_none())
    );
    assert!(
        sim.hosts
            .iter()
            .all(|host| host.device.context.schedule.is_empty())
    );
}

#[test]
fn timers_stop_when_the_link_goes_down() {
    let mut sim = Sim::session();
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(5)]);
    sim.send(1, 0, 1);
    sim.run(SECOND);
    sim.down(0);
    sim.seen.clear();
    sim.run(100 * SECOND);
    assert_eq!(sim.seen.iter().filter(|seen| seen.from == 0).count(), 0);
    assert_eq!(sim.hosts[0].device.next_timeout(), None);
    assert!(sim.hosts[0].peer().endpoint.is_some());
    sim.up(0);
    sim.run(SECOND);
    assert_eq!(sim.count(0, INITIATION), 1);
}

/// A ping every second wakes the owner about once in ten seconds, not for each packet.
#[test]
fn a_busy_peer_wakes_its_owner_rarely() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let mut sim = Sim::session();
    let wakes = Arc::new(AtomicUsize::new(0));
    let counter = wakes.clone();
    sim.hosts[0].device.plane().set_waker(Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    for _ in 0..1000 {
        sim.send(0, 1, 1);
        sim.run(50 * MILLI);
        sim.send(1, 0, 1);
        sim.run(50 * MILLI);
    }
    assert!(
        wakes.load(Ordering::Relaxed) <= 20,
        "{wakes:?} in 100 seconds"
    );
    assert_eq!(REKEY_AFTER_TIME, 120 * SECOND);
}

#[test]
fn timers_fire_at_multiples_of_ten_milliseconds_and_never_early() {
    let mut sim = Sim::session();
    // Until all is quiet, and away from such a multiple.
    sim.run(40 * SECOND + Duration::from_micros(1234));
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(25)]);
    let sent = sim.keepalives(0).len();
    let due = sim.hosts[0].device.context.schedule.first().unwrap();
    let at = sim.hosts[0].device.next_timeout().unwrap();
    assert!(at.as_nanos().is_multiple_of(10_000_000), "{at:?}");
    assert!(
        at > due && at.saturating_since(due) < 10 * MILLI,
        "{due:?} {at:?}"
    );
    sim.run(26 * SECOND);
    let keepalives = sim.keepalives(0);
    assert!(keepalives.len() > sent);
    assert!(keepalives[sent..].contains(&at), "{keepalives:?}, {at:?}");
}
