//! `wg-quick-rs` acts by what `up` did and recorded, not by what its file or a name may mean now.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netns_tests::quick::{BIN, LOG, Quick, Run, Site};
use netns_tests::{Host, Lab, PATIENCE, SOCKETS, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const KEY: &str = "6AgToMTGwKJV1BBqhMlUFyAb3JQrbLBtRIMwkVMCi1g=";
const OTHER_KEY: &str = "QAzFSKnTvSjbNxfqDm0mzDzTzU5iElvIMEQlDPhL3WQ=";
const PEER: &str = "eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw=";
const PEER2: &str = "Hf4iFwCZpxMqHkRCCSxXC4nYVCOAxIlKe5IIQKuMUSw=";
/// Outside of the networks of a host.
const NAME_SERVER: [u8; 4] = [198, 51, 100, 53];
const PSK: &str = "cGVyaGFwcyBub3Qgc28gc2VjcmV0IGFmdGVyIGFsbCE=";

/// A host with a default route, its state before, and the program.
struct TestHost {
    site: Site,
    quick: Quick,
    before: netns_tests::State,
    // Its hosts live as long as it does.
    _lab: Lab,
}

impl TestHost {
    fn new() -> io::Result<Option<TestHost>> {
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

    fn file(&self, interface: &str, peers: &str) -> io::Result<()> {
        let text = format!(
            "[Interface]\nPrivateKey = {KEY}\nAddress = 10.0.0.2/24\n{interface}\n{peers}\n"
        );
        self.site.configure("wg0", &text)
    }

    fn run(&self, verb: &str) -> io::Result<Run> {
        self.site.run(&self.quick, &[verb, "wg0"])
    }

    fn ok(&self, verb: &str) -> io::Result<String> {
        self.run(verb)?.success()
    }

    /// All is as it was before anything was up.
    fn nothing_left(&self) -> io::Result<()> {
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
    fn shown(&self, what: &str) -> io::Result<String> {
        self.site.sh(&format!("wg show wg0 {what}"))
    }
}

/// Kills the daemon, and waits until its link is gone. False if there is none: the kernel's module is
/// not killed.
fn kill_daemons(site: &Site) -> io::Result<bool> {
    let all = site.host.processes()?;
    for pid in &all {
        kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
    }
    if all.is_empty() {
        return Ok(false);
    }
    until(PATIENCE, "the link to go", || {
        let links = site.sh("ip link show")?;
        Ok((!links.contains("wg0")).then_some(()))
    })?;
    Ok(true)
}

fn full(more: &str) -> String {
    format!("[Peer]\nPublicKey = {PEER}\nEndpoint = 192.0.2.1:5\nAllowedIPs = 0.0.0.0/0\n{more}")
}

#[test]
fn an_interface_of_another_namespace_is_refused() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file("", &full(""))?;
    host.ok("up")?;
    let up = host.site.state()?;
    // Another one's, and then one that has the same key.
    for key in [OTHER_KEY, KEY] {
        let text = format!("[Interface]\nPrivateKey = {key}\nAddress = 10.9.9.9/24\nFwMark = 9\n");
        host.site.configure("wg0", &text)?;
        for verb in ["down", "reload", "save"] {
            let run = host.site.sh(&format!(
                "ip netns exec other wg-quick-rs {verb} wg0 2>&1 && echo well || :"
            ))?;
            assert!(!run.contains("well"), "{verb}: {run}");
            assert!(run.contains("from another network namespace"), "{run}");
            assert!(!run.contains("[#]"), "{verb}: {run}");
            assert_eq!(host.site.host.read("/etc/wireguard/wg0.conf")?, text);
            let changed = up.against(&host.site.state()?);
            assert!(changed.none(), "{verb}: {changed}");
        }
    }
    host.file("", "")?;
    host.ok("down")?;
    host.nothing_left()
}

#[test]
fn down_takes_away_what_up_did_whatever_the_file_says_now() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    let edits: [&dyn Fn() -> io::Result<()>; 5] = [
        &|| host.file("Adress = 10.0.0.1\nMTU = big\nSaveConfig = true", &full("")),
        &|| host.file("Table = off", &full("")),
        &|| host.file("", ""),
        &|| host.file("FwMark = 7\nDNS = 10.0.0.9", &full("")),
        &|| {
            host.site
                .sh("wg syncconf wg0 <(wg-quick-rs strip wg0)")
                .map(|_| ())
        },
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        host.file("DNS = 10.0.0.1", &full(""))?;
        host.ok("up")?;
        edit()?;
        let run = host.run("down")?;
        // What could not be saved is said, and is no reason to stay up.
        let code = i32::from(number == 0);
        assert_eq!(run.code, Some(code), "{number}: {}", run.output);
        host.nothing_left()?;
    }
    Ok(())
}

#[test]
fn rules_are_removed_as_they_were_installed() -> io::Result<()> {
    let Some(mut host) = TestHost::new()? else {
        return Ok(());
    };
    host.site
        .sh("ip rule add pref 1 from 198.51.100.1 lookup 7")?;
    host.before = host.site.state()?;
    host.file("", &full(""))?;
    host.ok("up")?;
    // What passes over default routes comes first, or the neighbours are in the tunnel.
    let rules = host.site.sh("ip rule show")?;
    let at = |text: &str| rules.find(text);
    assert!(
        at("suppress_prefixlength 0") < at("not from all fwmark"),
        "{rules}"
    );
    let way = host.site.sh("ip route get 192.0.2.77")?;
    assert!(way.contains("dev eth0"), "{way}");
    host.ok("down")?;
    host.nothing_left()
}

#[test]
fn a_port_set_at_run_time_is_saved() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file("SaveConfig = true", "")?;
    host.ok("up")?;
    host.ok("save")?;
    let chosen = host.site.host.read("/etc/wireguard/wg0.conf")?;
    assert!(!chosen.contains("ListenPort"), "{chosen}");
    host.site.sh("wg set wg0 listen-port 4711")?;
    host.ok("down")?;
    let saved = host.site.host.read("/etc/wireguard/wg0.conf")?;
    assert!(saved.contains("ListenPort = 4711"), "{saved}");
    Ok(())
}

