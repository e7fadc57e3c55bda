//! `wg-rs status`: each reason why a peer is not connected, produced by its real cause.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use netns_tests::{
    Config, Daemon, End, Host, Hosts, Key, Keys, PATIENCE, PeerConfig, Ping, Plan, Tunnel, Via, Wg,
    binaries, netlink, require, until,
};
use serde_json::Value;

/// A time limit: handshakes are repeated every five seconds, and some states need several.
const LONG: Duration = Duration::from_secs(60);

/// The addresses of the two ends inside the tunnel.
fn inner(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// The address and port of an end, outside the tunnel.
fn outer(number: u8) -> SocketAddr {
    ([192, 0, 2, number], End::PORT).into()
}

/// Runs `wg-rs status` in a host.
struct Status(PathBuf);

impl Status {
    fn new() -> io::Result<Self> {
        Ok(Status(binaries::build("wg-rs")?))
    }

    fn text(&self, host: &Host) -> io::Result<String> {
        host.sh(&self.0.to_string_lossy(), &["status", "wg0"])
    }

    fn json(&self, host: &Host) -> io::Result<Value> {
        let text = host.sh(&self.0.to_string_lossy(), &["status", "wg0", "--json"])?;
        Ok(serde_json::from_str::<Value>(&text)?["wg0"].take())
    }

    /// Waits until a peer is in this state, and returns the reason.
    fn until(&self, host: &Host, key: Key, state: &str) -> io::Result<String> {
        let mut last = Value::Null;
        let reason = until(LONG, &format!("the state {state}"), || {
            last = self.json(host)?["peers"][key.to_string()].take();
            let reason = last["reason"].as_str().unwrap_or_default().to_owned();
            Ok((last["state"] == state).then_some(reason))
        });
        let reason = reason
            .map_err(|error| io::Error::new(error.kind(), format!("{error}; it is {last}")))?;
        // The text for people contains the same reason as the JSON.
        let text = self.text(host)?;
        let cause = reason.split([',', ':']).next().unwrap_or_default();
        assert!(text.contains(cause), "{cause} in {text}");
        Ok(reason)
    }
}

/// Two hosts with an interface each, which have each other as peers and are up; the first one wants to
/// connect.
struct Pair {
    wgs: [Wg; 2],
    keys: [Keys; 2],
    hosts: Hosts,
    status: Status,
}

impl Pair {
    fn new(change: impl Fn(usize, PeerConfig, &[Keys; 2]) -> PeerConfig) -> io::Result<Self> {
        let hosts = Hosts::new(1500)?;
        let keys = [Keys::generate(), Keys::generate()];
        let daemon = Daemon::ours()?;
        let start = |n: usize| {
            let wg = daemon.start(&hosts.hosts[n], "wg0", Via::Uapi)?;
            configure(&wg, n, &keys, &change)?;
            Ok(wg)
        };
        // The end that answers is started first.
        let second = start(1)?;
        let first: io::Result<Wg> = start(0);
        Ok(Pair {
            wgs: [first?, second],
            keys,
            hosts,
            status: Status::new()?,
        })
    }

    fn host(&self, n: usize) -> &Host {
        &self.hosts.hosts[n]
    }

    /// Waits until the status at `n` reports this state of the other.
    fn until(&self, n: usize, state: &str) -> io::Result<String> {
        let other = self.keys[1 - n].public;
        self.status.until(self.host(n), other, state)
    }
}

fn configure(
    wg: &Wg,
    n: usize,
    keys: &[Keys; 2],
    change: &impl Fn(usize, PeerConfig, &[Keys; 2]) -> PeerConfig,
) -> io::Result<()> {
    let number = n as u8 + 1;
    let mut peer = PeerConfig::new(keys[1 - n].public)
        .at(outer(3 - number))
        .allow(inner(3 - number), 32);
    if n == 0 {
        peer = peer.keepalive(20);
    }
    wg.set(&Config::new(&keys[n], End::PORT).peer(change(n, peer, keys)))?;
    wg.up(1420, &[(inner(number).into(), 24)])
}

/// One host with an interface, whose peer is a socket of the test in another host.
fn alone() -> io::Result<(Hosts, Status, Keys, Key, Wg)> {
    let hosts = Hosts::new(1500)?;
    let keys = [Keys::generate(), Keys::generate()];
    let wg = Daemon::ours()?.start(&hosts.hosts[0], "wg0", Via::Uapi)?;
    Ok((hosts, Status::new()?, keys[0], keys[1].public, wg))
}

#[test]
fn a_tunnel_that_works() -> io::Result<()> {
    let pair = Pair::new(|_, peer, _| peer)?;
    for n in [0, 1] {
        let reason = pair.until(n, "connected")?;
        let at = format!(", at {}", outer(2 - n as u8));
        assert!(
            reason.starts_with("connected, last handshake ") && reason.ends_with(&at),
            "{reason}"
        );
    }
    let text = pair.status.text(pair.host(0))?;
    assert!(text.starts_with("wg0: wireguard-rs "), "{text}");
    for fact in ["; up; port 51820; ", "offloads ", "ChaCha20-Poly1305"] {
        assert!(text.contains(fact), "{fact} in {text}");
    }
    let json = pair.status.json(pair.host(0))?;
    assert_eq!(
        (&json["up"], &json["underLoad"]),
        (&true.into(), &false.into())
    );
    assert!(json["started"].as_u64() > Some(1_700_000_000), "{json}");
    // Neither the text nor the JSON has a private key.
    for secret in [pair.keys[0].private, pair.keys[1].private] {
        assert!(
            !text.contains(&secret.to_string()) && !json.to_string().contains(&secret.to_string())
        );
    }
    Ok(())
}

#[test]
fn no_endpoint() -> io::Result<()> {
    let (hosts, status, keys, key, wg) = alone()?;
    wg.set(&Config::new(&keys, End::PORT).peer(PeerConfig::new(key).allow(inner(2), 32)))?;
    wg.up(1420, &[(inner(1).into(), 24)])?;
    let reason = status.until(&hosts.hosts[0], key, "no-endpoint")?;
    assert_eq!(
        reason,
        "not connected: no endpoint is known; the peer must connect first"
    );
    Ok(())
}

#[test]
fn no_answer_then_a_closed_port() -> io::Result<()> {
    let (hosts, status, keys, key, wg) = alone()?;
    let silent = hosts.hosts[1].run(|| UdpSocket::bind(("0.0.0.0", End::PORT)))?;
    let peer = PeerConfig::new(key)
        .at(outer(2))
        .allow(inner(2), 32)
        .keepalive(5);
    wg.set(&Config::new(&keys, End::PORT).peer(peer))?;
    wg.up(1420, &[(inner(1).into(), 24)])?;
    let reason = status.until(&hosts.hosts[0], key, "no-answer")?;
    assert!(
        reason.starts_with("not connected: 1 handshake sent to 192.0.2.2:51820, no answer in "),
        "{reason}"
    );
    drop(silent);
    let reason = status.until(&hosts.hosts[0], key, "port-closed")?;
    assert_eq!(
        reason,
        "not connected: the port is closed: 192.0.2.2 refused packets to 192.0.2.2:51820 by ICMP"
    );
    Ok(())
}

#[test]
fn no_route() -> io::Result<()> {
    let (hosts, status, keys, key, wg) = alone()?;
    let peer = PeerConfig::new(key).at(([203, 0, 113, 9], 7)).keepalive(5);
    wg.set(&Config::new(&keys, End::PORT).peer(peer))?;
    wg.up(1420, &[(inner(1).into(), 24)])?;
    let reason = status.until(&hosts.hosts[0], key, "send-failed")?;
    assert_eq!(
        reason,
        "not connected: this host has no route to 203.0.113.9:7"
    );
    Ok(())
}

/// The responder has another public key for the initiator.
#[test]
fn a_wrong_public_key() -> io::Result<()> {
    let other = Keys::generate().public;
    let pair = Pair::new(|n, peer, _| match n {
        0 => peer,
        _ => PeerConfig {
            public_key: other,
            ..peer
        },
    })?;
    pair.until(0, "no-answer")?;
    let reason = pair.status.until(pair.host(1), other, "unknown-key")?;
    let key = pair.keys[0].public;
    let wanted = format!(
        "not connected: handshakes from 192.0.2.1:51820 are made with the key {key}, which no peer has"
    );
    assert_eq!(reason, wanted);
    Ok(())
}

/// The initiator has another public key for the responder.
#[test]
fn a_handshake_for_another_public_key() -> io::Result<()> {
    let other = Keys::generate().public;
    let pair = Pair::new(|n, peer, _| match n {
        0 => PeerConfig {
            public_key: other,
            ..peer
        },
        _ => peer,
    })?;
    pair.status.until(pair.host(0), other, "no-answer")?;
    let reason = pair.until(1, "wrong-key")?;
    assert_eq!(
        reason,
        "not connected: handshakes from 192.0.2.1:51820 are for a public key other than that of \
         this interface"
    );
    Ok(())
}

#[test]
fn a_wrong_preshared_key() -> io::Result<()> {
    let pair = Pair::new(|n, peer, _| match n {
        0 => peer.preshared(Key::random()),
        _ => peer,
    })?;
    let reason = pair.until(0, "wrong-preshared-key")?;
    assert_eq!(
        reason,
        "not connected: it answers, but the preshared keys differ (one is set here)"
    );
    let reason = pair.until(1, "unconfirmed")?;
    assert!(
        reason.contains("its preshared key differs (none is set here)"),
        "{reason}"
    );
    Ok(())
}

/// A daemon starts again, and its clock is an hour behind.
#[test]
fn a_clock_that_is_behind() -> io::Result<()> {
    let Some(cc) = require("cc", binaries::on_path("cc")) else {
        return Ok(());
    };
    let mut pair = Pair::new(|_, peer, _| peer)?;
    pair.until(1, "connected")?;
    let mut proc = pair.wgs[0].proc.take().expect("a process");
    proc.signal(nix::sys::signal::Signal::SIGTERM)?;
    proc.wait(PATIENCE)?;
    // This ends the session, but the last timestamp of the peer is kept.
    pair.host(1).run(|| netlink::set_up("wg0", false))?;
    pair.until(1, "interface-down")?;
    pair.host(1).run(|| netlink::set_up("wg0", true))?;

    let late = Late::build(&cc)?;
    let mut command = Daemon::ours()?.command(&["-f", "wg0"]);
    let _daemon = pair.host(0).spawn(command.env("LD_PRELOAD", &late.0))?;
    until(PATIENCE, "the daemon", || {
        Ok(netns_tests::ready(pair.host(0), "wg0").then_some(()))
    })?;
    configure(&pair.wgs[0], 0, &pair.keys, &|_, peer, _| peer)?;
    let reason = pair.until(1, "clock-behind")?;
    assert_eq!(
        reason,
        "not connected: its clock is behind: the timestamp in its handshake is not newer than in its \
         last one"
    );
    pair.until(0, "no-answer")?;
    Ok(())
}

/// A library to preload that sets the time of day an hour back.
struct Late(PathBuf);

impl Late {
    fn build(cc: &Path) -> io::Result<Self> {
        const SOURCE: &str = r#"
            #include <sys/syscall.h>
            #include <time.h>
            #include <unistd.h>
            int clock_gettime(clockid_t clock, struct timespec *now) {
                int result = syscall(SYS_clock_gettime, clock, now);
                if (clock == CLOCK_REALTIME) now->tv_sec -= 3600;
                return result;
            }
        "#;
        let path = std::env::temp_dir().join(format!("late-{}.so", std::process::id()));
        let late = Late(path);
        let source = late.0.with_extension("c");
        fs::write(&source, SOURCE)?;
        let made = Command::new(cc)
            .args(["-shared", "-fPIC", "-o"])
            .args([&late.0, &source])
            .output();
        fs::remove_file(&source)?;
        let made = made?;
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        Ok(late)
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_source_that_is_not_in_the_allowed_ips() -> io::Result<()> {
    let pair = Pair::new(|n, peer, _| match n {
        0 => peer,
        _ => PeerConfig {
            allowed_ips: vec![([10, 99, 0, 0].into(), 24)],
            ..peer
        },
    })?;
    pair.until(1, "connected")?;
    pair.host(0).ping(&Ping {
        count: 1,
        timeout: Duration::from_millis(100),
        ..Ping::to(inner(2))
    })?;
    until(PATIENCE, "the reason", || {
        let reason = pair.until(1, "connected")?;
        let drops = "; packets from 10.77.0.1 are dropped: not in its allowed IPs (";
        Ok(reason.contains(drops).then_some(()))
    })?;
    let text = pair.status.text(pair.host(1))?;
    assert!(
        text.contains("dropped since it started: source not allowed (1)"),
        "{text}"
    );
    Ok(())
}

/// A peer under load answers with a cookie; with that, the next handshake is answered.
#[test]
fn a_peer_under_load() -> io::Result<()> {
    let (hosts, status, keys, _, wg) = alone()?;
    let theirs = Keys::generate();
    let socket = hosts.hosts[1].run(|| UdpSocket::bind(("0.0.0.0", End::PORT)))?;
    socket.set_read_timeout(Some(LONG))?;
    let key = theirs.public;
    let peer = PeerConfig::new(key)
        .at(outer(2))
        .allow(inner(2), 32)
        .keepalive(20);
    wg.set(&Config::new(&keys, End::PORT).peer(peer))?;
    wg.up(1420, &[(inner(1).into(), 24)])?;

    let private = StaticSecret::from(theirs.private.0);
    // It is under load from the first message on.
    let limiter = RateLimiter::new(&PublicKey::from(&private), 0);
    let ours = PublicKey::from(keys.public.0);
    let mut tunnel = Tunn::new(private, ours, None, None, 0, Some(Arc::new(limiter)));
    let mut answer = || -> io::Result<()> {
        let (mut message, mut reply) = ([0; 2048], [0; 2048]);
        let (len, from) = socket.recv_from(&mut message)?;
        let done = tunnel.decapsulate(Some(from.ip()), &message[..len], &mut reply);
        match done {
            TunnResult::WriteToNetwork(reply) => socket.send_to(reply, from).map(drop),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    };
    answer()?;
    let reason = status.until(&hosts.hosts[0], key, "under-load")?;
    assert!(
        reason.starts_with("not connected: it is under load and asks for a cookie first"),
        "{reason}"
    );
    answer()?;
    status.until(&hosts.hosts[0], key, "connected")?;
    Ok(())
}

#[test]
fn a_port_that_is_taken() -> io::Result<()> {
    let (hosts, status, keys, key, wg) = alone()?;
    let host = &hosts.hosts[0];
    wg.set(&Config::new(&keys, End::PORT).peer(PeerConfig::new(key)))?;
    // The daemon reserves the port until the link has been up and down.
    host.run(|| netlink::set_up("wg0", true))?;
    until(PATIENCE, "the link to be noticed", || {
        Ok(status.text(host)?.contains("; up; ").then_some(()))
    })?;
    host.run(|| netlink::set_up("wg0", false))?;
    until(PATIENCE, "the port to be free", || {
        Ok(host.udp_ports()?.is_empty().then_some(()))
    })?;
    let _taken = host.run(|| UdpSocket::bind(("0.0.0.0", End::PORT)))?;
    host.run(|| netlink::set_up("wg0", true))?;
    status.until(host, key, "interface-down")?;
    let text = status.text(host)?;
    let why = "; down, as port 51820 cannot be opened: Address already in use;";
    assert!(text.contains(why), "{text}");
    Ok(())
}

/// Other daemons close the connection on a request that they do not know.
#[test]
fn the_status_of_other_daemons_comes_from_their_configuration() -> io::Result<()> {
    for other in Daemon::all()?.into_iter().skip(1) {
        let mut plan = Plan::new(&Daemon::ours()?, &other);
        plan.both_endpoints = true;
        let tunnel = Tunnel::established(&plan)?;
        let status = Status::new()?;
        let host = &tunnel.b.host;
        let key = tunnel.a.keys.public;
        // boringtun reports the age of the handshake instead of its time, so that for all tools it was
        // in 1970.
        let peer = status.json(host)?["peers"][key.to_string()].take();
        let is_time = peer["latestHandshake"].as_u64() > Some(1_700_000_000);
        let state = if is_time { "connected" } else { "idle" };
        status.until(host, key, state)?;
        assert!(
            is_time || other.name.contains("boringtun"),
            "{other}: {peer}"
        );
        let text = status.text(host)?;
        let what = "wg0: a daemon that reports only its configuration; port 51820";
        assert!(text.starts_with(what), "{other}: {text}");
    }
    Ok(())
}

#[test]
fn a_missing_interface_fails() -> io::Result<()> {
    let hosts = Hosts::new(1500)?;
    let wg_rs = binaries::build("wg-rs")?;
    let host = &hosts.hosts[0];
    let all = host.sh(&wg_rs.to_string_lossy(), &["status"])?;
    assert_eq!(all, "");
    let one = host.sh(&wg_rs.to_string_lossy(), &["status", "wg0"]);
    let error = one.expect_err("there is none").to_string();
    let why = "Unable to access interface wg0: there is no such interface";
    assert!(error.contains(why), "{error}");
    let other = host.sh(&wg_rs.to_string_lossy(), &["status", "lo"]);
    let error = other.expect_err("it is of another kind").to_string();
    assert!(error.contains("lo: it is not a WireGuard"), "{error}");
    Ok(())
}

/// Each time, until a command with the manners of `wg` deletes the socket.
#[test]
fn a_killed_daemon_is_reported() -> io::Result<()> {
    let (hosts, status, _, _, mut wg) = alone()?;
    let host = &hosts.hosts[0];
    wg.kill()?;
    let wg_rs = status.0.to_string_lossy();
    let why = "wg0: its daemon was killed or has crashed, and left its socket";
    for arguments in [
        &["status", "wg0"][..],
        &["status"],
        &["log", "wg0", "error"],
    ] {
        for _ in 0..2 {
            let error = host.sh(&wg_rs, arguments).expect_err("it was killed");
            assert!(error.to_string().contains(why), "{arguments:?}: {error}");
        }
    }
    let error = host.sh(&wg_rs, &["show", "wg0"]).expect_err("as wg");
    assert!(!error.to_string().contains("killed"), "{error}");
    assert_eq!(host.sh(&wg_rs, &["status"])?, "");
    Ok(())
}
