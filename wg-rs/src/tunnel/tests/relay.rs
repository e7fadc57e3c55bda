//! The blind relay: peers that do not know about it reach each other through a hub.
//!
//! Host 0 is the hub. The others are plain peers whose endpoints for each other are the hub's
//! address.

use std::net::SocketAddr;

use super::elsewhere;
use crate::model::status::PairStatus;
use crate::model::{Change, Extension};
use crate::tunnel::drops::DropReason;
use crate::tunnel::sim::*;

const HUB: usize = 0;
const A: usize = 1;
const B: usize = 2;
const C: usize = 3;
const LOADED: usize = 512;

/// A hub and this number of members, which all have a session with the hub.
pub(super) fn lab(members: usize) -> Sim {
    let mut sim = Sim::hosts(1 + members, 7);
    sim.join(HUB, &(1..=members).collect::<Vec<_>>());
    sim.run(SECOND);
    sim.seen.clear();
    sim
}

/// A hub whose members A and B have a session, after one packet in each direction.
pub(super) fn talking(members: usize) -> Sim {
    let mut sim = lab(members);
    sim.send(A, B, 1);
    sim.run(SECOND);
    sim.send(B, A, 2);
    sim.run(SECOND);
    assert_eq!((received(&sim, B), received(&sim, A)), (vec![1], vec![2]));
    for host in &mut sim.hosts {
        host.delivered.clear();
    }
    sim.seen.clear();
    sim
}

pub(super) fn received(sim: &Sim, host: usize) -> Vec<u8> {
    sim.hosts[host].payloads()
}

pub(super) fn groups(text: &str) -> Change {
    Change::Extension(Extension::Relay(text.parse().unwrap()))
}

/// Packets that the hub dropped instead of relaying them.
pub(super) fn refused(sim: &Sim) -> u64 {
    let reasons = [
        DropReason::RelayNotPeer,
        DropReason::RelayUnknown,
        DropReason::RelayLimited,
        DropReason::RelayLoop,
        DropReason::RelayCollision,
        DropReason::RelayCookie,
        DropReason::RelayStale,
        DropReason::RelayFull,
        DropReason::NoEndpoint,
    ];
    reasons
        .iter()
        .map(|reason| sim.hosts[HUB].drops(*reason))
        .sum()
}

fn pair(sim: &Sim) -> PairStatus {
    let pairs = sim.hosts[HUB].device.status(sim.now).pairs;
    assert_eq!(pairs.len(), 1);
    pairs[0]
}

/// The endpoint of a peer, as a host knows it.
fn endpoint(sim: &Sim, host: usize, peer: usize) -> Option<SocketAddr> {
    let key = sim.hosts[peer].public();
    let mut peers = sim.hosts[host].device.get().peers.into_iter();
    peers.find(|peer| peer.public_key == key)?.endpoint
}

#[test]
fn two_plain_peers_reach_each_other_through_the_hub() {
    let mut sim = lab(2);
    sim.send(A, B, 1);
    sim.run(SECOND);
    sim.send(B, A, 2);
    sim.send(A, B, 3);
    sim.run(SECOND);
    assert_eq!(
        (received(&sim, B), received(&sim, A)),
        (vec![1, 3], vec![2])
    );
    assert!(
        received(&sim, HUB).is_empty(),
        "no packet is for the hub itself"
    );
    assert_eq!(refused(&sim), 0);
    // All packets passed the hub unchanged.
    let hub = sim.hosts[HUB].addr;
    let sent = |from| sim.seen.iter().filter(move |seen| seen.from == from);
    assert!(sent(A).chain(sent(B)).all(|seen| seen.to == hub));
    let mut left: Vec<_> = sent(HUB).map(|seen| &seen.bytes).collect();
    let mut came: Vec<_> = sent(A).chain(sent(B)).map(|seen| &seen.bytes).collect();
    left.sort();
    came.sort();
    assert_eq!(left, came);
    // For each end, the other one is at the hub, which has none of their keys.
    assert_eq!(
        (endpoint(&sim, A, B), endpoint(&sim, B, A)),
        (Some(hub), Some(hub))
    );
    let pair = pair(&sim);
    assert_eq!(pair.keys, [sim.hosts[A].public(), sim.hosts[B].public()]);
    // Packets of 40 bytes with padding. A sends no keepalive, because a packet replaces it.
    assert_eq!([pair.tx_bytes, pair.rx_bytes], [2 * 80, 80]);
    assert!(pair.age <= SECOND);
}

