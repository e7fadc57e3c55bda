//! Changes of a running device.

use std::net::IpAddr;
use std::sync::Arc;

use wg_crypto::PublicKey;

use super::{key, keys};
use crate::model::{Change, Extension};
use crate::tunnel::config::ConfigError;
use crate::tunnel::drops::DropReason;
use crate::tunnel::entry::Entry;
use crate::tunnel::peer::Peer;
use crate::tunnel::sim::*;

fn networks(sim: &Sim, host: usize, peer: usize) -> Vec<String> {
    let key = sim.hosts[peer].public();
    let peers = sim.hosts[host].device.get().peers;
    let peer = peers.iter().find(|peer| peer.public_key == key).unwrap();
    peer.allowed_ips.iter().map(ToString::to_string).collect()
}

/// Stock `wg` does not know extensions, so its `setconf` must not remove them.
#[test]
fn extensions_are_kept_if_a_set_removes_and_adds_a_peer() {
    let name = |text: &str| Change::Extension(Extension::Name(text.parse().ok()));
    let mut sim = Sim::pair();
    let key = sim.hosts[1].public();
    let name_of = |sim: &Sim| {
        sim.hosts[0]
            .peer()
            .extensions
            .name
            .map(|name| name.to_string())
    };
    sim.set_peer(0, 1, &[name("alice")]);
    assert_eq!(name_of(&sim).as_deref(), Some("alice"));
    sim.set(0, &[Change::ReplacePeers, Change::Peer(key)])
        .unwrap();
    assert_eq!(name_of(&sim).as_deref(), Some("alice"));
    sim.set(0, &[Change::ReplacePeers, Change::Peer(key), name("bob")])
        .unwrap();
    assert_eq!(name_of(&sim).as_deref(), Some("bob"));
    sim.set_peer(0, 1, &[name("")]);
    assert_eq!(name_of(&sim), None);
    sim.set_peer(0, 1, &[name("alice")]);
    sim.set_peer(0, 1, &[Change::Remove]);
    sim.set(0, &[Change::Peer(key)]).unwrap();
    assert_eq!(name_of(&sim), None, "another set knows nothing of it");
}

/// gotatun removes and creates again the peer that `wg set` changes, and loses its session,
/// counters, staged packets and replay protection. boringtun#40, #209: it panics.
#[test]
fn gotatun_set_recreates_the_peer() {
    let mut sim = Sim::session();
    let before = sim.hosts[0].peer();
    let peer = sim.hosts[0].first();
    let session = peer.keypairs.slots();
    let endpoint = sim.hosts[1].addr;
    sim.set_peer(
        0,
        1,
        &[
            Change::ProtocolVersion,
            psk(0),
            Change::Endpoint(endpoint),
            Change::ReplaceAllowedIps,
            allow("10.0.0.2/32"),
            allow("10.77.0.0/16"),
            Change::PersistentKeepalive(20),
        ],
    );
    sim.assert_passes(0, 1, 1);
    assert_eq!(sim.count(0, INITIATION), 0);
    assert_eq!(peer.keypairs.slots(), session);
    assert!(Arc::ptr_eq(
        &peer,
        sim.hosts[0].device.peers().next().unwrap()
    ));
    let after = sim.hosts[0].peer();
    assert_eq!(after.last_handshake, before.last_handshake);
    assert_eq!(after.rx_bytes, before.rx_bytes);
    assert!(after.tx_bytes > before.tx_bytes);
}

