//! Something fails while a tunnel carries traffic. The traffic resumes by itself, and nothing leaks.
//!
//! Other faults are tested where the subject is: a deleted source address and a namespace that ends
//! (`scenarios.rs`), a changed address (`roaming.rs`, `sources.rs`), a slow link (`egress.rs`), a full
//! disk (`daemon.rs`), clocks and suspension (`tunnel/tests/`).

use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use netns_tests::{
    Config, Daemon, End, Family, Key, Load, PATIENCE, Paced, PeerConfig, Plan, Proc, Tunnel, Uapi,
    Via, Wg, binaries, require, transfer, until,
};
use netns_tests::{netlink, process};
use nix::sys::signal::Signal;

/// The time in which a new handshake succeeds although its first message may be lost: one retry, and a
/// margin for a busy machine.
const ONE_RETRY: Duration = Duration::from_secs(5 + 10);

fn tunnel() -> io::Result<Tunnel> {
    let daemon = Daemon::ours()?;
    Tunnel::established(&Plan::new(&daemon, &daemon))
}

/// The number of descriptors that a daemon has open.
fn descriptors(wg: &Wg) -> io::Result<usize> {
    process::descriptors(wg.pid()?)
}

/// Waits until the daemon has as many descriptors as before: it closes some a moment later.
fn none_leaked(wg: &Wg, before: usize) -> io::Result<()> {
    until(PATIENCE, "all other descriptors to be closed", || {
        Ok((descriptors(wg)? <= before).then_some(()))
    })
}

/// Waits until the daemon and the kernel agree that the ends talk, in both directions.
fn talks(tunnel: &Tunnel, limit: Duration) -> io::Result<()> {
    let v4 = Family::V4;
    tunnel.a.host.reach(tunnel.b.inner(v4), limit)?;
    tunnel.b.host.reach(tunnel.a.inner(v4), limit)
}

/// When `b` completed its last handshake: the owner of a session hears of its first use a moment later.
fn session(tunnel: &Tunnel) -> io::Result<Option<SystemTime>> {
    let key = tunnel.a.keys.public;
    let peer = tunnel
        .b
        .wg
        .until_peer(key, "the end of the handshake", |peer| {
            peer.last_handshake.is_some()
        })?;
    Ok(peer.last_handshake)
}

/// A small number that differs from run to run.
fn random(below: u64) -> u64 {
    u64::from_str_radix(&Key::random().hex()[..8], 16).map_or(0, |number| number % below)
}

/// The daemon of `a` is killed under load, and while it starts. Nothing that is left behind keeps the
/// next one from starting, and the peer talks to it at once.
#[test]
fn a_daemon_that_is_killed_at_any_moment_starts_again() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let mut tunnel = tunnel()?;
    let peer = PeerConfig::new(tunnel.b.keys.public)
        .allow(tunnel.b.inner(Family::V4), 32)
        .at(tunnel.b.endpoint(Family::V4));
    let config = Config::new(&tunnel.a.keys, End::PORT).peer(peer);
    let address = (tunnel.a.inner(Family::V4), 24);
    for round in 0..4 {
        {
            let (a, b) = (&tunnel.a, &tunnel.b);
            let out = Paced::start(&a.host, (&b.host, b.inner(Family::V4)))?;
            let back = Paced::start(&b.host, (&a.host, a.inner(Family::V4)))?;
            let moment = random(100);
            out.go_on(moment)?;
            back.go_on(moment)?;
            tunnel.a.wg.kill()?;
        }
        let host = tunnel.a.host.clone();
        for _ in 0..4 {
            let mut starting = host.spawn(&mut daemon.command(&["-f", "wg0"]))?;
            thread::sleep(Duration::from_millis(random(40)));
            starting.signal(Signal::SIGKILL)?;
            starting.wait(PATIENCE)?;
        }
        tunnel.a.wg = daemon.start(&host, "wg0", Via::Uapi)?;
        tunnel.a.wg.set(&config)?;
        tunnel.a.wg.up(1420, &[address])?;
        talks(&tunnel, ONE_RETRY)
            .map_err(|error| io::Error::other(format!("round {round}: {error}")))?;
    }
    Ok(())
}

/// Sets the limit of descriptors of a running daemon.
fn limit_descriptors(wg: &Wg, limit: &str) -> io::Result<()> {
    let (pid, limit) = (format!("--pid={}", wg.pid()?), format!("--nofile={limit}:"));
    wg.host.sh("prlimit", &[&pid, &limit]).map(drop)
}

#[test]
fn a_daemon_without_free_descriptors_goes_on() -> io::Result<()> {
    if require("prlimit", binaries::on_path("prlimit")).is_none() {
        return Ok(());
    }
    let tunnel = tunnel()?;
    let wg = &tunnel.a.wg;
    let before = descriptors(wg)?;
    // The first eight are always in use, and poll(2) waits for at most as many as the limit.
    limit_descriptors(wg, "8")?;
    // A client waits, and packets pass meanwhile.
    let host = tunnel.a.host.clone();
    let waiting = thread::spawn(move || Uapi::connect(&host, "wg0")?.get());
    tunnel.ping_both_ways(Family::V4)?;
    assert!(!waiting.is_finished(), "no descriptor was free");
    // Looking at the link takes a descriptor, so what happens to it is noticed later.
    for up in [false, true] {
        tunnel.a.host.run(|| netlink::set_up("wg0", up))?;
    }
    limit_descriptors(wg, "1024")?;
    waiting.join().expect("no panic")?;
    talks(&tunnel, ONE_RETRY)?;
    none_leaked(wg, before)
}

