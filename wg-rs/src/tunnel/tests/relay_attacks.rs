//! Attacks on the relay: each one is counted, and peers that are not attacked lose nothing.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use wg_crypto::{MacKeys, PublicKey};

use super::relay::{groups, lab, received, refused, talking};
use super::{elsewhere, key};
use crate::model::status::Refusal;
use crate::model::{Change, Extension, Groups};
use crate::tunnel::drops::DropReason;
use crate::tunnel::keypair::Keypair;
use crate::tunnel::peer::Peer;
use crate::tunnel::sim::*;

const HUB: usize = 0;
const A: usize = 1;
const B: usize = 2;
const C: usize = 3;
const D: usize = 4;

/// An initiation from an unknown key to the owner of `public`.
fn initiation(index: u32, public: &PublicKey) -> Vec<u8> {
    let mut message = [&[1, 0, 0, 0][..], &index.to_le_bytes(), &[9; 140]].concat();
    MacKeys::new(public).sign(&mut message, None);
    message
}

/// A response to the initiation with the index `asked`, which the owner of `public` sent.
fn response(asked: u32, index: u32, public: &PublicKey) -> Vec<u8> {
    let indices = [index.to_le_bytes(), asked.to_le_bytes()].concat();
    let mut message = [&[2, 0, 0, 0][..], &indices, &[9; 80]].concat();
    MacKeys::new(public).sign(&mut message, None);
    message
}

fn inject(sim: &mut Sim, from: SocketAddr, messages: impl IntoIterator<Item = Vec<u8>>) {
    let hub = sim.hosts[HUB].addr;
    for message in messages {
        sim.inject(from, hub, &message);
    }
    sim.run(20 * MILLI);
}

/// Checks that A and B still exchange packets in both directions, without loss.
fn assert_a_and_b_lose_nothing(sim: &mut Sim) {
    for host in [A, B] {
        sim.hosts[host].delivered.clear();
    }
    for n in 0..50 {
        sim.send(A, B, n);
        sim.send(B, A, n);
        sim.run(20 * MILLI);
    }
    let all: Vec<u8> = (0..50).collect();
    assert_eq!((received(sim, A), received(sim, B)), (all.clone(), all));
}

/// A new handshake between A and B succeeds, as after a restart of A.
fn assert_a_and_b_meet_within(sim: &mut Sim, seconds: u32) {
    sim.hosts[B].delivered.clear();
    sim.down(A);
    sim.up(A);
    sim.send(A, B, 1);
    sim.run(seconds * SECOND);
    assert_eq!(received(sim, B), [1]);
}

/// Like [`assert_a_and_b_meet_within`], while ten spoofed initiations from A to B come every 100 ms, as many
/// times as there are numbers in `rounds`, which are all different.
fn assert_a_and_b_meet_in_a_flood(sim: &mut Sim, rounds: Range<u32>) {
    let (a, b) = (sim.hosts[A].addr, sim.hosts[B].public());
    sim.down(A);
    sim.up(A);
    sim.hosts[B].delivered.clear();
    sim.send(A, B, 1);
    for n in rounds {
        inject(sim, a, (0..10).map(|i| initiation(10 * n + i, &b)));
        sim.run(80 * MILLI);
    }
    assert_eq!(received(sim, B), [1]);
}

fn drops(sim: &Sim, reason: DropReason) -> u64 {
    sim.hosts[HUB].drops(reason)
}

#[test]
fn an_outsider_is_counted() {
    let mut sim = talking(2);
    let b = sim.hosts[B].public();
    let index = sim.hosts[A]
        .device
        .peers()
        .nth(1)
        .unwrap()
        .keypairs
        .current()
        .clone()
        .unwrap();
    let local = index.local();
    let response = [&[2, 0, 0, 0][..], &[1; 4], &local.to_le_bytes(), &[9; 80]].concat();
    let cookie = [&[3, 0, 0, 0][..], &local.to_le_bytes(), &[9; 56]].concat();
    let data = [&[4, 0, 0, 0][..], &local.to_le_bytes(), &[9; 40]].concat();
    inject(
        &mut sim,
        elsewhere(),
        [initiation(5, &b), initiation(6, &key(1)), response, cookie],
    );
    assert_eq!(drops(&sim, DropReason::RelayNotPeer), 4);
    // As without a relay, the sender of a handshake for another key is reported.
    let strangers = sim.hosts[HUB].device.status(sim.now).refusals;
    let from = elsewhere();
    assert!(
        strangers
            .iter()
            .any(|refused| refused.refusal == Refusal::OtherKey { from })
    );
    inject(&mut sim, elsewhere(), [data.clone(), data]);
    assert_eq!(drops(&sim, DropReason::RelayStale), 2);
    assert_eq!(sim.seen.iter().filter(|seen| seen.from == HUB).count(), 0);
    assert_a_and_b_lose_nothing(&mut sim);
}

