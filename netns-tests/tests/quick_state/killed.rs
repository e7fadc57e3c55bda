//! After the daemon was killed: nothing leaks, and `up` and `down` remove what it left.

use std::io;

use netns_tests::quick::{Gateway, LOG, Quick, Site};
use netns_tests::{Lab, PATIENCE, until};

use crate::test_host::{KEY, PEER, TestHost, full};

/// Kills the daemon and waits until its link is gone. Returns false if there is no daemon, as with the
/// kernel's module.
fn kill_daemons(site: &Site) -> io::Result<bool> {
    if site.host.kill_processes()? == 0 {
        return Ok(false);
    }
    until(PATIENCE, "the link to go", || {
        let links = site.sh("ip link show")?;
        Ok((!links.contains("wg0")).then_some(()))
    })?;
    Ok(true)
}

#[test]
fn a_killed_daemon_leaks_nothing() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file("DNS = 10.0.0.1", &full(""))?;
    let ways = || {
        host.site
            .sh("ip route get 203.0.113.1 2>&1 || :; ip route get 192.0.2.77")
    };
    host.ok("up")?;
    let way = ways()?;
    assert!(way.contains("203.0.113.1 dev wg0"), "{way}");
    if host.site.host.processes()?.is_empty() {
        // The kernel's module has no daemon to kill.
        return host.ok("down").map(|_| ());
    }
    for _ in 0..2 {
        kill_daemons(&host.site)?;
        let way = ways()?;
        assert!(way.contains("No route to host"), "{way}");
        assert!(way.contains("192.0.2.77 dev eth0"), "{way}");
        // `up` removes what was left, and brings the tunnel up again.
        host.ok("up")?;
        let rules = host.site.sh("ip rule show")?;
        assert_eq!(rules.lines().count(), 5, "{rules}");
        let way = ways()?;
        assert!(way.contains("203.0.113.1 dev wg0"), "{way}");
    }
    host.ok("down")?;
    host.nothing_left()?;
    // `down` removes what was left, too.
    host.ok("up")?;
    kill_daemons(&host.site)?;
    // An `up` for another namespace does not remove it: it fails and names the command that does.
    let moved = host
        .site
        .run(&host.quick, &["up", "wg0", "--netns", "other"])?;
    assert_eq!(moved.code, Some(1), "{}", moved.output);
    assert!(moved.output.contains("down wg0' removes them"));
    host.ok("down")?;
    host.nothing_left()?;
    // The link was in another namespace: the hooks of `down` are run in that namespace.
    let hooks = format!("PreDown = ip -o link show > {LOG}\nDNS = 10.0.0.1");
    host.file(&hooks, &full(""))?;
    let up = || {
        let up = host
            .site
            .run(&host.quick, &["up", "wg0", "--netns", "other"]);
        up?.success()
    };
    up()?;
    kill_daemons(&host.site)?;
    until(PATIENCE, "the link to go", || {
        let links = host.site.sh("ip -n other link show")?;
        Ok((!links.contains("wg0")).then_some(()))
    })?;
    up()?;
    let links = host.site.host.read(LOG)?;
    assert!(links.contains("lo:") && !links.contains("eth0"), "{links}");
    host.ok("down")?;
    host.nothing_left()
}

/// After a kill, the rules that are left block all traffic outside of the tunnel, DNS too. `up` resolves
/// names all the same, and runs the hooks of `down` once.
#[test]
fn up_after_a_kill_resolves_names_and_runs_down_hooks_once() -> io::Result<()> {
    let lab = Lab::new()?;
    let lookup = |name: &str| (name == "vpn.example").then_some(Gateway::ADDRESS);
    let Some((site, _gateway)) = Site::behind_gateway(&lab, lookup)? else {
        return Ok(());
    };
    let quick = Quick::ours()?;
    site.sh("echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark")?;
    let resolv_conf = format!("nameserver {}\noptions timeout:2\n", Gateway::NAME_SERVER);
    site.host.write("/etc/resolv.conf", &resolv_conf)?;
    let before = site.state()?;
    let hooks = format!(
        "PostUp = echo PostUp >> {LOG}
         PreDown = ip route get 203.0.113.1 2>&1 | grep -q 'dev eth0' && echo leak >> {LOG}; echo PreDown >> {LOG}
         PreDown = ip link show dev %i > /dev/null
         PostDown = echo PostDown >> {LOG}"
    );
    let file = |more: &str| {
        let text = format!(
            "[Interface]\nPrivateKey = {KEY}\nAddress = 10.0.0.2/24\n{hooks}\n{more}\n\
             [Peer]\nPublicKey = {PEER}\nEndpoint = vpn.example:5\nAllowedIPs = 0.0.0.0/0\n"
        );
        site.configure("wg0", &text)
    };
    let run = |verb: &str| {
        let mut command = site.command(&quick, &[verb, "wg0"])?;
        command.env("WG_ENDPOINT_RESOLUTION_RETRIES", "0");
        site.finish(site.host.spawn(&mut command)?)
    };
    let log = || -> io::Result<String> {
        let log = site.host.read(LOG)?;
        site.host.write(LOG, "")?;
        Ok(log.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    for dns in ["", "DNS = 10.0.0.1"] {
        file(dns)?;
        run("up")?.success()?;
        assert_eq!(log()?, "PostUp");
        if !kill_daemons(&site)? {
            return run("down")?.success().map(drop);
        }
        let said = run("up")?.success()?;
        // The second PreDown hook failed, and `up` went on.
        assert_eq!(log()?, "PreDown PostDown PostUp", "{dns}: {said}");
        assert!(said.contains("PreDown: exit code 1; going on"), "{said}");
        let shown = site.sh("wg show wg0 endpoints; wg show wg0 fwmark; ip -4 rule show")?;
        assert!(shown.contains("192.0.2.1:5"), "{shown}");
        // The mark is the same as before, with one pair of rules.
        assert!(shown.contains("0xca6c"), "{shown}");
        assert_eq!(shown.lines().count(), 7, "{shown}");

        // A failed `up` has run the hooks of `down`: the next one does not run them again.
        kill_daemons(&site)?;
        file(&format!("{dns}\nPreUp = false"))?;
        assert_eq!(run("up")?.code, Some(1));
        assert_eq!(log()?, "PreDown PostDown");
        assert!(
            site.sh("ip route get 203.0.113.1 2>&1 || :")?
                .contains("No route to host")
        );
        file(dns)?;
        run("up")?.success()?;
        assert_eq!(log()?, "PostUp");
        run("down")?.success()?;
        assert_eq!(log()?, "PreDown PostDown");
        let left = before.against(&site.state()?);
        assert!(left.none(), "{left}");
        assert_eq!(site.host.read("/etc/resolv.conf")?, resolv_conf);
    }
    Ok(())
}
