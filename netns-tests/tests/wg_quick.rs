//! Stock `wg-quick` with `WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-rs`.

use std::env;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use netns_tests::{
    Config, Daemon, Family, Host, Hosts, Keys, PATIENCE, PeerConfig, SOCKETS, Via, binaries,
    netlink, ping_all, require, until,
};

const LONG: Duration = Duration::from_secs(60);

/// Runs `wg-quick VERB FILE` with our daemon on its PATH, as `wireguard-rs`.
fn wg_quick(host: &Host, verb: &str, file: &str) -> io::Result<String> {
    let daemon = Daemon::ours()?;
    let program = Path::new(daemon.path().expect("a program"));
    let (Some(folder), Some(name)) = (program.parent(), program.file_name()) else {
        return Err(io::Error::other(format!(
            "{} is no program",
            program.display()
        )));
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(folder.into()).chain(env::split_paths(&path)))
        .map_err(io::Error::other)?;
    let mut command = Command::new("wg-quick");
    command.args([verb, file]).env("PATH", path);
    command.env("WG_QUICK_USERSPACE_IMPLEMENTATION", name);
    host.spawn(&mut command)?.success(LONG)
}

fn gone(host: &Host) -> io::Result<()> {
    until(PATIENCE, "link and socket to go", || {
        host.run(|| {
            let socket = std::fs::exists(format!("{SOCKETS}/wg0.sock"))?;
            Ok((netlink::link("wg0")?.is_none() && !socket).then_some(()))
        })
    })
}

/// wg-quick brings a client up twice, with these allowed IPs. The gateway on its cable runs our
/// daemon. With `beyond` the client must also reach an address that needs a default route.
fn up_and_down(allowed: &[(&str, u8)], beyond: bool) -> io::Result<()> {
    let Some(_) = require("wg-quick", binaries::on_path("wg-quick")) else {
        return Ok(());
    };
    let hosts = Hosts::new(1500)?;
    let [client, gateway] = &hosts.hosts;
    let (ours, theirs, psk) = (
        Keys::generate(),
        Keys::generate(),
        netns_tests::Key::random(),
    );

    let wg = Daemon::ours()?.start(gateway, "wg0", Via::Uapi)?;
    let peer = PeerConfig::new(ours.public)
        .preshared(psk)
        .allow([10, 77, 0, 1], 32)
        .allow([0xfd77, 0, 0, 0, 0, 0, 0, 1], 128);
    wg.set(&Config::new(&theirs, 51820).peer(peer))?;
    wg.up(
        1420,
        &[
            ([10, 77, 0, 2].into(), 24),
            ([0xfd77, 0, 0, 0, 0, 0, 0, 2].into(), 64),
        ],
    )?;
    // An address that needs a default route.
    gateway.address("lo", [198, 51, 100, 1], 32)?;
    gateway.address("lo", [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1], 128)?;

    let mut peer = PeerConfig::new(theirs.public)
        .preshared(psk)
        .at((hosts.address(1, Family::V4), 51820))
        .keepalive(25);
    for (address, prefix) in allowed {
        peer = peer.allow(
            address
                .parse::<std::net::IpAddr>()
                .map_err(io::Error::other)?,
            *prefix,
        );
    }
    let config = Config {
        private_key: Some(ours.private),
        ..Config::default()
    }
    .peer(peer);
    let file = format!("{SOCKETS}/wg0.conf");
    let addresses = ["Address = 10.77.0.1/24, fd77::1/64", "MTU = 1380"];
    client.write(&file, &config.file(&addresses))?;

    for _ in 0..2 {
        wg_quick(client, "up", &file)?;
        client.reach([10, 77, 0, 2], PATIENCE)?;
        ping_all(client, [0xfd77, 0, 0, 0, 0, 0, 0, 2].into(), 5)?;
        if beyond {
            ping_all(client, [198, 51, 100, 1].into(), 5)?;
            ping_all(client, [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1].into(), 5)?;
            // The endpoint itself stays reachable beside the tunnel.
            ping_all(client, hosts.address(1, Family::V4), 5)?;
        }
        let link = client.run(|| netlink::link("wg0"))?.expect("wg0 is up");
        assert!(link.up);
        assert_eq!(link.mtu, 1380);
        let shown = client.sh("wg", &["show", "wg0"])?;
        assert!(shown.contains("latest handshake"), "{shown}");
        assert_eq!(client.sh("wg", &["show", "interfaces"])?.trim(), "wg0");
        wg_quick(client, "down", &file)?;
        gone(client)?;
    }
    let rules = client.sh("ip", &["rule"])?;
    assert!(!rules.contains("51820"), "{rules}");
    Ok(())
}

#[test]
fn up_and_down_with_two_networks() -> io::Result<()> {
    up_and_down(&[("10.77.0.0", 24), ("fd77::", 64)], false)
}

#[test]
fn up_and_down_with_a_default_route() -> io::Result<()> {
    up_and_down(&[("0.0.0.0", 0), ("::", 0)], true)
}

#[test]
fn a_failed_up_leaves_nothing() -> io::Result<()> {
    let Some(_) = require("wg-quick", binaries::on_path("wg-quick")) else {
        return Ok(());
    };
    let hosts = Hosts::new(1500)?;
    let client = &hosts.hosts[0];
    let config = Config {
        private_key: Some(Keys::generate().private),
        ..Config::default()
    };
    let file = format!("{SOCKETS}/wg0.conf");
    client.write(&file, &config.file(&["PostUp = false"]))?;
    assert!(wg_quick(client, "up", &file).is_err());
    gone(client)
}