#[test]
fn a_relayed_message_is_not_reported_as_wrong() {
    let sim = talking(2);
    assert!(sim.hosts[HUB].device.status(sim.now).refusals.is_empty());
}

#[test]
fn a_peer_without_groups_is_an_outsider() {
    let mut sim = talking(3);
    sim.set_peer(HUB, C, &[groups("")]);
    sim.send(C, A, 5);
    sim.run(SECOND);
    assert!(drops(&sim, DropReason::RelayNotPeer) > 0);
    assert!(received(&sim, A).is_empty());
    // It cannot be reached either.
    sim.send(A, C, 5);
    sim.run(SECOND);
    assert!(received(&sim, C).is_empty());
    assert!(drops(&sim, DropReason::RelayUnknown) > 0);
    assert_a_and_b_lose_nothing(&mut sim);
}

/// Searches that find nobody become rare, and known pairs are not affected.
#[test]
fn spoofed_initiations_to_nobody_reduce_the_search_budget() {
    let mut sim = talking(3);
    let a = sim.hosts[A].addr;
    for n in 0..100 {
        inject(
            &mut sim,
            a,
            (0..10).map(|i| initiation(n * 10 + i, &key(1))),
        );
    }
    // Two seconds after a pause: at most the number that is allowed at once, and a few more.
    let unknown = drops(&sim, DropReason::RelayUnknown);
    assert!((3..=14).contains(&unknown), "{unknown} searches");
    assert_eq!(drops(&sim, DropReason::RelayLimited), 1000 - unknown);
    assert_a_and_b_lose_nothing(&mut sim);
    assert_a_and_b_meet_within(&mut sim, 1);
    // A first contact has to wait.
    inject(&mut sim, a, (0..10).map(|i| initiation(i, &key(1))));
    sim.send(A, C, 1);
    sim.run(SECOND);
    assert!(received(&sim, C).is_empty());
    sim.run(20 * SECOND);
    assert_eq!(received(&sim, C), [1]);
    // After a successful search the limit is as before.
    sim.hosts[C].delivered.clear();
    let limited = drops(&sim, DropReason::RelayLimited);
    inject(&mut sim, a, (0..5).map(|i| initiation(i, &key(2))));
    sim.run(SECOND);
    assert!(drops(&sim, DropReason::RelayLimited) - limited < 5);
}

/// The real peer gets a cookie, which the spoofer does not receive.
#[test]
fn spoofed_initiations_to_a_partner_cost_the_real_peer_one_cookie() {
    let mut sim = talking(2);
    let (a, b) = (sim.hosts[A].addr, sim.hosts[B].public());
    inject(&mut sim, a, (0..100).map(|i| initiation(i, &b)));
    let passed = sim
        .seen
        .iter()
        .filter(|seen| seen.from == HUB && seen.kind() == INITIATION);
    assert!((4..=5).contains(&passed.count()));
    assert!(drops(&sim, DropReason::RelayCookie) >= 95);
    assert!(
        sim.seen
            .iter()
            .all(|seen| seen.from != HUB || seen.kind() != COOKIE || seen.to == a)
    );
    assert_a_and_b_lose_nothing(&mut sim);

    // Meanwhile A and B can still complete a handshake.
    assert_a_and_b_meet_in_a_flood(&mut sim, 1000..1070);

    // This also works if B is under load: B's cookie is accepted like the hub's.
    sim.hosts[B].backlog.initiations = 512;
    assert_a_and_b_meet_in_a_flood(&mut sim, 5000..5200);
}

