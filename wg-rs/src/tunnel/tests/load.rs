//! Under load: cookies and the rate limit.

use wg_crypto::{PrivateKey, PublicKey};

use crate::model::{Change, Wall};
use crate::tunnel::drops::DropReason;
use crate::tunnel::sim::*;
use crate::tunnel::staged::StagedPacket;

const LOADED: usize = 512;

fn mac2_is_set(seen: &Seen) -> bool {
    seen.bytes[seen.bytes.len() - 16..] != [0; 16]
}

#[test]
fn under_load_an_initiation_needs_a_cookie() {
    let mut sim = Sim::pair();
    sim.hosts[1].backlog.initiations = LOADED;
    sim.send(0, 1, 1);
    sim.run(SECOND);
    assert_eq!((sim.count(1, COOKIE), sim.count(1, RESPONSE)), (1, 0));
    assert_eq!(sim.last(1, COOKIE).tos, 0);
    assert_eq!(sim.hosts[1].drops(DropReason::CookieSent), 1);
    assert!(sim.hosts[1].peer().rx_bytes == 0 && sim.hosts[1].peer().tx_bytes == 0);
    assert_eq!(sim.hosts[0].peer().rx_bytes, 0, "a cookie is not counted");
    // The cookie is used at the next attempt, not immediately.
    assert_eq!(sim.count(0, INITIATION), 1);
    sim.run(5 * SECOND);
    assert_eq!(sim.count(0, INITIATION), 2);
    assert!(mac2_is_set(&sim.last(0, INITIATION)));
    assert_eq!(sim.hosts[1].payloads(), [1]);
}

#[test]
fn below_the_threshold_there_is_no_load() {
    let mut sim = Sim::pair();
    sim.hosts[1].backlog.initiations = LOADED - 1;
    sim.assert_passes(0, 1, 1);
    assert!(!mac2_is_set(&sim.last(0, INITIATION)));
}

#[test]
fn under_load_a_response_needs_a_cookie_too() {
    let mut sim = Sim::pair();
    sim.hosts[0].backlog.initiations = LOADED;
    sim.send(0, 1, 1);
    sim.run(SECOND);
    assert_eq!((sim.count(1, RESPONSE), sim.count(0, COOKIE)), (1, 1));
    assert!(!mac2_is_set(&sim.last(1, RESPONSE)));
    sim.run(5 * SECOND);
    assert!(mac2_is_set(&sim.last(1, RESPONSE)));
    assert_eq!(sim.hosts[1].payloads(), [1]);
}

/// Many peers may respond at once when the link is set up. This is not an attack.
#[test]
fn responses_to_our_own_initiations_cause_no_load() {
    for (answers, cookies) in [(LOADED, 0), (LOADED + 1, 1)] {
        let mut sim = Sim::pair();
        // The response that host 0 waits for is pending.
        sim.hosts[0].backlog.answers = answers;
        sim.send(0, 1, 1);
        sim.run(SECOND);
        assert_eq!(sim.count(0, COOKIE), cookies, "{answers} answers");
    }
}

/// A thousand peers start at once: there is one Diffie-Hellman operation at a time, and packets to
/// a peer with a session are sent first.
#[test]
fn initiations_are_sent_one_by_one_and_last() {
    let mut sim = Sim::session();
    let mut changes = vec![];
    for n in 1..=100 {
        changes.extend([
            Change::Peer(PrivateKey::from_bytes([n; 32]).public_key()),
            Change::Endpoint(([198, 51, 100, n], 1).into()),
            Change::PersistentKeepalive(25),
        ]);
    }
    let wall = Wall::default();
    let (now, host) = (sim.now, &mut sim.hosts[0]);
    host.device.set(&changes, &mut host.sockets, now).unwrap();
    let mut out = Vec::new();
    let mut initiations = 0;
    for n in 0..10 {
        let first = host.device.poll_transmit(now, wall, &mut out).unwrap();
        assert!(first.is_initiation && out.len() == 148);
        initiations += 1;
        assert_eq!(
            host.device.context.pending.len(),
            initiations,
            "no further initiations were created"
        );

        let peer = host.device.peers().next().unwrap().clone();
        let _ = peer.staged.push(
            [StagedPacket {
                tos: 0,
                bytes: packet(0, 1, &[n; 20]).into(),
            }]
            .into_iter(),
        );
        host.device.plane().ask_flush(&peer);
        let next = host.device.poll_transmit(now, wall, &mut out).unwrap();
        assert!(!next.is_initiation && next.peer() == Some(&peer));
    }
    while host.device.poll_transmit(now, wall, &mut out).is_some() {
        initiations += 1;
    }
    assert_eq!(initiations, 100);
    assert_eq!(host.device.context.pending.len(), 100);
}