#[test]
fn bursts_stay_whole_and_keep_their_tos() {
    let mut sim = talking(2);
    let mut packets: Vec<_> = (0..40).map(|n| packet(A, B, &[n; 900])).collect();
    for packet in &mut packets {
        // ECT(0), which is copied to the outer header (RFC 6040).
        packet[1] = 2;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    sim.send_packets(A, &packets);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), (0..40).collect::<Vec<_>>());
    assert!(
        sim.seen
            .iter()
            .filter(|seen| seen.kind() == DATA)
            .all(|seen| seen.tos == 2)
    );
    assert_eq!(refused(&sim), 0);
}

#[test]
fn a_preshared_key_between_the_ends_works() {
    let mut sim = lab(2);
    sim.set_peer(A, B, &[psk(5)]);
    sim.set_peer(B, A, &[psk(5)]);
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [1]);
}

#[test]
fn both_ends_may_start_at_once() {
    let mut sim = lab(2);
    sim.send(A, B, 1);
    sim.send(B, A, 2);
    sim.run(6 * SECOND);
    assert_eq!((received(&sim, B), received(&sim, A)), (vec![1], vec![2]));
    assert_eq!(refused(&sim), 0);
}

#[test]
fn nothing_is_lost_over_rekeys_and_old_sessions_are_forgotten() {
    let mut sim = talking(2);
    for n in 0..=255 {
        sim.send(A, B, n);
        sim.send(B, A, n);
        sim.run(4 * SECOND);
    }
    assert_eq!(received(&sim, B), (0..=255).collect::<Vec<_>>());
    assert_eq!(received(&sim, A), (0..=255).collect::<Vec<_>>());
    assert!(sim.count(A, INITIATION) + sim.count(B, INITIATION) > 8);
    assert_eq!(refused(&sim), 0);
    // The sessions of the last 190 seconds, with two hops each.
    let hops = sim.hosts[HUB].device.plane().relay().unwrap().len();
    assert!((2..=4).contains(&hops), "{hops}");
}

#[test]
fn a_lossy_and_reordering_network_works() {
    let mut sim = lab(2);
    sim.faults.lose = 100;
    sim.faults.repeat = 100;
    sim.faults.spread = 30 * MILLI;
    for n in 0..200 {
        sim.send(A, B, n);
        sim.run(2 * SECOND);
    }
    let mut got = received(&sim, B);
    got.sort_unstable();
    got.dedup();
    assert!(got.len() > 130, "{}", got.len());
    assert_eq!(got.len(), received(&sim, B).len(), "none twice");
}

#[test]
fn the_cookie_of_a_loaded_far_end_is_relayed() {
    let mut sim = lab(2);
    sim.hosts[B].backlog.initiations = LOADED;
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert_eq!((sim.count(B, COOKIE), sim.count(HUB, COOKIE)), (1, 1));
    assert!(received(&sim, B).is_empty());
    sim.run(6 * SECOND);
    assert_eq!(received(&sim, B), [1]);
    // The other direction, for a response: its cookie is sent to the responder.
    let mut sim = lab(2);
    sim.hosts[A].backlog.initiations = LOADED;
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert_eq!((sim.count(A, COOKIE), sim.count(HUB, COOKIE)), (1, 1));
    sim.run(6 * SECOND);
    assert_eq!(received(&sim, B), [1]);
}

#[test]
fn a_hub_under_load_still_serves_known_pairs() {
    let mut sim = talking(3);
    sim.hosts[HUB].backlog.initiations = LOADED;
    sim.send(A, C, 9);
    sim.run(2 * SECOND);
    assert!(received(&sim, C).is_empty());
    assert!(sim.hosts[HUB].drops(DropReason::RelayLimited) > 0);
    // A and B already have a pair.
    sim.down(A);
    sim.up(A);
    sim.run(SECOND);
    sim.send(A, B, 3);
    sim.run(7 * SECOND);
    assert_eq!(received(&sim, B), [3]);
}

