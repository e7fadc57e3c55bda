//! The interfaces that `wg-rs link` finds, with their backends and namespaces.

use std::io;

use netns_tests::{Daemon, HostState, PATIENCE, SOCKETS, netlink, require, until};
use nix::sys::signal::Signal;

use crate::pair::{A, PORT, Pair, failed};

#[test]
fn the_list_names_the_namespaces() -> io::Result<()> {
    let pair = Pair::new()?;
    assert_eq!(pair.link(&["list"])?, "");
    assert_eq!(pair.link(&["list", "--json"])?, "[]\n");
    pair.add("web")?;
    pair.link(&["add", "wg1"])?;
    let list: serde_json::Value = serde_json::from_str(&pair.link(&["list", "--json"])?)?;
    let link = |n: usize, field: &str| list[n][field].clone();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    assert_eq!(link(0, "name"), "wg0");
    assert_eq!(link(0, "backend"), "userspace");
    assert_eq!(link(0, "livesIn"), "web");
    assert_eq!(link(0, "up"), true);
    assert_eq!(link(1, "name"), "wg1");
    assert_eq!(link(1, "up"), false);
    // The namespace of the lab's host has no name, so it is called by a process in it.
    let home = link(0, "bornIn");
    assert!(
        home.as_str().is_some_and(|home| home.starts_with("pid:")),
        "{list}"
    );
    assert_eq!(link(1, "livesIn"), home);
    let table = pair.link(&["list"])?;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(lines[1][..3], ["wg0", "userspace", "web"], "{table}");
    assert_eq!(lines[2].last(), Some(&"down"), "{table}");
    Ok(())
}

/// A command acts on interfaces of the caller's namespace, or of the one given with `--netns`, although
/// the daemon's socket can be reached from every namespace. The error says where the interface is.
#[test]
fn an_interface_of_another_namespace_is_refused() -> io::Result<()> {
    let pair = Pair::new()?;
    pair.link(&["add", "wg0", "--address", A[0]])?;
    let home = pair.home()?;
    let elsewhere = |places: &str| {
        format!(
            "wg0: no such WireGuard interface in this network namespace; there is one in {places} (to act \
             there, use --netns)"
        )
    };
    let before = HostState::of(&pair.a)?;
    for args in [&["del", "wg0"][..], &["move", "wg0", "web"]] {
        let error = failed(pair.link_in("db", args));
        assert!(
            error.contains("in this network namespace; there is one in pid:"),
            "{args:?}: {error}"
        );
        let differences = before.against(&HostState::of(&pair.a)?);
        assert!(differences.none(), "{args:?}: {differences}");
    }
    // Now it is in `db`, and only commands for `db` act on it.
    pair.link(&["move", "wg0", "db"])?;
    for args in [&["del", "wg0"][..], &["move", "wg0", "web"]] {
        pair.refused(args, &elsewhere("db"));
    }
    pair.refused(&["move", "wg0", "db", "--netns", "web"], &elsewhere("db"));
    pair.link_in("db", &["move", "wg0", "web"])?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg0"))?.is_some());
    pair.link_in("web", &["move", "wg0", &home])?;
    pair.link(&["del", "wg0"]).map(drop)
}

/// In an ordinary container not even root may look into another process (no CAP_SYS_PTRACE). An interface
/// of the caller's own namespace is moved and deleted all the same.
#[test]
fn an_interface_is_moved_and_deleted_without_cap_sys_ptrace() -> io::Result<()> {
    let pair = Pair::new()?;
    let before = HostState::of(&pair.a)?;
    let blind = |args: &[&str]| pair.link_without_ptrace(args);
    blind(&["add", "wg0"])?;
    assert!(blind(&["list"])?.contains("wg0"));
    blind(&["del", "wg0"])?;
    pair.link(&["add", "wg0", "--address", A[0]])?;
    blind(&["move", "wg0", "web"])?;
    let web = pair.inside("web")?;
    assert!(web.run(|| netlink::link("wg0"))?.is_some());
    // The interface is in another namespace now, and the caller may not see in which.
    let error = failed(blind(&["del", "wg0"]));
    let line = "cannot find the network interface of wg0: no permission to inspect its daemon";
    assert!(error.ends_with(line), "{error}");
    blind(&["del", "wg0", "--netns", "web"])?;
    assert!(web.run(|| netlink::link("wg0"))?.is_none());
    pair.until_back_to(&before, "the daemon to end")
}

