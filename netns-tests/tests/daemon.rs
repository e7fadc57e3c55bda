//! The daemon in difficult conditions: with few capabilities, with a port that is in use, with a log
//! that cannot be written, and with a link that is renamed.

use std::fs::File;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::process::Stdio;

use netns_tests::{
    Config, Daemon, Family, Host, Keys, Lab, PATIENCE, Plan, Proc, SOCKETS, Tunnel, Uapi, Via, Wg,
    binaries, netlink, ready, require, until,
};
use nix::sys::signal::Signal;

/// A lab with one host; the lab must outlive the rest.
fn alone() -> io::Result<(Lab, Host)> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    Ok((lab, host))
}

fn ends_well(proc: &mut Proc) -> io::Result<()> {
    let status = proc.wait(PATIENCE)?;
    assert!(status.success(), "{status}: {}", proc.output());
    Ok(())
}

fn sockets_open(host: &Host, open: bool) -> io::Result<()> {
    until(PATIENCE, &format!("sockets open: {open}"), || {
        Ok((host.udp_ports()?.is_empty() != open).then_some(()))
    })
}

/// With fewer capabilities than in a container that has the usual ones and CAP_NET_ADMIN.
#[test]
fn the_daemon_works_without_cap_net_broadcast() -> io::Result<()> {
    if require("setpriv", binaries::on_path("setpriv")).is_none() {
        return Ok(());
    }
    let ours = Daemon::ours()?;
    let confined = Daemon::program(
        "confined",
        format!(
            "setpriv --bounding-set -all,+net_admin,+dac_override --inh-caps -all {}",
            ours.path().expect("a program")
        ),
    );
    let mut tunnel = Tunnel::established(&Plan::new(&confined, &ours))?;
    tunnel.transfer_both_ways(Family::V4, 5_000_000)?;
    let (host, there) = (tunnel.a.host.clone(), tunnel.b.inner(Family::V4));
    let daemon = tunnel.a.wg.proc.as_ref().expect("a process").output();
    assert_eq!(daemon.matches("CAP_NET_BROADCAST").count(), 1, "{daemon}");

    host.run(|| netlink::set_up("wg0", false))?;
    sockets_open(&host, false)?;
    host.run(|| netlink::set_up("wg0", true))?;
    host.reach(there, PATIENCE)?;

    // In another namespace the daemon notices the link a moment later.
    let elsewhere = tunnel.lab.host("elsewhere")?;
    host.run(|| netlink::move_link("wg0", elsewhere.net()))?;
    tunnel
        .a
        .wg
        .up_in(&elsewhere, 1420, &[(tunnel.a.inner(Family::V4), 24)])?;
    elsewhere.reach(there, PATIENCE)?;
    elsewhere.run(|| netlink::set_up("wg0", false))?;
    sockets_open(&host, false)?;
    elsewhere.run(|| netlink::set_up("wg0", true))?;
    elsewhere.reach(there, PATIENCE)?;

    elsewhere.run(|| netlink::delete_link("wg0"))?;
    ends_well(tunnel.a.wg.proc.as_mut().expect("a process"))
}

/// The log goes to a full disk, or to a pipe that nobody reads.
#[test]
fn the_daemon_goes_on_if_its_log_cannot_be_written() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let (reader, closed) = io::pipe()?;
    drop(reader);
    let full = File::options().write(true).open("/dev/full")?;
    for (n, output) in [Stdio::from(full), closed.into()].into_iter().enumerate() {
        let mut command = Daemon::ours()?.command(&["-f", "wg0"]);
        command.env("LOG_LEVEL", "verbose").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(output);
        let mut child = host.run(|| command.spawn())?;
        until(PATIENCE, "link and socket", || {
            Ok(ready(&host, "wg0").then_some(()))
        })?;
        host.run(|| netlink::set_up("wg0", true))?;
        sockets_open(&host, true)?;
        host.run(|| netlink::delete_link("wg0"))?;
        let status = until(PATIENCE, "its end", || child.try_wait())?;
        assert!(status.success(), "output {n}: {status}");
    }
    Ok(())
}

