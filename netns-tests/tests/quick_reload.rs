//! `wg-quick-rs reload` during a transfer: no packet is lost, the session and the port are kept, and
//! the result is that of a new `up` of the same file. A new `ListenPort` is not among the changes:
//! packets that the peer sends to the old port before it learns the new one are always lost.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use netns_tests::quick::{Quick, Run, Site};
use netns_tests::{
    Config, Daemon, Host, HostState, Keys, Lab, PATIENCE, Paced, PeerConfig, Via, Wg, until,
};

/// The number of datagrams before and after each reload.
const AROUND: u64 = 50;
/// The gateway's end of the tunnel.
const THERE: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2)),
];
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1));

/// The parts of the config file.
#[derive(Debug, Clone)]
struct File {
    interface: Vec<String>,
    carrier: Vec<String>,
    others: Vec<Vec<String>>,
}

impl File {
    fn new(here: &Keys, there: &Keys, psk: &str) -> File {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<String>>();
        File {
            interface: lines(&format!(
                "PrivateKey = {}\nAddress = 10.77.0.1/24, fd77::1/64\nDNS = 10.77.0.2",
                here.private
            )),
            carrier: lines(&format!(
                "PublicKey = {}\nEndpoint = 192.0.2.2:51820\nAllowedIPs = 10.77.0.2/32, fd77::2/128",
                there.public
            )),
            others: vec![lines(&format!(
                "PublicKey = {}\nPresharedKey = {psk}\nAllowedIPs = 10.90.0.0/24\nEndpoint = 192.0.2.2:7",
                Keys::generate().public
            ))],
        }
    }

    fn text(&self) -> String {
        let mut text = format!("[Interface]\n{}\n", self.interface.join("\n"));
        for peer in std::iter::once(&self.carrier).chain(&self.others) {
            text.push_str(&format!("\n[Peer]\n{}\n", peer.join("\n")));
        }
        text
    }
}

/// Adds a line, in place of one with the same key.
fn put(lines: &mut Vec<String>, line: &str) {
    let key = |line: &str| line.split(" =").next().unwrap_or_default().to_owned();
    lines.retain(|old| key(old) != key(line));
    lines.push(line.to_owned());
}

/// Removes the line with this key.
fn cut(lines: &mut Vec<String>, key: &str) {
    let before = lines.len();
    lines.retain(|line| !line.starts_with(&format!("{key} =")));
    assert!(lines.len() < before, "no {key}");
}

