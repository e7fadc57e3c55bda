//! `wg-rs link move` and `del`: the session goes with the link, and a failed move changes nothing.

use std::io;

use netns_tests::{HostState, PATIENCE, binaries, netlink, require};
use nix::sys::signal::Signal;

use crate::pair::{B, PORT, Pair, failed};

#[test]
fn a_moved_link_keeps_its_session() -> io::Result<()> {
    let pair = Pair::new()?;
    let before = HostState::of(&pair.a)?;
    pair.add("web")?;
    pair.lives(&pair.inside("web")?)?;
    let session = pair.session()?;
    assert!(session.iter().all(Option::is_some));

    let home = pair.a.in_netns("/proc/thread-self/ns/net")?;
    let home_name = pair.home()?;
    let mut process = pair
        .inside("db")?
        .spawn(std::process::Command::new("sleep").arg("60"))?;
    let pid = format!("pid:{}", process.pid());
    let db = pair.inside("db")?;
    let mut from = "web";
    for (to, there) in [
        ("db", &db),
        ("web", &pair.inside("web")?),
        (&*home_name, &home),
        (&*pid, &db),
        // The link has already moved.
        ("db", &db),
        ("web", &pair.inside("web")?),
    ] {
        pair.link_in(from, &["move", "wg0", to])?;
        pair.lives(there)?;
        assert_eq!(
            pair.session()?,
            session,
            "a new handshake after moving to {to}"
        );
        let ports = pair.a.udp_ports()?;
        assert!(
            ports.contains(&PORT),
            "the UDP socket is no longer in the first namespace: {ports:?}"
        );
        from = to;
    }
    process.signal(Signal::SIGKILL)?;
    process.wait(PATIENCE)?;

    pair.link(&["del", "wg0", "--netns", "web"])?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg0"))?.is_none());
    pair.until_back_to(&before, "the daemon to end")?;
    pair.refused(&["del", "wg0"], "wg0: no such WireGuard interface");
    Ok(())
}

/// Ctrl-C during a move takes effect after it: the link arrives with its addresses and routes.
#[test]
fn a_signal_does_not_interrupt_a_move() -> io::Result<()> {
    let Some(_) = require("strace", binaries::on_path("strace")) else {
        return Ok(());
    };
    let pair = Pair::new()?;
    pair.add("web")?;
    // Every netlink request is made while signals are blocked.
    let strace = [
        "-f",
        "--output=/dev/null",
        "--trace=sendto",
        "--inject=sendto:signal=SIGINT",
        &pair.program,
    ];
    let moved = pair.a.sh(
        "strace",
        &[
            &strace[..],
            &["link", "move", "wg0", "db", "--netns", "web"],
        ]
        .concat(),
    );
    let error = moved.expect_err("must end by the signal").to_string();
    assert!(error.contains("signal 2"), "{error}");
    pair.lives(&pair.inside("db")?)?;
    pair.link_in("db", &["del", "wg0"]).map(drop)
}

#[test]
fn a_link_that_is_down_is_moved_and_stays_down() -> io::Result<()> {
    let pair = Pair::new()?;
    pair.link(&["add", "wg0", "--address", "10.77.0.1", "--mtu", "1380"])?;
    pair.link(&["move", "wg0", "web"])?;
    let link = pair
        .inside("web")?
        .run(|| netlink::link("wg0"))?
        .expect("wg0 is there");
    assert!(!link.up);
    assert_eq!(link.mtu, 1380);
    let addresses = pair
        .a
        .sh("ip", &["-n", "web", "-o", "addr", "show", "dev", "wg0"])?;
    assert!(addresses.contains("inet 10.77.0.1/32"), "{addresses}");
    pair.link_in("web", &["delete", "wg0"]).map(drop)
}

#[test]
fn a_failed_move_changes_nothing() -> io::Result<()> {
    let pair = Pair::new()?;
    pair.add("web")?;
    let web = pair.inside("web")?;
    web.sh(
        "ip",
        &["route", "add", "198.51.100.0/24", "via", B[0], "dev", "wg0"],
    )?;
    web.sh(
        "ip",
        &["-6", "route", "add", "default", "dev", "wg0", "metric", "7"],
    )?;
    pair.take_the_name_in_db()?;
    let (before, session) = (HostState::of(&web)?, pair.session()?);
    let unchanged = |what: &str| -> io::Result<()> {
        let differences = before.against(&HostState::of(&web)?);
        assert!(differences.none(), "{what}: {differences}");
        pair.lives(&web)?;
        assert_eq!(pair.session()?, session, "{what}: a new handshake");
        Ok(())
    };

    let from_web = |to| ["move", "wg0", to, "--netns", "web"];
    pair.refused(
        &from_web("db"),
        "cannot move wg0 to db: the name is in use there",
    );
    unchanged("name taken")?;
    let none = "cannot enter namespace nosuch: there is no namespace of this name in /run/netns";
    pair.refused(&from_web("nosuch"), none);
    pair.refused(&["move", "wg0", "db", "--netns", "nosuch"], none);
    let no_process = "cannot enter namespace pid:4194305: no such process";
    pair.refused(&from_web("pid:4194305"), no_process);
    let no_namespace = "cannot enter namespace path:/etc/passwd: it is not a network namespace";
    pair.refused(&from_web("path:/etc/passwd"), no_namespace);
    unchanged("no namespace")?;

    // IPv6 is off in that namespace and cannot be switched on. The move finds that out when the link has
    // already moved.
    pair.a.sh("ip", &["netns", "add", "four"])?;
    let four = pair.inside("four")?;
    four.write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    let read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";
    pair.a.sh("sh", &["-euc", read_only])?;
    let error = failed(pair.link(&from_web("four")));
    assert!(
        error.contains("cannot move wg0 to four: cannot restore address fd77::1/64"),
        "{error}"
    );
    // Newer kernels report the reason.
    let why = [": Permission denied", ": IPv6 is disabled on this device"];
    assert!(why.iter().any(|why| error.ends_with(why)), "{error}");
    unchanged("IPv6 off")?;
    assert!(four.run(|| netlink::link("wg0"))?.is_none());

    let error = failed(pair.link_unprivileged(&["move", "wg0", "web"]));
    assert!(
        error.ends_with("cannot enter namespace web: no permission (try as root)"),
        "{error}"
    );
    unchanged("no permission")
}
