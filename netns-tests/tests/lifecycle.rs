//! The start and the end of the daemon, and what it sets up on the host.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::thread;
use std::time::Duration;

use netns_tests::process::{self, status};
use netns_tests::{
    Config, Daemon, Family, Host, Keys, Lab, PATIENCE, Ping, Plan, SOCKETS, Tunnel, Uapi, Via, Wg,
    binaries, netlink, ready, until,
};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

/// A lab with one host; the lab must outlive the rest.
fn alone() -> io::Result<(Lab, Host)> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    Ok((lab, host))
}

fn running() -> io::Result<(Lab, Host, Wg)> {
    let (lab, host) = alone()?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    Ok((lab, host, wg))
}

/// Starts the daemon with these arguments; it must fail, and print a reason.
fn refused(host: &Host, args: &[&str]) -> io::Result<()> {
    let mut proc = host.spawn(&mut Daemon::ours()?.command(args))?;
    assert!(!proc.wait(PATIENCE)?.success(), "{args:?} was taken");
    assert!(!proc.output().trim().is_empty(), "{args:?}: not a word");
    Ok(())
}

#[test]
fn deleting_the_link_ends_the_daemon() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    host.run(|| netlink::delete_link("wg0"))?;
    wg.ends_cleanly()
}

#[test]
fn deleting_a_link_in_use_ends_the_daemon() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    tunnel.a.host.run(|| netlink::delete_link("wg0"))?;
    tunnel.a.wg.ends_cleanly()
}

#[test]
fn removing_the_socket_file_ends_the_daemon() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    host.run(|| std::fs::remove_file(wg.socket()))?;
    wg.ends_cleanly()
}

#[test]
fn sigterm_and_sigint_end_the_daemon() -> io::Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (_lab, _host, wg) = running()?;
        wg.proc.as_ref().expect("a process").signal(signal)?;
        wg.ends_cleanly()?;
    }
    Ok(())
}

#[test]
fn a_socket_without_a_daemon_is_replaced() -> io::Result<()> {
    let (_lab, host, mut wg) = running()?;
    wg.kill()?;
    assert!(
        host.run(|| std::fs::exists(wg.socket()))?,
        "kill -9 leaves the socket file"
    );
    assert!(Uapi::connect(&host, "wg0").is_err());
    let again = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    again.get().map(|_| ())
}

#[test]
fn a_socket_with_a_daemon_is_refused() -> io::Result<()> {
    let (_lab, host, mut wg) = running()?;
    refused(&host, &["-f", "wg0"])?;
    wg.get()?;
    assert!(wg.proc.as_mut().expect("a process").ended()?.is_none());

    // Without a link, only the socket shows that there is a daemon.
    let _listener = host.run(|| UnixListener::bind(format!("{SOCKETS}/wg7.sock")))?;
    refused(&host, &["-f", "wg7"])?;
    assert!(
        host.run(|| netlink::link("wg7"))?.is_none(),
        "no link is left behind"
    );
    Uapi::connect(&host, "wg7").map(|_| ())
}

#[test]
fn the_daemon_goes_to_the_background_when_link_and_socket_exist() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let daemon = Daemon::ours()?;
    let mut starter = host.spawn(&mut daemon.command(&["wg0"]))?;
    starter.success(PATIENCE)?;
    assert!(
        ready(&host, "wg0"),
        "it returned before link and socket were there"
    );
    Uapi::connect(&host, "wg0")?.get()?;

    // A second daemon fails, and says so before it goes to the background.
    refused(&host, &["wg0"])?;
    Uapi::connect(&host, "wg0")?.get()?;

    host.run(|| netlink::delete_link("wg0"))?;
    until(PATIENCE, "its end", || {
        Ok((!host.run(|| std::fs::exists(format!("{SOCKETS}/wg0.sock")))?).then_some(()))
    })
}

#[test]
fn a_variable_keeps_the_daemon_in_the_foreground() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let mut command = Daemon::ours()?.command(&["wg0"]);
    let mut proc = host.spawn(command.env("WG_PROCESS_FOREGROUND", "1"))?;
    until(PATIENCE, "link and socket", || {
        Ok(ready(&host, "wg0").then_some(()))
    })?;
    assert!(
        proc.ended()?.is_none(),
        "it is still the process that was started"
    );
    proc.signal(Signal::SIGTERM)?;
    assert!(proc.wait(PATIENCE)?.success());
    Ok(())
}