#[test]
fn only_peers_that_share_a_group_are_reached() {
    let mut sim = lab(3);
    sim.set_peer(HUB, A, &[groups("lab")]);
    sim.set_peer(HUB, B, &[groups("lab,office")]);
    sim.set_peer(HUB, C, &[groups("office")]);
    sim.send(A, B, 1);
    sim.send(A, C, 2);
    sim.send(C, B, 3);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [1, 3]);
    assert!(received(&sim, C).is_empty());
    assert_eq!(sim.hosts[HUB].drops(DropReason::RelayUnknown), 1);
}

#[test]
fn removing_groups_ends_a_pair_at_once() {
    for changes in [
        vec![groups("")],
        vec![groups("other")],
        vec![Change::Remove],
    ] {
        let mut sim = talking(3);
        sim.send(B, C, 1);
        sim.run(SECOND);
        sim.set_peer(HUB, A, &changes);
        for from in [A, B] {
            sim.send(from, A + B - from, 5);
        }
        sim.run(60 * SECOND);
        assert_eq!((received(&sim, A), received(&sim, B)), (vec![], vec![]));
        // Other pairs are not affected.
        sim.send(B, C, 2);
        sim.run(SECOND);
        assert_eq!(received(&sim, C), [1, 2]);
        assert_eq!(sim.hosts[HUB].device.status(sim.now).pairs.len(), 1);
    }
}

#[test]
fn removing_the_last_group_disables_the_relay() {
    let mut sim = talking(2);
    for member in [A, B] {
        sim.set_peer(HUB, member, &[groups("")]);
    }
    assert!(sim.hosts[HUB].device.hub.is_none());
    assert!(sim.hosts[HUB].device.plane().relay().is_none());
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert_eq!(sim.hosts[HUB].drops(DropReason::UnknownIndex), 1);
    sim.run(20 * SECOND);
    assert!(sim.hosts[HUB].drops(DropReason::BadMac1) > 0);
    assert_eq!(refused(&sim), 0);
    // The relay is enabled again.
    for member in [A, B] {
        sim.set_peer(HUB, member, &[groups("x")]);
    }
    sim.run(20 * SECOND);
    sim.send(A, B, 2);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [2]);
}

/// Stock `wg setconf` removes all peers and adds them again, without knowing groups.
#[test]
fn a_set_that_adds_a_peer_again_keeps_its_groups() {
    let mut sim = talking(2);
    let (a, b) = (sim.hosts[A].public(), sim.hosts[B].public());
    let again = [
        Change::ReplacePeers,
        Change::Peer(a),
        allow("10.0.0.2/32"),
        Change::Peer(b),
        Change::Remove,
        Change::Peer(b),
        allow("10.0.0.3/32"),
    ];
    sim.set(HUB, &again).unwrap();
    // The sessions with the hub have ended, as in the kernel, until the peers renew them.
    sim.run(200 * SECOND);
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [1]);
    // Groups are not kept over two such sets.
    sim.set(HUB, &[Change::ReplacePeers]).unwrap();
    assert!(sim.hosts[HUB].device.hub.is_none());
    sim.set(HUB, &[Change::Peer(a), Change::Peer(b)]).unwrap();
    assert!(sim.hosts[HUB].device.hub.is_none());
    // Groups in the `set` override the former ones.
    sim.set(HUB, &[Change::Peer(a), groups("x")]).unwrap();
    sim.set(HUB, &[Change::ReplacePeers, Change::Peer(a), groups("")])
        .unwrap();
    assert!(sim.hosts[HUB].device.hub.is_none());
}

#[test]
fn a_peer_that_moves_is_followed() {
    let mut sim = talking(2);
    sim.hosts[A].addr = elsewhere();
    // The peer has a new NAT mapping to the hub, which the hub learns from the next keepalive.
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert!(received(&sim, B).is_empty());
    assert!(sim.hosts[HUB].drops(DropReason::RelayStale) > 0);
    sim.send(A, HUB, 7);
    sim.run(SECOND);
    sim.send(A, B, 2);
    sim.send(B, A, 3);
    sim.run(SECOND);
    assert_eq!((received(&sim, B), received(&sim, A)), (vec![2], vec![3]));
    // A handshake also reaches the peer there.
    sim.down(B);
    sim.up(B);
    sim.run(6 * SECOND);
    sim.send(B, A, 4);
    sim.run(6 * SECOND);
    assert_eq!(received(&sim, A), [3, 4]);
}