/// Ten thousand timers that are due at once are fired in groups.
#[test]
fn timers_are_fired_in_groups() {
    let mut sim = Sim::hosts(1, 4);
    let mut changes = vec![];
    for n in 0..1000u16 {
        let [high, low] = n.to_be_bytes();
        let mut key = [7; 32];
        key[..2].copy_from_slice(&[high, low]);
        changes.extend([
            Change::Peer(PublicKey::from_bytes(key)),
            Change::Endpoint(([198, 51, high, low], 1).into()),
            Change::PersistentKeepalive(25),
        ]);
    }
    sim.set(0, &changes).unwrap();
    let device = &mut sim.hosts[0].device;
    let now = sim.now + 60 * SECOND;
    let mut calls = 0;
    while device.next_timeout().is_some_and(|at| at <= now) {
        device.handle_timeout(now, Wall::default());
        calls += 1;
    }
    assert!(calls >= 3, "{calls}");
    let due = device
        .peers()
        .filter(|peer| peer.timers.earliest().is_none_or(|at| at <= now));
    assert_eq!(due.count(), 0);
}

#[test]
fn load_lasts_for_a_second() {
    for (after, cookies) in [(900, 1), (1100, 0)] {
        let mut sim = Sim::pair();
        sim.faults.delay = MILLI;
        sim.hosts[1].backlog.initiations = LOADED;
        let (from, to) = ("203.0.113.9:666".parse().unwrap(), sim.hosts[1].addr);
        sim.inject(from, to, &[&[1, 0, 0, 0][..], &[0; 144]].concat());
        sim.run(MILLI);
        sim.hosts[1].backlog.initiations = 0;
        sim.run(after * MILLI - MILLI);
        sim.send(0, 1, 1);
        sim.run(SECOND);
        assert_eq!(sim.count(1, COOKIE), cookies, "{after} ms later");
    }
}

/// boringtun PR#489: the endpoint moved to the sender of any cookie reply.
#[test]
fn boringtun_489_endpoint_roams_on_cookie_reply() {
    let mut sim = Sim::pair();
    sim.hosts[1].backlog.initiations = LOADED;
    sim.faults.delay = 100 * MILLI;
    sim.send(0, 1, 1);
    sim.run(150 * MILLI);
    let cookie = sim.last(1, COOKIE);
    sim.faults.delay = MILLI;
    sim.inject("203.0.113.9:666".parse().unwrap(), cookie.to, &cookie.bytes);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].peer().endpoint, Some(sim.hosts[1].addr));
    // The first reply was accepted; the true one is then a second reply to the same message.
    assert_eq!(sim.hosts[0].drops(DropReason::BadCookie), 1);
}

#[test]
fn a_cookie_is_used_for_115_seconds() {
    for (age, used) in [(105, true), (116, false)] {
        let mut sim = Sim::pair();
        sim.hosts[1].backlog.initiations = LOADED;
        sim.send(0, 1, 1);
        sim.run(SECOND);
        assert_eq!(sim.count(1, COOKIE), 1);
        sim.hosts[1].deaf = true;
        sim.run(age * SECOND);
        sim.send(0, 1, 1);
        sim.run(SECOND);
        let initiation = sim.last(0, INITIATION);
        assert_eq!(mac2_is_set(&initiation), used, "{age} seconds old");
    }
}

