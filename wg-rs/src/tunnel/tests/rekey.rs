//! Sessions: confirmation, renewal and end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::tunnel::drops::DropReason;
use crate::tunnel::messages::*;
use crate::tunnel::sim::*;

#[test]
fn the_first_packet_confirms_the_session() {
    let mut sim = Sim::pair();
    sim.send(0, 1, 9);
    sim.run(SECOND);
    let kinds: Vec<_> = sim
        .seen
        .iter()
        .map(|seen| (seen.from, seen.kind()))
        .collect();
    assert_eq!(kinds, [(0, INITIATION), (1, RESPONSE), (0, DATA)]);
    assert_eq!(sim.hosts[1].payloads(), [9]);
    assert!(sim.keepalives(0).is_empty());
}

#[test]
fn a_keepalive_confirms_the_session_without_data() {
    // After the responder's first handshake, the initiator has nothing staged.
    let mut sim = Sim::session();
    sim.run(130 * SECOND);
    sim.seen.clear();
    sim.send(0, 1, 1); // is sent in the old session and renews it
    sim.run(SECOND);
    assert_eq!(sim.count(0, INITIATION), 1);
    assert_eq!(sim.keepalives(0).len(), 1);
    assert_eq!(sim.hosts[1].payloads(), [1]);
}

#[test]
fn the_responder_waits_for_confirmation() {
    let mut sim = Sim::pair();
    sim.send(0, 1, 0);
    sim.run(15 * MILLI); // the response is in flight, the first data is not sent yet
    sim.hosts[0].deaf = true;
    sim.run(SECOND);
    assert_eq!(sim.count(1, RESPONSE), 1);
    assert_eq!(
        sim.hosts[1]
            .first()
            .keypairs
            .slots()
            .map(|slot| slot.is_some()),
        [false, false, true]
    );
    assert_eq!(sim.hosts[1].peer().last_handshake, None);
    sim.send(1, 0, 5);
    assert_eq!(sim.count(1, DATA), 0, "not under an unconfirmed session");
    assert_eq!(sim.count(1, INITIATION), 0, "a response went out just now");
    sim.hosts[0].deaf = false;
    sim.run(10 * SECOND);
    assert_eq!(sim.hosts[0].payloads(), [5]);
    assert_eq!(sim.hosts[1].payloads(), [0]);
    assert!(sim.hosts[1].peer().last_handshake.is_some());
}

#[test]
fn latest_handshake_is_wall_time_of_response_and_of_first_data() {
    let mut sim = Sim::pair();
    sim.send(0, 1, 0);
    sim.run(SECOND);
    let at = |host: usize| {
        let wall = sim.hosts[host].peer().last_handshake.unwrap();
        (wall.secs, wall.nanos)
    };
    // boringtun#447: it is a time since 1970, not an age. The clock was at second 1000.
    assert_eq!(at(0), (1_700_001_000, 20_000_000));
    assert_eq!(at(1), (1_700_001_000, 30_000_000));
}

#[test]
fn responder_sends_what_it_staged_once_confirmed() {
    let mut sim = Sim::pair();
    sim.send(0, 1, 0);
    sim.run(15 * MILLI);
    sim.send(1, 0, 1);
    sim.send(1, 0, 2);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].payloads(), [1, 2]);
    assert_eq!(sim.count(1, INITIATION), 0);
}

#[test]
fn the_initiator_renews_when_it_sends_after_120_seconds() {
    let mut sim = Sim::session();
    let created = sim.hosts[0].session().created;
    while sim.count(0, INITIATION) == 0 {
        sim.send(0, 1, 1);
        sim.run(SECOND);
    }
    let age = sim.times(0, INITIATION)[0].saturating_since(created);
    assert!((120 * SECOND..122 * SECOND).contains(&age), "{age:?}");
}

#[test]
fn tailscale_rs_283_wrong_side_rekeys() {
    let mut sim = Sim::session();
    for _ in 0..170 {
        sim.send(1, 0, 1);
        sim.run(SECOND);
        assert_eq!(sim.count(1, INITIATION), 0, "the responder never by age");
        sim.hosts[0].delivered.clear();
    }
}

