//! What `status` reports about an unreachable peer, for each cause.

use wg_crypto::PresharedKey;

use super::elsewhere;
use crate::model::Change;
use crate::model::status::{PeerStatus, Refusal, Status};
use crate::tunnel::sim::*;

fn status(sim: &Sim, host: usize) -> Status {
    sim.hosts[host].device.status(sim.now)
}

fn peer(sim: &Sim, host: usize) -> PeerStatus {
    status(sim, host).peers.remove(0)
}

fn refusals(peer: &PeerStatus) -> Vec<Refusal> {
    peer.refusals
        .iter()
        .map(|refused| refused.refusal)
        .collect()
}

#[test]
fn a_peer_with_a_session_has_no_trouble() {
    let sim = Sim::session();
    for host in [0, 1] {
        let peer = peer(&sim, host);
        assert_eq!(peer.session, Some(true));
        assert_eq!(peer.handshakes, Some(1));
        assert_eq!((peer.unanswered, peer.unconfirmed), (None, 0));
        assert!(peer.refusals.is_empty());
    }
    assert!(
        status(&sim, 0)
            .drops
            .iter()
            .all(|(_, packets)| *packets == 0)
    );
}

#[test]
fn handshakes_without_an_answer_are_counted_over_all_attempts() {
    let mut sim = Sim::pair();
    sim.hosts[1].deaf = true;
    for _ in 0..3 {
        // Each packet restarts the retries, and the count continues.
        sim.send(0, 1, 1);
        sim.run(11 * SECOND);
    }
    let unanswered = peer(&sim, 0).unanswered.unwrap();
    assert_eq!(unanswered.count as usize, sim.count(0, INITIATION));
    assert!(unanswered.count >= 6, "{unanswered:?}");
    assert!(unanswered.age >= 32 * SECOND, "{unanswered:?}");
    sim.hosts[1].deaf = false;
    sim.run(6 * SECOND);
    let peer = peer(&sim, 0);
    assert_eq!((peer.session, peer.unanswered), (Some(true), None));
}

#[test]
fn a_wrong_preshared_key_is_reported_on_both_sides() {
    let mut sim = Sim::pair();
    let psk = PresharedKey::from_bytes([7; 32]);
    sim.set_peer(0, 1, &[Change::PresharedKey(Box::new(psk))]);
    sim.send(0, 1, 1);
    sim.run(7 * SECOND);
    let (initiator, responder) = (peer(&sim, 0), peer(&sim, 1));
    assert_eq!(refusals(&initiator), [Refusal::PresharedKey]);
    assert!(initiator.has_preshared_key && !responder.has_preshared_key);
    assert_eq!(initiator.session, Some(false));
    assert_eq!((responder.session, responder.unconfirmed), (Some(false), 2));
}

#[test]
fn the_responder_reports_a_clock_that_is_behind() {
    let mut sim = Sim::session();
    sim.hosts[0].wall_error = -3600;
    sim.down(0);
    sim.up(0);
    sim.send(0, 1, 1);
    sim.run(SECOND);
    assert_eq!(refusals(&peer(&sim, 1)), [Refusal::Timestamp]);
}

#[test]
fn unknown_keys_are_reported_with_their_senders() {
    // Host 2 does not know host 0.
    let mut sim = Sim::hosts(3, 7);
    sim.introduce(0, 2);
    sim.send(0, 2, 1);
    sim.run(SECOND);
    let from = sim.hosts[0].addr;
    let key = sim.hosts[0].public();
    let refused = status(&sim, 2).refusals;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].refusal, Refusal::UnknownKey { from, key });

    // Packets for host 2 arrive at host 1.
    let initiation = sim.last(0, INITIATION);
    let to = sim.hosts[1].addr;
    sim.inject(elsewhere(), to, &initiation.bytes);
    sim.run(SECOND);
    let refused = status(&sim, 1).refusals;
    let from = elsewhere();
    assert_eq!(refused[0].refusal, Refusal::OtherKey { from });
}

#[test]
fn a_source_that_is_not_allowed_is_reported() {
    let mut sim = Sim::session();
    let source = "10.8.0.1".parse().unwrap();
    let stray = packet_between(source, "10.0.0.1".parse().unwrap(), &[1]);
    sim.send_packets(1, &[stray]);
    sim.run(SECOND);
    let peer = peer(&sim, 0);
    assert_eq!(peer.session, Some(true));
    assert_eq!(refusals(&peer), [Refusal::NotAllowed { source }]);
}

#[test]
fn a_cookie_is_reported_as_load() {
    let mut sim = Sim::pair();
    sim.hosts[1].backlog.initiations = 4096;
    sim.send(0, 1, 1);
    sim.run(500 * MILLI);
    assert_eq!(refusals(&peer(&sim, 0)), [Refusal::UnderLoad]);
    assert_eq!(status(&sim, 1).under_load, Some(true));
    sim.run(SECOND);
    assert_eq!(
        status(&sim, 1).under_load,
        Some(false),
        "nothing was received since"
    );
    sim.run(6 * SECOND);
    assert_eq!(peer(&sim, 0).session, Some(true), "with the cookie");
}