#[test]
fn reload_leaves_what_hooks_set_and_only_that() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    let hooks = format!(
        "MTU = 1300\n\
         PostUp = echo {PSK} > /etc/psk; wg set %i peer {PEER2} preshared-key /etc/psk allowed-ips 10.8.0.0/24\n\
         PostUp = ip addr add 10.0.0.33/32 dev %i # beside 10.0.0.3\n\
         PostUp = : --clamp-mss-to-pmtu"
    );
    let peer = |more: &str| format!("[Peer]\nPublicKey = {PEER}\nAllowedIPs = 10.7.0.0/24\n{more}");
    host.file(
        &format!("Address = 10.0.0.3/32\n{hooks}"),
        &peer(&format!("PresharedKey = {PSK}")),
    )?;
    host.ok("up")?;
    host.file(&hooks.replace("MTU = 1300\n", ""), &peer(""))?;
    let said = host.ok("reload")?;
    let addresses = host.site.sh("ip -o addr show dev wg0; ip link show wg0")?;
    assert!(addresses.contains("10.0.0.33/32"), "{addresses}");
    assert!(!addresses.contains("10.0.0.3/32"), "{addresses}");
    assert!(addresses.contains("mtu 1420"), "{addresses}");
    let keys = host.shown("preshared-keys")?;
    assert!(keys.contains(&format!("{PEER}\t(none)")), "{keys}");
    assert!(keys.contains(&format!("{PEER2}\t{PSK}")), "{keys}");
    let ips = host.shown("allowed-ips")?;
    assert!(ips.contains(&format!("{PEER2}\t10.8.0.0/24")), "{ips}");
    for left in ["address 10.0.0.33/32", &format!("peer {PEER2}")] {
        assert!(said.contains(&format!("{left} is left as it is")), "{said}");
    }
    Ok(())
}

#[test]
fn a_peer_that_roamed_stays_where_it_is() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file("", &full(""))?;
    host.ok("up")?;
    host.site
        .sh(&format!("wg set wg0 peer {PEER} endpoint 192.0.2.9:9"))?;
    host.ok("reload")?;
    let endpoints = host.shown("endpoints")?;
    assert!(endpoints.contains("192.0.2.9:9"), "{endpoints}");
    // The file has another one now.
    host.file("", &full("").replace("192.0.2.1:5", "192.0.2.1:6"))?;
    host.ok("reload")?;
    let endpoints = host.shown("endpoints")?;
    assert!(endpoints.contains("192.0.2.1:6"), "{endpoints}");
    Ok(())
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
        // The kernel's module is not killed.
        return host.ok("down").map(|_| ());
    }
    for _ in 0..2 {
        kill_daemons(&host.site)?;
        let way = ways()?;
        assert!(way.contains("No route to host"), "{way}");
        assert!(way.contains("192.0.2.77 dev eth0"), "{way}");
        // It is put back, and what was left goes: as from the beginning.
        host.ok("up")?;
        let rules = host.site.sh("ip rule show")?;
        assert_eq!(rules.lines().count(), 5, "{rules}");
        let way = ways()?;
        assert!(way.contains("203.0.113.1 dev wg0"), "{way}");
    }
    host.ok("down")?;
    host.nothing_left()?;
    // Nor is anything left where it is not put back.
    host.ok("up")?;
    kill_daemons(&host.site)?;
    // In another namespace it would not be put back, and nobody would know of it.
    let moved = host
        .site
        .run(&host.quick, &["up", "wg0", "--netns", "other"])?;
    assert_eq!(moved.code, Some(1), "{}", moved.output);
    assert!(moved.output.contains("down wg0' removes it"));
    host.ok("down")?;
    host.nothing_left()?;
    // The hooks of one that lived there are run there.
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