/// A user in a user namespace of their own may have all that a daemon has: a TUN device named wg0, and a
/// socket at the same path. Neither is taken for the real daemon's.
#[test]
fn an_interface_in_a_user_namespace_is_not_mistaken_for_the_daemons() -> io::Result<()> {
    let Some(go) = require("wireguard-go", Daemon::installed("wireguard-go")) else {
        return Ok(());
    };
    let pair = Pair::new()?;
    let go = go.path().expect("a program");
    let tun = format!("{SOCKETS}/tun");
    pair.a.sh("mknod", &["-m", "666", &tun, "c", "10", "200"])?;
    let script = format!(
        "mount --bind {tun} /dev/net/tun
         mount -t tmpfs run /run
         mkdir -p /run/wireguard
         {go} wg0
         echo READY
         exec sleep 60"
    );
    let mut user = std::process::Command::new("setpriv");
    user.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    user.args(["unshare", "-Urnmpf", "--kill-child", "sh", "-euc", &script]);
    let mut user = pair.a.spawn(&mut user)?;
    until(PATIENCE, "the user's own daemon", || {
        if let Some(status) = user.ended()? {
            let text = format!("it ended with {status}: {}", user.output());
            return Err(io::Error::other(text));
        }
        Ok(user.output().contains("READY").then_some(()))
    })?;
    let theirs = pair.a.in_netns(&format!("/proc/{}/ns/net", user.pid()))?;
    assert!(theirs.run(|| netlink::link("wg0"))?.is_some());

    // The user's daemon has the lower process ID. The process that first listened at the socket of the
    // real one has ended.
    pair.a.sh(go, &["wg0"])?;
    let list: serde_json::Value = serde_json::from_str(&pair.link(&["list", "--json"])?)?;
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list[0]["livesIn"], list[0]["bornIn"], "{list}");
    pair.link(&["move", "wg0", "web"])?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg0"))?.is_some());
    pair.link_in("web", &["del", "wg0"])?;
    assert!(theirs.run(|| netlink::link("wg0"))?.is_some());
    user.signal(Signal::SIGKILL)?;
    user.wait(PATIENCE)?;
    until(PATIENCE, "the user's processes to end", || {
        Ok(theirs.processes()?.is_empty().then_some(()))
    })
}

/// `--netns` may also stand after the command, where `wg` would take it for an interface.
#[test]
fn the_netns_option_may_follow_the_command() -> io::Result<()> {
    let pair = Pair::new()?;
    pair.add("web")?;
    let run = |line: &str| {
        let args: Vec<_> = line.split_whitespace().collect();
        pair.a.sh(&pair.program, &args)
    };
    for line in [
        "--netns web show wg0 listen-port",
        "show --netns web wg0 listen-port",
        "show wg0 listen-port --netns=web",
    ] {
        assert_eq!(run(line)?, format!("{PORT}\n"), "{line}");
    }
    assert_eq!(run("show interfaces --netns web")?, "wg0\n");
    assert_eq!(run("show interfaces --netns db")?, "");
    run("set --netns web wg0 fwmark 7")?;
    assert_eq!(run("show wg0 fwmark")?, "0x7\n");
    let error = failed(run("show --netns nosuch"));
    assert!(
        error.ends_with(
            "cannot enter namespace nosuch: there is no namespace of this name in /run/netns"
        ),
        "{error}"
    );
    pair.link_in("web", &["del", "wg0"]).map(drop)
}