/// None of the three programs ends by a signal because it cannot write its output.
#[test]
fn output_that_cannot_be_written_kills_no_program() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let wg_rs = binaries::wg_rs()?;
    let quick = binaries::build("wg-quick-rs")?;
    let daemon = Daemon::ours()?;
    let programs = [
        daemon.path().expect("a program"),
        &wg_rs,
        quick.to_str().expect("a path"),
    ];
    let arguments = [
        "",
        "--help",
        "--version",
        "nonsense",
        "wg0/",
        "genkey",
        "show",
        "show all dump",
        "link",
        "link list",
        "link add",
        "completions bash",
        "up nosuch",
        "check /dev/null",
        "strip /dev/null",
        "qr /dev/null",
    ];
    let full = || File::options().write(true).open("/dev/full");
    for program in programs {
        for line in arguments {
            for (out, err) in [(true, false), (false, true), (true, true)] {
                let mut command = std::process::Command::new(program);
                command.args(line.split_whitespace()).stdin(Stdio::null());
                command.stdout(if out { full()?.into() } else { Stdio::null() });
                command.stderr(if err { full()?.into() } else { Stdio::null() });
                let status = host.run(|| command.status())?;
                assert!(status.code().is_some(), "{program} {line}: {status}");
                // The exit code of a panic.
                assert_ne!(status.code(), Some(101), "{program} {line}");
            }
        }
    }
    Ok(())
}

/// A daemon on `host` whose interface is to listen on `port`; the link is down.
fn configured(host: &Host, port: u16) -> io::Result<Wg> {
    let wg = Daemon::ours()?.start(host, "wg0", Via::Uapi)?;
    wg.set(&Config::new(&Keys::generate(), port))?;
    Ok(wg)
}

fn port_is_refused(wg: &Wg, port: u16) -> io::Result<()> {
    let before = wg.get()?;
    let config = Config::new(&Keys::generate(), port);
    let error = wg.set(&config).expect_err("the port is taken").to_string();
    assert!(error.contains("98") || error.contains("in use"), "{error}");
    let after = wg.get()?;
    assert_eq!(after.listen_port, before.listen_port);
    assert_eq!(after.private_key, before.private_key);
    Ok(())
}

/// Sets the link up, and waits until the daemon has noticed it: it reads what arrives at its port.
fn up(host: &Host, port: u16) -> io::Result<()> {
    host.run(|| {
        netlink::set_up("wg0", true)?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        let mut sent = false;
        until(PATIENCE, "the port to be read", || {
            let read = match unread(port)? {
                // A datagram would be refused.
                None => return Ok(None),
                Some(unread) => sent && !unread,
            };
            if !sent {
                sender.send_to(&[0], ("127.0.0.1", port))?;
                sent = true;
            }
            Ok(read.then_some(()))
        })
    })
}

/// Whether datagrams wait at an IPv4 port of the calling thread's host; `None` if it is not open.
fn unread(port: u16) -> io::Result<Option<bool>> {
    let table = std::fs::read_to_string("/proc/thread-self/net/udp")?;
    // Number, local address and port, remote ones, state, bytes to send and bytes to receive.
    let row = table.lines().map(|row| row.split_whitespace());
    let mut rows = row.map(|fields| fields.collect::<Vec<_>>());
    let row = rows.find(|fields| fields[1].ends_with(&format!(":{port:04X}")));
    Ok(row.map(|fields| !fields[4].ends_with(":00000000")))
}

/// Sets the link down, and waits until its sockets are closed.
fn down(host: &Host) -> io::Result<()> {
    host.run(|| netlink::set_up("wg0", false))?;
    until(PATIENCE, "the sockets to close", || {
        Ok(host.udp_ports()?.is_empty().then_some(()))
    })
}

/// The port is also refused while the link is down, as a TUN device cannot refuse to be set up.
#[test]
fn a_port_in_use_is_refused_and_nothing_is_changed() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let wg = configured(&host, 1000)?;
    for (family, address) in [(Family::V4, "0.0.0.0:2000"), (Family::V6, "[::]:2000")] {
        let taken = host.run(|| UdpSocket::bind(address))?;
        let before = host.udp_ports()?;
        port_is_refused(&wg, 2000)?;
        assert_eq!(host.udp_ports()?, before, "{family:?}");
        up(&host, 1000)?;
        port_is_refused(&wg, 2000)?;
        assert!(host.udp_ports()?.contains(&1000), "{family:?}");
        drop(taken);
        down(&host)?;
    }
    Ok(())
}