#[test]
fn spoofed_answers_need_a_valid_index_and_address() {
    let mut sim = talking(3);
    let (a, b, c) = (sim.hosts[A].addr, sim.hosts[B].addr, sim.hosts[C].addr);
    let session = |sim: &Sim, host: usize, peer: usize| {
        let key = sim.hosts[peer].public();
        let peers = sim.hosts[host].device.peers();
        let peer = peers
            .into_iter()
            .find(|peer| *peer.public_key() == key)
            .unwrap();
        peer.keypairs.current().clone().unwrap()
    };
    let of_b = session(&sim, B, A).local();
    let data = |index: u32| [&[4, 0, 0, 0][..], &index.to_le_bytes(), &[9; 40]].concat();
    // From another peer, and with an unknown index.
    inject(&mut sim, c, [data(of_b)]);
    inject(&mut sim, a, [data(of_b ^ 1)]);
    assert_eq!(drops(&sim, DropReason::RelayStale), 2);
    // With the right address and index the message is relayed, and the end refuses it.
    inject(&mut sim, a, [data(of_b)]);
    let forged = DropReason::Forged;
    assert_eq!(
        (
            drops(&sim, DropReason::RelayStale),
            sim.hosts[B].drops(forged)
        ),
        (2, 1)
    );
    // A reply to nothing.
    let answer = |kind: u8, len: usize| {
        let mut message = [&[kind, 0, 0, 0][..], &[7; 8]].concat();
        message.resize(len, 9);
        message
    };
    inject(&mut sim, b, [answer(2, 92), answer(3, 64)]);
    assert_eq!(drops(&sim, DropReason::RelayStale), 4);
    assert_a_and_b_lose_nothing(&mut sim);
}

/// Forged responses and cookie replies may arrive before the real ones.
#[test]
fn forged_answers_do_not_break_a_handshake() {
    let mut sim = lab(2);
    sim.faults.delay = 100 * MILLI;
    sim.send(A, B, 1);
    sim.run(150 * MILLI);
    let seen = sim.last(A, INITIATION);
    let (b, hub) = (sim.hosts[B].addr, sim.hosts[HUB].addr);
    let mut response = [&[2, 0, 0, 0][..], &[5; 4], &seen.bytes[4..8], &[9; 80]].concat();
    let cookie = [&[3, 0, 0, 0][..], &seen.bytes[4..8], &[9; 56]].concat();
    sim.faults.delay = MILLI;
    sim.inject(b, hub, &response);
    sim.inject(b, hub, &cookie);
    sim.run(2 * MILLI);
    assert_eq!(drops(&sim, DropReason::BadMac1), 1);
    assert_eq!(drops(&sim, DropReason::BadCookie), 1);
    // A message that is signed for A is relayed, and A refuses it.
    MacKeys::new(&sim.hosts[A].public()).sign(&mut response, None);
    sim.inject(b, hub, &response);
    sim.run(SECOND);
    assert_eq!(sim.hosts[A].drops(DropReason::BadResponse), 1);
    assert_eq!(received(&sim, B), [1]);
}

#[test]
fn a_flood_of_initiations_by_a_peer_is_limited() {
    let mut sim = talking(3);
    let (c, b) = (sim.hosts[C].addr, sim.hosts[B].public());
    for n in 0..100 {
        inject(&mut sim, c, (0..10).map(|i| initiation(n * 10 + i, &b)));
        sim.run(80 * MILLI);
    }
    let b = sim.hosts[B].addr;
    let reached = sim
        .seen
        .iter()
        .filter(|seen| seen.to == b && seen.kind() == INITIATION);
    assert!((10..=16).contains(&reached.count()), "10 s at one a second");
    assert_a_and_b_lose_nothing(&mut sim);
    assert_a_and_b_meet_within(&mut sim, 1);
}

/// C has a cookie of the hub, so spoofers cannot use up its limit. C's own initiations are limited too.
#[test]
fn a_flood_of_initiations_with_a_cookie_is_limited() {
    let mut sim = talking(3);
    let (c, b) = (sim.hosts[C].addr, sim.hosts[B].public());
    let keys = MacKeys::new(&b);
    inject(&mut sim, c, (0..10).map(|i| initiation(i, &b)));
    let is_reply = |seen: &&Seen| seen.from == HUB && seen.kind() == COOKIE;
    let reply = &sim.seen.iter().find(is_reply).unwrap().bytes;
    let reply: &[u8; 64] = reply[..].try_into().unwrap();
    // It answers the initiation with this index.
    let index = u32::from_le_bytes(reply[4..8].try_into().unwrap());
    let mac1 = initiation(index, &b)[116..132].try_into().unwrap();
    let cookie = keys.open_reply(reply, &mac1).unwrap();
    sim.seen.clear();
    for n in 1..=100 {
        let one = |i: u32| {
            let mut message = initiation(n * 10 + i, &b);
            keys.sign(&mut message, Some(&cookie));
            message
        };
        inject(&mut sim, c, (0..10).map(one));
        sim.run(80 * MILLI);
    }
    let b = sim.hosts[B].addr;
    let reached = sim.seen.iter();
    let reached = reached.filter(|seen| seen.to == b && seen.kind() == INITIATION);
    let reached = reached.count();
    assert!(
        (20..=32).contains(&reached),
        "{reached}: 10 s at two a second"
    );
    assert_a_and_b_lose_nothing(&mut sim);
}

