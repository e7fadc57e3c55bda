//! Clients of hubs: peers without an endpoint are reached through them.
//!
//! The first hosts are hubs, the others their clients, which do not know each other's addresses.

use std::sync::Arc;
use std::time::Duration;

use super::relay::{groups, received};
use crate::model::status::{HubStatus, PathStatus};
use crate::model::{Change, Extension};
use crate::tunnel::drops::DropReason;
use crate::tunnel::peer::Peer;
use crate::tunnel::sim::*;

pub(super) const HUB: usize = 0;
/// With one hub.
pub(super) const A: usize = 1;
pub(super) const B: usize = 2;

/// The lengths of datagrams with frames. No other packet of these tests has them, but a PONG has that of BIND.
pub(super) const HELLO: usize = 64;
pub(super) const PING: usize = 48;
pub(super) const BIND: usize = 80;

pub(super) fn hub_of_ours(is_hub: bool) -> Change {
    Change::Extension(Extension::Hub(is_hub))
}

/// Hubs and their clients. Nothing has been sent yet.
pub(super) fn cold(hubs: usize, clients: usize) -> Sim {
    let mut sim = Sim::hosts(hubs + clients, 11);
    for client in hubs..hubs + clients {
        for hub in 0..hubs {
            let inner = allow(&format!("10.0.0.{}/32", client + 1));
            sim.set_peer(hub, client, &[inner, groups("lab")]);
            sim.introduce(client, hub);
            sim.set_peer(client, hub, &[hub_of_ours(true)]);
        }
        for other in (hubs..hubs + clients).filter(|other| *other != client) {
            let inner = allow(&format!("10.0.0.{}/32", other + 1));
            sim.set_peer(client, other, &[inner]);
        }
    }
    sim
}

/// Like [`cold`], after the clients have reached their hubs.
pub(super) fn warm(hubs: usize, clients: usize) -> Sim {
    let mut sim = cold(hubs, clients);
    sim.run(SECOND);
    sim.seen.clear();
    sim
}

/// Two clients that talk through the first hub, and know that each other speaks.
pub(super) fn talking(hubs: usize) -> Sim {
    let mut sim = warm(hubs, 2);
    let (a, b) = (hubs, hubs + 1);
    sim.send(a, b, 1);
    sim.run(SECOND);
    sim.send(b, a, 2);
    sim.run(SECOND);
    assert_eq!((received(&sim, b), received(&sim, a)), (vec![1], vec![2]));
    for host in &mut sim.hosts {
        host.delivered.clear();
    }
    sim.seen.clear();
    assert!(path(&sim, a, b).speaks && path(&sim, b, a).speaks);
    sim
}

pub(super) fn peer_of(sim: &Sim, host: usize, peer: usize) -> Arc<Peer> {
    let key = sim.hosts[peer].public();
    let mut peers = sim.hosts[host].device.peers();
    peers
        .find(|peer| *peer.public_key() == key)
        .unwrap()
        .clone()
}

pub(super) fn path(sim: &Sim, host: usize, peer: usize) -> PathStatus {
    let key = sim.hosts[peer].public();
    let status = sim.hosts[host].device.status(sim.now);
    let mut peers = status.peers.into_iter();
    peers
        .find(|peer| peer.peer.public_key == key)
        .unwrap()
        .path
        .unwrap()
}

pub(super) fn hub_status(sim: &Sim, host: usize, hub: usize) -> HubStatus {
    let key = sim.hosts[hub].public();
    let status = sim.hosts[host].device.status(sim.now);
    let mut peers = status.peers.into_iter();
    peers
        .find(|peer| peer.peer.public_key == key)
        .unwrap()
        .hub
        .unwrap()
}

/// How many datagrams of this length a host sent.
pub(super) fn count_of(sim: &Sim, from: usize, len: usize) -> usize {
    let is_it = |seen: &&Seen| seen.from == from && seen.kind() == DATA && seen.bytes.len() == len;
    sim.seen.iter().filter(is_it).count()
}

/// Sends packets each way each 100 ms for this time. Returns how long no packet arrived at most, by
/// direction.
pub(super) fn longest_gap(sim: &mut Sim, ends: [usize; 2], time: Duration) -> [Duration; 2] {
    let start = sim.now;
    for end in ends {
        sim.hosts[end].delivered.clear();
    }
    for n in 0..(time.as_millis() / 100) as u64 {
        sim.send(ends[0], ends[1], n as u8);
        sim.send(ends[1], ends[0], n as u8);
        sim.run(100 * MILLI);
    }
    ends.map(|end| {
        let times = sim.hosts[end].delivered.iter().map(|(at, _)| *at);
        let times: Vec<_> = [start].into_iter().chain(times).chain([sim.now]).collect();
        let gaps = times
            .windows(2)
            .map(|pair| pair[1].saturating_since(pair[0]));
        gaps.max().unwrap()
    })
}

#[test]
fn a_peer_without_an_endpoint_is_reached_through_the_hub() {
    let mut sim = warm(1, 2);
    let start = sim.now;
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [1]);
    // Twice the way to the far end and back, of 20 ms each, and the packet.
    let took = sim.hosts[B].delivered[0].0.saturating_since(start);
    assert!(took <= 80 * MILLI, "{took:?}");
    sim.send(B, A, 2);
    sim.run(SECOND);
    assert_eq!(received(&sim, A), [2]);
    let hub = sim.hosts[HUB].public();
    for (here, there) in [(A, B), (B, A)] {
        let path = path(&sim, here, there);
        assert_eq!(path.hub, Some(hub));
        assert!(path.speaks && path.doubt.is_none(), "{path:?}");
        assert!(path.rtt.is_some_and(|rtt| rtt == 40 * MILLI), "{path:?}");
        let of_hub = hub_status(&sim, here, HUB);
        assert_eq!(of_hub.sees, Some(sim.hosts[here].addr));
        assert_eq!(of_hub.rtt, Some(20 * MILLI));
        assert!(!of_hub.is_mute);
    }
    for host in &sim.hosts {
        let plane = host.device.plane();
        assert_eq!(plane.drops().total(), 0);
    }
}

