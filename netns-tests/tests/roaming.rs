//! Endpoints that change, and rekeying during a transfer.

use std::io;
use std::time::{Duration, Instant};

use netns_tests::{
    Config, Daemon, End, Family, Nat, PeerConfig, Plan, Tunnel, netlink, ping_all, rekey, until,
};

/// Runs a test with our daemon and each other one, each as `a`, which roams, and as `b`, which must
/// follow.
fn with_each(test: impl Fn(&Plan) -> io::Result<()>) -> io::Result<()> {
    let ours = Daemon::ours()?;
    for other in Daemon::all()? {
        test(&Plan::new(&other, &ours)).map_err(|error| other.blame(error))?;
        if other != ours {
            test(&Plan::new(&ours, &other)).map_err(|error| other.blame(error))?;
        }
    }
    Ok(())
}

#[test]
fn a_changed_address_is_followed() -> io::Result<()> {
    with_each(|plan| {
        for outer in Family::ALL {
            let tunnel = Tunnel::established(&Plan {
                outer,
                ..plan.clone()
            })?;
            let old = tunnel.a.outer(outer);
            let (new, prefix) = match outer {
                Family::V4 => ([192, 0, 2, 99].into(), 24),
                Family::V6 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 99].into(), 64),
            };
            tunnel.a.host.run(|| {
                netlink::delete_address("eth0", old, prefix)?;
                netlink::add_address("eth0", new, prefix)
            })?;
            tunnel.follows((new, End::PORT).into())?;
        }
        Ok(())
    })
}

#[test]
fn a_changed_port_is_followed() -> io::Result<()> {
    with_each(|plan| {
        // gotatun 0.10.2 sometimes ends when its port is changed ("channel closed").
        if plan.daemons[0].name == "gotatun-cli" {
            return Ok(());
        }
        let tunnel = Tunnel::established(plan)?;
        tunnel.a.wg.set(&Config {
            listen_port: Some(9999),
            ..Config::default()
        })?;
        tunnel.follows((tunnel.a.outer(Family::V4), 9999).into())
    })
}

/// netns.sh 8: the peer's endpoint is set to an address of the other family.
#[test]
fn from_ipv4_to_ipv6_and_back() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&ours, &ours))?;
    for family in [Family::V6, Family::V4] {
        let endpoint = tunnel.b.endpoint(family);
        tunnel.a.wg.set(&Config::of(
            PeerConfig::new(tunnel.b.keys.public).at(endpoint),
        ))?;
        tunnel.follows(tunnel.a.endpoint(family))?;
    }
    Ok(())
}

/// netns.sh 13: a NAT box forgets a mapping after two seconds, and a keepalive of one second keeps it.
#[test]
fn a_persistent_keepalive_holds_a_nat_mapping() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan {
        both_endpoints: false,
        ..Plan::new(&ours, &ours)
    })?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    // The box is in b's host: a sees b's address with another port.
    let inside = (b.outer(Family::V4), 0).into();
    let server = b.endpoint(Family::V4);
    let nat = Nat::start(&b.host, inside, server, Duration::from_secs(2))?;
    let through = PeerConfig::new(b.keys.public).at(nat.inside).keepalive(1);
    a.wg.set(&Config::of(through))?;
    let mapped =
        b.wg.until_peer(a.keys.public, "b to see the NAT's port", |peer| {
            peer.endpoint
                .is_some_and(|endpoint| endpoint.port() != End::PORT)
        })?
        .endpoint;
    // Longer than the mapping would last; only keepalives pass.
    let quiet = Instant::now();
    until(Duration::from_secs(9), "five idle seconds", || {
        Ok((quiet.elapsed() > Duration::from_secs(5)).then_some(()))
    })?;
    ping_all(&b.host, a.inner(Family::V4), 10)?;
    assert_eq!(
        b.wg.peer(a.keys.public)?.endpoint,
        mapped,
        "the mapping was never lost"
    );
    Ok(())
}

/// All pairs at the same time, as they mostly wait. It is the first test of this file by its name, so
/// that it runs beside the others, which leave it enough CPU time.
#[test]
fn a_rekey_under_traffic() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let others = Daemon::all()?;
    std::thread::scope(|scope| {
        let runs: Vec<_> = others
            .iter()
            .map(|other| {
                let plan = Plan::new(&ours, other);
                scope.spawn(move || {
                    rekey(&plan, 2_000_000, Duration::from_secs(3))
                        .map_err(|error| other.blame(error))
                })
            })
            .collect();
        runs.into_iter()
            .try_for_each(|run| run.join().expect("a rekey does not panic"))
    })
}
