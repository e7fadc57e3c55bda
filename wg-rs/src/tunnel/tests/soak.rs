//! Random combinations of faults and changes, from seeds.

use std::time::Duration;

use rand::Rng;

use crate::model::Change;
use crate::tunnel::drops::DropReason;
use crate::tunnel::sim::*;

/// Three hosts under loss, repetition, reordering, NAT rebinding, links that go down, and live
/// changes. Afterwards, once the network works again, all hosts reach each other.
#[test]
fn all_hosts_are_reachable_after_faults() {
    for seed in 0..12 {
        let mut sim = Sim::hosts(3, seed);
        for host in 0..3 {
            for peer in 0..3 {
                if host != peer {
                    sim.introduce(host, peer);
                }
            }
        }
        sim.set_peer(0, 1, &[Change::PersistentKeepalive(25)]);
        sim.faults.spread = 80 * MILLI;
        sim.faults.lose = 250;
        sim.faults.repeat = 100;
        let mut sent = 0;
        for _ in 0..4000 {
            let (from, to) = (sim.rng.random_range(0..3), sim.rng.random_range(0..3));
            match sim.rng.random_range(0..200) {
                // Only one host is behind a NAT: two hosts whose addresses have both changed cannot
                // find each other.
                0 => sim.hosts[0]
                    .addr
                    .set_port(sim.rng.random_range(1024..65535)),
                1 => {
                    sim.down(from);
                    sim.up(from);
                }
                2 if from != to => sim.set_peer(from, to, &[Change::PersistentKeepalive(3)]),
                3 if from != to => sim.set_peer(from, to, &[Change::PersistentKeepalive(0)]),
                4 => sim.hosts[from].backlog.initiations = 512,
                5 => sim.hosts[from].backlog.initiations = 0,
                6 => sim.hosts[from].deaf = !sim.hosts[from].deaf,
                _ if from != to => {
                    sim.send(from, to, 1);
                    sent += 1;
                }
                _ => {}
            }
            let pause = sim.rng.random_range(0..800);
            sim.run(pause * MILLI);
        }
        let delivered: usize = sim.hosts.iter().map(|host| host.delivered.len()).sum();
        assert!(delivered > sent / 10, "seed {seed}: {delivered} of {sent}");
        assert!(delivered <= sent, "seed {seed}: delivered twice");
        for host in &sim.hosts {
            assert_eq!(
                host.drops(DropReason::Forged) + host.drops(DropReason::Malformed),
                0
            );
            assert!(
                host.device.plane().index.len() <= 6,
                "at most three sessions for each peer"
            );
            assert!(host.device.context.pending.len() <= 2);
        }

        sim.faults = Faults::default();
        for host in &mut sim.hosts {
            host.deaf = false;
            host.backlog.initiations = 0;
        }
        // Both sides may have lost the other's address, so it is configured again.
        for host in 0..3 {
            for peer in 0..3 {
                if host != peer {
                    let addr = sim.hosts[peer].addr;
                    sim.set_peer(host, peer, &[Change::Endpoint(addr)]);
                }
            }
        }
        for _ in 0..25 {
            for from in 0..3 {
                sim.send(from, (from + 1) % 3, 1);
                sim.send(from, (from + 2) % 3, 1);
            }
            sim.run(SECOND);
        }
        for host in &mut sim.hosts {
            host.delivered.clear();
        }
        for from in 0..3 {
            sim.send(from, (from + 1) % 3, 40 + from as u8);
            sim.send(from, (from + 2) % 3, 50 + from as u8);
        }
        sim.run(SECOND);
        for (i, host) in sim.hosts.iter().enumerate() {
            let mut payloads = host.payloads();
            payloads.sort_unstable();
            let from = |hops: usize| ((i + 3 - hops) % 3) as u8;
            assert_eq!(
                payloads,
                [40 + from(1), 50 + from(2)],
                "seed {seed}, host {i}"
            );
        }

        // Without traffic the hosts become silent.
        for host in 0..3 {
            for peer in 0..3 {
                if host != peer {
                    sim.set_peer(host, peer, &[Change::PersistentKeepalive(0)]);
                }
            }
        }
        sim.run(Duration::from_secs(1200));
        assert!(
            sim.hosts
                .iter()
                .all(|host| host.device.next_timeout().is_none()),
            "seed {seed}"
        );
        for host in &sim.hosts {
            assert_eq!(host.device.plane().index.reserved(), 0, "no slot leaks");
        }
    }
}

/// The same seed gives the same bytes, so a failure can be reproduced.
#[test]
fn the_simulation_is_deterministic() {
    let run = || {
        let mut sim = Sim::pair();
        sim.faults.lose = 200;
        sim.faults.spread = 50 * MILLI;
        for i in 0..300 {
            sim.send(0, 1, i as u8);
            sim.send(1, 0, i as u8);
            sim.run(SECOND);
        }
        sim.seen
            .iter()
            .map(|seen| (seen.at, seen.bytes.clone()))
            .collect::<Vec<_>>()
    };
    assert!(run() == run());
}