/// The error of `wg` comes first; the next line says more.
#[test]
fn who_uses_a_port_is_named() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let _wg = configured(&host, 1000)?;
    let other = Daemon::ours()?.start(&host, "wg1", Via::Uapi)?;
    other.set(&Config::new(&Keys::generate(), 2000))?;
    let _taken = host.run(|| UdpSocket::bind("127.0.0.1:3000"))?;
    let wg_rs = binaries::wg_rs()?;
    let by_process = format!("' (process {})", std::process::id());
    for (port, by) in [("2000", "the interface `wg1'"), ("3000", &by_process)] {
        let mut proc = host.spawn(std::process::Command::new(&wg_rs).args([
            "set",
            "wg0",
            "listen-port",
            port,
        ]))?;
        assert_eq!(proc.wait(PATIENCE)?.code(), Some(1));
        let output = proc.output();
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(
            lines[0],
            "Unable to modify interface: Address already in use"
        );
        let start = format!("UDP port {port} is already used by ");
        assert!(
            lines[1].starts_with(&start) && lines[1].contains(by),
            "{output}"
        );
        assert_eq!(lines.len(), 2, "{output}");
    }
    Ok(())
}

/// A port that is set while the link is down is reserved at once. So an initiation that arrives when the
/// daemon has not yet noticed that its link is up waits, instead of being refused.
#[test]
fn a_port_is_reserved_until_the_link_is_up() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let wg = configured(&host, 1000)?;
    let set_port = |port| {
        wg.set(&Config {
            listen_port: Some(port),
            ..Config::default()
        })
    };
    let ports = || {
        let mut ports = host.udp_ports()?;
        ports.dedup();
        io::Result::Ok(ports)
    };
    assert_eq!(ports()?, [1000]);
    set_port(2000)?;
    assert_eq!(ports()?, [2000]);
    set_port(0)?;
    assert!(ports()?.is_empty());
    set_port(3000)?;
    // Not refused, although the daemon has not noticed its link yet.
    host.run(|| netlink::set_up("wg0", true))?;
    host.run(|| -> io::Result<()> {
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        sender.connect("127.0.0.1:3000")?;
        sender.send(&[0])?;
        sender.take_error()?.map_or(Ok(()), Err)
    })?;
    up(&host, 3000)?;
    down(&host)
}