/// A firewall that drops packets on their way out makes sending them fail with EPERM.
#[test]
fn a_firewall_that_refuses_packets_for_a_while() -> io::Result<()> {
    if require("nft", binaries::on_path("nft")).is_none() {
        return Ok(());
    }
    let tunnel = tunnel()?;
    let host = &tunnel.a.host;
    let flow = Paced::start(host, (&tunnel.b.host, tunnel.b.inner(Family::V4)))?;
    flow.go_on(50)?;
    let rules = "table inet refusal { chain out { type filter hook output priority 0; \
                 udp dport 51820 counter drop; }; }";
    host.sh_with("nft", &["-f", "-"], rules)?;
    until(PATIENCE, "packets to be refused", || {
        let shown = host.sh("nft", &["list", "table", "inet", "refusal"])?;
        Ok((!shown.contains("counter packets 0")).then_some(()))
    })?;
    host.sh("nft", &["delete", "table", "inet", "refusal"])?;
    // The session is still there, so nothing has to be negotiated.
    let before = session(&tunnel)?;
    talks(&tunnel, ONE_RETRY)?;
    assert_eq!(session(&tunnel)?, before, "a new handshake");
    Ok(())
}

#[test]
fn an_underlying_link_that_goes_down_and_up() -> io::Result<()> {
    let tunnel = tunnel()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let before = session(&tunnel)?;
    for host in [&a.host, &b.host] {
        let flow = Paced::start(&a.host, (&b.host, b.inner(Family::V4)))?;
        flow.go_on(50)?;
        host.run(|| netlink::set_up("eth0", false))?;
        flow.go_on(50)?;
        host.run(|| netlink::set_up("eth0", true))?;
        talks(&tunnel, ONE_RETRY)?;
    }
    assert_eq!(session(&tunnel)?, before, "a new handshake");
    Ok(())
}

/// IPv6 is switched off for a host and on again. Meanwhile IPv4 works, also after the link was down.
#[test]
fn ipv6_that_is_switched_off_at_run_time() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let plan = Plan {
        outer: Family::V6,
        ..Plan::new(&daemon, &daemon)
    };
    let tunnel = Tunnel::established(&plan)?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let disable = |value: &str| {
        a.host
            .write("/proc/sys/net/ipv6/conf/all/disable_ipv6", value)
    };
    disable("1")?;
    let at = |family| {
        let peer = PeerConfig::new(b.keys.public).at(b.endpoint(family));
        a.wg.set(&Config::of(peer))
    };
    at(Family::V4)?;
    talks(&tunnel, ONE_RETRY)?;
    for up in [false, true] {
        a.host.run(|| netlink::set_up("wg0", up))?;
    }
    talks(&tunnel, ONE_RETRY)?;
    disable("0")?;
    // With IPv6, the addresses were removed.
    a.host.address("eth0", a.outer(Family::V6), 64)?;
    at(Family::V6)?;
    talks(&tunnel, ONE_RETRY)?;
    let there = b.wg.peer(a.keys.public)?.endpoint;
    let v6: IpAddr = a.outer(Family::V6);
    until(PATIENCE, "the peer to see an IPv6 address", || {
        a.host.reach(b.inner(Family::V4), ONE_RETRY)?;
        let endpoint = b.wg.peer(a.keys.public)?.endpoint;
        Ok(endpoint.filter(|endpoint| endpoint.ip() == v6).map(drop))
    })
    .map_err(|error| io::Error::other(format!("{error}: first at {there:?}")))
}

#[test]
fn a_link_that_is_deleted_under_load() -> io::Result<()> {
    let tunnel = tunnel()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let loads = [
        Load::udp(&a.host, (&b.host, b.inner(Family::V4)), 1200)?,
        Load::udp(&b.host, (&a.host, a.inner(Family::V4)), 1200)?,
    ];
    loads.iter().try_for_each(Load::flowing)?;
    a.host.run(|| netlink::delete_link("wg0"))?;
    drop(loads);
    tunnel.a.wg.ends_cleanly()
}

/// The datagrams of the flow are smaller than each MTU.
#[test]
fn an_mtu_that_is_changed_under_load_loses_nothing() -> io::Result<()> {
    let tunnel = tunnel()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let flows = [
        Paced::start(&a.host, (&b.host, b.inner(Family::V4)))?,
        Paced::start(&b.host, (&a.host, a.inner(Family::V4)))?,
    ];
    for mtu in [1280, 9000, 1100, 65000, 1420] {
        for host in [&a.host, &b.host] {
            host.run(|| netlink::set_mtu("wg0", mtu))?;
            flows.iter().try_for_each(|flow| flow.go_on(25))?;
        }
    }
    for flow in flows {
        let count = flow.finish()?;
        assert_eq!(count.lost(), 0, "{count:?}");
    }
    Ok(())
}