/// A container engine that accepts connections and never answers delays the list by a second, and only
/// if there is a namespace to name.
#[test]
fn an_engine_that_hangs_delays_the_list_only_briefly() -> io::Result<()> {
    let pair = Pair::new()?;
    let sockets: Vec<_> = ["docker", "podman"]
        .iter()
        .map(|engine| {
            let path = std::env::temp_dir().join(format!("hung-{engine}-{}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            let listener = std::os::unix::net::UnixListener::bind(&path)?;
            Ok((path, listener))
        })
        .collect::<io::Result<_>>()?;
    let host = |n: usize| format!("unix://{}", sockets[n].0.display());
    let list = || {
        let mut command = std::process::Command::new(&pair.program);
        command.args(["link", "list", "--json"]);
        command.env("DOCKER_HOST", host(0));
        command.env("CONTAINER_HOST", host(1));
        let start = std::time::Instant::now();
        let told = pair.a.spawn(&mut command)?.success(PATIENCE)?;
        Ok::<_, io::Error>((told, start.elapsed()))
    };
    let asked = |n: usize| -> io::Result<bool> {
        let (_, listener): &(_, std::os::unix::net::UnixListener) = &sockets[n];
        listener.set_nonblocking(true)?;
        Ok(listener.accept().is_ok())
    };
    assert_eq!(list()?.0, "[]\n");
    assert!(
        !asked(0)? && !asked(1)?,
        "asked although there is nothing to name"
    );
    pair.link(&["add", "wg0"])?;
    let (told, took) = list()?;
    assert!(told.contains("\"name\": \"wg0\""), "{told}");
    // With the full time limit for each it would take 20 seconds.
    assert!(took.as_secs() < 8, "{took:?}");
    assert!(asked(0)? && asked(1)?, "not asked");
    for (path, _) in &sockets {
        std::fs::remove_file(path)?;
    }
    pair.link(&["del", "wg0"]).map(drop)
}

/// wireguard-go passes its socket from one process to the next. Its daemon is found all the same.
#[test]
fn an_interface_of_wireguard_go_is_moved() -> io::Result<()> {
    let Some(go) = require("wireguard-go", Daemon::installed("wireguard-go")) else {
        return Ok(());
    };
    let pair = Pair::new()?;
    pair.a.sh(go.path().expect("a program"), &["wg0"])?;
    pair.link(&["move", "wg0", "web"])?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg0"))?.is_some());
    let list: serde_json::Value = serde_json::from_str(&pair.link(&["list", "--json"])?)?;
    assert_eq!(list[0]["livesIn"], "web", "{list}");
    pair.link_in("web", &["del", "wg0"])?;
    assert_eq!(pair.link(&["list"])?, "");
    Ok(())
}

/// Each daemon is found by its own socket, although both passed their sockets on, and also after its link
/// was renamed.
#[test]
fn two_daemons_of_wireguard_go_are_told_apart() -> io::Result<()> {
    let Some(go) = require("wireguard-go", Daemon::installed("wireguard-go")) else {
        return Ok(());
    };
    let pair = Pair::new()?;
    let go = go.path().expect("a program");
    pair.a.sh(go, &["wg0"])?;
    pair.a.sh(go, &["wg1"])?;
    pair.link(&["move", "wg1", "web"])?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg1"))?.is_some());
    pair.link(&["move", "wg0", "db"])?;
    let db = pair.inside("db")?;
    db.sh("ip", &["link", "set", "wg0", "name", "renamed"])?;
    pair.link_in("db", &["move", "wg0", "web"])?;
    let web = pair.inside("web")?;
    assert!(web.run(|| netlink::link("renamed"))?.is_some());
    pair.link_in("web", &["del", "wg0"])?;
    assert!(web.run(|| netlink::link("renamed"))?.is_none());
    assert!(web.run(|| netlink::link("wg1"))?.is_some());
    pair.link_in("web", &["del", "wg1"])?;
    assert_eq!(pair.link(&["list"])?, "");
    Ok(())
}
