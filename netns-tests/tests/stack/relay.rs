//! `wg-rs relay`, run by a user without root, without capabilities and without /dev/net/tun.

use std::io;
use std::net::IpAddr;

use netns_tests::way::{Way, assert_unprivileged};
use netns_tests::{Config, Daemon, Host, Keys, PATIENCE, PeerConfig, Via, Wg, ping_all, transfer};
use nix::sys::signal::Signal;

use crate::{end, ours};

/// The port of the relay.
const PORT: u16 = 51821;

fn inside(n: u8) -> IpAddr {
    [10, 77, 0, n].into()
}

/// A host with a tunnel, joined to the relay by a cable of its own.
struct Spoke {
    host: Host,
    keys: Keys,
    n: u8,
}

impl Spoke {
    fn new(way: &Way, n: u8) -> io::Result<Spoke> {
        let (host, link) = (way.lab.host(&format!("spoke {n}"))?, format!("spoke{n}"));
        way.lab.cable((&host, "eth0"), (&way.client, &link), 1500)?;
        host.address("eth0", [198, 51, 100 + n, 1], 24)?;
        way.client.address(&link, [198, 51, 100 + n, 2], 24)?;
        Ok(Spoke {
            host,
            keys: Keys::generate(),
            n,
        })
    }

    /// Starts the tunnel, with the relay as the endpoint of the other spoke.
    fn start(&self, daemon: &Daemon, relay: &Keys, other: &Spoke) -> io::Result<Wg> {
        let at = ([198, 51, 100 + self.n, 2], PORT);
        let relay = PeerConfig::new(relay.public).at(at).keepalive(1);
        let other = PeerConfig::new(other.keys.public)
            .at(at)
            .allow(inside(other.n), 32);
        let wg = daemon.start(&self.host, "wg0", Via::Uapi)?;
        wg.set(&Config::new(&self.keys, 51820).peer(relay).peer(other))?;
        wg.up(1420, &[(inside(self.n), 24)])?;
        Ok(wg)
    }
}

#[test]
fn two_peers_reach_each_other_through_a_relay_without_root() -> io::Result<()> {
    let way = ours()?;
    let relay = Keys::generate();
    let (a, b) = (Spoke::new(&way, 1)?, Spoke::new(&way, 2)?);
    let daemon = Daemon::ours()?;
    let _tunnels = [a.start(&daemon, &relay, &b)?, b.start(&daemon, &relay, &a)?];
    let peer = |spoke: &Spoke| PeerConfig::new(spoke.keys.public).relayed("lab");
    let config = Config::new(&relay, PORT).peer(peer(&a)).peer(peer(&b));
    let file = way.write("relay0.conf", &config.file(&[]))?;

    let proc = way.spawn(&["relay", &file])?;
    way.until_said(&proc, "Listening on udp port 51821, to relay between peers")?;
    assert_unprivileged(&proc)?;
    for key in [a.keys.public, b.keys.public] {
        way.until_said(&proc, &format!("The tunnel is up: peer {key} at "))?;
    }
    a.host.reach(inside(2), PATIENCE)?;
    ping_all(&b.host, inside(1), 10)?;
    transfer(&a.host, (&b.host, inside(2)), 1_000_000, |_| ())?;
    proc.signal(Signal::SIGUSR1)?;
    way.until_said(&proc, "relayed from ")?;
    end(proc)
}

#[test]
fn a_file_without_anything_to_relay_is_refused() -> io::Result<()> {
    let way = ours()?;
    let mut proc = way.spawn(&["relay", &way.full_file(None)?])?;
    let status = proc.wait(PATIENCE)?;
    let output = proc.output();
    let text =
        "wg0.conf: there is nothing to relay: at least two peers need a line `#@ Relay = on'";
    assert!(
        status.code() == Some(1) && output.contains(text),
        "{output}"
    );
    Ok(())
}
