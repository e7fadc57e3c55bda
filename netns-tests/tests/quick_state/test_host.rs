//! A host, its state before `up`, and the config file of its tunnel wg0.

use std::io;

use netns_tests::quick::{Quick, Run, Site};
use netns_tests::{HostState, Lab, PATIENCE, until};

/// The interface's private key.
pub const KEY: &str = "6AgToMTGwKJV1BBqhMlUFyAb3JQrbLBtRIMwkVMCi1g=";
/// A peer's public key.
pub const PEER: &str = "eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw=";

/// A host with a default route, and `wg-quick-rs` on it.
pub struct TestHost {
    pub site: Site,
    pub quick: Quick,
    /// The state of the host before the first `up`.
    pub before: HostState,
    // Owns the host.
    _lab: Lab,
}

impl TestHost {
    pub fn new() -> io::Result<Option<TestHost>> {
        let lab = Lab::new()?;
        let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
            return Ok(None);
        };
        site.sh(
            "mkdir -p /run/netns; mount -t tmpfs netns /run/netns; ip netns add other
             echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark
             ip link add eth0 address 02:00:00:00:00:01 type veth peer cable
             ip link set eth0 addrgenmode none; ip link set cable addrgenmode none
             ip link set cable up; ip link set eth0 up
             ip addr add 192.0.2.2/24 dev eth0; ip route add default via 192.0.2.1",
        )?;
        until(PATIENCE, "the cable to have a carrier", || {
            let routes = site.sh("ip -6 route show table local")?;
            let links = site.sh("ip link show")?;
            let is_up =
                routes.contains("ff00::/8 dev cable") && routes.contains("ff00::/8 dev eth0");
            Ok((is_up && !links.contains("NO-CARRIER")).then_some(()))
        })?;
        site.place(&quick)?;
        let before = site.state()?;
        Ok(Some(TestHost {
            site,
            quick,
            before,
            _lab: lab,
        }))
    }

    /// Writes wg0.conf, with these lines in its interface section and these peers.
    pub fn file(&self, interface: &str, peers: &str) -> io::Result<()> {
        let text = format!(
            "[Interface]\nPrivateKey = {KEY}\nAddress = 10.0.0.2/24\n{interface}\n{peers}\n"
        );
        self.site.configure("wg0", &text)
    }

    /// `wg-quick-rs VERB wg0`, which may fail.
    pub fn run(&self, verb: &str) -> io::Result<Run> {
        self.site.run(&self.quick, &[verb, "wg0"])
    }

    /// `wg-quick-rs VERB wg0`, which must succeed. Returns its output.
    pub fn ok(&self, verb: &str) -> io::Result<String> {
        self.run(verb)?.success()
    }

    /// Checks that the host is as it was before the first `up`.
    pub fn nothing_left(&self) -> io::Result<()> {
        let mut left = self.before.against(&self.site.state()?);
        let restored = until(PATIENCE, "the state before", || {
            left = self.before.against(&self.site.state()?);
            Ok(left.none().then_some(()))
        });
        assert!(restored.is_ok(), "{left}");
        let files = self.site.sh("ls -A /var/run/wireguard")?;
        assert!(!files.contains("wg0"), "{files}");
        Ok(())
    }

    /// What `wg show wg0 WHAT` prints.
    pub fn shown(&self, what: &str) -> io::Result<String> {
        self.site.sh(&format!("wg show wg0 {what}"))
    }
}

/// A peer that all IPv4 traffic is routed to, with these further lines.
pub fn full(more: &str) -> String {
    format!("[Peer]\nPublicKey = {PEER}\nEndpoint = 192.0.2.1:5\nAllowedIPs = 0.0.0.0/0\n{more}")
}
