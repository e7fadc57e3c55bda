//! Endpoints follow the peer: paper, section 2.1.

use std::net::SocketAddr;

use super::elsewhere;
use crate::model::Change;
use crate::tunnel::drops::DropReason;
use crate::tunnel::peer::{Endpoint, Source};
use crate::tunnel::sim::*;

/// netns.sh 9: the endpoint moves although the packet inside is dropped.
#[test]
fn the_endpoint_moves_before_the_source_is_checked() {
    let mut sim = Sim::session();
    sim.set_peer(0, 1, &[disallow("10.0.0.2/32")]);
    sim.hosts[1].addr = elsewhere();
    let rx = sim.hosts[0].peer().rx_bytes;
    sim.send(1, 0, 1);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].drops(DropReason::NotAllowed), 1);
    assert_eq!(sim.hosts[0].peer().endpoint, Some(elsewhere()));
    assert_eq!(sim.hosts[0].peer().rx_bytes, rx, "not counted");
}

#[test]
fn endpoints_roam_on_data_initiation_and_response() {
    // Data.
    let mut sim = Sim::session();
    sim.hosts[0].addr = elsewhere();
    sim.send(0, 1, 1);
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].peer().endpoint, Some(elsewhere()));
    sim.assert_passes(1, 0, 2);

    // Initiation: the responder did not know the endpoint, which has an unexpected address family.
    let mut sim = Sim::pair();
    let key = sim.hosts[0].public();
    sim.set(
        1,
        &[
            Change::ReplacePeers,
            Change::Peer(key),
            allow("10.0.0.1/32"),
        ],
    )
    .unwrap();
    sim.hosts[0].addr = "[2001:db8::7]:9998".parse().unwrap();
    sim.send(0, 1, 1);
    sim.run(SECOND);
    assert_eq!(sim.hosts[1].peer().endpoint, Some(sim.hosts[0].addr));
    assert_eq!(sim.hosts[1].payloads(), [1]);

    // Response: the responder answers from another address than the one that was used.
    let mut sim = Sim::pair();
    sim.faults.delay = 100 * MILLI;
    sim.send(0, 1, 1);
    sim.run(150 * MILLI);
    let response = sim.last(1, RESPONSE);
    sim.hosts[1].addr = elsewhere();
    sim.faults.delay = MILLI;
    sim.inject(elsewhere(), response.to, &response.bytes);
    sim.run(SECOND);
    assert_eq!(sim.hosts[0].peer().endpoint, Some(elsewhere()));
    assert_eq!(sim.hosts[1].payloads(), [1]);
}

#[test]
fn a_keepalive_roams_too() {
    let mut sim = Sim::session();
    sim.hosts[0].addr = elsewhere();
    sim.set_peer(0, 1, &[Change::PersistentKeepalive(25)]);
    sim.run(SECOND);
    assert_eq!(sim.keepalives(0).len(), 1);
    assert_eq!(sim.hosts[1].peer().endpoint, Some(elsewhere()));
}

#[test]
fn nat_rebinding_loses_only_packets_in_flight() {
    let mut sim = Sim::session();
    for round in 0..20u16 {
        sim.hosts[0].addr = SocketAddr::new(elsewhere().ip(), 1000 + round);
        sim.send(0, 1, 1);
        sim.run(50 * MILLI);
        sim.send(1, 0, 2);
        sim.run(50 * MILLI);
    }
    assert_eq!(sim.hosts[1].delivered.len(), 20);
    assert_eq!(sim.hosts[0].delivered.len(), 20);
    assert_eq!(sim.count(0, INITIATION) + sim.count(1, INITIATION), 0);
}

#[test]
fn the_local_address_is_learned_from_received_packets() {
    let mut sim = Sim::session();
    let peer = sim.hosts[1].first();
    let src = Some(Source {
        ip: sim.hosts[1].addr.ip(),
        ifindex: 2,
    });
    assert_eq!(
        peer.endpoint(),
        Some(Endpoint {
            addr: sim.hosts[0].addr,
            src
        })
    );
    for change in [Change::FwMark(5), Change::ListenPort(7)] {
        sim.set(1, &[change]).unwrap();
        assert_eq!(peer.endpoint().unwrap().src, None);
        sim.send(0, 1, 1);
        sim.run(SECOND);
        assert_eq!(peer.endpoint().unwrap().src, src);
    }
    let addr = sim.hosts[0].addr;
    sim.set_peer(1, 0, &[Change::Endpoint(addr)]);
    assert_eq!(peer.endpoint().unwrap().src, None, "set by hand");
}