/// A's session with B, which is its second peer.
fn session_of_a_and_b(sim: &Sim) -> Arc<Keypair<Peer>> {
    let mut peers = sim.hosts[A].device.peers();
    peers.nth(1).unwrap().keypairs.current().clone().unwrap()
}

#[test]
fn the_index_of_another_peer_is_refused() {
    let mut sim = talking(4);
    let session = session_of_a_and_b(&sim);
    let (c, b) = (sim.hosts[C].addr, sim.hosts[B].public());
    // C sends the same index to B as A does.
    inject(&mut sim, c, [initiation(session.local(), &b)]);
    assert_eq!(drops(&sim, DropReason::RelayCollision), 1);
    // To D this is allowed, because the index then leads to another peer than B.
    let d = sim.hosts[D].public();
    inject(&mut sim, c, [initiation(session.local(), &d)]);
    assert_eq!(drops(&sim, DropReason::RelayCollision), 1);
    // An index of the hub itself cannot be used by a peer.
    let of_hub = sim.hosts[HUB]
        .first()
        .keypairs
        .current()
        .clone()
        .unwrap()
        .local();
    inject(&mut sim, c, [initiation(of_hub, &b)]);
    assert_eq!(drops(&sim, DropReason::RelayCollision), 2);
    // While an initiation is pending, its index is also in use.
    let a = sim.hosts[A].addr;
    inject(&mut sim, a, [initiation(77, &d)]);
    inject(&mut sim, c, [initiation(77, &d)]);
    assert_eq!(drops(&sim, DropReason::RelayCollision), 3);
    assert_a_and_b_lose_nothing(&mut sim);
}

#[test]
fn we_never_choose_a_relayed_index() {
    let sim = talking(2);
    let session = session_of_a_and_b(&sim);
    /// Returns the given numbers in order.
    struct Rigged(Vec<u32>);
    impl rand_core::RngCore for Rigged {
        fn next_u32(&mut self) -> u32 {
            self.0.pop().expect("no more numbers are expected")
        }
        fn next_u64(&mut self) -> u64 {
            u64::from(self.next_u32())
        }
        fn fill_bytes(&mut self, _: &mut [u8]) {}
    }
    let mut rng = Rigged(vec![12_345_678, session.local(), session.local()]);
    let plane = sim.hosts[HUB].device.plane();
    assert_eq!(plane.reserve_index(&mut rng), 12_345_678);
    assert!(!plane.index.is_reserved(session.local()));
}

/// Each packet with that index would be compared with all of these sessions.
#[test]
fn one_index_is_used_by_sixteen_sessions_at_most() {
    let mut sim = talking(2);
    sim.set(HUB, &crowd(0, 100)).unwrap();
    let (a, of_a) = (sim.hosts[A].addr, sim.hosts[A].public());
    for n in 0..100 {
        inject(&mut sim, a, [initiation(7, &public(n))]);
        inject(&mut sim, at(n), [response(7, 1000 + n, &of_a)]);
        sim.run(200 * MILLI);
    }
    assert_eq!(drops(&sim, DropReason::RelayCollision), 84);
    // Both directions of these, and of the session of A and B.
    let hops = sim.hosts[HUB].device.plane().relay().unwrap().len();
    assert_eq!(hops, 2 * 16 + 2);
    assert_a_and_b_lose_nothing(&mut sim);
}

/// Five others claim A's address, which is more than are looked at. When A shows that it is there, it is
/// found again, although its address is the former one.
#[test]
fn a_peer_that_stays_at_its_address_is_found_after_others_claimed_it() {
    let mut sim = talking(2);
    let a = sim.hosts[A].addr;
    let claim = |n: u32| [Change::Peer(public(n)), Change::Endpoint(a)];
    sim.set(HUB, &crowd(0, 5)).unwrap();
    let claims: Vec<Change> = (0..5).flat_map(claim).collect();
    sim.set(HUB, &claims).unwrap();
    let hidden = DropReason::RelayNotPeer;
    let nobody = initiation(1, &key(1));
    inject(&mut sim, a, [nobody]);
    assert_eq!(drops(&sim, hidden), 0, "the others are there");
    // A starts anew, and says so to the hub first.
    sim.down(A);
    sim.up(A);
    sim.send(A, HUB, 1);
    sim.run(SECOND);
    sim.hosts[B].delivered.clear();
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [1]);
}