#[test]
fn an_initiator_that_only_receives_renews_in_the_last_minute_once() {
    let mut sim = Sim::session();
    let created = sim.hosts[0].session().created;
    // Only keepalives are sent back, and they do not renew the session: 10 seconds never pass
    // without one.
    sim.hosts[1].deaf = false;
    for _ in 0..176 {
        sim.send(1, 0, 1);
        sim.run(SECOND);
        if sim.count(0, INITIATION) > 0 {
            break;
        }
    }
    let at = sim.times(0, INITIATION)[0].saturating_since(created);
    assert!(at >= 120 * SECOND, "{at:?}");
    sim.run(5 * SECOND);
    assert_eq!(sim.count(0, INITIATION), 1);
}

#[test]
fn last_minute_renewal_is_requested_once_for_each_key() {
    let mut sim = Sim::session();
    sim.run(60 * SECOND);
    let created = sim.hosts[0].session().created;
    // Nothing that host 0 sends is delivered, so its own keepalives cannot renew the session at 120
    // seconds: it receives packets only in the last minute.
    let quiet = (created + 166 * SECOND).saturating_since(sim.now);
    sim.run(quiet);
    sim.hosts[1].deaf = true;
    sim.seen.clear();
    sim.send(1, 0, 1);
    sim.run(SECOND);
    assert_eq!(sim.count(0, INITIATION), 1);
    assert!(
        sim.hosts[0]
            .first()
            .sent_lastminute_handshake
            .load(Ordering::Relaxed)
    );
    sim.hosts[0]
        .first()
        .handshake_attempts
        .store(7, Ordering::Relaxed);
    sim.send(1, 0, 1);
    sim.run(SECOND);
    let attempts = sim.hosts[0]
        .first()
        .handshake_attempts
        .load(Ordering::Relaxed);
    assert_eq!(attempts, 7, "not asked for again");
}

#[test]
fn the_responder_does_not_renew_in_the_last_minute() {
    let mut sim = Sim::session();
    sim.run(167 * SECOND);
    sim.assert_passes(0, 1, 1);
    assert_eq!(sim.count(1, INITIATION), 0);
}

#[test]
fn one_initiation_in_five_seconds() {
    let mut sim = Sim::pair();
    sim.hosts[1].deaf = true;
    for _ in 0..490 {
        sim.send(0, 1, 0);
        sim.run(10 * MILLI);
    }
    assert_eq!(sim.count(0, INITIATION), 1);
}

#[test]
fn a_response_counts_as_an_initiation_sent() {
    let mut sim = Sim::pair();
    sim.send(0, 1, 0);
    sim.run(15 * MILLI); // answered, but not confirmed
    sim.hosts[1].deaf = true;
    for _ in 0..49 {
        sim.send(1, 0, 1);
        sim.run(100 * MILLI);
    }
    assert_eq!(sim.count(1, INITIATION), 0);
    sim.run(SECOND);
    sim.send(1, 0, 1);
    assert_eq!(sim.count(1, INITIATION), 1);
}

#[test]
fn boringtun_363_spurious_rekeys() {
    let mut sim = Sim::session();
    let mut sent = 0u32;
    let end = sim.now + 1200 * SECOND;
    while sim.now < end {
        sim.send(0, 1, 1);
        sim.send(1, 0, 2);
        sent += 1;
        sim.run(500 * MILLI);
    }
    sim.run(SECOND);
    let initiations = sim.count(0, INITIATION) + sim.count(1, INITIATION);
    assert!(
        (9..=10).contains(&initiations),
        "{initiations} in 20 minutes"
    );
    for host in &sim.hosts {
        assert_eq!(host.delivered.len(), sent as usize, "not a packet lost");
        assert!(host.device.plane().index.len() <= 2);
    }
}

#[test]
fn packets_under_the_previous_session_are_still_accepted() {
    let mut sim = Sim::session();
    sim.run(121 * SECOND);
    let old = sim.hosts[1].session();
    // One packet of host 1 is in flight for a second while the session is renewed.
    sim.faults.delay = SECOND;
    sim.send(1, 0, 77);
    sim.faults.delay = MILLI;
    sim.send(0, 1, 1);
    sim.run(100 * MILLI);
    assert!(!Arc::ptr_eq(&old, &sim.hosts[1].session()));
    assert!(sim.hosts[0].delivered.is_empty());
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].payloads(), [77]);
}

