//! The commands that `wg-quick-rs` shows after `[#]` have the same effect when a person types them.

use std::io;

use netns_tests::quick::{Quick, Site};
use netns_tests::{HostState, Lab, PATIENCE, until};

const CONFIG: &str = "[Interface]
PrivateKey = 6AgToMTGwKJV1BBqhMlUFyAb3JQrbLBtRIMwkVMCi1g=
ListenPort = 51820
Address = 10.0.0.2/24, fd00::2/64
MTU = 1400
DNS = 10.0.0.1, corp.example
PostUp = true it is %i

[Peer]
PublicKey = eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw=
PresharedKey = cGVyaGFwcyBub3Qgc28gc2VjcmV0IGFmdGVyIGFsbCE=
AllowedIPs = 0.0.0.0/0, ::/0, 10.5.0.0/16
Endpoint = 192.0.2.1:51820
";

/// The commands of a run, one per line.
fn shown(output: &str) -> String {
    let commands = output.lines().filter_map(|line| line.strip_prefix("[#] "));
    let commands: Vec<&str> = commands.collect();
    // If the kernel has no WireGuard, the failed command is shown too, and then the one that starts a daemon.
    let by_daemon = commands
        .iter()
        .any(|line| line.starts_with("wireguard-rs "));
    let is_done = |line: &&&str| !(by_daemon && line.contains(" type wireguard"));
    let typed = commands.iter().filter(is_done).copied();
    typed.collect::<Vec<_>>().join("\n")
}

/// Runs the test on a host prepared by the commands `place`, with the arguments `more` after `up wg0`.
fn typed(place: &str, more: &[&str]) -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
        return Ok(());
    };
    site.sh("echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark
         ip link add eth0 type veth peer cable
         ip link set eth0 addrgenmode none; ip link set cable addrgenmode none
         ip link set cable up; ip link set eth0 up
         ip addr add 192.0.2.2/24 dev eth0; ip route add default via 192.0.2.1")?;
    site.sh(place)?;
    site.configure("wg0", CONFIG)?;
    let look = || -> io::Result<HostState> {
        let mut state = site.state()?;
        if !more.is_empty() {
            let away = site.host.in_netns("/run/netns/away")?;
            state.take(HostState::of(&away)?.under("away "));
        }
        Ok(state)
    };
    let before = look()?;
    let up_args = [&["up", "wg0"], more].concat();
    let up = site.run(&quick, &up_args)?.success()?;
    let is_up = look()?;
    let down = site.run(&quick, &["down", "wg0"])?.success()?;
    let type_in = |output: &str, wanted: &HostState| -> io::Result<()> {
        let commands = shown(output);
        site.sh(&commands)
            .map_err(|error| io::Error::other(format!("{error}, typing\n{commands}")))?;
        let mut left = Vec::new();
        until(PATIENCE, "the same state", || {
            left = wanted.against(&look()?).0;
            Ok(left.is_empty().then_some(()))
        })
        .map_err(|error| io::Error::other(format!("{error}: {left:?}, after typing\n{commands}")))
    };
    type_in(&up, &is_up)?;
    type_in(&down, &before)
}

#[test]
fn the_commands_that_are_shown_can_be_typed() -> io::Result<()> {
    typed(":", &[])
}

#[test]
fn the_commands_for_another_namespace_can_be_typed() -> io::Result<()> {
    let place = "ip netns add away; ip -n away link set lo up";
    typed(place, &["--netns", "away"])
}