#[test]
fn an_inherited_uapi_socket_is_used() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let listener = host.run(|| UnixListener::bind(format!("{SOCKETS}/wg0.sock")))?;
    fcntl(listener.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&listener).to_string();
    let mut command = Daemon::ours()?.command(&["-f", "wg0"]);
    let _proc = host.spawn(command.env("WG_UAPI_FD", number))?;
    until(PATIENCE, "the link", || host.run(|| netlink::link("wg0")))?;
    Uapi::connect(&host, "wg0")?.get().map(|_| ())
}

#[test]
fn version_and_help() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let daemon = Daemon::ours()?;
    for (option, word) in [("--version", "wireguard"), ("--help", "foreground")] {
        let mut proc = host.spawn(&mut daemon.command(&[option]))?;
        let text = proc.success(PATIENCE)?;
        assert!(text.contains(word), "{option}: {text}");
    }
    for program in ["wireguard-rs", "wg-rs", "wg-quick-rs"] {
        let path = binaries::build(program)?;
        for option in ["-v", "-V", "--version"] {
            let text = host.sh(&path.to_string_lossy(), &[option])?;
            let version = concat!(" ", env!("CARGO_PKG_VERSION"), "\n");
            assert!(
                text.starts_with(&format!("{program}{version}")),
                "{option}: {text}"
            );
        }
    }
    let wg_rs = binaries::wg_rs()?;
    let help = host.sh(&wg_rs, &["set", "--help"])?;
    assert_eq!(host.sh(&wg_rs, &["help", "set"])?, help);
    let help = host.sh(&wg_rs, &["help"])?;
    for word in ["help", "version"] {
        assert_eq!(host.sh(&wg_rs, &["help", word])?, help);
    }
    let unknown = host.sh(&wg_rs, &["help", "sets"]).expect_err("no command");
    assert!(
        unknown.to_string().contains("Invalid subcommand: `sets'"),
        "{unknown}"
    );
    Ok(())
}

#[test]
fn an_unknown_log_level_is_a_warning() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let mut command = Daemon::ours()?.command(&["wg0"]);
    let mut proc = host.spawn(command.env("LOG_LEVEL", "loud"))?;
    let output = proc.success(PATIENCE)?;
    let warning =
        "LOG_LEVEL: `loud' is not silent, error, verbose or debug; the level `error' is used";
    assert_eq!(output.matches(warning).count(), 1, "{output}");
    host.run(|| netlink::delete_link("wg0"))
}

#[test]
fn the_name_of_another_interface_is_refused_with_the_reason() -> io::Result<()> {
    let (_lab, host) = alone()?;
    host.sh("ip", &["link", "add", "wg0", "type", "veth", "peer", "wg1"])?;
    let mut proc = host.spawn(&mut Daemon::ours()?.command(&["wg0"]))?;
    assert!(!proc.wait(PATIENCE)?.success());
    let output = proc.output();
    let why = "cannot create the TUN device: Invalid argument (`wg0' is the name of another interface, of \
               the kind veth: choose another name)";
    assert!(output.contains(why), "{output}");
    Ok(())
}

#[test]
fn the_daemon_tells_systemd_when_it_is_ready() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let path = format!("{SOCKETS}/notify");
    let notify = host.run(|| UnixDatagram::bind(&path))?;
    notify.set_read_timeout(Some(PATIENCE))?;
    let mut command = Daemon::ours()?.command(&["-f", "wg0"]);
    let _proc = host.spawn(command.env("NOTIFY_SOCKET", &path))?;
    let mut datagram = [0; 4096];
    let len = notify.recv(&mut datagram)?;
    let text = String::from_utf8_lossy(&datagram[..len]).into_owned();
    assert!(text.lines().any(|line| line == "READY=1"), "{text}");
    assert!(ready(&host, "wg0"), "told before it was ready");
    Ok(())
}

#[test]
fn a_random_port_is_kept_when_the_link_goes_down_and_up() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    wg.set(&Config::new(&Keys::generate(), 0))?;
    let open = |up: bool, what: &str| -> io::Result<u16> {
        host.run(|| netlink::set_up("wg0", up))?;
        until(PATIENCE, what, || {
            let port = wg.get()?.listen_port;
            let sockets = host.udp_ports()?;
            Ok(match up {
                true => (port != 0 && sockets.contains(&port)).then_some(port),
                false => sockets.is_empty().then_some(0),
            })
        })
    };
    let port = open(true, "a port")?;
    open(false, "the sockets to close")?;
    assert_eq!(open(true, "the port again")?, port);
    Ok(())
}