/// The link is set down and at once up again, which ends the sessions each time, as with the kernel
/// module.
#[test]
fn a_link_that_is_set_down_and_at_once_up_again() -> io::Result<()> {
    let tunnel = tunnel()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let before = descriptors(&a.wg)?;
    let mut session = a.wg.peer(b.keys.public)?.last_handshake;
    for round in 0..10 {
        let down_and_up = "link set wg0 down\nlink set wg0 up\n";
        a.host.sh_with("ip", &["-batch", "-"], down_and_up)?;
        let next = until(ONE_RETRY, "a new handshake", || {
            a.host.reach(b.inner(Family::V4), ONE_RETRY)?;
            let now = a.wg.peer(b.keys.public)?.last_handshake;
            Ok(Some(now).filter(|now| *now > session))
        });
        session = next.map_err(|error| io::Error::other(format!("round {round}: {error}")))?;
    }
    none_leaked(&a.wg, before)
}

/// Makes calls of all threads of a daemon fail with strace(1), until this is dropped.
fn inject(wg: &Wg, call: &str, error: &str) -> io::Result<Proc> {
    let fault = format!("inject={call}:error={error}:when=3+7");
    let pid = wg.pid()?.to_string();
    let strace = wg.host.spawn(
        Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
                "-e",
                &fault,
            ])
            .args(["-p", &pid]),
    )?;
    until(PATIENCE, "strace to be attached", || {
        let tracer = process::status(wg.pid()?, "TracerPid")?;
        Ok((tracer != "0").then_some(()))
    })?;
    Ok(strace)
}

/// Every seventh call fails: because the queue of a device or the memory is full, a firewall refuses, or the
/// kernel suddenly refuses to segment. Each loses at most its packets.
#[test]
fn calls_that_fail_under_load() -> io::Result<()> {
    if require("strace", binaries::on_path("strace")).is_none() {
        return Ok(());
    }
    let tunnel = tunnel()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let before = descriptors(&a.wg)?;
    for (call, errors) in [
        (
            "sendmsg",
            &[
                "ENOBUFS",
                "EAGAIN",
                "EPERM",
                "EIO",
                "EINVAL",
                "ENETUNREACH",
                "EMSGSIZE",
            ][..],
        ),
        ("recvmsg", &["ENOMEM", "ECONNREFUSED"]),
        ("write", &["ENOBUFS", "EIO", "EINVAL"]),
        ("read", &["ENOMEM", "EAGAIN"]),
    ] {
        for error in errors {
            let what = |failure| io::Error::other(format!("{call}, {error}: {failure}"));
            let mut strace = inject(&a.wg, call, error).map_err(what)?;
            transfer(&a.host, (&b.host, b.inner(Family::V4)), 200_000, |_| ()).map_err(what)?;
            strace.signal(Signal::SIGINT)?;
            strace.wait(PATIENCE)?;
            talks(&tunnel, ONE_RETRY).map_err(what)?;
        }
    }
    none_leaked(&a.wg, before)
}

/// The kernel refuses an offload, as older kernels do. The tunnel works without it, and the log says so.
#[test]
fn offloads_that_the_kernel_refuses() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let program = ours.path().expect("it is a program");
    let without = env!("CARGO_BIN_EXE_without-offload");
    for (refused, missing) in [
        ("gso", &["gso"][..]),
        ("gro", &["gro"]),
        ("uso", &["uso"]),
        ("tso", &["tso", "uso"]),
        ("tun", &["tso", "uso"]),
        ("header", &["tso", "uso"]),
    ] {
        let what = |failure| io::Error::other(format!("without {refused}: {failure}"));
        let command = format!("env LOG_LEVEL=verbose {without} {refused} {program}");
        let daemon = Daemon::program("wireguard-rs", command);
        let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon)).map_err(what)?;
        let (a, b) = (&tunnel.a, &tunnel.b);
        let inside = b.inner(Family::V4);
        transfer(&a.host, (&b.host, inside), 1_000_000, |_| ()).map_err(what)?;
        let load = Load::udp(&a.host, (&b.host, inside), 1200)?;
        load.flowing().map_err(what)?;
        load.stop()?;
        let status = Uapi::connect(&a.host, "wg0")?.ask("status=1\n\n")?;
        let used = status
            .lines()
            .find_map(|line| line.strip_prefix("offloads="))
            .expect("the status names the offloads");
        let log = a.wg.proc.as_ref().map(Proc::output).unwrap_or_default();
        for offload in ["tso", "uso", "gso", "gro"] {
            let is_missing = missing.contains(&offload);
            let is_used = used.split(',').any(|name| name == offload);
            let told = log.contains(&format!("the kernel refuses the offload {offload},"));
            assert_eq!(
                (is_used, told),
                (!is_missing, is_missing),
                "{offload} without {refused}: {used}\n{log}"
            );
        }
    }
    Ok(())
}