#[test]
fn a_link_whose_port_is_in_use_goes_down_again_with_a_reason() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let wg = configured(&host, 2000)?;
    up(&host, 2000)?;
    down(&host)?;
    let taken = host.run(|| UdpSocket::bind("0.0.0.0:2000"))?;
    host.run(|| netlink::set_up("wg0", true))?;
    until(PATIENCE, "the link to go down", || {
        let link = host.run(|| netlink::link("wg0"))?.expect("the link");
        let log = wg.proc.as_ref().expect("a process").output();
        Ok((!link.up && log.contains("cannot listen on port 2000")).then_some(()))
    })?;
    drop(taken);
    // The daemon may still handle that the link went down, so it is set up until it stays up.
    until(PATIENCE, "the link to stay up", || {
        host.run(|| netlink::set_up("wg0", true))?;
        Ok(host.udp_ports()?.contains(&2000).then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_daemon_starts_at_once_after_the_last_ones_link_was_deleted() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let daemon = Daemon::ours()?;
    for round in 0..10 {
        let mut starter = host.spawn(&mut daemon.command(&["wg0"]))?;
        starter
            .success(PATIENCE)
            .map_err(|error| io::Error::other(format!("round {round}: {error}")))?;
        Uapi::connect(&host, "wg0")?.get()?;
        host.run(|| netlink::delete_link("wg0"))?;
    }
    until(PATIENCE, "the last one's end", || {
        Ok(host.processes()?.is_empty().then_some(()))
    })
}

/// The socket is renamed with the link, and programs find the interface by it.
#[test]
fn a_link_that_is_renamed_answers_under_its_new_name() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let mut tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    let host = tunnel.a.host.clone();
    let wg_rs = binaries::wg_rs()?;
    let rename = |from: &str, to: &str| -> io::Result<()> {
        host.sh("ip", &["link", "set", from, "name", to])?;
        until(PATIENCE, "the socket to follow", || {
            Ok(ready(&host, to).then_some(()))
        })?;
        let old = format!("{SOCKETS}/{from}.sock");
        assert!(!host.run(|| std::fs::exists(&old))?, "{old} is there");
        Ok(())
    };
    rename("wg0", "office")?;
    // Renamed again, so that the present name is not the one after the first.
    rename("office", "home")?;
    let shown = host.sh(&wg_rs, &["show", "home", "peers"])?;
    assert!(shown.contains(&tunnel.b.keys.public.to_string()), "{shown}");
    assert_eq!(host.sh(&wg_rs, &["show", "interfaces"])?.trim(), "home");
    tunnel.ping_both_ways(Family::V4)?;

    // The name of another daemon's socket is not taken over, and both daemons go on.
    let other = daemon.start(&host, "other", Via::Uapi)?;
    let elsewhere = tunnel.lab.host("elsewhere")?;
    host.run(|| netlink::move_link("other", elsewhere.net()))?;
    host.sh("ip", &["link", "set", "home", "name", "other"])?;
    tunnel.ping_both_ways(Family::V4)?;
    other.get()?;
    Uapi::connect(&host, "home")?.get()?;
    host.sh("ip", &["link", "set", "other", "name", "last"])?;
    until(PATIENCE, "the socket to have a name", || {
        Ok(Uapi::connect(&host, "last").is_ok().then_some(()))
    })?;

    host.run(|| netlink::delete_link("last"))?;
    ends_well(tunnel.a.wg.proc.as_mut().expect("a process"))?;
    let left = host.run(|| std::fs::read_dir(SOCKETS).map(Iterator::count))?;
    assert_eq!(left, 1, "only the other's socket");
    Ok(())
}

/// A host with an interface that was renamed to `office`.
fn renamed() -> io::Result<(Lab, Host, Wg)> {
    let (lab, host) = alone()?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    host.sh("ip", &["link", "set", "wg0", "name", "office"])?;
    until(PATIENCE, "the socket to follow", || {
        Ok(ready(&host, "office").then_some(()))
    })?;
    Ok((lab, host, wg))
}

/// `wg-rs link del` finds the interface by its new name.
#[test]
fn a_renamed_link_is_deleted_by_its_new_name() -> io::Result<()> {
    let (_lab, host, mut wg) = renamed()?;
    host.sh(&binaries::wg_rs()?, &["link", "del", "office"])?;
    ends_well(wg.proc.as_mut().expect("a process"))
}

/// After SIGTERM, the socket is removed under its new name.
#[test]
fn the_socket_of_a_renamed_link_is_removed_at_the_end() -> io::Result<()> {
    let (_lab, host, mut wg) = renamed()?;
    let proc = wg.proc.as_mut().expect("a process");
    proc.signal(Signal::SIGTERM)?;
    ends_well(proc)?;
    assert_eq!(
        host.run(|| std::fs::read_dir(SOCKETS).map(Iterator::count))?,
        0
    );
    Ok(())
}

/// A host that forwards between two peers would otherwise send them redirects to each other.
#[test]
fn redirects_are_off_after_a_link_is_set_up() -> io::Result<()> {
    let (_lab, host) = alone()?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let path = |link: &str| format!("/proc/sys/net/ipv4/conf/{link}/send_redirects");
    for link in ["all", "wg0"] {
        host.write(&path(link), "1")?;
    }
    wg.up(1420, &[(IpAddr::from([10, 77, 0, 1]), 24)])?;
    for link in ["all", "wg0"] {
        until(PATIENCE, &format!("no redirects by {link}"), || {
            Ok((host.read(&path(link))?.trim() == "0").then_some(()))
        })?;
    }
    Ok(())
}
