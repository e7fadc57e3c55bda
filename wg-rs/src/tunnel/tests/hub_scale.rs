//! What a hub under a flood can still do. What its searches cost is measured by `cargo bench --bench relay`.

use rand::Rng;
use wg_crypto::{MacKeys, PublicKey};

use super::relay::{groups, received};
use crate::model::Change;
use crate::tunnel::drops::DropReason;
use crate::tunnel::sim::*;
use crate::tunnel::time::Time;

const HUB: usize = 0;

/// An initiation that is signed for this key, and otherwise nonsense.
fn initiation(to: &MacKeys, index: u32) -> Vec<u8> {
    let mut message = vec![0x11; 148];
    message[..4].copy_from_slice(&[1, 0, 0, 0]);
    message[4..8].copy_from_slice(&index.to_le_bytes());
    to.sign(&mut message, None);
    message
}

/// 50 000 initiations per second from addresses of clients and of strangers, for the hub, for clients
/// and for nobody.
#[test]
fn under_a_flood_of_spoofed_initiations_most_handshakes_succeed() {
    const CLIENTS: usize = 20;
    let mut sim = Sim::hosts(1 + CLIENTS, 9);
    let all: Vec<usize> = (1..=CLIENTS).collect();
    sim.join(HUB, &all);
    sim.run(SECOND);
    for pair in all.chunks(2) {
        sim.send(pair[0], pair[1], 1);
    }
    sim.run(SECOND);
    // A device under load would count its own backlog.
    sim.hosts[HUB].backlog.initiations = 512;
    let keys: Vec<MacKeys> = (0..=CLIENTS)
        .map(|host| MacKeys::new(&sim.hosts[host].public()))
        .collect();
    let nobody = MacKeys::new(&PublicKey::from_bytes([0x5a; 32]));
    let hub = sim.hosts[HUB].addr;
    for client in &all {
        sim.hosts[*client].delivered.clear();
    }
    for ms in 0..7000u32 {
        if ms == 100 {
            // All sessions end, so all are made anew.
            for client in &all {
                sim.down(*client);
                sim.up(*client);
            }
            for pair in all.chunks(2) {
                sim.send(pair[0], pair[1], 2);
            }
        }
        for n in 0..50 {
            let client = sim.rng.random_range(1..=CLIENTS);
            let stranger = format!("203.0.113.{}:{}", n + 1, 1 + ms % 60_000);
            let from = match n % 2 {
                0 => sim.hosts[client].addr,
                _ => stranger.parse().unwrap(),
            };
            let to = match n % 3 {
                0 => &keys[HUB],
                1 => &keys[sim.rng.random_range(1..=CLIENTS)],
                _ => &nobody,
            };
            let message = initiation(to, sim.rng.random());
            sim.inject(from, hub, &message);
        }
        sim.run(MILLI);
    }
    let relayed = all
        .chunks(2)
        .filter(|pair| received(&sim, pair[1]).contains(&2))
        .count();
    let own = all.iter().filter(|client| {
        let key = sim.hosts[**client].public();
        let peers = sim.hosts[HUB].device.status(sim.now).peers;
        let mut peers = peers.into_iter().filter(|peer| peer.peer.public_key == key);
        peers.any(|peer| peer.session == Some(true) && peer.handshakes >= Some(2))
    });
    let own = own.count();
    assert!(
        relayed * 10 >= CLIENTS / 2 * 8,
        "{relayed} of {}",
        CLIENTS / 2
    );
    assert!(own * 10 >= CLIENTS * 7, "{own} of {CLIENTS}");
    for reason in [
        DropReason::RelayNotPeer,
        DropReason::RelayLimited,
        DropReason::RelayCookie,
    ] {
        assert!(sim.hosts[HUB].drops(reason) > 0, "{reason:?}");
    }
}

/// The answers would otherwise come all at once.
#[test]
fn a_hub_that_starts_calls_a_hundred_peers_in_a_second() {
    let mut sim = Sim::hosts(1, 9);
    let peer = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let mut key = [9; 32];
        key[..2].copy_from_slice(&[high, low]);
        [
            Change::Peer(PublicKey::from_bytes(key)),
            Change::Endpoint(([10, 1, high, low], 51820).into()),
            groups("lab"),
        ]
    };
    let peers: Vec<_> = (0..1000).flat_map(peer).collect();
    sim.set(HUB, &peers).unwrap();
    let start = sim.now;
    // The repetitions begin after five seconds.
    sim.run(5 * SECOND);
    let calls = sim.times(HUB, INITIATION);
    assert!((490..=510).contains(&calls.len()), "{}", calls.len());
    for second in 0..5 {
        let is_in = |at: &&Time| at.saturating_since(start).as_secs() == second;
        let count = calls.iter().filter(is_in).count();
        assert!((95..=105).contains(&count), "{count} in second {second}");
    }
    // Each one three times, and no other.
    sim.run(60 * SECOND);
    assert_eq!(sim.count(HUB, INITIATION), 3000);
}
