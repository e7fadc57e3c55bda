//! `wg-rs link`: interfaces created, listed, moved with their session and deleted; where that fails,
//! everything stays as it was.

use std::io;
use std::net::IpAddr;

use netns_tests::{
    Config, Daemon, Host, Hosts, Keys, PATIENCE, Peer, SOCKETS, State, Via, Wg, binaries, netlink,
    ping_all, process, require, skipped, until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Addresses in the tunnel, of the host `a` and of `b`.
const A: [&str; 2] = ["10.77.0.1", "fd77::1"];
const B: [&str; 2] = ["10.77.0.2", "fd77::2"];
const PORT: u16 = 51820;

/// Two hosts with a cable: b with a tunnel interface, a with the file of its own, and in a the named
/// namespaces `web` and `db`. Fields are dropped in this order.
struct Pair {
    b: Wg,
    a: Host,
    keys: [Keys; 2],
    program: String,
    _hosts: Hosts,
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn named(name: &str) -> String {
    format!("/run/netns/{name}")
}

impl Pair {
    fn new() -> io::Result<Pair> {
        let hosts = Hosts::new(1500)?;
        let [a, b] = hosts.hosts.clone();
        let keys = [Keys::generate(), Keys::generate()];
        let allow = |peer: Peer, addresses: [&str; 2]| {
            peer.allow(ip(addresses[0]), 32)
                .allow(ip(addresses[1]), 128)
        };
        let endpoint = |last: u8| ([192, 0, 2, last], PORT);
        let b = Daemon::ours()?.start(&b, "wg0", Via::Uapi)?;
        b.set(&Config::new(&keys[1], PORT).peer(allow(Peer::new(keys[0].public), A)))?;
        b.up(1420, &[(ip(B[0]), 24), (ip(B[1]), 64)])?;
        let peer = allow(Peer::new(keys[1].public), B).at(endpoint(2));
        let file = Config::new(&keys[0], PORT).peer(peer).file(&[]);
        a.write(&format!("{SOCKETS}/wg0.conf"), &file)?;
        // Names that only this host knows.
        for name in ["web", "db"] {
            a.sh("ip", &["netns", "add", name])?;
        }
        Ok(Pair {
            b,
            a,
            keys,
            program: binaries::wg_rs()?,
            _hosts: hosts,
        })
    }

    /// Runs `wg-rs link` in a; what it says where it fails is the error.
    fn link(&self, args: &[&str]) -> io::Result<String> {
        self.a.sh(&self.program, &[&["link"], args].concat())
    }

    /// Runs `wg-rs --netns NETNS link` in a.
    fn link_in(&self, netns: &str, args: &[&str]) -> io::Result<String> {
        let args = [&["--netns", netns, "link"], args].concat();
        self.a.sh(&self.program, &args)
    }

    /// The namespace of a, which has no name but that of the daemon that was born there.
    fn home(&self) -> io::Result<String> {
        Ok(format!("pid:{}", self.daemon()?))
    }

    /// The process ID of the first daemon that is listed.
    fn daemon(&self) -> io::Result<i64> {
        let list: serde_json::Value = serde_json::from_str(&self.link(&["list", "--json"])?)?;
        list[0]["pid"]
            .as_i64()
            .ok_or_else(|| io::Error::other(format!("no daemon: {list}")))
    }

    /// `wg-rs link` must fail with one line that ends so.
    fn refused(&self, args: &[&str], line: &str) {
        let error = self.link(args).expect_err("must fail").to_string();
        assert!(error.ends_with(line), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains("exit code 1"), "{error}");
    }

    /// Adds wg0 to a namespace, and waits until it has a session.
    fn add(&self, netns: &str) -> io::Result<()> {
        let config = format!("{SOCKETS}/wg0.conf");
        let addresses = format!("{}/24,{}/64", A[0], A[1]);
        let args = [
            "add",
            "wg0",
            "--netns",
            netns,
            "--config",
            &config,
            "--address",
            &addresses,
            "--up",
        ];
        self.link(&args)?;
        self.inside(netns)?.reach(ip(B[0]), PATIENCE)
    }

    fn inside(&self, name: &str) -> io::Result<Host> {
        self.a.in_netns(&named(name))
    }

    /// When the session was made, as both ends know it.
    fn session(&self) -> io::Result<[Option<std::time::SystemTime>; 2]> {
        let here = netns_tests::Uapi::connect(&self.a, "wg0")?.get()?;
        let there = self.b.peer(self.keys[0].public)?;
        Ok([
            here.peer(self.keys[1].public)?.last_handshake,
            there.last_handshake,
        ])
    }

    /// wg0 is in `netns` with its addresses, up, and the tunnel goes through.
    fn lives(&self, netns: &Host) -> io::Result<()> {
        let link = netns.run(|| netlink::link("wg0"))?.expect("wg0 is there");
        assert!(link.up);
        let addresses = netns.sh("ip", &["-o", "addr", "show", "dev", "wg0"])?;
        assert_eq!(addresses.lines().count(), 2, "{addresses}");
        for address in [format!("{}/24", A[0]), format!("{}/64", A[1])] {
            assert!(addresses.contains(&address), "{addresses}");
        }
        for to in B {
            ping_all(netns, ip(to), 3)?;
        }
        Ok(())
    }
}

#[test]
fn a_session_goes_where_the_link_goes() -> io::Result<()> {
    let pair = Pair::new()?;
    let before = State::of(&pair.a)?;
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
        // It is there already.
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
        assert!(ports.contains(&PORT), "the socket left home: {ports:?}");
        from = to;
    }
    process.signal(Signal::SIGKILL)?;
    process.wait(PATIENCE)?;

    pair.link(&["del", "wg0", "--netns", "web"])?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg0"))?.is_none());
    until(PATIENCE, "the daemon to end", || {
        Ok(before.against(&State::of(&pair.a)?).none().then_some(()))
    })?;
    pair.refused(&["del", "wg0"], "wg0: no such WireGuard interface");
    Ok(())
}

/// ^C while a link is on its way: it arrives with all it had.
#[test]
fn a_move_is_not_interrupted() -> io::Result<()> {
    let Some(_) = require("strace", binaries::on_path("strace")) else {
        return Ok(());
    };
    let pair = Pair::new()?;
    pair.add("web")?;
    // All that is asked by netlink is asked while signals wait.
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
    // The signal has its effect when the link has arrived.
    let error = moved.expect_err("must end by the signal").to_string();
    assert!(error.contains("signal 2"), "{error}");
    pair.lives(&pair.inside("db")?)?;
    pair.link_in("db", &["del", "wg0"]).map(drop)
}

/// A link that is down stays so, and one that is moved while it is down is not set up.
#[test]
fn a_link_that_is_down_arrives_so() -> io::Result<()> {
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

/// Signals wait while `add` is at work. Its daemon hears them all the same.
#[test]
fn the_daemon_of_a_link_ends_when_told() -> io::Result<()> {
    let pair = Pair::new()?;
    let before = State::of(&pair.a)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        pair.link(&["add", "wg0", "--netns", "web"])?;
        let pid = pair.daemon()? as i32;
        assert_eq!(process::status(pid, "SigBlk")?, "0000000000000000");
        kill(Pid::from_raw(pid), signal)?;
        until(PATIENCE, &format!("the daemon to end by {signal}"), || {
            let link = pair.inside("web")?.run(|| netlink::link("wg0"))?;
            let left = before.against(&State::of(&pair.a)?);
            Ok((link.is_none() && left.none()).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn the_list_says_where() -> io::Result<()> {
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
    // The host of the lab has no name but that of its processes.
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

#[test]
fn what_cannot_be_moved_stays_as_it_is() -> io::Result<()> {
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
    pair.a.sh(
        "ip",
        &[
            "-n", "db", "link", "add", "wg0", "type", "veth", "peer", "x",
        ],
    )?;
    let (before, session) = (State::of(&web)?, pair.session()?);
    let unchanged = |what: &str| -> io::Result<()> {
        let differences = before.against(&State::of(&web)?);
        assert!(differences.none(), "{what}: {differences}");
        pair.lives(&web)?;
        assert_eq!(pair.session()?, session, "{what}: a new handshake");
        Ok(())
    };

    let from_web = |to| ["move", "wg0", to, "--netns", "web"];
    pair.refused(
        &from_web("db"),
        "cannot move wg0 to db: the name is taken there",
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

    // IPv6 is off there and cannot be switched on: found out when the link is there already.
    pair.a.sh("ip", &["netns", "add", "four"])?;
    let four = pair.inside("four")?;
    four.write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    let read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";
    pair.a.sh("sh", &["-euc", read_only])?;
    let error = pair
        .link(&from_web("four"))
        .expect_err("must fail")
        .to_string();
    assert!(
        error.contains("cannot move wg0 to four: cannot restore address fd77::1/64"),
        "{error}"
    );
    // Newer kernels say why.
    let why = [": Permission denied", ": IPv6 is disabled on this device"];
    assert!(why.iter().any(|why| error.ends_with(why)), "{error}");
    unchanged("IPv6 off")?;
    assert!(four.run(|| netlink::link("wg0"))?.is_none());

    let unprivileged = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        &pair.program,
    ];
    let error = pair
        .a
        .sh(
            "setpriv",
            &[&unprivileged[..], &["link", "move", "wg0", "web"]].concat(),
        )
        .expect_err("must fail")
        .to_string();
    assert!(
        error.ends_with("cannot enter namespace web: no permission (try as root)"),
        "{error}"
    );
    unchanged("no permission")
}

#[test]
fn what_cannot_be_added_leaves_nothing() -> io::Result<()> {
    let pair = Pair::new()?;
    let config = format!("{SOCKETS}/wg0.conf");
    let before = State::of(&pair.a)?;
    let unchanged = |what: &str| {
        until(
            PATIENCE,
            &format!("nothing to be left after {what}"),
            || Ok(before.against(&State::of(&pair.a)?).none().then_some(())),
        )
    };
    let wrong = format!("{SOCKETS}/wrong.conf");
    pair.a
        .write(&wrong, "[Interface]\nPrivateKey = x\nListenPort = 1\n")?;
    let error = pair
        .link(&["add", "wg0", "--config", &wrong])
        .expect_err("must fail")
        .to_string();
    assert!(error.contains(&format!("{wrong}:2: ")), "{error}");
    pair.refused(
        &["add", "wg0", "--config", "/no/such"],
        "/no/such: No such file or directory",
    );
    let none = "cannot enter namespace nosuch: there is no namespace of this name in /run/netns";
    pair.refused(&["add", "wg0", "--netns", "nosuch"], none);
    unchanged("bad input")?;

    // From here on it is made, and taken back.
    pair.a.sh(
        "ip",
        &[
            "-n", "db", "link", "add", "wg0", "type", "veth", "peer", "x",
        ],
    )?;
    let taken = "cannot move wg0 to db: the name is taken there";
    pair.refused(&["add", "wg0", "--netns", "db", "--config", &config], taken);
    unchanged("a name taken there")?;
    let error = pair
        .link(&[
            "add",
            "wg0",
            "--netns",
            "web",
            "--address",
            "10.77.0.1/24,10.77.0.1/24",
        ])
        .expect_err("must fail")
        .to_string();
    assert!(error.contains("cannot add address 10.77.0.1/24"), "{error}");
    unchanged("an address twice")?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg0"))?.is_none());

    // What was made is taken back without looking for it: whose TUN it is may not be seen here.
    let blind = ["--bounding-set=-sys_ptrace", &pair.program, "link"];
    let twice = "10.77.0.1/24,10.77.0.1/24";
    let add = ["add", "wg0", "--netns", "web", "--address", twice];
    let error = pair
        .a
        .sh("setpriv", &[&blind[..], &add].concat())
        .expect_err("must fail")
        .to_string();
    assert!(error.contains("cannot add address 10.77.0.1/24"), "{error}");
    assert!(!error.contains("then also"), "{error}");
    unchanged("an address twice, without a look at the daemon")?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg0"))?.is_none());

    let unprivileged = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        &pair.program,
    ];
    let error = pair
        .a
        .sh(
            "setpriv",
            &[&unprivileged[..], &["link", "add", "wg0"]].concat(),
        )
        .expect_err("must fail")
        .to_string();
    assert!(
        error.contains("cannot create wg0: cannot create the TUN device"),
        "{error}"
    );
    unchanged("no permission")
}

/// Only what lives in the caller's namespace, or in the one given with `--netns`, is touched, though the
/// daemon's socket can be reached from everywhere. The error says where it lives.
#[test]
fn only_an_interface_of_the_namespace_is_touched() -> io::Result<()> {
    let pair = Pair::new()?;
    pair.link(&["add", "wg0", "--address", A[0]])?;
    let home = pair.home()?;
    let elsewhere = |places: &str| {
        format!(
            "wg0: no such WireGuard interface in this network namespace; there is one in {places} (to act \
             there, use --netns)"
        )
    };
    let before = State::of(&pair.a)?;
    for args in [&["del", "wg0"][..], &["move", "wg0", "web"]] {
        let error = pair.link_in("db", args).expect_err("must fail").to_string();
        assert!(
            error.contains("in this network namespace; there is one in pid:"),
            "{args:?}: {error}"
        );
        let differences = before.against(&State::of(&pair.a)?);
        assert!(differences.none(), "{args:?}: {differences}");
    }
    // Once it lives there, it is touched from there only.
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

/// In an ordinary container not even root may look into another process (no CAP_SYS_PTRACE): an interface
/// that is right here is moved and deleted all the same.
#[test]
fn an_interface_is_moved_and_deleted_without_a_look_into_its_daemon() -> io::Result<()> {
    let pair = Pair::new()?;
    let before = State::of(&pair.a)?;
    let blind = |args: &[&str]| {
        let words = ["--bounding-set=-sys_ptrace", &pair.program, "link"];
        pair.a.sh("setpriv", &[&words[..], args].concat())
    };
    blind(&["add", "wg0"])?;
    assert!(blind(&["list"])?.contains("wg0"));
    blind(&["del", "wg0"])?;
    pair.link(&["add", "wg0", "--address", A[0]])?;
    blind(&["move", "wg0", "web"])?;
    let web = pair.inside("web")?;
    assert!(web.run(|| netlink::link("wg0"))?.is_some());
    // It is no longer here, and where it is now cannot be seen.
    let error = blind(&["del", "wg0"]).expect_err("must fail").to_string();
    let line = "cannot find the network interface of wg0: no permission to look at its daemon";
    assert!(error.ends_with(line), "{error}");
    blind(&["del", "wg0", "--netns", "web"])?;
    assert!(web.run(|| netlink::link("wg0"))?.is_none());
    until(PATIENCE, "the daemon to end", || {
        Ok(before.against(&State::of(&pair.a)?).none().then_some(()))
    })
}

/// A user in a user namespace of his own may have everything that a daemon has: a TUN named wg0, and a
/// socket at the same path. What he has is never taken for the daemon's.
#[test]
fn a_users_own_interface_is_never_taken_for_the_daemons() -> io::Result<()> {
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

    // His has the lower process IDs, and who first listened at the socket of ours is gone.
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

/// `--netns` also serves behind the command, where `wg` would take it for an interface.
#[test]
fn a_namespace_may_follow_the_command() -> io::Result<()> {
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
    let error = run("show --netns nosuch")
        .expect_err("must fail")
        .to_string();
    assert!(
        error.ends_with(
            "cannot enter namespace nosuch: there is no namespace of this name in /run/netns"
        ),
        "{error}"
    );
    pair.link_in("web", &["del", "wg0"]).map(drop)
}

/// A file with settings of wg-quick's is refused, with the command that it is for.
#[test]
fn a_file_for_wg_quick_is_for_wg_quick() -> io::Result<()> {
    let pair = Pair::new()?;
    let file = format!("{SOCKETS}/quick.conf");
    pair.a
        .write(&file, "[Interface]\nAddress = 10.0.0.1/24\nMTU = 1400\n")?;
    let line = format!(
        "{file} is a file for wg-quick: bring it up with `wg-quick-rs up {file} --netns web', or use the \
         output of `wg-quick-rs strip {file}'"
    );
    pair.refused(&["add", "wg0", "--netns", "web", "--config", &file], &line);
    assert_eq!(pair.link(&["list"])?, "");
    Ok(())
}

/// A container engine that accepts connections and never answers costs a second, and only where a name
/// is wanted of it.
#[test]
fn an_engine_that_hangs_is_not_waited_for() -> io::Result<()> {
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
    assert!(!asked(0)? && !asked(1)?, "asked for names of nothing");
    pair.link(&["add", "wg0"])?;
    let (told, took) = list()?;
    assert!(told.contains("\"name\": \"wg0\""), "{told}");
    // 20 seconds, were each waited for.
    assert!(took.as_secs() < 8, "{took:?}");
    assert!(asked(0)? && asked(1)?, "not asked");
    for (path, _) in &sockets {
        std::fs::remove_file(path)?;
    }
    pair.link(&["del", "wg0"]).map(drop)
}

/// The sockets of all namespaces are in one directory: a name is taken wherever its link lives.
#[test]
fn a_name_is_taken_here_and_elsewhere() -> io::Result<()> {
    let pair = Pair::new()?;
    pair.add("web")?;
    let line = "cannot create wg0: the name is taken by the daemon at /var/run/wireguard/wg0.sock";
    for backend in ["userspace", "kernel"] {
        pair.refused(&["add", "wg0", "--backend", backend], line);
    }
    let elsewhere = ["netns", "exec", "db", &pair.program, "link", "add", "wg0"];
    let error = pair
        .a
        .sh("ip", &elsewhere)
        .expect_err("must fail")
        .to_string();
    assert!(error.ends_with(line), "{error}");
    let line = "cannot create eth0: the name is taken by another link";
    pair.refused(&["add", "eth0"], line);
    pair.refused(&["del", "eth0"], "eth0: no such WireGuard interface");
    pair.lives(&pair.inside("web")?)
}

/// With the module it is made: that is tested in the virtual machine (`kernel.rs`).
#[test]
fn without_the_module_the_kernels_interface_is_refused() -> io::Result<()> {
    let pair = Pair::new()?;
    let module = pair.b.host.run(|| netlink::add_wireguard("probe"));
    if module.is_ok() {
        skipped("a kernel without the WireGuard module");
        return Ok(());
    }
    let line = "cannot create wg0: this kernel has no WireGuard module";
    let add = ["add", "wg0", "--backend", "kernel", "--netns", "web"];
    pair.refused(&add, line);
    Ok(())
}

/// wireguard-go hands its socket from one process to the next: its daemon is found all the same.
#[test]
fn another_daemon_is_moved_too() -> io::Result<()> {
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

/// Of two daemons that handed their sockets on, each is found by its own, also when its link has
/// another name by now.
#[test]
fn two_other_daemons_are_told_apart() -> io::Result<()> {
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
