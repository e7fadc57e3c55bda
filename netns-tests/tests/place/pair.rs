//! The two hosts of these tests, and `wg-rs link` on one of them.

use std::io;
use std::net::IpAddr;

use netns_tests::{
    Config, Daemon, Host, HostState, Hosts, Keys, PATIENCE, PeerConfig, SOCKETS, Via, Wg, binaries,
    netlink, ping_all, until,
};

/// The addresses of the host `a` in the tunnel.
pub const A: [&str; 2] = ["10.77.0.1", "fd77::1"];
/// The addresses of the host `b` in the tunnel.
pub const B: [&str; 2] = ["10.77.0.2", "fd77::2"];
pub const PORT: u16 = 51820;

/// Two hosts, joined by a cable. `b` has a tunnel interface; `a` has the config file of its own one, and
/// the named namespaces `web` and `db`. The fields are dropped in this order.
pub struct Pair {
    pub b: Wg,
    pub a: Host,
    keys: [Keys; 2],
    pub program: String,
    _hosts: Hosts,
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn named(name: &str) -> String {
    format!("/run/netns/{name}")
}

impl Pair {
    pub fn new() -> io::Result<Pair> {
        let hosts = Hosts::new(1500)?;
        let [a, b] = hosts.hosts.clone();
        let keys = [Keys::generate(), Keys::generate()];
        let allow = |peer: PeerConfig, addresses: [&str; 2]| {
            peer.allow(ip(addresses[0]), 32)
                .allow(ip(addresses[1]), 128)
        };
        let endpoint = |last: u8| ([192, 0, 2, last], PORT);
        let b = Daemon::ours()?.start(&b, "wg0", Via::Uapi)?;
        b.set(&Config::new(&keys[1], PORT).peer(allow(PeerConfig::new(keys[0].public), A)))?;
        b.up(1420, &[(ip(B[0]), 24), (ip(B[1]), 64)])?;
        let peer = allow(PeerConfig::new(keys[1].public), B).at(endpoint(2));
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

    /// Runs `wg-rs link` in `a`. If it fails, its output becomes the error.
    pub fn link(&self, args: &[&str]) -> io::Result<String> {
        self.a.sh(&self.program, &[&["link"], args].concat())
    }

    /// Runs `wg-rs --netns NETNS link` in `a`.
    pub fn link_in(&self, netns: &str, args: &[&str]) -> io::Result<String> {
        let args = [&["--netns", netns, "link"], args].concat();
        self.a.sh(&self.program, &args)
    }

    /// The namespace of `a`. It has no name of its own, so it is called by a process in it: the daemon.
    pub fn home(&self) -> io::Result<String> {
        Ok(format!("pid:{}", self.daemon()?))
    }

    /// The process ID of the first daemon in the list.
    pub fn daemon(&self) -> io::Result<i64> {
        let list: serde_json::Value = serde_json::from_str(&self.link(&["list", "--json"])?)?;
        list[0]["pid"]
            .as_i64()
            .ok_or_else(|| io::Error::other(format!("no daemon: {list}")))
    }

    /// Checks that `wg-rs link` fails with exit code 1 and one line that ends with `line`.
    pub fn refused(&self, args: &[&str], line: &str) {
        let error = failed(self.link(args));
        assert!(error.ends_with(line), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains("exit code 1"), "{error}");
    }

    /// Adds wg0 to a namespace and waits until it has a session.
    pub fn add(&self, netns: &str) -> io::Result<()> {
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

    /// The host `a` in its named namespace.
    pub fn inside(&self, name: &str) -> io::Result<Host> {
        self.a.in_netns(&named(name))
    }

    /// The time of the session's handshake at each end.
    pub fn session(&self) -> io::Result<[Option<std::time::SystemTime>; 2]> {
        let here = netns_tests::Uapi::connect(&self.a, "wg0")?.get()?;
        let there = self.b.peer(self.keys[0].public)?;
        Ok([
            here.peer(self.keys[1].public)?.last_handshake,
            there.last_handshake,
        ])
    }

    /// Checks that wg0 is in `netns`, up, with its addresses, and that the tunnel works.
    pub fn lives(&self, netns: &Host) -> io::Result<()> {
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

    /// Runs `wg-rs link` in `a` as a user without any capability.
    pub fn link_unprivileged(&self, args: &[&str]) -> io::Result<String> {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let program = [&self.program, "link"];
        self.a
            .sh("setpriv", &[&nobody[..], &program, args].concat())
    }

    /// Runs `wg-rs link` in `a` as root without CAP_SYS_PTRACE, as in an ordinary container: the daemon's
    /// process cannot be looked into.
    pub fn link_without_ptrace(&self, args: &[&str]) -> io::Result<String> {
        let words = ["--bounding-set=-sys_ptrace", &self.program, "link"];
        self.a.sh("setpriv", &[&words[..], args].concat())
    }

    /// Creates a link in the namespace `db` that has the name wg0.
    pub fn take_the_name_in_db(&self) -> io::Result<()> {
        let add = "-n db link add wg0 type veth peer x";
        let args: Vec<_> = add.split(' ').collect();
        self.a.sh("ip", &args).map(drop)
    }

    /// Waits until the state of host `a` is the same as before.
    pub fn until_back_to(&self, before: &HostState, what: &str) -> io::Result<()> {
        until(PATIENCE, what, || {
            let now = HostState::of(&self.a)?;
            Ok(before.against(&now).none().then_some(()))
        })
    }
}

/// The error text of a command that must fail.
pub fn failed(result: io::Result<String>) -> String {
    result.expect_err("must fail").to_string()
}
