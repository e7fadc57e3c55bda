//! `wg-quick-rs reresolve` when all traffic, including DNS, is routed into a tunnel that is dead because its
//! peer has moved.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use netns_tests::quick::{Quick, Site};
use netns_tests::{Config, Daemon, Keys, Lab, PATIENCE, PeerConfig, Via};

/// The peer's old and new address.
const OLD: [u8; 4] = [198, 51, 100, 1];
const NEW: [u8; 4] = [198, 51, 100, 2];
/// The peer's address in the tunnel.
const THERE: [u8; 4] = [10, 77, 0, 2];

/// Runs `reresolve` as the timer does. `dns` is a line of the file.
fn recovers(dns: &str) -> io::Result<()> {
    let lab = Lab::new()?;
    let quick = Quick::ours()?;
    let moved = Arc::new(AtomicBool::new(false));
    let has_moved = moved.clone();
    let lookup = move |name: &str| {
        let address = if has_moved.load(Relaxed) { NEW } else { OLD };
        (name == "vpn.example").then_some(address.into())
    };
    let Some((site, gateway)) = Site::behind_gateway(&lab, lookup)? else {
        return Ok(());
    };
    gateway.host.address("lo", NEW, 32)?;

    let (here, there) = (Keys::generate(), Keys::generate());
    let wg = Daemon::ours()?.start(&gateway.host, "wg0", Via::Uapi)?;
    let client = PeerConfig::new(here.public).allow([10, 77, 0, 1], 32);
    wg.set(&Config::new(&there, 51820).peer(client))?;
    wg.up(1420, &[(THERE.into(), 24)])?;

    let text = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.1/24\n{dns}\n\
         [Peer]\nPublicKey = {}\nEndpoint = vpn.example:51820\nAllowedIPs = 0.0.0.0/0\n",
        here.private, there.public
    );
    site.configure("wg0", &text)?;
    let run = |args: &[&str]| {
        let mut command = site.command(&quick, args)?;
        // The system's resolver gives up early.
        command.env("RES_OPTIONS", "timeout:1 attempts:1");
        site.finish(site.host.spawn(&mut command)?)?.success()
    };
    run(&["up", "wg0"])?;
    let endpoint = || site.sh("wg show wg0 endpoints");
    assert!(endpoint()?.contains("198.51.100.1:51820"));

    // Only the gateway can be asked, and only outside the tunnel.
    let asked =
        site.sh("RES_OPTIONS='timeout:1 attempts:1' getent hosts vpn.example || echo none")?;
    assert_eq!(asked, "none\n");
    moved.store(true, Relaxed);
    let said = run(&["reresolve"])?;
    assert!(endpoint()?.contains("198.51.100.2:51820"), "{said}");
    site.host.reach(THERE, PATIENCE)?;
    run(&["down", "wg0"])?;
    Ok(())
}

#[test]
fn a_dead_full_tunnel_recovers_by_the_name_server_from_before_it() -> io::Result<()> {
    recovers("DNS = 10.77.0.2")
}

#[test]
fn a_dead_full_tunnel_recovers_by_a_name_server_that_its_rules_hide() -> io::Result<()> {
    recovers("")
}