/// A stock client may use a new address of its network for each peer (RFC 8981).
#[test]
fn an_initiation_from_another_address_of_the_network_is_accepted() {
    let mut sim = Sim::hosts(3, 7);
    let v6 = |text: &str| text.parse::<SocketAddr>().unwrap();
    sim.hosts[HUB].addr = v6("[2001:db8::1]:51820");
    sim.hosts[A].addr = v6("[2001:db8:1::1]:51820");
    sim.hosts[B].addr = v6("[2001:db8:2::1]:51820");
    sim.join(HUB, &[A, B]);
    sim.run(SECOND);
    let known = sim.hosts[A].addr;
    sim.hosts[A].addr = v6("[2001:db8:1::ffff]:51820");
    sim.send(A, B, 1);
    sim.run(15 * MILLI);
    sim.hosts[A].addr = known;
    sim.run(SECOND);
    assert_eq!(
        received(&sim, B),
        [1],
        "the response was sent to the address that the hub knows"
    );
    // Another network or another port is not accepted.
    for (addr, at) in [
        ("[2001:db8:3::1]:51820", 2),
        ("[2001:db8:1::ffff]:51821", 3),
    ] {
        sim.hosts[A].addr = v6(addr);
        sim.down(A);
        sim.up(A);
        sim.hosts[HUB].deaf = true;
        sim.run(SECOND);
        sim.hosts[HUB].deaf = false;
        let before = sim.hosts[HUB].drops(DropReason::RelayNotPeer);
        let mut initiation = [&[1, 0, 0, 0][..], &[at; 144]].concat();
        wg_crypto::MacKeys::new(&sim.hosts[B].public()).sign(&mut initiation, None);
        let (from, to) = (sim.hosts[A].addr, sim.hosts[HUB].addr);
        sim.inject(from, to, &initiation);
        sim.run(20 * MILLI);
        assert_eq!(
            sim.hosts[HUB].drops(DropReason::RelayNotPeer),
            before + 1,
            "{addr}"
        );
    }
}

/// A restarted hub knows no pair, but knows the endpoints of its peers: it sends them handshakes, and
/// they are connected again after their next handshake.
#[test]
fn a_restarted_hub_relays_again() {
    let mut sim = talking(2);
    sim.down(HUB);
    sim.set(HUB, &[Change::ReplacePeers]).unwrap();
    for member in [A, B] {
        let endpoint = Change::Endpoint(sim.hosts[member].addr);
        sim.set_peer(HUB, member, &[endpoint, groups("lab")]);
    }
    assert_eq!(sim.count(HUB, INITIATION), 0);
    sim.up(HUB);
    let mut back = None;
    for n in 0..40 {
        sim.send(A, B, n);
        sim.run(SECOND / 2);
        if back.is_none() && !received(&sim, B).is_empty() {
            back = Some(n);
        }
    }
    assert!(back.is_some_and(|n| n < 40), "within 20 seconds: {back:?}");
}

#[test]
fn a_peer_that_does_not_answer_gets_three_handshakes() {
    let mut sim = talking(2);
    sim.set_peer(HUB, A, &[Change::Remove]);
    sim.hosts[A].deaf = true;
    let endpoint = Change::Endpoint(sim.hosts[A].addr);
    sim.set_peer(HUB, A, std::slice::from_ref(&endpoint));
    sim.run(60 * SECOND);
    assert_eq!(
        sim.count(HUB, INITIATION),
        0,
        "peers without groups are not called"
    );
    sim.set_peer(HUB, A, &[Change::Remove]);
    sim.set_peer(HUB, A, &[endpoint, groups("lab")]);
    sim.run(60 * SECOND);
    assert_eq!(sim.count(HUB, INITIATION), 3);
}