/// A server for names outside of the host's networks, which knows one: `vpn.example` is 192.0.2.1.
struct NameServer {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl NameServer {
    fn start(host: &Host) -> io::Result<NameServer> {
        let socket = host.run(|| UdpSocket::bind((Ipv4Addr::from(NAME_SERVER), 53)))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let end = Arc::new(AtomicBool::new(false));
        let told = end.clone();
        let serve = move || {
            let mut buffer = [0; 512];
            while !told.load(Ordering::Relaxed) {
                let (len, from) = match socket.recv_from(&mut buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                };
                if let Some(answer) = answer(&buffer[..len]) {
                    socket.send_to(&answer, from)?;
                }
            }
            Ok(())
        };
        Ok(NameServer {
            end,
            thread: Some(thread::spawn(serve)),
        })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a question (RFC 1035, section 4.1): no address but for the one name.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let name = b"\x03vpn\x07example\0";
    let behind = 12 + name.len();
    let is_known = question.get(12..behind)? == name;
    let is_address = question.get(behind..behind + 2)? == [0, 1];
    let mut answer = question.get(..behind + 4)?.to_vec();
    (answer[2], answer[3]) = (0x81, if is_known { 0x80 } else { 0x83 });
    answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(is_known && is_address), 0, 0, 0, 0]);
    if is_known && is_address {
        answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    }
    Some(answer)
}

/// What is left of a killed daemon's tunnel keeps everything from being sent in clear, questions for
/// names too. `up` gets an answer all the same, and runs the hooks that nobody has run.
#[test]
fn up_after_a_kill_resolves_names_and_runs_the_hooks_of_down_once() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some(mut site) = Site::new(&lab, "site")? else {
        return Ok(());
    };
    let quick = Quick::ours()?;
    let gateway = lab.host("gateway")?;
    lab.cable((&site.host, "eth0"), (&gateway, "eth0"), 1500)?;
    site.host.address("eth0", [192, 0, 2, 2], 24)?;
    gateway.address("eth0", [192, 0, 2, 1], 24)?;
    gateway.address("lo", NAME_SERVER, 32)?;
    let _server = NameServer::start(&gateway)?;
    // Then DNS is in /etc/resolv.conf itself.
    site.hide("resolvectl")?;
    site.sh(&format!(
        "rm -f {BIN}/resolvconf /etc/netns-tests/all/resolvconf
         ip route add default via 192.0.2.1
         echo 'hosts: files dns' > /etc/nsswitch.conf
         echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark
         rm -f /etc/resolv.conf"
    ))?;
    let resolv_conf = format!(
        "nameserver {}\noptions timeout:2\n",
        Ipv4Addr::from(NAME_SERVER)
    );
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
        // The second hook of PreDown failed, and was no reason to stop.
        assert_eq!(log()?, "PreDown PostDown PostUp", "{dns}: {said}");
        assert!(said.contains("PreDown: exit code 1; going on"), "{said}");
        let shown = site.sh("wg show wg0 endpoints; wg show wg0 fwmark; ip -4 rule show")?;
        assert!(shown.contains("192.0.2.1:5"), "{shown}");
        // The mark is the same one, with one pair of rules.
        assert!(shown.contains("0xca6c"), "{shown}");
        assert_eq!(shown.lines().count(), 7, "{shown}");

        // A failed `up` leaves nothing of the hooks to do.
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

