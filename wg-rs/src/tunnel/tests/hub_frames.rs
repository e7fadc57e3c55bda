//! Frames that a peer may not send, or sends too often.

use wg_crypto::MacKeys;

use super::hub_clients::{
    A, B, BIND, HUB, count_of, hub_of_ours, hub_status, longest_gap, peer_of, talking, warm,
};
use super::relay::{groups, received};
use crate::model::Change;
use crate::tunnel::drops::DropReason;
use crate::tunnel::frame::{Answer, Frame};
use crate::tunnel::sim::*;

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
    let you = Frame::You(Answer {
        seq: 1,
        epoch: 1,
        relays: true,
        next: 5,
        seen: None,
    });
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

/// Sessions that were told, and replaced at once by others, are not kept until they would expire.
#[test]
fn sessions_that_a_client_tells_again_and_again_take_little_memory() {
    let mut sim = talking(1);
    for n in 0..2000 {
        let frame = bind(&sim, B, 2 * n + 1, 2 * n + 2);
        let id = peer_of(&sim, A, HUB).id;
        sim.hosts[A].device.context.outgoing.frame(id, None, frame);
        sim.pump(A);
        sim.run(10 * MILLI);
    }
    let [pairs, pending, sessions] = sim.hosts[HUB].device.hub.as_ref().unwrap().sizes();
    assert_eq!(pairs, 1);
    assert!(pending <= 64 && sessions <= 64, "{pending}, {sessions}");
    assert_eq!(sim.hosts[HUB].device.plane().relay().unwrap().len(), 8);
}

/// A hub that sends YOU unasked makes its client send nothing.
#[test]
fn an_answer_without_a_question_is_ignored() {
    let mut sim = talking(1);
    longest_gap(&mut sim, [A, B], SECOND);
    let heard = hub_status(&sim, A, HUB).sees;
    sim.seen.clear();
    for epoch in 0..100 {
        let you = Frame::You(Answer {
            seq: epoch,
            epoch,
            relays: false,
            next: 5,
            seen: None,
        });
        send_frame(&mut sim, HUB, A, you);
    }
    // A few PONGs to B are of the same length.
    assert!(count_of(&sim, A, BIND) < 10);
    assert_eq!(hub_status(&sim, A, HUB).sees, heard);
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

/// A client of the second hub, which the first hub reaches through the second one, is not served by the
/// first: neither as the receiver nor as the sender, and not by what it tells.
#[test]
fn nothing_is_relayed_for_a_peer_that_is_reached_through_another_hub() {
    // The second hub, its client, and a client of the first hub.
    const OTHER: usize = 1;
    const FAR: usize = 2;
    const NEAR: usize = 3;
    let mut sim = Sim::hosts(4, 11);
    for (hub, client) in [(OTHER, HUB), (OTHER, FAR), (HUB, NEAR)] {
        let inner = allow(&format!("10.0.0.{}/32", client + 1));
        sim.set_peer(hub, client, &[inner, groups("lab")]);
        sim.introduce(client, hub);
        sim.set_peer(client, hub, &[hub_of_ours(true)]);
    }
    sim.set_peer(HUB, FAR, &[allow("10.0.0.3/32"), groups("lab")]);
    sim.set_peer(FAR, HUB, &[allow("10.0.0.1/32"), hub_of_ours(true)]);
    sim.set_peer(NEAR, FAR, &[allow("10.0.0.3/32")]);
    sim.set_peer(FAR, NEAR, &[allow("10.0.0.4/32")]);
    sim.run(SECOND);
    sim.send(HUB, FAR, 1);
    sim.run(SECOND);
    assert_eq!(received(&sim, FAR), [1], "the hub itself reaches it");
    let other = sim.hosts[OTHER].addr;
    assert!(peer_of(&sim, HUB, FAR).is_at(other));

    // As the receiver.
    sim.seen.clear();
    sim.send(NEAR, FAR, 2);
    sim.run(SECOND);
    let chains = |sim: &Sim| sim.hosts[HUB].drops(DropReason::RelayChain);
    assert!(chains(&sim) >= 1);
    let to_other = |seen: &&Seen| seen.from == HUB && seen.kind() == INITIATION;
    assert_eq!(sim.seen.iter().filter(to_other).count(), 0);
    // As the sender.
    let before = chains(&sim);
    let mut message = [&[1, 0, 0, 0][..], &[7; 144]].concat();
    MacKeys::new(&sim.hosts[NEAR].public()).sign(&mut message, None);
    sim.inject(other, sim.hosts[HUB].addr, &message);
    sim.run(20 * MILLI);
    assert_eq!(chains(&sim), before + 1);
    // By a BIND of either.
    for (teller, about) in [(FAR, NEAR), (NEAR, FAR)] {
        let before = chains(&sim);
        let frame = bind(&sim, about, 5, 6);
        send_frame(&mut sim, teller, HUB, frame);
        assert_eq!(chains(&sim), before + 1, "{teller}");
    }
    let pairs = |sim: &Sim| sim.hosts[HUB].device.hub.as_ref().unwrap().sizes()[0];
    assert_eq!((received(&sim, FAR), pairs(&sim)), (vec![1], 0));

    // If the peer is reached directly, it is served until it goes behind the other hub again, as its
    // questions to the first hub would make it.
    sim.set_peer(FAR, HUB, &[hub_of_ours(false)]);
    sim.run(12 * SECOND);
    let direct = Change::Endpoint(sim.hosts[FAR].addr);
    sim.set_peer(HUB, FAR, &[direct]);
    sim.run(6 * SECOND);
    sim.hosts[FAR].delivered.clear();
    sim.send(NEAR, FAR, 3);
    sim.run(6 * SECOND);
    assert_eq!((received(&sim, FAR).last(), pairs(&sim)), (Some(&3), 1));
    sim.set_peer(HUB, FAR, &[Change::Endpoint(other)]);
    assert_eq!(pairs(&sim), 0);
    // The same if the hub that it is behind becomes one that we use only now.
    sim.set_peer(HUB, OTHER, &[hub_of_ours(false)]);
    sim.send(NEAR, FAR, 4);
    sim.run(20 * SECOND);
    assert_eq!(pairs(&sim), 1);
    sim.set_peer(HUB, OTHER, &[hub_of_ours(true)]);
    assert_eq!(pairs(&sim), 0);
}

#[test]
fn frames_do_not_clear_the_timers_of_data() {
    let mut sim = warm(1, 1);
    let (hub, client) = (peer_of(&sim, A, HUB), peer_of(&sim, HUB, A));
    sim.send(A, HUB, 1);
    sim.run(100 * MILLI);
    // A expects an answer, and the hub will send a keepalive, as it has nothing else to send.
    let timers = || {
        let handshake = hub.timers.new_handshake.get();
        (
            handshake.unwrap(),
            client.timers.send_keepalive.get().unwrap(),
        )
    };
    let before = timers();
    let heard = hub_status(&sim, A, HUB).heard;
    let now = sim.now;
    sim.hosts[A].device.moved(now);
    sim.pump(A);
    sim.run(50 * MILLI);
    assert!(
        hub_status(&sim, A, HUB).heard < heard,
        "the hub has answered"
    );
    assert_eq!(timers(), before);
    sim.run(11 * SECOND);
    assert_eq!(sim.keepalives(HUB).len(), 1);
    assert_eq!(sim.count(A, INITIATION), 0);
}