/// Five times, as it is a race: the daemon notices its link a moment after the packet is there.
#[test]
fn the_first_packet_after_up_is_not_lost() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    let (here, there) = (&tunnel.a, tunnel.b.inner(Family::V4));
    let once = Ping {
        count: 1,
        timeout: Duration::from_secs(3),
        ..Ping::to(there)
    };
    for round in 0..5 {
        here.host.run(|| netlink::set_up("wg0", false))?;
        until(PATIENCE, "the sockets to close", || {
            Ok(here.host.udp_ports()?.is_empty().then_some(()))
        })?;
        // Two initiations within 17 ms have the same timestamp: the second would be taken for a replay.
        thread::sleep(Duration::from_millis(50));
        here.host.run(|| netlink::set_up("wg0", true))?;
        assert_eq!(here.host.ping(&once)?.lost(), 0, "round {round}");
    }
    Ok(())
}

#[test]
fn the_link_gets_no_link_local_address() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    wg.up(1420, &[([0xfd77, 0, 0, 0, 0, 0, 0, 1].into(), 64)])?;
    until(PATIENCE, "the address given", || {
        let addresses = host.read("/proc/thread-self/net/if_inet6")?;
        assert!(
            !addresses.lines().any(|line| line.starts_with("fe80")),
            "{addresses}"
        );
        Ok(addresses.contains("fd77").then_some(()))
    })?;
    assert_eq!(
        host.read("/proc/sys/net/ipv6/conf/wg0/addr_gen_mode")?
            .trim(),
        "1",
        "none"
    );
    Ok(())
}

#[test]
fn the_link_has_the_properties_of_the_kernels() -> io::Result<()> {
    let (_lab, host, _wg) = running()?;
    let link = host.run(|| netlink::link("wg0"))?.expect("the link");
    assert_eq!(link.mtu, 1420);
    assert!(!link.up);
    assert!(link.txqueuelen >= 1000, "{link:?}");
    Ok(())
}

#[test]
fn an_mtu_of_9000_end_to_end() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let plan = Plan {
        cable_mtu: 9080,
        mtu: 9000,
        ..Plan::new(&daemon, &daemon)
    };
    let tunnel = Tunnel::established(&plan)?;
    big_pings(&tunnel, 9000)?;
    tunnel.transfer_both_ways(Family::V4, 20_000_000)
}

#[test]
fn an_mtu_change_is_noticed_while_running() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let plan = Plan {
        cable_mtu: 9080,
        mtu: 1280,
        ..Plan::new(&daemon, &daemon)
    };
    let tunnel = Tunnel::established(&plan)?;
    for mtu in [1280, 9000, 1420, 4000] {
        for (here, _) in tunnel.ways() {
            here.host.run(|| netlink::set_mtu("wg0", mtu))?;
        }
        big_pings(&tunnel, mtu as usize)?;
    }
    tunnel.transfer_both_ways(Family::V6, 20_000_000)
}

/// Pings that fill the tunnel's MTU, both ways.
fn big_pings(tunnel: &Tunnel, mtu: usize) -> io::Result<()> {
    for (here, there) in tunnel.ways() {
        let ping = Ping {
            payload: mtu - 28,
            ..Ping::to(there.inner(Family::V4))
        };
        // The change itself may lose packets. Once one has passed, none is lost.
        until(PATIENCE, "a ping of full size", || {
            let one = Ping {
                count: 1,
                timeout: Duration::from_millis(500),
                ..ping.clone()
            };
            Ok((here.host.ping(&one)?.lost() == 0).then_some(()))
        })?;
        assert_eq!(here.host.ping(&ping)?.lost(), 0, "MTU {mtu}");
    }
    Ok(())
}

#[test]
fn a_host_without_ipv6() -> io::Result<()> {
    let lab = Lab::new()?;
    let daemon = Daemon::ours()?;
    let hosts = [lab.host("a")?, lab.host("b")?];
    lab.cable((&hosts[0], "eth0"), (&hosts[1], "eth0"), 1500)?;
    let keys = [Keys::generate(), Keys::generate()];
    let mut ends = Vec::new();
    for (n, host) in hosts.iter().enumerate() {
        for which in ["all", "default", "lo"] {
            host.write(
                &format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"),
                "1",
            )?;
        }
        let outer = |n: usize| IpAddr::from([192, 0, 2, n as u8 + 1]);
        let inner = |n: usize| IpAddr::from([10, 77, 0, n as u8 + 1]);
        host.address("eth0", outer(n), 24)?;
        let wg = daemon.start(host, "wg0", Via::Uapi)?;
        let peer = netns_tests::PeerConfig::new(keys[1 - n].public)
            .at((outer(1 - n), 51820))
            .allow(inner(1 - n), 32);
        wg.set(&Config::new(&keys[n], 51820).peer(peer))?;
        wg.up(1420, &[(inner(n), 24)])?;
        ends.push(wg);
    }
    hosts[0].reach([10, 77, 0, 2], PATIENCE)?;
    netns_tests::ping_all(&hosts[1], [10, 77, 0, 1].into(), 10)
}

