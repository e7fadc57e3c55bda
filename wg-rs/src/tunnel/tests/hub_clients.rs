//! Clients of hubs: peers without an endpoint are reached through them, and a hub that was started
//! again, has moved or is silent is noticed.
//!
//! The first hosts are hubs, the others their clients, which do not know each other's addresses.

use std::time::Duration;

use super::relay::{groups, received};
use crate::model::status::{HubStatus, PathStatus};
use crate::model::{Change, Extension};
use crate::tunnel::drops::DropReason;
use crate::tunnel::frame::Frame;
use crate::tunnel::peer::Peer;
use crate::tunnel::sim::*;
use std::sync::Arc;

const HUB: usize = 0;
/// With one hub.
const A: usize = 1;
const B: usize = 2;

/// The lengths of datagrams with frames. No other packet of these tests has them.
const HELLO: usize = 64;
const PING: usize = 48;

pub(super) fn hub_of_ours(is_hub: bool) -> Change {
    Change::Extension(Extension::Hub(is_hub))
}

/// Hubs and their clients. Nothing has been sent yet.
fn cold(hubs: usize, clients: usize) -> Sim {
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
fn warm(hubs: usize, clients: usize) -> Sim {
    let mut sim = cold(hubs, clients);
    sim.run(SECOND);
    sim.seen.clear();
    sim
}

/// Two clients that talk through the first hub, and know that each other speaks.
fn talking(hubs: usize) -> Sim {
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

fn peer_of(sim: &Sim, host: usize, peer: usize) -> Arc<Peer> {
    let key = sim.hosts[peer].public();
    let mut peers = sim.hosts[host].device.peers();
    peers
        .find(|peer| *peer.public_key() == key)
        .unwrap()
        .clone()
}

fn path(sim: &Sim, host: usize, peer: usize) -> PathStatus {
    let key = sim.hosts[peer].public();
    let status = sim.hosts[host].device.status(sim.now);
    let mut peers = status.peers.into_iter();
    peers
        .find(|peer| peer.peer.public_key == key)
        .unwrap()
        .path
        .unwrap()
}

fn hub_status(sim: &Sim, host: usize, hub: usize) -> HubStatus {
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
fn count_of(sim: &Sim, from: usize, len: usize) -> usize {
    let is_it = |seen: &&Seen| seen.from == from && seen.kind() == DATA && seen.bytes.len() == len;
    sim.seen.iter().filter(is_it).count()
}

/// Makes `from` send a frame to `to`.
fn send_frame(sim: &mut Sim, from: usize, to: usize, frame: Frame) {
    let id = peer_of(sim, from, to).id;
    sim.hosts[from]
        .device
        .context
        .outgoing
        .frame(id, None, frame);
    sim.pump(from);
    sim.run(50 * MILLI);
}

/// Ends the hub, and starts it with its peers but without their endpoints.
fn restart(sim: &mut Sim, hub: usize, clients: &[usize]) {
    sim.down(hub);
    sim.set(hub, &[Change::ReplacePeers]).unwrap();
    for client in clients {
        sim.set_peer(hub, *client, &[groups("lab")]);
    }
    sim.up(hub);
}

/// Sends packets each way each 100 ms for this time. Returns how long no packet arrived at most, by
/// direction.
fn longest_gap(sim: &mut Sim, ends: [usize; 2], time: Duration) -> [Duration; 2] {
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

/// A session that A claims to have with B.
fn bind(sim: &Sim, key: usize, mine: u32, theirs: u32) -> Frame {
    Frame::Bind {
        key: sim.hosts[key].public(),
        mine,
        theirs,
        speaks: false,
    }
}

#[test]
fn frames_are_taken_only_from_peers_in_the_right_role() {
    let mut sim = talking(1);
    let hello = Frame::Hello { seq: 1 };
    let you = Frame::You {
        seq: 1,
        epoch: 1,
        relays: true,
        next: 5,
        seen: None,
    };
    let ping = Frame::Ping { id: 1 };
    let pong = Frame::Pong { id: 1, seen: None };
    for (from, to, frame) in [
        (A, HUB, you),
        (A, HUB, ping),
        (A, HUB, pong),
        (HUB, A, hello),
        (HUB, A, ping),
        (HUB, A, pong),
        (A, B, hello),
        (A, B, you),
        (A, B, bind(&sim, HUB, 1, 2)),
    ] {
        let before = sim.hosts[to].drops(DropReason::BadFrame);
        send_frame(&mut sim, from, to, frame);
        let after = sim.hosts[to].drops(DropReason::BadFrame);
        assert_eq!(after, before + 1, "{frame:?}");
    }
    // A peer for which nothing is relayed gets no answer.
    sim.set_peer(HUB, A, &[groups("")]);
    let before = sim.hosts[HUB].drops(DropReason::InnerMalformed);
    send_frame(&mut sim, A, HUB, hello);
    assert_eq!(sim.hosts[HUB].drops(DropReason::InnerMalformed), before + 1);
    assert!(received(&sim, A).is_empty() && received(&sim, HUB).is_empty());
}

#[test]
fn a_client_can_bind_only_its_own_sessions_in_its_groups() {
    let mut sim = talking(1);
    longest_gap(&mut sim, [A, B], SECOND);
    let (ours, theirs) = {
        let session = peer_of(&sim, A, B).keypairs.current().clone().unwrap();
        (session.local, session.receiver)
    };
    let count = |sim: &Sim| sim.hosts[HUB].device.plane().relay().unwrap().len();
    let before = count(&sim);
    let of_hub = peer_of(&sim, HUB, A)
        .keypairs
        .current()
        .clone()
        .unwrap()
        .local;
    for (frame, reason) in [
        // Itself; a stranger; the hub's own index, at either end.
        (bind(&sim, A, 5, 6), DropReason::RelayUnknown),
        (bind(&sim, HUB, 5, 6), DropReason::RelayUnknown),
        (bind(&sim, B, of_hub, 6), DropReason::RelayCollision),
        (bind(&sim, B, 5, of_hub), DropReason::RelayCollision),
    ] {
        let dropped = sim.hosts[HUB].drops(reason);
        send_frame(&mut sim, A, HUB, frame);
        assert_eq!(sim.hosts[HUB].drops(reason), dropped + 1, "{frame:?}");
    }
    assert_eq!(count(&sim), before);
    // The same session again changes nothing.
    let frame = bind(&sim, B, ours, theirs);
    send_frame(&mut sim, A, HUB, frame);
    assert_eq!(count(&sim), before);
    // At most four sessions of a pair.
    for n in 0..10 {
        let frame = bind(&sim, B, 100 + n, 200 + n);
        send_frame(&mut sim, A, HUB, frame);
    }
    assert_eq!(count(&sim), 8);
    sim.set_peer(HUB, A, &[groups("other")]);
    let frame = bind(&sim, B, 5, 6);
    send_frame(&mut sim, A, HUB, frame);
    assert_eq!(count(&sim), 0);
}

#[test]
fn a_flood_of_frames_is_limited_and_other_clients_are_served() {
    let mut sim = warm(1, 3);
    let id = peer_of(&sim, A, HUB).id;
    for seq in 0..1000 {
        let outgoing = &mut sim.hosts[A].device.context.outgoing;
        outgoing.frame(id, None, Frame::Hello { seq });
    }
    sim.pump(A);
    sim.run(50 * MILLI);
    let dropped = sim.hosts[HUB].drops(DropReason::FrameFlood);
    assert!((750..=800).contains(&dropped), "{dropped}");
    sim.send(B, 3, 1);
    sim.run(SECOND);
    assert_eq!(received(&sim, 3), [1]);
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