#[test]
fn a_changed_psk_is_used_from_the_next_handshake() {
    let mut sim = Sim::session();
    sim.set_peer(0, 1, &[psk(7)]);
    sim.send(0, 1, 1);
    sim.send(1, 0, 2);
    sim.run(100 * SECOND);
    assert_eq!(
        (sim.hosts[1].payloads(), sim.hosts[0].payloads()),
        (vec![1], vec![2])
    );
    sim.run(100 * SECOND);
    sim.send(0, 1, 3);
    sim.run(SECOND);
    assert_eq!(
        sim.hosts[0].drops(DropReason::BadResponse),
        1,
        "the preshared keys differ"
    );
    sim.set_peer(1, 0, &[psk(7)]);
    sim.run(6 * SECOND);
    assert_eq!(sim.hosts[1].payloads(), [1, 3]);
    assert_eq!(sim.hosts[0].peer().preshared_key.as_bytes(), &[7; 32]);
}

#[test]
fn networks_are_listed_in_the_order_they_were_given() {
    let mut sim = Sim::hosts(3, 7);
    let list = ["10.3.0.0/16", "fd00::/64", "10.1.0.0/16", "10.2.0.0/16"];
    sim.set_peer(0, 1, &list.map(allow));
    assert_eq!(networks(&sim, 0, 1), list);
    sim.set_peer(0, 1, &[allow("fd00::/64")]);
    let moved = ["10.3.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "fd00::/64"];
    assert_eq!(networks(&sim, 0, 1), moved, "given again: to the end");

    sim.set_peer(0, 2, &[allow("10.1.0.0/16"), allow("10.9.0.0/16")]);
    assert_eq!(
        networks(&sim, 0, 1),
        ["10.3.0.0/16", "10.2.0.0/16", "fd00::/64"],
        "peer 2 has taken a network"
    );
    assert_eq!(networks(&sim, 0, 2), ["10.1.0.0/16", "10.9.0.0/16"]);

    sim.set_peer(
        0,
        1,
        &[
            disallow("10.3.0.0/16"),
            disallow("10.9.0.0/16"),
            disallow("10.7.0.0/16"),
        ],
    );
    assert_eq!(networks(&sim, 0, 1), ["10.2.0.0/16", "fd00::/64"]);
    assert_eq!(networks(&sim, 0, 2).len(), 2, "another's is not taken away");

    sim.set_peer(0, 1, &[Change::ReplaceAllowedIps, allow("0.0.0.0/0")]);
    assert_eq!(networks(&sim, 0, 1), ["0.0.0.0/0"]);
    let routes = sim.hosts[0].device.plane().routes();
    let owner = |addr: &str| {
        routes
            .lookup(addr.parse::<IpAddr>().unwrap())
            .map(|peer| *peer.public_key())
    };
    assert_eq!(owner("10.2.0.1"), Some(sim.hosts[1].public()));
    assert_eq!(owner("10.1.0.1"), Some(sim.hosts[2].public()));
    assert_eq!(owner("fd00::1"), None);
}

#[test]
fn networks_that_change_owners_are_listed_once() {
    let mut sim = Sim::hosts(3, 7);
    for round in 0..10 {
        sim.set_peer(
            0,
            1 + round % 2,
            &[allow("10.0.0.0/8"), allow("10.0.0.0/9")],
        );
    }
    assert!(networks(&sim, 0, 1).is_empty());
    assert_eq!(networks(&sim, 0, 2), ["10.0.0.0/8", "10.0.0.0/9"]);
    sim.set_peer(0, 2, &[Change::Remove]);
    assert!(sim.hosts[0].device.plane().routes().is_empty());
}

/// The next peer in its place must not get these networks.
#[test]
fn a_peer_that_a_change_of_the_device_removed_gets_no_networks() {
    let mut sim = Sim::hosts(2, 7);
    let own = sim.hosts[1].public();
    let removal = Change::PrivateKey(Some(Box::new(sim.hosts[1].key.clone())));
    for removal in [Change::ReplacePeers, removal] {
        let changes = [Change::Peer(own), removal, allow("10.0.0.0/8")];
        sim.set(0, &changes).unwrap();
        assert!(sim.hosts[0].device.plane().routes().is_empty());
        sim.set(0, &[Change::Peer(key(1))]).unwrap();
        assert!(sim.hosts[0].device.get().peers[0].allowed_ips.is_empty());
        sim.set(0, &[Change::ReplacePeers]).unwrap();
    }
}

#[test]
fn peers_are_listed_in_the_order_they_were_added() {
    let mut sim = Sim::hosts(1, 7);
    let order: Vec<_> = [5, 3, 9, 1].map(key).to_vec();
    let changes: Vec<_> = order.iter().map(|key| Change::Peer(*key)).collect();
    sim.set(0, &changes).unwrap();
    sim.set(0, &[Change::Peer(key(9)), Change::PersistentKeepalive(1)])
        .unwrap();
    assert_eq!(keys(&sim, 0), order);
    sim.set(
        0,
        &[Change::Peer(key(3)), Change::Remove, Change::Peer(key(3))],
    )
    .unwrap();
    assert_eq!(keys(&sim, 0), [5, 9, 1, 3].map(key));
}

#[test]
fn update_only_creates_no_peer() {
    let mut sim = Sim::hosts(1, 7);
    let network = allow("10.0.0.0/8");
    sim.set(
        0,
        &[Change::Peer(key(1)), Change::UpdateOnly, network.clone()],
    )
    .unwrap();
    assert!(keys(&sim, 0).is_empty() && sim.hosts[0].device.plane().routes().is_empty());
    sim.set(0, &[Change::Peer(key(1))]).unwrap();
    sim.set(0, &[Change::Peer(key(1)), Change::UpdateOnly, network])
        .unwrap();
    assert_eq!(sim.hosts[0].peer().allowed_ips.len(), 1);
}

#[test]
fn changes_after_remove_are_ignored() {
    let mut sim = Sim::hosts(1, 7);
    sim.set(0, &[Change::Peer(key(1))]).unwrap();
    let network = allow("10.0.0.0/8");
    let more = [
        Change::Peer(key(1)),
        Change::Remove,
        network,
        Change::PersistentKeepalive(1),
    ];
    sim.set(0, &more).unwrap();
    sim.set(0, &[Change::Peer(key(2)), Change::Remove]).unwrap();
    assert!(keys(&sim, 0).is_empty() && sim.hosts[0].device.plane().routes().is_empty());
}

#[test]
fn a_change_without_a_peer_is_refused_and_earlier_ones_remain() {
    let mut sim = Sim::hosts(1, 7);
    let error = sim
        .set(0, &[Change::FwMark(7), Change::PersistentKeepalive(1)])
        .unwrap_err();
    assert!(matches!(error, ConfigError::NoPeer));
    assert_eq!(sim.hosts[0].device.get().fwmark, 7);
    assert_eq!(sim.hosts[0].sockets.fwmark, 7);
}

#[test]
fn a_removed_peer_is_forgotten_at_once() {
    let mut sim = Sim::session();
    let peer = sim.hosts[1].first();
    let session = Arc::downgrade(peer.keypairs.current().as_ref().unwrap());
    sim.send(0, 1, 1);
    sim.set_peer(1, 0, &[Change::Remove]);
    assert_eq!(sim.hosts[1].device.plane().index.len(), 0);
    assert_eq!(session.strong_count(), 0);
    sim.run(20 * SECOND);
    assert!(sim.hosts[1].delivered.is_empty());
    assert_eq!(sim.hosts[1].drops(DropReason::UnknownIndex), 1);
    assert!(sim.hosts[1].drops(DropReason::UnknownPeer) >= 1);
    assert_eq!(sim.hosts[1].device.next_timeout(), None);
    assert_eq!(
        Arc::strong_count(&peer),
        1,
        "only this test refers to the peer"
    );
    sim.introduce(1, 0);
    sim.run(20 * SECOND);
    sim.send(0, 1, 2);
    sim.run(SECOND);
    assert_eq!(*sim.hosts[1].payloads().last().unwrap(), 2);
}

/// A burst that was classified, or prepared, before the peer was removed is dropped.
#[test]
fn bursts_in_flight_of_a_removed_peer_are_dropped() {
    use crate::tunnel::peer::Endpoint;
    use crate::tunnel::receive::InBurst;
    use crate::tunnel::send::{OutBuffer, Prepared};
    let mut sim = Sim::session();
    sim.send(0, 1, 1);
    let seen = sim.last(0, DATA);
    let plane = sim.hosts[1].device.plane().clone();
    let mut incoming = InBurst::new();
    incoming.buffer()[..seen.bytes.len()].copy_from_slice(&seen.bytes);
    incoming.received(seen.bytes.len(), 0, Endpoint::from(sim.hosts[0].addr), 0);
    incoming.classify(&plane, sim.now, |_, _| unreachable!());
    incoming.open();
    let mut outgoing = OutBuffer::new().start(&sim.hosts[1].first(), 0);
    outgoing.push(30, 1420).fill(0);
    sim.set_peer(1, 0, &[Change::Remove]);
    incoming.accept(&plane, sim.now);
    assert!(incoming.packets().is_empty());
    assert_eq!(sim.hosts[1].drops(DropReason::SessionExpired), 1);
    let prepared = plane.prepare(outgoing, sim.now);
    assert!(matches!(prepared, Prepared::Staged(_)));
    assert_eq!(sim.hosts[1].drops(DropReason::Down), 1);
}

#[test]
fn replace_peers_removes_all() {
    let mut sim = Sim::session();
    sim.set(0, &[Change::ReplacePeers, Change::Peer(key(1))])
        .unwrap();
    assert_eq!(keys(&sim, 0), [key(1)]);
    assert!(sim.hosts[0].device.plane().routes().is_empty());
    assert_eq!(sim.hosts[0].device.next_timeout(), None);
}

#[test]
fn a_port_in_use_is_reported_and_changes_nothing() {
    let mut sim = Sim::session();
    sim.hosts[0].sockets.refuse = true;
    let error = sim.set(0, &[Change::ListenPort(53)]).unwrap_err();
    let ConfigError::Bind { source, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
    assert!(matches!(error, ConfigError::Bind { port: 53, .. }));
    assert_eq!(sim.hosts[0].device.get().listen_port, 51820);
    sim.assert_passes(0, 1, 1);
}

/// This applies also while the link is down, and whatever else the `set` contains.
#[test]
fn a_set_with_a_port_in_use_changes_nothing() {
    for up in [true, false] {
        let mut sim = Sim::session();
        if !up {
            sim.down(0);
        }
        let before = sim.hosts[0].device.get();
        sim.hosts[0].sockets.refuse = true;
        let changes = [
            Change::PrivateKey(None),
            Change::FwMark(5),
            Change::ReplacePeers,
            Change::ListenPort(53),
        ];
        let error = sim.set(0, &changes).unwrap_err();
        let ConfigError::Bind { source, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
        assert_eq!(sim.hosts[0].device.get(), before);
    }
}

/// The link is up, but another program uses the port.
#[test]
fn a_later_set_opens_sockets_after_a_failure() {
    let mark: &[Change] = &[Change::FwMark(5)];
    for (set, port) in [(mark, 51820), (&[Change::ListenPort(77)], 77)] {
        let mut sim = Sim::session();
        sim.down(0);
        sim.hosts[0].sockets.refuse = true;
        let host = &mut sim.hosts[0];
        host.device.up(&mut host.sockets).unwrap_err();
        sim.set(0, mark).unwrap();
        sim.set(0, &[Change::ListenPort(77)]).unwrap_err();
        assert!(!sim.hosts[0].device.plane().is_up());
        assert_eq!(sim.hosts[0].device.listen_port(), 51820);

        sim.hosts[0].sockets.refuse = false;
        sim.set(0, set).unwrap();
        assert_eq!(sim.hosts[0].sockets.port, Some(port));
        sim.assert_passes(0, 1, 1);
    }
}

#[test]
fn a_random_port_is_kept_over_down_and_up() {
    let mut sim = Sim::hosts(1, 7);
    sim.set(0, &[Change::ListenPort(0)]).unwrap();
    let port = sim.hosts[0].device.listen_port();
    assert_ne!(port, 0);
    sim.down(0);
    assert_eq!(sim.hosts[0].sockets.port, None);
    sim.up(0);
    assert_eq!(sim.hosts[0].sockets.port, Some(port));
    // While the link is down, a port is only stored.
    sim.down(0);
    sim.set(0, &[Change::ListenPort(77)]).unwrap();
    assert_eq!(sim.hosts[0].sockets.port, None);
    sim.up(0);
    assert_eq!(sim.hosts[0].sockets.port, Some(77));
}

#[test]
fn down_ends_sessions_and_keeps_the_rest() {
    let mut sim = Sim::session();
    sim.send(0, 1, 1); // in flight
    sim.down(1);
    assert_eq!(sim.hosts[1].device.plane().index.len(), 0);
    sim.run(SECOND);
    assert!(sim.hosts[1].delivered.is_empty());
    sim.send(1, 0, 1);
    assert_eq!(sim.hosts[1].drops(DropReason::Down), 1);
    let peer = sim.hosts[1].peer();
    assert!(peer.endpoint.is_some() && peer.last_handshake.is_some() && peer.rx_bytes > 0);
    sim.up(1);
    sim.assert_passes(1, 0, 2);
}

#[test]
fn down_drops_staged_packets() {
    let mut sim = Sim::pair();
    sim.hosts[1].deaf = true;
    sim.send(0, 1, 1);
    sim.down(0);
    assert_eq!(sim.hosts[0].drops(DropReason::StagedPurged), 1);
    assert!(sim.hosts[0].device.context.pending.is_empty());
    sim.hosts[1].deaf = false;
    sim.up(0);
    sim.run(20 * SECOND);
    assert!(sim.hosts[1].delivered.is_empty());
}

#[test]
fn the_number_of_peers_is_limited() {
    let mut sim = Sim::hosts(1, 7);
    sim.hosts[0].device.set_max_peers(2);
    let error = sim
        .set(0, &[1, 2, 3].map(key).map(Change::Peer))
        .unwrap_err();
    assert!(matches!(error, ConfigError::TooManyPeers));
    assert_eq!(keys(&sim, 0), [key(1), key(2)]);
    assert!(sim.set(0, &[Change::Peer(key(2))]).is_ok());
}

/// boringtun#233: 24 thousand peers in one `set` caused an overflow.
#[test]
fn boringtun_233_many_peers_at_once() {
    let mut sim = Sim::hosts(1, 7);
    let changes: Vec<_> = (0..24_000u32)
        .flat_map(|i| {
            let mut key = [1; 32];
            key[..4].copy_from_slice(&i.to_le_bytes());
            let network = format!("10.{}.{}.{}/32", i >> 16, i >> 8 & 255, i & 255);
            [Change::Peer(PublicKey::from_bytes(key)), allow(&network)]
        })
        .collect();
    sim.set(0, &changes).unwrap();
    assert_eq!(sim.hosts[0].device.peer_count(), 24_000);
    assert_eq!(sim.hosts[0].device.plane().routes().len(), 24_000);
    sim.set(0, &changes).unwrap();
    assert_eq!(sim.hosts[0].device.plane().routes().len(), 24_000);
    sim.set(0, &[Change::ReplacePeers]).unwrap();
    assert!(sim.hosts[0].device.plane().routes().is_empty());
}

#[test]
fn an_idle_peer_is_small() {
    let size = size_of::<Peer>() + size_of::<Entry>();
    assert!(size <= 1024, "{size} bytes");
}