#[test]
fn session_slots_of_initiator_and_responder() {
    let mut sim = Sim::session();
    let slots = |sim: &Sim, host: usize| sim.hosts[host].first().keypairs.slots();
    let first = [slots(&sim, 0)[1], slots(&sim, 1)[1]];
    assert!(first.iter().all(Option::is_some));
    sim.run(121 * SECOND);
    sim.send(0, 1, 1);
    sim.run(SECOND);
    for (host, first) in first.into_iter().enumerate() {
        let [previous, current, next] = slots(&sim, host);
        assert_eq!(previous, first);
        assert!(current.is_some() && current != previous);
        assert_eq!(next, None);
        assert_eq!(sim.hosts[host].device.plane().index.len(), 2);
    }
}

#[test]
fn a_new_next_pushes_out_the_previous_and_the_unconfirmed() {
    // Host 0 initiates three times and never receives a response.
    let mut sim = Sim::session();
    sim.run(121 * SECOND);
    sim.send(0, 1, 1);
    sim.run(121 * SECOND);
    assert!(sim.hosts[1].first().keypairs.slots()[0].is_some());
    sim.hosts[0].deaf = true;
    for _ in 0..3 {
        sim.send(0, 1, 1);
        sim.run(6 * SECOND);
    }
    let [previous, current, next] = sim.hosts[1].first().keypairs.slots();
    assert!(previous.is_none() && current.is_some() && next.is_some());
    assert_eq!(sim.hosts[1].device.plane().index.len(), 2);
}

#[test]
fn an_old_session_neither_sends_nor_receives() {
    let mut sim = Sim::session();
    sim.run(181 * SECOND);
    sim.hosts[1].deaf = true;
    sim.seen.clear();
    sim.send(0, 1, 1);
    sim.run(SECOND);
    assert_eq!((sim.count(0, DATA), sim.count(0, INITIATION)), (0, 1));

    // Receiving: sealed in time, but arrived too late.
    let mut sim = Sim::session();
    let created = sim.hosts[1].session().created;
    sim.run((created + 179 * SECOND).saturating_since(sim.now));
    sim.faults.delay = 2 * SECOND;
    sim.send(1, 0, 1);
    sim.run(5 * SECOND);
    assert!(sim.hosts[0].delivered.is_empty());
    assert_eq!(sim.hosts[0].drops(DropReason::SessionExpired), 1);
}

#[test]
fn boringtun_478_no_rekey_after_messages() {
    for side in [0, 1] {
        let mut sim = Sim::session();
        sim.run(10 * SECOND);
        sim.hosts[side]
            .session()
            .set_counter(REKEY_AFTER_MESSAGES - 1);
        let other = 1 - side;
        sim.send(side, other, 1);
        sim.send(side, other, 2);
        sim.run(SECOND);
        assert_eq!(sim.count(side, INITIATION), 1, "either side, by messages");
        assert_eq!(sim.hosts[other].payloads(), [1, 2]);
        assert!(sim.hosts[side].session().counter() < 10);
    }
}

#[test]
fn tailscale_rs_338_no_reject_after_messages() {
    let mut sim = Sim::session();
    sim.run(10 * SECOND);
    let old = sim.hosts[0].session();
    old.set_counter(REJECT_AFTER_MESSAGES - 2);
    sim.hosts[1].deaf = true;
    sim.seen.clear();
    sim.send_packets(0, &[packet(0, 1, &[1; 20]), packet(0, 1, &[2; 20])]);
    assert_eq!(sim.count(0, DATA), 2, "the last two");
    sim.send(0, 1, 3);
    sim.send(0, 1, 4);
    assert_eq!(sim.count(0, DATA), 2);
    assert_eq!(sim.count(0, INITIATION), 1);
    let last = sim.last(0, DATA);
    let counter = u64::from_le_bytes(last.bytes[8..16].try_into().unwrap());
    assert_eq!(counter, REJECT_AFTER_MESSAGES - 1);
    sim.run(SECOND);
    sim.hosts[1].deaf = false;
    sim.run(10 * SECOND);
    assert_eq!(sim.hosts[1].payloads(), [3, 4], "under the next session");

    // A receiver refuses such counters even in authentic packets.
    let mut sim = Sim::session();
    sim.hosts[0]
        .session()
        .set_counter(REJECT_AFTER_MESSAGES - 1);
    sim.assert_passes(0, 1, 1);
}