/// C claims A's address. Both keep their pairs, before and after that.
#[test]
fn claiming_an_address_hides_no_peer() {
    let mut sim = talking(3);
    sim.send(C, B, 9);
    sim.run(SECOND);
    let (mine, of_a) = (sim.hosts[C].addr, sim.hosts[A].addr);
    sim.hosts[C].addr = of_a;
    sim.hosts[C].deaf = true;
    sim.send(C, HUB, 9);
    sim.run(MILLI);
    sim.hosts[C].addr = mine;
    sim.run(SECOND);
    let claimed = sim.hosts[HUB]
        .device
        .peers()
        .filter(|peer| peer.is_at(of_a));
    assert_eq!(claimed.count(), 2);
    assert_a_and_b_lose_nothing(&mut sim);
    assert_a_and_b_meet_within(&mut sim, 1);
    assert_a_and_b_lose_nothing(&mut sim);
    // C has its own address again, and A's session still belongs to A.
    sim.hosts[C].deaf = false;
    sim.send(C, HUB, 9);
    sim.run(SECOND);
    assert_a_and_b_lose_nothing(&mut sim);
    sim.hosts[B].delivered.clear();
    sim.send(C, B, 8);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [8]);
}

#[test]
fn nothing_is_relayed_back_to_its_origin() {
    let mut sim = talking(3);
    // Two peers at the same address.
    let a = sim.hosts[A].addr;
    sim.set_peer(HUB, C, &[Change::Endpoint(a)]);
    let c = sim.hosts[C].public();
    inject(&mut sim, a, [initiation(5, &c)]);
    assert_eq!(drops(&sim, DropReason::RelayLoop), 1);
    // A message to the sender itself.
    let own = sim.hosts[A].public();
    sim.set_peer(HUB, C, &[groups("")]);
    inject(&mut sim, a, [initiation(6, &own)]);
    assert_eq!(drops(&sim, DropReason::RelayUnknown), 1);
    // A session whose ends get the same address.
    let b = sim.hosts[B].addr;
    sim.set_peer(HUB, A, &[Change::Endpoint(b)]);
    sim.seen.clear();
    sim.send(B, A, 1);
    sim.run(20 * MILLI);
    assert_eq!(drops(&sim, DropReason::RelayLoop), 2);
    assert!(sim.seen.iter().all(|seen| seen.from != HUB));
}

/// Someone has two peers on each of three hubs, and claims for one that it is at the hub before, and for the
/// other that it is at the hub behind.
#[test]
fn nothing_circulates_among_hubs_for_long() {
    let mut sim = Sim::hosts(3, 7);
    let hubs: Vec<_> = sim.hosts.iter().map(|host| host.addr).collect();
    let response = response(7, 9, &public(0));
    for hub in 0..3 {
        sim.set(hub, &crowd(0, 2)).unwrap();
        let [before, behind] = [hubs[(hub + 2) % 3], hubs[(hub + 1) % 3]];
        for (n, addr) in [(0, before), (1, behind)] {
            let peer = Change::Peer(public(n));
            sim.set(hub, &[peer, Change::Endpoint(addr)]).unwrap();
        }
        sim.inject(before, hubs[hub], &initiation(7, &public(1)));
        sim.inject(behind, hubs[hub], &response);
    }
    sim.run(10 * SECOND);
    let data = [&[4, 0, 0, 0, 9, 0, 0, 0][..], &[1; 24]].concat();
    let cookie = [&[3, 0, 0, 0, 9, 0, 0, 0][..], &[1; 56]].concat();
    // The cookie reply is for the response that began the session.
    let [data, cookie] = [data, cookie].map(|message| {
        sim.seen.clear();
        sim.inject(hubs[2], hubs[0], &message);
        sim.run(10 * SECOND);
        let same = sim.seen.iter().filter(|seen| seen.bytes == message);
        same.count()
    });
    assert_eq!(data, 63, "the hop limit of a host is 64");
    assert!((1..=18).contains(&cookie), "{cookie}");
    let ended = |reason| sim.hosts.iter().map(|hub| hub.drops(reason)).sum::<u64>();
    assert_eq!(ended(DropReason::RelayHopLimit), 1);
    assert!(ended(DropReason::RelayLimited) > 0);
}

