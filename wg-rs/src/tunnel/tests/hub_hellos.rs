//! HELLOs of clients: a hub that does not answer, was started again or has moved is noticed, and the
//! hub notices that a client has moved.

use super::hub_clients::{
    A, B, HELLO, HUB, count_of, hub_of_ours, hub_status, longest_gap, path, peer_of, talking, warm,
};
use super::relay::{groups, received};
use crate::model::Change;
use crate::tunnel::drops::DropReason;
use crate::tunnel::peer::Peer;
use crate::tunnel::sim::*;

/// Ends the hub, and starts it with its peers but without their endpoints.
fn restart(sim: &mut Sim, hub: usize, clients: &[usize]) {
    sim.down(hub);
    sim.set(hub, &[Change::ReplacePeers]).unwrap();
    for client in clients {
        sim.set_peer(hub, *client, &[groups("lab")]);
    }
    sim.up(hub);
}

#[test]
fn a_hub_that_does_not_answer_is_asked_three_times_and_then_rarely() {
    let mut sim = Sim::pair();
    // A stock hub: to it, frames are invalid packets.
    sim.set_peer(0, 1, &[hub_of_ours(true)]);
    sim.run(60 * SECOND);
    assert_eq!(
        count_of(&sim, 0, HELLO),
        4,
        "the last one shows that it is mute"
    );
    assert!(hub_status(&sim, 0, 1).is_mute);
    let invalid = sim.hosts[1].drops(DropReason::InnerMalformed);
    assert_eq!(invalid, 4);
    // Also over new sessions.
    for _ in 0..10 {
        sim.send(0, 1, 1);
        sim.run(50 * SECOND);
    }
    assert_eq!(count_of(&sim, 0, HELLO), 4);
    sim.run(100 * SECOND);
    assert_eq!(count_of(&sim, 0, HELLO), 5);
    assert_eq!(hub_status(&sim, 0, 1).heard, None);
}

#[test]
fn frames_are_not_counted_and_arm_no_timer() {
    let mut sim = warm(1, 1);
    let (hub, client) = (peer_of(&sim, A, HUB), peer_of(&sim, HUB, A));
    let bytes = |peer: &Peer| (peer.rx_bytes(), peer.tx_bytes());
    let before = (bytes(&hub), bytes(&client));
    sim.run(100 * SECOND);
    assert!((3..=5).contains(&count_of(&sim, A, HELLO)));
    assert_eq!((bytes(&hub), bytes(&client)), before);
    assert!(sim.keepalives(A).is_empty() && sim.keepalives(HUB).is_empty());
    assert_eq!(sim.count(A, INITIATION) + sim.count(HUB, INITIATION), 0);
    // The session is renewed in time, although nothing else is sent.
    sim.run(1000 * SECOND);
    let renewed = sim.count(A, INITIATION) + sim.count(HUB, INITIATION);
    assert!((5..=9).contains(&renewed), "{renewed}");
    assert!(hub_status(&sim, A, HUB).heard.unwrap() < 30 * SECOND);
}

#[test]
fn hellos_replace_persistent_keepalives() {
    let mut sim = warm(1, 1);
    sim.set_peer(A, HUB, &[Change::PersistentKeepalive(60)]);
    sim.run(SECOND);
    sim.seen.clear();
    sim.run(300 * SECOND);
    // Only those that follow a handshake.
    assert!(sim.keepalives(A).len() <= sim.count(A, INITIATION) + 1);
}

#[test]
fn a_hello_moves_the_client_at_the_hub() {
    let mut sim = talking(1);
    sim.hosts[A].addr = super::elsewhere();
    sim.hosts[A].device.plane().network_changed();
    sim.pump(A);
    sim.run(50 * MILLI);
    sim.send(B, A, 3);
    sim.send(A, B, 4);
    sim.run(SECOND);
    assert_eq!((received(&sim, A), received(&sim, B)), (vec![3], vec![4]));
    assert_eq!(hub_status(&sim, A, HUB).sees, Some(super::elsewhere()));
}

#[test]
fn a_hub_that_moves_is_followed() {
    let mut sim = talking(1);
    sim.hosts[HUB].addr = super::elsewhere();
    // The hub's next packet comes from there.
    sim.send_packets(HUB, &[packet(HUB, A, &[7; 20]), packet(HUB, B, &[7; 20])]);
    sim.run(50 * MILLI);
    sim.send(A, B, 3);
    sim.send(B, A, 4);
    sim.run(SECOND);
    assert_eq!(
        (received(&sim, B), received(&sim, A)),
        (vec![7, 3], vec![7, 4])
    );
    assert!(path(&sim, A, B).doubt.is_none());
    // By the configuration, as after the name was resolved again.
    let addr = "198.51.100.77:51820".parse().unwrap();
    sim.hosts[HUB].addr = addr;
    for client in [A, B] {
        sim.set_peer(client, HUB, &[Change::Endpoint(addr)]);
    }
    sim.send(A, B, 5);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [7, 3, 5]);
}

#[test]
fn a_restarted_hub_is_used_again_within_6_seconds_under_traffic() {
    let mut sim = talking(1);
    longest_gap(&mut sim, [A, B], 20 * SECOND);
    sim.seen.clear();
    restart(&mut sim, HUB, &[A, B]);
    let gaps = longest_gap(&mut sim, [A, B], 20 * SECOND);
    assert!(gaps.iter().all(|gap| *gap <= 6 * SECOND), "{gaps:?}");
    // Only the sessions with the hub were made anew.
    assert_eq!(sim.count(A, INITIATION) + sim.count(B, INITIATION), 2);
}

