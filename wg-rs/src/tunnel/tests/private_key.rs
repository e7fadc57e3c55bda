//! Changes of the private key of a running device.

use wg_crypto::{PrivateKey, PublicKey};

use super::{key, keys};
use crate::model::Change;
use crate::tunnel::drops::DropReason;
use crate::tunnel::sim::*;

fn private_key(key: &PrivateKey) -> Change {
    Change::PrivateKey(Some(Box::new(key.clone())))
}

#[test]
fn the_same_private_key_changes_nothing() {
    let mut sim = Sim::session();
    let key = sim.hosts[0].key.clone();
    sim.set(0, &[private_key(&key)]).unwrap();
    sim.assert_passes(0, 1, 1);
    assert_eq!(sim.count(0, INITIATION), 0);
}

/// Gives host 0 another private key.
fn change_key(sim: &mut Sim) -> PublicKey {
    let new = PrivateKey::from_bytes([9; 32]);
    sim.hosts[0].key = new.clone();
    sim.set(0, &[private_key(&new)]).unwrap();
    new.public_key()
}

/// netns.sh 10: the first packet starts a handshake at once, even shortly after the key was
/// changed.
#[test]
fn another_private_key_sends_nothing_until_there_is_traffic() {
    let mut sim = Sim::session();
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(25)]);
    sim.run(SECOND);
    sim.seen.clear();
    let old = sim.hosts[0].public();
    let new = change_key(&mut sim);
    assert!(sim.hosts[0].device.context.pending.is_empty());
    sim.run(SECOND);
    assert!(sim.seen.is_empty());
    sim.set(
        1,
        &[
            Change::Peer(old),
            Change::Remove,
            Change::Peer(new),
            allow("10.0.0.1/32"),
        ],
    )
    .unwrap();
    sim.assert_passes(0, 1, 1);
    sim.assert_passes(1, 0, 2);
}

/// As in the kernel: sending ends, also in a session that is not confirmed yet.
#[test]
fn another_private_key_ends_sending_but_not_receiving() {
    let mut sim = Sim::session();
    change_key(&mut sim);
    for payload in 1..4 {
        sim.send(1, 0, payload);
        sim.run(SECOND);
    }
    assert_eq!(sim.hosts[0].payloads(), [1, 2, 3]);
    sim.send(0, 1, 4);
    sim.run(SECOND);
    assert_eq!(sim.count(0, DATA), 0);
    assert_eq!(sim.count(0, INITIATION), 1);
    assert_eq!(sim.hosts[1].drops(DropReason::UnknownPeer), 1);

    // Host 0 has sent a response and waits for the first packet.
    let mut sim = Sim::pair();
    sim.faults.delay = 100 * MILLI;
    sim.send(1, 0, 1);
    sim.run(150 * MILLI);
    assert_eq!(sim.count(0, RESPONSE), 1);
    change_key(&mut sim);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].payloads(), [1]);
    sim.send(0, 1, 2);
    sim.run(SECOND);
    assert_eq!(sim.count(0, DATA), 0);
}

/// The key changes while an initiation is pending: the response is refused, and the retry uses the
/// new key.
#[test]
fn another_private_key_ends_the_pending_handshake() {
    let mut sim = Sim::pair();
    sim.faults.delay = 100 * MILLI;
    sim.send(0, 1, 1);
    sim.run(50 * MILLI);
    let new = change_key(&mut sim);
    sim.set(1, &[Change::Peer(new), allow("10.0.0.1/32")])
        .unwrap();
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].peer().last_handshake, None);
    assert_eq!(sim.count(0, INITIATION), 1);
    sim.run(5 * SECOND);
    assert_eq!(sim.hosts[1].payloads(), [1]);
}

#[test]
fn without_a_private_key_nothing_is_sent() {
    let mut sim = Sim::session();
    let key = sim.hosts[0].key.clone();
    sim.set(0, &[Change::PrivateKey(None)]).unwrap();
    assert_eq!(sim.hosts[0].device.get().private_key, None);
    sim.run(20 * SECOND);
    sim.seen.clear();
    sim.send(0, 1, 1);
    sim.send(1, 0, 2);
    sim.run(20 * SECOND);
    assert!(sim.seen.iter().all(|seen| seen.from == 1));
    assert!(sim.hosts[0].drops(DropReason::NoPrivateKey) >= 1);
    sim.set(0, &[private_key(&key)]).unwrap();
    sim.send(0, 1, 3);
    sim.run(SECOND);
    assert_eq!(
        sim.hosts[1].payloads(),
        [1, 3],
        "the staged packet is sent with the next one"
    );
}

/// boringtun#163: adding a peer before the private key caused a panic, and the socket hung.
#[test]
fn boringtun_163_peer_before_private_key() {
    let mut sim = Sim::pair();
    let own = sim.hosts[0].key.clone();
    sim.set(0, &[Change::PrivateKey(None), Change::ReplacePeers])
        .unwrap();
    sim.introduce(0, 1);
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(25)]);
    sim.run(SECOND);
    assert!(sim.seen.is_empty());
    sim.set(0, &[private_key(&own)]).unwrap();
    sim.run(26 * SECOND);
    assert_eq!(sim.keepalives(0).len(), 1, "one interval later");
}

/// netns.sh 25.
#[test]
fn our_own_public_key_is_not_a_peer() {
    let mut sim = Sim::hosts(1, 6);
    let own = sim.hosts[0].public();
    let network = allow("10.0.0.0/24");
    sim.set(
        0,
        &[
            Change::Peer(own),
            network.clone(),
            Change::Peer(key(3)),
            Change::Peer(own),
        ],
    )
    .unwrap();
    assert_eq!(keys(&sim, 0), [key(3)]);
    // A public key that is not ours yet is a peer until it becomes ours.
    let next = PrivateKey::from_bytes([5; 32]);
    sim.set(0, &[Change::Peer(next.public_key()), network])
        .unwrap();
    assert_eq!(keys(&sim, 0).len(), 2);
    sim.set(0, &[private_key(&next)]).unwrap();
    assert_eq!(keys(&sim, 0), [key(3)]);
    assert!(sim.hosts[0].device.plane().routes().is_empty());
    sim.set(0, &[Change::Peer(own)]).unwrap();
    assert_eq!(keys(&sim, 0), [key(3), own], "no longer ours");
}

#[test]
fn private_keys_are_clamped() {
    let mut sim = Sim::hosts(1, 6);
    sim.set(0, &[private_key(&PrivateKey::from_bytes([0xff; 32]))])
        .unwrap();
    let bytes = *sim.hosts[0].device.get().private_key.unwrap().as_bytes();
    assert_eq!((bytes[0], bytes[31]), (0xf8, 0x7f));
    sim.set(0, &[private_key(&PrivateKey::from_bytes([0; 32]))])
        .unwrap();
    assert_eq!(sim.hosts[0].device.get().private_key, None);
}