/// The first packet waits for the session with the hub, and then for the one with the peer.
#[test]
fn a_cold_hub_is_reached_first() {
    let mut sim = cold(1, 2);
    sim.run(SECOND);
    // A has lost its session, but the hub has not.
    sim.down(A);
    sim.run(20 * SECOND);
    sim.up(A);
    let start = sim.now;
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [1]);
    let took = sim.hosts[B].delivered[0].0.saturating_since(start);
    assert!(took <= 100 * MILLI, "{took:?}");
}

#[test]
fn packets_to_a_peer_wait_if_the_hub_does_not_answer() {
    let mut sim = cold(1, 2);
    sim.hosts[HUB].deaf = true;
    sim.send(A, B, 1);
    sim.run(30 * SECOND);
    assert_eq!(path(&sim, A, B).hub, None);
    sim.hosts[HUB].deaf = false;
    sim.run(6 * SECOND);
    assert_eq!(received(&sim, B), [1]);
}

#[test]
fn a_stock_peer_is_reached_and_gets_no_frame() {
    let mut sim = Sim::hosts(3, 5);
    sim.join(HUB, &[A, B]);
    // A is ours: it has no endpoint for B.
    sim.set_peer(A, B, &[Change::Remove]);
    let allowed = allow("10.0.0.3/32");
    sim.set_peer(A, B, &[allowed]);
    sim.set_peer(A, HUB, &[hub_of_ours(true)]);
    sim.run(SECOND);
    for n in 0..100 {
        sim.send(A, B, n);
        sim.send(B, A, n);
        sim.run(3 * SECOND);
    }
    let all: Vec<u8> = (0..100).collect();
    assert_eq!((received(&sim, B), received(&sim, A)), (all.clone(), all));
    let drops = sim.hosts[B].device.plane().drops();
    assert_eq!(drops.get(DropReason::InnerMalformed), 0);
    assert_eq!(count_of(&sim, A, PING), 0);
    assert!(!path(&sim, A, B).speaks);
    assert!(count_of(&sim, A, HELLO) >= 300 / 27);
}

#[test]
fn nothing_is_lost_over_rekeys() {
    let mut sim = talking(1);
    for n in 0..=255 {
        sim.send(A, B, n);
        sim.send(B, A, n);
        sim.run(2 * SECOND);
    }
    for end in [A, B] {
        assert_eq!(received(&sim, end), (0..=255).collect::<Vec<_>>());
    }
}

#[test]
fn a_peer_that_becomes_stock_gets_no_more_pings() {
    let mut sim = talking(1);
    // B is started again, without `Hub`.
    sim.down(B);
    sim.set_peer(
        B,
        HUB,
        &[hub_of_ours(false), Change::PersistentKeepalive(25)],
    );
    let at_hub = Change::Endpoint(sim.hosts[HUB].addr);
    sim.set_peer(B, A, &[at_hub]);
    sim.up(B);
    sim.run(5 * SECOND);
    sim.send(B, A, 1);
    sim.run(10 * SECOND);
    assert_eq!(received(&sim, A), [1]);
    assert!(!path(&sim, A, B).speaks);
    sim.seen.clear();
    for n in 0..20 {
        sim.send(A, B, n);
        sim.run(SECOND);
    }
    assert_eq!(count_of(&sim, A, PING), 0);
    assert_eq!(received(&sim, B).len(), 20);
}

#[test]
fn without_hubs_a_peer_without_an_endpoint_is_not_reached() {
    let mut sim = talking(1);
    sim.set_peer(A, HUB, &[hub_of_ours(false)]);
    assert!(peer_of(&sim, A, B).has_endpoint(), "it was learned");
    sim.send(A, B, 3);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [3], "as for any other peer");
    let status = sim.hosts[A].device.status(sim.now);
    assert!(
        status
            .peers
            .iter()
            .all(|peer| peer.hub.is_none() && peer.path.is_none())
    );
    let mut sim = warm(1, 2);
    assert!(peer_of(&sim, A, B).has_endpoint());
    sim.set_peer(A, HUB, &[Change::Remove]);
    assert!(!peer_of(&sim, A, B).has_endpoint());
    sim.send(A, B, 3);
    assert_eq!(sim.hosts[A].drops(DropReason::NoEndpoint), 1);
}

/// A peer that reaches us by itself is answered directly.
#[test]
fn a_peer_that_connects_directly_is_followed() {
    let mut sim = warm(1, 2);
    let addr = Change::Endpoint(sim.hosts[A].addr);
    sim.set_peer(B, A, &[addr]);
    sim.send(B, A, 1);
    sim.run(SECOND);
    assert_eq!(received(&sim, A), [1]);
    assert_eq!(path(&sim, A, B).hub, None);
    let direct = sim.hosts[B].addr;
    assert_eq!(peer_of(&sim, A, B).endpoint().unwrap().addr, direct);
    sim.send(A, B, 2);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [2]);
}