#[test]
fn a_restarted_hub_is_used_again_if_only_one_end_sends() {
    let mut sim = talking(1);
    for n in 0..50 {
        sim.send(A, B, n);
        sim.run(100 * MILLI);
    }
    restart(&mut sim, HUB, &[A, B]);
    sim.hosts[B].delivered.clear();
    for n in 0..60 {
        sim.send(A, B, n);
        sim.run(100 * MILLI);
    }
    assert!(!received(&sim, B).is_empty(), "within 6 seconds");
}

#[test]
fn an_idle_client_finds_a_restarted_hub_with_its_next_hello() {
    let mut sim = talking(1);
    sim.run(30 * SECOND);
    restart(&mut sim, HUB, &[A, B]);
    sim.run(31 * SECOND);
    sim.seen.clear();
    sim.send(A, B, 9);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [9]);
    assert_eq!(sim.count(A, INITIATION), 0, "in the old session");
}

/// The hub knows where its clients were.
#[test]
fn a_hub_that_calls_its_clients_is_used_again_within_a_second() {
    let mut sim = talking(1);
    longest_gap(&mut sim, [A, B], 10 * SECOND);
    sim.down(HUB);
    sim.set(HUB, &[Change::ReplacePeers]).unwrap();
    for client in [A, B] {
        let endpoint = Change::Endpoint(sim.hosts[client].addr);
        sim.set_peer(HUB, client, &[endpoint, groups("lab")]);
    }
    sim.up(HUB);
    let gaps = longest_gap(&mut sim, [A, B], 10 * SECOND);
    assert!(gaps.iter().all(|gap| *gap <= SECOND), "{gaps:?}");
}

/// Stock clients, whose addresses a former daemon of the hub has left.
#[test]
fn former_clients_are_called_when_they_get_their_groups() {
    let mut sim = Sim::hosts(3, 5);
    sim.join(HUB, &[A, B]);
    sim.run(SECOND);
    sim.send(A, B, 1);
    sim.run(SECOND);
    let now = sim.now;
    let clients = sim.hosts[HUB].device.clients(now);
    assert_eq!(clients.len(), 2);
    // The hub also sent what it relayed.
    sim.seen.clear();
    sim.down(HUB);
    sim.set(HUB, &[Change::ReplacePeers]).unwrap();
    assert!(sim.hosts[HUB].device.clients(now).is_empty());
    sim.hosts[HUB]
        .device
        .clients_were_at(clients.into_iter().collect());
    sim.up(HUB);
    sim.set_peer(HUB, B, &[]);
    sim.run(SECOND);
    assert_eq!(sim.count(HUB, INITIATION), 0, "without groups");
    sim.hosts[B].delivered.clear();
    restart(&mut sim, HUB, &[A, B]);
    let gaps = longest_gap(&mut sim, [A, B], 40 * SECOND);
    assert!(gaps.iter().all(|gap| *gap <= 20 * SECOND), "{gaps:?}");
}

#[test]
fn a_lost_bind_is_repeated() {
    let mut sim = talking(1);
    restart(&mut sim, HUB, &[A, B]);
    // The hub does not have B's groups yet, so it accepts no BIND.
    sim.set_peer(HUB, B, &[groups("")]);
    for n in 0..55 {
        sim.send(A, B, n);
        sim.run(100 * MILLI);
    }
    assert!(received(&sim, B).is_empty());
    assert!(sim.hosts[HUB].drops(DropReason::RelayUnknown) >= 1);
    sim.set_peer(HUB, B, &[groups("lab")]);
    let gaps = longest_gap(&mut sim, [A, B], 12 * SECOND);
    assert!(gaps.iter().all(|gap| *gap <= 10 * SECOND), "{gaps:?}");
}

/// The hub is started again at any moment of the handshake that renews a session of its clients. The
/// session that is made then, or the one before it, must be told to the new hub.
#[test]
fn a_hub_that_is_started_again_during_a_rekey_is_told_the_session_that_results() {
    for after in (0..=200).step_by(5) {
        let mut sim = talking(1);
        // The initiator renews its session when it sends after 120 seconds.
        sim.run(125 * SECOND);
        sim.seen.clear();
        sim.send(A, B, 7);
        sim.send(B, A, 7);
        sim.run(MILLI * after);
        restart(&mut sim, HUB, &[A, B]);
        let gaps = longest_gap(&mut sim, [A, B], 20 * SECOND);
        assert!(
            gaps.iter().all(|gap| *gap <= 6 * SECOND),
            "{after} ms: {gaps:?}"
        );
        // Both ends use the same session, of which the hub was told.
        let session = |host, peer| {
            let current = peer_of(&sim, host, peer).keypairs.current().clone();
            let current = current.unwrap();
            (current.local, current.receiver)
        };
        let (mine, theirs) = session(A, B);
        assert_eq!(session(B, A), (theirs, mine), "{after} ms");
        let relay = sim.hosts[HUB].device.plane().relay().unwrap();
        assert!(relay.has(mine) && relay.has(theirs), "{after} ms");
        assert_eq!(path(&sim, A, B).doubt, None, "{after} ms");
    }
}

/// The hub starts again, and all that it answers at first is lost in one direction.
#[test]
fn another_epoch_is_noticed_although_answers_are_lost_during_a_rekey() {
    for lost in [A, B] {
        let mut sim = talking(1);
        sim.run(125 * SECOND);
        sim.send(A, B, 7);
        sim.run(15 * MILLI);
        restart(&mut sim, HUB, &[A, B]);
        sim.hosts[lost].deaf = true;
        longest_gap(&mut sim, [A, B], 7 * SECOND);
        sim.hosts[lost].deaf = false;
        let gaps = longest_gap(&mut sim, [A, B], 20 * SECOND);
        assert!(
            gaps.iter().all(|gap| *gap <= 6 * SECOND),
            "{lost}: {gaps:?}"
        );
    }
}