#[test]
fn a_receiver_refuses_a_counter_past_the_limit() {
    let mut sim = Sim::session();
    let keypair = sim.hosts[0].session();
    let inner = packet(0, 1, &[1; 20]);
    let mut datagram = vec![0; 48 + 32];
    datagram[16..16 + inner.len()].copy_from_slice(&inner);
    for (counter, accepted) in [(REJECT_AFTER_MESSAGES - 1, 1), (REJECT_AFTER_MESSAGES, 1)] {
        let mut datagram = datagram.clone();
        keypair
            .sealing
            .seal(keypair.receiver, counter, &mut datagram);
        let [from, to] = [sim.hosts[0].addr, sim.hosts[1].addr];
        sim.inject(from, to, &datagram);
        sim.run(SECOND);
        assert_eq!(sim.hosts[1].delivered.len(), accepted);
    }
    assert_eq!(sim.hosts[1].drops(DropReason::Replayed), 1);
}

#[test]
fn tailscale_rs_11_stale_session_hang() {
    // The initiator restarts and has no session, while the responder still has the old one.
    let mut sim = Sim::session();
    sim.down(0);
    sim.up(0);
    sim.send(1, 0, 1);
    sim.run(16 * SECOND);
    sim.assert_passes(1, 0, 2);
    sim.assert_passes(0, 1, 3);
}

#[test]
fn simultaneous_initiations_give_a_session_at_once() {
    let mut sim = Sim::pair();
    sim.send(0, 1, 1);
    sim.send(1, 0, 2);
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].payloads(), [1]);
    assert_eq!(sim.hosts[0].payloads(), [2]);
    for _ in 0..100 {
        sim.send(0, 1, 3);
        sim.send(1, 0, 4);
        sim.run(SECOND);
    }
    assert_eq!(sim.count(0, INITIATION) + sim.count(1, INITIATION), 2);
    assert!(sim.hosts.iter().all(|host| host.delivered.len() == 101));
}

#[test]
fn an_hour_of_traffic_in_both_directions_loses_nothing() {
    let mut sim = Sim::session();
    sim.faults.delay = 150 * MILLI;
    for i in 0..3600 {
        sim.send(0, 1, i as u8);
        sim.send(1, 0, i as u8);
        sim.run(SECOND);
    }
    sim.run(SECOND);
    let want: Vec<_> = (0..3600).map(|i| i as u8).collect();
    assert_eq!(sim.hosts[0].payloads(), want);
    assert_eq!(sim.hosts[1].payloads(), want);
}

/// A virtual machine is copied: as in the kernel, neither copy uses the shared sessions for
/// sending, and the copy does not send anything on its own.
#[test]
fn a_copied_machine_sends_nothing_in_shared_sessions() {
    let mut sim = Sim::session();
    let counter = sim.hosts[0].session().counter();
    sim.hosts[0].device.end_sending();
    sim.send(1, 0, 1);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].payloads(), [1], "receiving goes on");
    assert!(sim.times(0, DATA).is_empty() && sim.times(0, INITIATION).is_empty());
    assert_eq!(sim.hosts[0].session().counter(), counter);
    sim.send(0, 1, 2);
    sim.run(SECOND);
    assert_eq!(sim.count(0, INITIATION), 1, "at once");
    assert_eq!(sim.hosts[1].payloads(), [2]);
}

#[test]
fn a_copied_machine_refuses_a_response_to_a_shared_initiation() {
    let mut sim = Sim::pair();
    sim.faults.delay = 100 * MILLI;
    sim.send(0, 1, 1);
    sim.run(50 * MILLI);
    sim.hosts[0].device.end_sending();
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].drops(DropReason::UnexpectedResponse), 1);
    sim.run(5 * SECOND);
    assert_eq!(
        sim.hosts[1].payloads(),
        [1],
        "the staged packet is sent after the retry"
    );
}

/// The clock jumps while no timer fires.
#[test]
fn sessions_that_expired_during_sleep_are_wiped() {
    for (asleep, kept) in [(170, true), (181, false)] {
        let mut sim = Sim::session();
        let session = Arc::downgrade(&sim.hosts[0].session());
        sim.now = sim.now + asleep * SECOND;
        let now = sim.now;
        sim.hosts[0].device.end_outlasted(now);
        assert_eq!(session.strong_count() > 0, kept, "{asleep} s");
        assert_eq!(sim.hosts[0].device.plane().index.len() > 0, kept);
        sim.assert_passes(0, 1, 1);
    }
}