/// It is told the process of the daemon; hooks, the daemon and scripts of other units do not speak for
/// the unit.
#[test]
fn the_service_manager_is_told_which_process_to_watch() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    let path = format!("{SOCKETS}/notify");
    let notify = host.site.host.run(|| UnixDatagram::bind(&path))?;
    let told = || -> io::Result<Option<String>> {
        let mut buffer = [0; 100];
        match notify.recv(&mut buffer) {
            Ok(len) => Ok(Some(String::from_utf8_lossy(&buffer[..len]).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    };
    notify.set_nonblocking(true)?;
    host.file(&format!("PostUp = env > {LOG}"), &full(""))?;
    let up = |started: Option<&str>| {
        let mut command = host.site.command(&host.quick, &["up", "wg0"])?;
        command.env("NOTIFY_SOCKET", &path);
        match started {
            Some(pid) => command.env("SYSTEMD_EXEC_PID", pid),
            None => command.env_remove("SYSTEMD_EXEC_PID"),
        };
        host.site.finish(host.site.host.spawn(&mut command)?)
    };
    up(None)?.success()?;
    let said = match host.site.host.processes()?[..] {
        [] => "READY=1".into(),
        [daemon] => format!("READY=1\nMAINPID={daemon}"),
        ref others => panic!("{others:?}"),
    };
    assert_eq!(told()?, Some(said));
    let variables = host.site.host.read(LOG)?;
    assert!(!variables.contains("NOTIFY_SOCKET"), "{variables}");
    host.ok("down")?;
    // Nor does it hear of what did not come up, or of what another process runs.
    host.file("PostUp = false", &full(""))?;
    assert_eq!(up(None)?.code, Some(1));
    host.file("", &full(""))?;
    up(Some("1"))?.success()?;
    host.ok("down")?;
    assert_eq!(told()?, None);
    host.site.sh(&format!("rm {path}"))?;
    host.nothing_left()
}

#[test]
fn a_failed_up_leaves_the_mark_valid_for_others() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    let valid = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
    host.site.sh(&format!("echo 0 > {valid}"))?;
    host.file("PostUp = false", &full(""))?;
    assert_eq!(host.run("up")?.code, Some(1));
    assert_eq!(host.site.host.read(valid)?.trim(), "1");
    host.nothing_left()
}

#[test]
fn a_full_run_prevents_nothing() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file("", &full(""))?;
    let folder = "/var/run/wireguard";
    host.site.sh(&format!(
        "mount -t tmpfs -o size=64k,nr_inodes=20 small {folder}"
    ))?;
    // Neither the record nor who holds the lock can be written; files can be made, as the daemon's
    // socket is.
    let fill = format!("cat /dev/zero > {folder}/fill 2> /dev/null || [ -s {folder}/fill ]");
    host.site.sh(&fill)?;
    let said = host.ok("up")?;
    assert!(said.contains("cannot be recorded"), "{said}");
    host.ok("down")?;
    host.site.sh(&format!("rm {folder}/fill"))?;
    host.nothing_left()?;
    // No file can be made.
    host.ok("up")?;
    let files =
        format!("for i in {{1..20}}; do : 2> /dev/null > {folder}/fill.$i || exit 0; done; exit 1");
    host.site.sh(&files)?;
    host.ok("down")?;
    host.site.sh(&format!("rm {folder}/fill*"))?;
    host.nothing_left()
}

#[test]
fn down_ends_an_up_that_waits_for_names() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file(
        "",
        &full("").replace("192.0.2.1:5", "no.such.name.invalid:5"),
    )?;
    let mut command = host.site.command(&host.quick, &["up", "wg0"])?;
    command.env("WG_ENDPOINT_RESOLUTION_RETRIES", "infinity");
    let up = host.site.host.spawn(&mut command)?;
    until(PATIENCE, "the name to be asked for", || {
        Ok(up.output().contains("Trying again").then_some(()))
    })?;
    host.ok("down")?;
    let up = host.site.finish(up)?;
    assert_eq!(up.code, Some(128 + 15), "{}", up.output);
    host.nothing_left()
}

#[test]
fn a_job_that_a_hook_leaves_behind_waits_for_up() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    // The job runs on while the next hook waits.
    host.file(
        "PreUp = wg-quick-rs down %i > /etc/job 2>&1 &\n\
         PostUp = until grep -q 'is being changed' /etc/job; do sleep 0.05; done",
        &full(""),
    )?;
    let run = host.run("up")?;
    assert_eq!(run.code, Some(0), "{}", run.output);
    until(PATIENCE, "the job to take it down", || {
        let links = host.site.sh("ip link show")?;
        Ok((!links.contains("wg0")).then_some(()))
    })
    .map_err(|error| {
        let job = host.site.host.read("/etc/job").unwrap_or_default();
        io::Error::other(format!("{error}: {job}"))
    })?;
    host.nothing_left()
}
