//! Endpoints that change, and rekeying during a transfer.

use std::io;
use std::time::Duration;

use netns_tests::trials::endpoints;
use netns_tests::{Config, Daemon, Family, PeerConfig, Plan, Tunnel, rekey};

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
    with_each(endpoints::a_changed_address)
}

#[test]
fn a_changed_port_is_followed() -> io::Result<()> {
    with_each(|plan| {
        // gotatun 0.10.2 sometimes ends when its port is changed ("channel closed").
        if plan.daemons[0].name == "gotatun-cli" {
            return Ok(());
        }
        endpoints::a_changed_port(plan)
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

/// netns.sh 13.
#[test]
fn a_persistent_keepalive_holds_a_nat_mapping() -> io::Result<()> {
    with_each(endpoints::a_kept_mapping)
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