/// The name of a change and the change itself. Each change is made after those before it.
type Change = (&'static str, fn(&mut File));

const CHANGES: &[Change] = &[
    ("nothing", |_| ()),
    ("addresses added", |file| {
        put(
            &mut file.interface,
            "Address = 10.77.0.1/24, fd77::1/64, 10.79.0.1/24, fd79::1/64",
        );
    }),
    ("addresses removed", |file| {
        put(&mut file.interface, "Address = 10.77.0.1/24, fd77::1/64");
    }),
    ("MTU given", |file| put(&mut file.interface, "MTU = 1380")),
    ("MTU changed", |file| put(&mut file.interface, "MTU = 1300")),
    ("MTU found out", |file| cut(&mut file.interface, "MTU")),
    ("DNS changed", |file| {
        put(
            &mut file.interface,
            "DNS = 10.77.0.2, fd77::2, corp.example",
        );
    }),
    ("DNS removed", |file| cut(&mut file.interface, "DNS")),
    ("DNS added", |file| {
        put(&mut file.interface, "DNS = 10.77.0.3")
    }),
    ("allowed IPs of another peer added", |file| {
        put(
            &mut file.others[0],
            "AllowedIPs = 10.90.0.0/24, 10.91.0.0/16, fd91::/48",
        );
    }),
    ("allowed IPs of another peer removed", |file| {
        put(&mut file.others[0], "AllowedIPs = 10.91.0.0/16");
    }),
    ("allowed IPs of the carrying peer added", |file| {
        put(
            &mut file.carrier,
            "AllowedIPs = 10.77.0.2/32, fd77::2/128, 10.92.0.0/16",
        );
    }),
    ("allowed IPs of the carrying peer removed", |file| {
        put(&mut file.carrier, "AllowedIPs = 10.77.0.2/32, fd77::2/128");
    }),
    ("an allowed IP passed to another peer", |file| {
        put(
            &mut file.carrier,
            "AllowedIPs = 10.77.0.2/32, fd77::2/128, 10.91.0.0/16",
        );
        put(&mut file.others[0], "AllowedIPs = 10.90.0.0/24");
    }),
    ("a peer added", |file| {
        file.others.push(vec![
            "PublicKey = Hf4iFwCZpxMqHkRCCSxXC4nYVCOAxIlKe5IIQKuMUSw=".into(),
            "AllowedIPs = 10.93.0.0/16".into(),
            "PersistentKeepalive = 9".into(),
        ]);
    }),
    ("a peer removed", |file| {
        file.others.pop();
    }),
    ("keepalive of the carrying peer added", |file| {
        put(&mut file.carrier, "PersistentKeepalive = 7");
    }),
    ("keepalive of the carrying peer removed", |file| {
        cut(&mut file.carrier, "PersistentKeepalive");
    }),
    ("preshared key of another peer changed", |file| {
        put(
            &mut file.others[0],
            "PresharedKey = cGVyaGFwcyBub3Qgc28gc2VjcmV0IGFmdGVyIGFsbCE=",
        );
    }),
    ("preshared key of another peer removed", |file| {
        cut(&mut file.others[0], "PresharedKey");
    }),
    ("mark given", |file| {
        put(&mut file.interface, "FwMark = 0x77")
    }),
    ("mark removed", |file| cut(&mut file.interface, "FwMark")),
    ("routes into a table of their own", |file| {
        put(&mut file.interface, "Table = 4711");
    }),
    ("no routes", |file| put(&mut file.interface, "Table = off")),
    ("routes again", |file| cut(&mut file.interface, "Table")),
    ("everything through the tunnel", |file| {
        put(&mut file.carrier, "AllowedIPs = 0.0.0.0/0, ::/0");
    }),
    ("an address beside the default route", |file| {
        put(
            &mut file.interface,
            "Address = 10.77.0.1/24, fd77::1/64, 10.79.0.1/24",
        );
    }),
    ("not everything any more", |file| {
        put(&mut file.carrier, "AllowedIPs = 10.77.0.0/24, fd77::/64");
    }),
    ("many things at once", |file| {
        put(
            &mut file.interface,
            "Address = fd77::1/64, 10.77.0.1/24, 10.78.0.1/32",
        );
        put(&mut file.interface, "MTU = 1400");
        put(&mut file.interface, "DNS = 9.9.9.9");
        put(&mut file.carrier, "PersistentKeepalive = 25");
        put(&mut file.others[0], "AllowedIPs = 10.94.0.0/16");
    }),
];

/// The state of a new host after `up` of a file.
fn fresh(quick: &Quick, file: &str) -> io::Result<HostState> {
    let lab = Lab::new()?;
    let (site, _gateway) = cabled(&lab)?.expect("the tools were there");
    site.configure("wg0", file)?;
    site.run(quick, &["up", "wg0"])?.success()?;
    state(&site)
}

/// The state without what may differ: the port, the priorities of rules, the order of the firewall's
/// tables, and the sysctl that `down` does not reset.
fn state(site: &Site) -> io::Result<HostState> {
    let mut state = site.state()?;
    state.forget("ListenPort = ");
    state.forget("ipv4.all.src_valid_mark = ");
    for part in ["rules -4", "rules -6", "addresses", "firewall"] {
        let mut lines = state.part(part).to_vec();
        if part.starts_with("rules") {
            let rest = |line: &String| line.split_once('\t').map(|(_, rest)| rest.to_owned());
            lines = lines.iter().filter_map(rest).collect();
        }
        lines.sort();
        state.put(part, lines);
    }
    Ok(state)
}

/// A client, and a gateway that has the client's default route.
fn cabled(lab: &Lab) -> io::Result<Option<(Site, Host)>> {
    let Some(site) = Site::new(lab, "client")? else {
        return Ok(None);
    };
    site.sh("echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode")?;
    let gateway = lab.host("gateway")?;
    lab.cable((&site.host, "eth0"), (&gateway, "eth0"), 1500)?;
    gateway.address("lo", [198, 51, 100, 2], 32)?;
    for (host, number) in [(&site.host, 1), (&gateway, 2)] {
        host.address("eth0", [192, 0, 2, number], 24)?;
        host.address("eth0", [0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()], 64)?;
    }
    site.sh("ip link set eth0 address 02:00:00:00:00:01
         ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2")?;
    Ok(Some((site, gateway)))
}

#[test]
fn reload_loses_no_packet() -> io::Result<()> {
    lose_nothing(|_| (), CHANGES)
}

/// The peer is behind the gateway: only the main table's default route leads to it.
#[test]
fn a_change_of_mark_loses_no_packet() -> io::Result<()> {
    let start = |file: &mut File| {
        put(&mut file.carrier, "Endpoint = 198.51.100.2:51820");
        put(&mut file.carrier, "AllowedIPs = 0.0.0.0/0, ::/0");
        cut(&mut file.interface, "DNS");
    };
    lose_nothing(start, MARKS)
}

const MARKS: &[Change] = &[
    ("mark given", |file| {
        put(&mut file.interface, "FwMark = 0x77")
    }),
    ("mark changed", |file| {
        put(&mut file.interface, "FwMark = 0x78")
    }),
    ("mark removed", |file| cut(&mut file.interface, "FwMark")),
    ("mark given, one family less", |file| {
        put(&mut file.interface, "FwMark = 0x77");
        put(&mut file.carrier, "AllowedIPs = 0.0.0.0/0, fd77::2/128");
    }),
    ("mark changed, the other family", |file| {
        put(&mut file.interface, "FwMark = 0x78");
        put(&mut file.carrier, "AllowedIPs = 10.77.0.2/32, ::/0");
    }),
    ("mark changed, no default route", |file| {
        put(&mut file.interface, "FwMark = 0x77");
        put(&mut file.carrier, "AllowedIPs = 10.77.0.2/32, fd77::2/128");
    }),
    ("mark changed, default routes again", |file| {
        put(&mut file.interface, "FwMark = 0x78");
        put(&mut file.carrier, "AllowedIPs = 0.0.0.0/0, ::/0");
    }),
    // This reload fails when it sets DNS.
    ("mark changed, and undone", |file| {
        put(&mut file.interface, "FwMark = 0x77");
        put(&mut file.interface, "DNS = 10.77.0.2");
    }),
];

fn reload(site: &Site, quick: &Quick, file: &str) -> io::Result<Run> {
    site.configure("wg0", file)?;
    site.run(quick, &["reload", "wg0"])
}

/// The number of datagrams that each flow sent during `work`.
fn sent_while<T, const N: usize>(
    flows: &[Paced; N],
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<([u64; N], T)> {
    let sent = || flows.each_ref().map(|flow| flow.count().sent);
    let before = sent();
    let done = work()?;
    let after = sent();
    Ok((std::array::from_fn(|n| after[n] - before[n]), done))
}

/// Whether a session is so old that a new one may begin by itself (REKEY_AFTER_TIME is 120 s).
fn is_old(handshake: Option<SystemTime>) -> bool {
    let age = handshake.and_then(|time| time.elapsed().ok());
    age.is_none_or(|age| age > Duration::from_secs(100))
}

/// A client whose tunnel to the gateway is up. Its fields are dropped in this order.
struct TunnelUp {
    wg: Wg,
    site: Site,
    gateway: Host,
    quick: Quick,
    here: Keys,
    there: Keys,
    file: File,
    _lab: Lab,
}

impl TunnelUp {
    /// Brings the tunnel up by the usual file, after `change`; `None` if a tool is missing.
    fn new(change: fn(&mut File)) -> io::Result<Option<TunnelUp>> {
        let lab = Lab::new()?;
        let Some((site, gateway)) = cabled(&lab)? else {
            return Ok(None);
        };
        let quick = Quick::ours()?;
        let (here, there) = (Keys::generate(), Keys::generate());
        let wg = Daemon::ours()?.start(&gateway, "wg0", Via::Uapi)?;
        let client = PeerConfig::new(here.public)
            .allow(HERE, 32)
            .allow([0xfd77, 0, 0, 0, 0, 0, 0, 1], 128);
        wg.set(&Config::new(&there, 51820).peer(client))?;
        wg.up(1420, &[(THERE[0], 24), (THERE[1], 64)])?;

        let mut file = File::new(&here, &there, &Keys::generate().public.to_string());
        change(&mut file);
        site.configure("wg0", &file.text())?;
        site.run(&quick, &["up", "wg0"])?.success()?;
        for address in THERE {
            site.host.reach(address, PATIENCE)?;
        }
        Ok(Some(TunnelUp {
            wg,
            site,
            gateway,
            quick,
            here,
            there,
            file,
            _lab: lab,
        }))
    }
}

/// Makes each change in turn, while datagrams go both ways.
fn lose_nothing(start: fn(&mut File), changes: &[Change]) -> io::Result<()> {
    let Some(TunnelUp {
        wg,
        site,
        gateway,
        quick,
        here,
        mut file,
        _lab,
        ..
    }) = TunnelUp::new(start)?
    else {
        return Ok(());
    };
    let port = site.host.sh("wg", &["show", "wg0", "listen-port"])?;

    let (mut tried, mut whole, mut wrong) = (0, 0, Vec::new());
    for (name, change) in changes {
        let fails = name.ends_with("undone");
        let earlier = fails.then(|| state(&site)).transpose()?;
        if fails {
            site.sh("echo exit 1 >> /etc/netns-tests/bin/resolvconf")?;
        }
        let before = file.text();
        change(&mut file);
        let mut failed = Vec::new();
        // On a busy machine no datagram may be sent during a reload: then it
        // has shown nothing, and is made once more.
        until(PATIENCE, "datagrams to be sent during a reload", || {
            let flows = [
                Paced::start(&site.host, (&gateway, THERE[0]))?,
                Paced::start(&site.host, (&gateway, THERE[1]))?,
                Paced::start(&gateway, (&site.host, HERE))?,
            ];
            for flow in &flows {
                flow.go_on(AROUND)?;
            }
            let session = wg.peer(here.public)?.last_handshake;
            let (during, run) = sent_while(&flows, || reload(&site, &quick, &file.text()))?;
            if wg.peer(here.public)?.last_handshake != session && !is_old(session) {
                failed.push("a new handshake".into());
            }
            for flow in &flows {
                flow.go_on(AROUND)?;
            }
            if run.code != Some(fails.into()) {
                failed.push(format!("it ended with {:?}: {}", run.code, run.output));
            }
            for (flow, during) in flows.into_iter().zip(during) {
                let count = flow.finish()?;
                if count.lost() > 0 {
                    failed.push(format!(
                        "{} lost of {}, {during} of them sent meanwhile",
                        count.lost(),
                        count.sent
                    ));
                }
            }
            let shown = during.iter().all(|sent| *sent > 0) || !failed.is_empty();
            if !shown {
                reload(&site, &quick, &before)?;
            }
            Ok(shown.then_some(()))
        })?;
        if fails {
            site.sh("sed -i '$d' /etc/netns-tests/bin/resolvconf")?;
        }
        let expected = match earlier {
            Some(earlier) => earlier,
            None => fresh(&quick, &file.text())?,
        };
        let differences = expected.against(&state(&site)?);
        failed.extend(
            differences
                .0
                .into_iter()
                .map(|line| format!("a fresh up: {line}")),
        );
        tried += 1;
        if failed.is_empty() {
            whole += 1;
        } else {
            wrong.push(format!("{name}\n    {}", failed.join("\n    ")));
        }
    }
    // Not println!, which the test runner captures.
    writeln!(
        io::stderr(),
        "\nwg-quick-rs reload under a transfer: {tried} kinds of change, {whole} without a loss"
    )?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(site.host.sh("wg", &["show", "wg0", "listen-port"])?, port);
    site.run(&quick, &["down", "wg0"])?.success().map(|_| ())
}

/// The gateway's port changed after `up`, and the client learnt that from a packet.
#[test]
fn reload_keeps_the_endpoint_of_a_peer_that_roamed() -> io::Result<()> {
    let Some(TunnelUp {
        wg,
        site,
        gateway,
        quick,
        there,
        mut file,
        _lab,
        ..
    }) = TunnelUp::new(|_| ())?
    else {
        return Ok(());
    };
    wg.set(&Config {
        listen_port: Some(9999),
        ..Config::default()
    })?;
    let is_there = || -> io::Result<bool> {
        let endpoints = site.sh("wg show wg0 endpoints")?;
        Ok(endpoints.contains(&format!("{}\t192.0.2.2:9999", there.public)))
    };
    until(PATIENCE, "the client to learn of the move", || {
        gateway.reach(HERE, PATIENCE)?;
        Ok(is_there()?.then_some(()))
    })?;

    put(&mut file.interface, "MTU = 1380");
    let changed = file.text();
    for (what, text) in [
        ("the same file", site.host.read("/etc/wireguard/wg0.conf")?),
        ("another", changed),
    ] {
        // The gateway sends nothing, as its packets would tell the client its endpoint again.
        let flow = Paced::start(&site.host, (&gateway, THERE[0]))?;
        flow.go_on(AROUND)?;
        reload(&site, &quick, &text)?.success()?;
        assert!(is_there()?, "{what} sent the peer back");
        flow.go_on(AROUND)?;
        let count = flow.finish()?;
        assert_eq!(count.lost(), 0, "{what}: {count:?}");
    }
    Ok(())
}

/// Files whose hooks add routes for allowed IPs: the lines for `[Interface]`, and the allowed IPs.
const HOOKS: &[(&str, &str)] = &[
    (
        "Table = off\nPostUp = ip route add 0.0.0.0/0 dev %i table 200",
        "0.0.0.0/0",
    ),
    // The text of this hook does not tell what it does.
    (
        "Table = off\nPostUp = n=0; ip route add $n.0.0.0/$n dev %i table 200",
        "0.0.0.0/0",
    ),
    (
        "Table = off\nPostUp = ip route add 10.90.0.0/24 dev %i",
        "10.90.0.0/24, 10.91.0.0/24",
    ),
    // `up` itself would add the same route.
    (
        "Table = off\nFwMark = 51820\n\
         PostUp = ip rule add not fwmark 51820 table 51820\n\
         PostUp = ip rule add table main suppress_prefixlength 0\n\
         PostUp = ip route add default dev %i table 51820",
        "0.0.0.0/0",
    ),
    (
        "PostUp = ip route add 10.90.0.0/24 dev %i table 200",
        "10.90.0.0/24, 10.91.0.0/24",
    ),
    (
        "PostUp = ip -4 route add default dev %i table 200; ip -6 route add default dev %i table 200",
        "0.0.0.0/0, ::/0, 10.90.0.0/24",
    ),
    (
        "Table = 4711\nPostUp = n=90; ip route add 10.$n.0.0/24 dev %i table main",
        "10.90.0.0/24, 10.91.0.0/24",
    ),
];

#[test]
fn reload_keeps_the_routes_of_hooks() -> io::Result<()> {
    let quick = Quick::ours()?;
    let (here, there) = (Keys::generate(), Keys::generate());
    for (interface, ips) in HOOKS {
        let lab = Lab::new()?;
        let Some((site, _gateway)) = cabled(&lab)? else {
            return Ok(());
        };
        let file = |more: &str, ips: &str| {
            format!(
                "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.1/24, fd77::1/64\n{more}{interface}\n\
                 [Peer]\nPublicKey = {}\nEndpoint = 192.0.2.2:51820\nAllowedIPs = {ips}\n",
                here.private, there.public
            )
        };
        site.configure("wg0", &file("", ips))?;
        site.run(&quick, &["up", "wg0"])?.success()?;
        let before = state(&site)?;
        site.run(&quick, &["reload", "wg0"])?.success()?;
        let changed = before.against(&state(&site)?);
        assert!(changed.none(), "{interface}: the same file: {changed}");

        let other = file("MTU = 1300\n", &format!("{ips}, 10.99.0.0/16"));
        site.configure("wg0", &other)?;
        site.run(&quick, &["reload", "wg0"])?.success()?;
        let changed = fresh(&quick, &other)?.against(&state(&site)?);
        assert!(changed.none(), "{interface}: another file: {changed}");
    }
    Ok(())
}

#[test]
fn a_failed_reload_leaves_no_dns_where_there_was_none() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, _gateway)) = cabled(&lab)? else {
        return Ok(());
    };
    let quick = Quick::ours()?;
    let text = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.1/24\n",
        Keys::generate().private
    );
    site.configure("wg0", &text)?;
    site.run(&quick, &["up", "wg0"])?.success()?;
    let before = site.state()?;
    // This resolvconf stores the record, and then fails.
    let records = "/etc/netns-tests/dns";
    site.stand_in(
        "resolvconf",
        &format!(
            "#!/bin/sh\ncase $1 in\n-a) cat > {records}/$2; exit 1 ;;\n\
             -d) rm -f {records}/$2 ;;\n-l) cat {records}/$2 ;;\nesac\n"
        ),
    )?;
    site.configure("wg0", &format!("{text}DNS = 10.77.0.2\n"))?;
    let run = site.run(&quick, &["reload", "wg0"])?;
    assert_eq!(run.code, Some(1), "{}", run.output);
    let left = before.against(&site.state()?);
    assert!(left.none(), "{left}\n{}", run.output);
    Ok(())
}