/// Everything that a process keeps is also available to an attacker.
#[test]
fn the_daemon_keeps_few_capabilities_and_dumps_no_core() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    let pid = tunnel.a.wg.pid()?;
    let mask = |label: &str| -> io::Result<u64> {
        u64::from_str_radix(&status(pid, label)?, 16).map_err(io::Error::other)
    };
    const NET_BIND_SERVICE: u64 = 1 << 10;
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    for label in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        let kept = mask(label)?;
        let needless = kept & !(NET_ADMIN | NET_BIND_SERVICE | NET_RAW);
        assert_eq!(needless, 0, "{label} {kept:#x}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core
        .unwrap_or_default()
        .split_whitespace()
        .skip(4)
        .collect();
    assert_eq!(core.first(), Some(&"0"), "{limits}");
    // With the remaining capabilities, every change of the configuration must still work.
    tunnel.a.wg.set(&Config {
        fwmark: Some(7),
        listen_port: Some(443),
        ..Config::default()
    })?;
    tunnel.ping_both_ways(Family::V4)
}

#[test]
fn peak_memory_is_bounded() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    tunnel.transfer_both_ways(Family::V4, 100_000_000)?;
    for (here, _) in tunnel.ways() {
        let peak = process::peak_memory(here.wg.pid()?)?;
        assert!(peak < 24 << 20, "peak memory {peak} bytes");
    }
    Ok(())
}

/// The log says why packets do not pass, and contains no secret.
#[test]
fn a_verbose_log_has_handshakes_and_dropped_packets() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let path = ours.path().expect("a program");
    let verbose = Daemon::program("verbose", format!("env LOG_LEVEL=verbose {path}"));
    let silent = Daemon::program("silent", format!("env LOG_LEVEL= {path}"));
    let mut tunnel = Tunnel::established(&Plan::new(&verbose, &silent))?;
    let nobody = Ping {
        count: 3,
        timeout: Duration::from_millis(100),
        ..Ping::to([10, 77, 0, 99])
    };
    assert_eq!(tunnel.a.host.ping(&nobody)?.received(), 0);
    let said = |wg: &mut Wg| {
        let proc = wg.proc.as_mut().expect("a process");
        proc.signal(Signal::SIGTERM)?;
        proc.wait(PATIENCE)?;
        Ok::<_, io::Error>(proc.output())
    };
    let (loud, quiet) = (said(&mut tunnel.a.wg)?, said(&mut tunnel.b.wg)?);
    assert_eq!(quiet, "");
    let peer = tunnel.b.keys.public.to_string();
    for expected in ["handshake initiation sent", "new session", &peer[..8]] {
        assert!(loud.contains(expected), "no {expected}: {loud}");
    }
    // Packets of the host's own duplicate address detection may have been dropped too.
    let dropped = loud
        .split_once("no peer for the destination (")
        .and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
    assert!(dropped.is_some_and(|n: u32| n >= 3), "not 3: {loud}");
    let secret = tunnel.a.keys.private.to_string();
    assert!(!loud.contains(&secret[..8]), "a key in the log");
    Ok(())
}

/// Several interfaces of one host are independent.
#[test]
fn several_daemons_run_on_one_host() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let daemon = Daemon::ours()?;
    let mut all = Vec::new();
    for n in 0..5 {
        all.push(daemon.start(&host, &format!("wg{n}"), Via::Uapi)?);
    }
    host.run(|| netlink::delete_link("wg2"))?;
    all.remove(2).ends_cleanly()?;
    for wg in &all {
        wg.get()?;
    }
    Ok(())
}

#[test]
fn a_wrong_command_line_is_an_error_with_a_reason() -> io::Result<()> {
    let (_lab, host) = alone()?;
    for name in ["a/b", "sixteen-letters!", "", ".", ".."] {
        refused(&host, &["-f", name])?;
    }
    refused(&host, &[])?;
    refused(&host, &["--no-such-option"])
}
