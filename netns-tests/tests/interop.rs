//! `wireguard-rs` against itself and against implementations that others wrote.
//!
//! Each test checks one implementation: pings and 100 MB of TCP with a checksum in both directions,
//! IPv4 and IPv6 outside and inside, with and without a preshared key, configured over UAPI and by
//! the stock `wg`.

use std::io;

use netns_tests::{Daemon, Family, Plan, Tunnel, Via, binaries, require};

const BYTES: u64 = 100_000_000;

/// Our daemon is `a`, the other one is `b`. The first ping starts the handshake, so each family is
/// started by another side.
fn matrix(other: &Daemon, via: Via) -> io::Result<()> {
    let ours = Daemon::ours()?;
    for outer in Family::ALL {
        let daemons = match outer {
            Family::V4 => [ours.clone(), other.clone()],
            Family::V6 => [other.clone(), ours.clone()],
        };
        let plan = Plan {
            outer,
            via,
            preshared: outer == Family::V6,
            ..Plan::new(&daemons[0], &daemons[1])
        };
        let tunnel = Tunnel::established(&plan)?;
        for inner in Family::ALL {
            tunnel.ping_both_ways(inner)?;
            tunnel.transfer_both_ways(inner, BYTES)?;
        }
        for (here, there) in tunnel.ways() {
            let peer = here.wg.peer(there.keys.public)?;
            assert!(
                peer.rx_bytes > 2 * BYTES && peer.tx_bytes > 2 * BYTES,
                "{peer:?}"
            );
            assert_eq!(peer.preshared_key, tunnel.preshared);
            assert_eq!(peer.endpoint, Some(there.endpoint(outer)));
            assert!(peer.last_handshake.is_some());
        }
    }
    Ok(())
}

#[test]
fn itself() -> io::Result<()> {
    matrix(&Daemon::ours()?, Via::Uapi)
}

#[test]
fn itself_configured_by_stock_wg() -> io::Result<()> {
    match require("wg", binaries::on_path("wg")) {
        Some(_) => matrix(&Daemon::ours()?, Via::StockWg),
        None => Ok(()),
    }
}

#[test]
fn boringtun_built_in() -> io::Result<()> {
    matrix(&Daemon::foreign()?, Via::Uapi)
}

/// Configured by the stock `wg` if that is installed, as a user would.
fn installed(name: &str) -> io::Result<()> {
    let Some(other) = require(name, Daemon::installed(name)) else {
        return Ok(());
    };
    let via = match binaries::on_path("wg") {
        Some(_) => Via::StockWg,
        None => Via::Uapi,
    };
    matrix(&other, via)
}

#[test]
fn wireguard_go() -> io::Result<()> {
    installed("wireguard-go")
}

#[test]
fn boringtun_cli() -> io::Result<()> {
    installed("boringtun-cli")
}

#[test]
fn gotatun_cli() -> io::Result<()> {
    installed("gotatun-cli")
}