#[test]
fn the_cookie_secret_changes_after_120_seconds() {
    let mut sim = Sim::pair();
    sim.hosts[1].backlog.initiations = LOADED;
    // A cookie whose secret is about to expire is refused afterwards, and another cookie is sent.
    let (from, to) = ("203.0.113.9:666".parse().unwrap(), sim.hosts[1].addr);
    let mut first = [&[1, 0, 0, 0][..], &[0; 144]].concat();
    wg_crypto::MacKeys::new(&sim.hosts[1].public()).sign(&mut first, None);
    sim.inject(from, to, &first);
    sim.run(118 * SECOND);
    assert_eq!(sim.count(1, COOKIE), 1);
    sim.send(0, 1, 1);
    sim.run(6 * SECOND);
    assert!(mac2_is_set(&sim.last(0, INITIATION)));
    assert_eq!((sim.count(1, COOKIE), sim.count(1, RESPONSE)), (3, 0));
    sim.run(6 * SECOND);
    assert_eq!(sim.count(1, RESPONSE), 1);
}

/// boringtun and NepTUN derive cookies from the address without the port.
#[test]
fn boringtun_cookie_without_port() {
    let mut sim = Sim::pair();
    sim.hosts[1].backlog.initiations = LOADED;
    sim.send(0, 1, 1);
    sim.run(SECOND);
    // Another port of the same address has another cookie.
    sim.hosts[0].addr.set_port(1);
    sim.run(5 * SECOND);
    assert!(mac2_is_set(&sim.last(0, INITIATION)));
    assert_eq!((sim.count(1, COOKIE), sim.count(1, RESPONSE)), (2, 0));
    sim.run(6 * SECOND);
    assert_eq!(sim.count(1, RESPONSE), 1);
}

/// gotatun: a sender with a valid mac2 was not limited at all.
#[test]
fn gotatun_valid_mac2_is_unlimited() {
    let mut sim = Sim::pair();
    sim.hosts[1].backlog.initiations = LOADED;
    sim.send(0, 1, 1);
    sim.run(6 * SECOND);
    let initiation = sim.last(0, INITIATION);
    assert!(mac2_is_set(&initiation));
    sim.run(SECOND);
    let from = sim.hosts[0].addr;
    for _ in 0..50 {
        sim.inject(from, initiation.to, &initiation.bytes);
    }
    sim.run(SECOND);
    assert_eq!(
        sim.hosts[1].drops(DropReason::RateLimited),
        45,
        "five messages are allowed at once"
    );
}

/// boringtun: after 100 handshakes per second of all peers together, everyone needs a cookie.
#[test]
fn boringtun_global_limit_of_100_handshakes() {
    let mut sim = Sim::pair();
    let to = sim.hosts[1].addr;
    let keys = wg_crypto::MacKeys::new(&sim.hosts[1].public());
    for i in 0..200u16 {
        let mut message = [&[1, 0, 0, 0][..], &[i as u8; 144]].concat();
        keys.sign(&mut message, None);
        sim.inject(
            format!("203.0.113.9:{}", 1000 + i).parse().unwrap(),
            to,
            &message,
        );
    }
    sim.send(0, 1, 1);
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].drops(DropReason::BadInitiation), 200);
    assert_eq!(
        sim.hosts[1].payloads(),
        [1],
        "not under load, so no cookie is needed"
    );
}

/// Only one cookie reply is accepted for each message, and only for our own messages.
#[test]
fn an_unexpected_cookie_is_dropped() {
    let mut sim = Sim::session();
    let index = sim.hosts[0].first().keypairs.slots()[1].unwrap();
    let mut cookie = [&[3, 0, 0, 0][..], &index.to_le_bytes(), &[7; 56]].concat();
    let (from, to) = (sim.hosts[1].addr, sim.hosts[0].addr);
    sim.inject(from, to, &cookie);
    cookie[60] ^= 1;
    sim.inject(from, to, &cookie);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].drops(DropReason::BadCookie), 2);
    assert!(sim.set(0, &[Change::FwMark(1)]).is_ok());
}