/// Unknown peers `from..to` with different addresses, in one group.
fn crowd(from: u32, to: u32) -> Vec<Change> {
    let of = |n: u32| {
        let mut key = [3; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        [
            Change::Peer(PublicKey::from_bytes(key)),
            Change::Endpoint(at(n)),
            Change::Extension(Extension::Relay(Groups::on())),
        ]
    };
    (from..to).flat_map(of).collect()
}

fn at(n: u32) -> SocketAddr {
    let [_, a, b, c] = n.to_be_bytes();
    ([10, a, b, c], 51820).into()
}

fn public(n: u32) -> PublicKey {
    let mut key = [3; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    PublicKey::from_bytes(key)
}

#[test]
fn ten_thousand_peers_are_searched_and_bounded() {
    let mut sim = talking(2);
    sim.set(HUB, &crowd(0, 10_000)).unwrap();
    // A peer without partners finds the last of them.
    let message = initiation(1, &public(9999));
    inject(&mut sim, at(0), [message.clone()]);
    assert_eq!(refused(&sim), 0);
    let relayed = |seen: &&Seen| seen.from == HUB && seen.bytes == message;
    let found: Vec<_> = sim
        .seen
        .iter()
        .filter(relayed)
        .map(|seen| seen.to)
        .collect();
    assert_eq!(found, [at(9999)]);
    // All of them search at once without success: only a tenth of a second of work is done.
    for n in 1..200 {
        inject(&mut sim, at(n), [initiation(1, &key(1))]);
    }
    let (unknown, limited) = (DropReason::RelayUnknown, DropReason::RelayLimited);
    // In 4 s: 7 at once, and then 40 per second.
    let searches = drops(&sim, unknown);
    assert!((150..=170).contains(&searches), "{searches}");
    assert_eq!(drops(&sim, limited), 199 - searches);
    // A sender whose search succeeded in the last hour is served as well.
    let before = refused(&sim);
    inject(&mut sim, at(0), [initiation(2, &public(7777))]);
    assert_eq!(refused(&sim), before);
    assert_a_and_b_lose_nothing(&mut sim);
    assert_a_and_b_meet_within(&mut sim, 1);
}

#[test]
fn a_peer_opens_at_most_1024_pairs_without_affecting_others() {
    let mut sim = talking(2);
    sim.set(HUB, &crowd(0, 3000)).unwrap();
    let a = sim.hosts[A].addr;
    for n in 0..1400 {
        inject(&mut sim, a, [initiation(n + 1, &public(n))]);
        // Within the budget for searches.
        sim.run(180 * MILLI);
    }
    // Pairs whose handshake did not succeed were removed for others: none was refused.
    assert_eq!(refused(&sim), 0);
    let [pairs, ..] = sim.hosts[HUB].device.hub.as_ref().unwrap().sizes();
    assert!(pairs <= 1025, "{pairs}");
    assert_a_and_b_lose_nothing(&mut sim);
    sim.send(B, A, 1);
    sim.run(SECOND);
}

#[test]
fn at_most_64_groups_are_allowed() {
    let mut sim = lab(2);
    let names = |from: usize| {
        let names: Vec<_> = (from..from + 8).map(|n| format!("g{n}")).collect();
        groups(&names.join(","))
    };
    // `default` and these groups.
    for n in 0..7 {
        let key = Change::Peer(key(n as u8 + 1));
        sim.set(HUB, &[key, names(n * 8)]).unwrap();
    }
    let (a, c) = (Change::Peer(sim.hosts[A].public()), Change::Peer(key(9)));
    let refused = sim.set(HUB, &[c.clone(), names(56)]).unwrap_err();
    assert_eq!(refused.to_string(), "more than 64 relay groups");
    sim.set(HUB, &[c, groups("g1,g2,x1,x2,x3,x4,x5,x6")])
        .unwrap();
    // A peer whose change is refused stays in its former groups.
    sim.set(HUB, &[a, groups("y1,y2")]).unwrap_err();
    sim.send(A, B, 1);
    sim.run(SECOND);
    assert_eq!(received(&sim, B), [1]);
}
