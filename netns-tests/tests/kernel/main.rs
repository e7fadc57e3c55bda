//! The real kernel module, in a virtual machine: its interfaces with `wg` and `wg-rs`, and tunnels
//! between it and ours.

mod people;
mod trials;

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use netns_tests::way::{SERVER_V6, Way, echo, get, http, round, socks};
use netns_tests::{
    By, Config, Daemon, End, Family, Host, Key, Keys, Lab, PATIENCE, PeerConfig, Plan, SOCKETS,
    Spokes, Tunnel, Via, Wg, binaries, netlink, ping_all, process, rekey, transfer, until, vm,
};

/// A limit for one step: all tests share one emulated processor.
const UNHURRIED: Duration = Duration::from_secs(20);

fn kernel() -> io::Result<Daemon> {
    Daemon::kernel(&Lab::new()?.host("probe")?)
}

/// Our daemon and the kernel's module, each as `a`, which sends first and roams.
fn plans() -> io::Result<[Plan; 2]> {
    let (ours, kernel) = (Daemon::ours()?, kernel()?);
    Ok([Plan::new(&ours, &kernel), Plan::new(&kernel, &ours)])
}

/// It is the first by its name, so that it runs beside all the others; it has little traffic.
#[test]
fn a_rekey_under_traffic() {
    vm::inside(|| {
        let plans = plans()?;
        std::thread::scope(|scope| {
            let run = |plan| scope.spawn(move || rekey(plan, 20_000, UNHURRIED));
            let runs = plans.each_ref().map(run);
            runs.into_iter()
                .try_for_each(|run| run.join().expect("a rekey does not panic"))
        })
    });
}

#[test]
fn traffic_with_and_without_a_preshared_key() {
    const BYTES: u64 = 100_000;
    vm::inside(|| {
        for (plan, outer) in plans()?.into_iter().zip(Family::ALL) {
            for preshared in [false, true] {
                let tunnel = Tunnel::established(&Plan {
                    outer,
                    preshared,
                    ..plan.clone()
                })?;
                for inner in Family::ALL {
                    tunnel.ping_both_ways(inner)?;
                    tunnel.transfer_both_ways(inner, BYTES)?;
                }
                for (here, there) in tunnel.ways() {
                    let peer = here.wg.peer(there.keys.public)?;
                    assert!(peer.rx_bytes > 2 * BYTES && peer.tx_bytes > 2 * BYTES);
                    assert_eq!(peer.preshared_key, tunnel.preshared);
                    assert_eq!(peer.endpoint, Some(there.endpoint(outer)));
                    assert!(peer.last_handshake.is_some());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn roaming() {
    vm::inside(|| {
        for plan in plans()? {
            let tunnel = Tunnel::established(&plan)?;
            let (a, b) = (&tunnel.a, &tunnel.b);
            let new = [192, 0, 2, 99].into();
            a.host.run(|| {
                netlink::delete_address("eth0", a.outer(Family::V4), 24)?;
                netlink::add_address("eth0", new, 24)
            })?;
            tunnel.follows((new, End::PORT).into())?;
            a.wg.set(&Config {
                listen_port: Some(9999),
                ..Config::default()
            })?;
            tunnel.follows((new, 9999).into())?;
            let peer = PeerConfig::new(b.keys.public)
                .at(b.endpoint(Family::V6))
                .allow(b.inner(Family::V4), 32)
                .allow(b.inner(Family::V6), 128);
            a.wg.set(&Config::of(peer))?;
            tunnel.follows((a.outer(Family::V6), 9999).into())?;
        }
        Ok(())
    });
}

/// Two kernel interfaces talk through our hub, whose kernel has no part in it.
#[test]
fn two_kernel_peers_through_our_hub() {
    vm::inside(|| {
        let kernel = kernel()?;
        for outer in Family::ALL {
            let psk = Key::random();
            let spokes = Spokes::new([&kernel; 2], By::Relay, outer, Some(psk))?;
            for (here, there) in [(0, 2), (1, 1)] {
                let host = &spokes.ends[here];
                let other = &spokes.ends[usize::from(there) - 1];
                for family in Family::ALL {
                    let to = family.inside(there);
                    ping_all(host, to, 10)?;
                    transfer(host, (other, to), 100_000, |_| ())?;
                }
                let peer = spokes.tunnels[here].peer(spokes.keys[usize::from(there) - 1].public)?;
                assert!(peer.tx_bytes > 200_000 && peer.last_handshake.is_some());
                assert_eq!(peer.preshared_key, Some(psk));
            }
        }
        Ok(())
    });
}

/// `wg-rs forward` and `socks`, run without root, reach a server behind a kernel interface.
#[test]
fn tunnels_without_root_to_the_kernel_module() {
    vm::inside(|| {
        let way = Way::new(kernel()?)?;
        http(&way.server, 80, "hello\n");
        echo(&way.server, 7);
        let file = way.full_file(None)?;
        let v6 = format!("0:[{SERVER_V6}]:80");
        let args = ["forward", &file, "0:10.9.0.1:80", &v6, "0:10.9.0.1:7"];
        let (forward, listening) = way.start(&args, 3)?;
        for at in &listening[..2] {
            let page = way.client.run(|| TcpStream::connect(at).and_then(get))?;
            assert_eq!(page, "hello\n");
        }
        way.client.run(|| round(listening[2], 200_000, 1))?;
        drop(forward);
        let (_socks, listening) = way.start(&["socks", &file, "127.0.0.1:0"], 1)?;
        for host in ["10.9.0.1", &SERVER_V6.to_string()] {
            let page = way
                .client
                .run(|| socks(listening[0], host, 80).and_then(get))?;
            assert_eq!(page, "hello\n");
        }
        Ok(())
    });
}

/// A kernel interface `wg0` in each of two hosts: stock `wg` acts on the first, ours on the other.
struct Pair {
    hosts: [Host; 2],
    _interfaces: [Wg; 2],
    _lab: Lab,
}

impl Pair {
    fn new() -> io::Result<Pair> {
        let lab = Lab::new()?;
        let hosts = [lab.host("stock")?, lab.host("ours")?];
        let kernel = Daemon::kernel(&hosts[0])?;
        let interface = |host| kernel.start(host, "wg0", Via::StockWg);
        Ok(Pair {
            _interfaces: [interface(&hosts[0])?, interface(&hosts[1])?],
            hosts,
            _lab: lab,
        })
    }

    /// The output of the two programs for the same arguments, and whether they succeed.
    fn say(&self, args: &[&str], stdin: &str) -> [Result<String, String>; 2] {
        let say = |host: &Host, program: &str| {
            let ended = format!("{program} ended with ");
            host.sh_with(program, args, stdin)
                .map_err(|error| error.to_string().replace(&ended, ""))
        };
        [say(&self.hosts[0], "wg"), say(&self.hosts[1], "wg-rs")]
    }

    /// Checks that both programs print the same, and returns it.
    fn agree(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let [stock, ours] = self.say(args, stdin);
        assert_eq!(ours, stock, "{args:?}");
        ours
    }

    /// Checks that both programs succeed and print the same, and returns it.
    fn show(&self, args: &str) -> io::Result<String> {
        let args: Vec<_> = args.split_whitespace().collect();
        self.agree(&args, "").map_err(io::Error::other)
    }

    /// Checks that both programs succeed, and that the interfaces are then equal.
    fn change(&self, args: &str, stdin: &str) -> io::Result<()> {
        let args: Vec<_> = args.split_whitespace().collect();
        self.agree(&args, stdin).map_err(io::Error::other)?;
        let dump = ["show", "wg0", "dump"];
        let state = self.hosts[0].sh("wg", &dump)?;
        assert_eq!(self.hosts[1].sh("wg", &dump)?, state, "after {args:?}");
        assert_eq!(self.hosts[1].sh("wg-rs", &dump)?, state, "after {args:?}");
        Ok(())
    }
}

#[test]
fn set_and_show() {
    vm::inside(|| {
        let pair = Pair::new()?;
        let set = |args: &str, stdin: &str| pair.change(&format!("set wg0 {args}"), stdin);
        let [key, psk] = [Key::random(), Key::random()];
        let [a, b, c] = [Key::random(), Key::random(), Key::random()];
        set("listen-port 7000 fwmark 0xca6c", "")?;
        set("private-key /dev/stdin", &format!("{key}\n"))?;
        set(
            &format!(
                "peer {a} preshared-key /dev/stdin endpoint 192.0.2.1:51820 \
                 persistent-keepalive 25 allowed-ips 10.0.0.0/24,fd00::/64,192.0.2.0/25 \
                 peer {b} endpoint [2001:db8::1]:7 allowed-ips 0.0.0.0/0,::/0 peer {c}"
            ),
            &psk.to_string(),
        )?;
        for parameter in [
            "",
            "public-key",
            "private-key",
            "listen-port",
            "fwmark",
            "peers",
            "preshared-keys",
            "endpoints",
            "allowed-ips",
            "latest-handshakes",
            "transfer",
            "persistent-keepalive",
            "dump",
        ] {
            pair.show(&format!("show wg0 {parameter}"))?;
        }
        for all in ["", "show all dump", "show interfaces", "showconf wg0"] {
            assert_ne!(pair.show(all)?, "");
        }
        // Networks move from one peer to another, and back.
        set(&format!("peer {c} allowed-ips 10.0.0.0/24,::/0"), "")?;
        set(&format!("peer {c} allowed-ips 10.0.0.0/24"), "")?;
        set(&format!("peer {a} allowed-ips 10.1.2.3/8"), "")?;
        set(
            &format!("peer {a} preshared-key /dev/null persistent-keepalive off"),
            "",
        )?;
        set(
            &format!("peer {b} remove peer {c} endpoint 192.0.2.9:9"),
            "",
        )?;
        // A peer with the interface's own key is ignored, or removed when the key becomes its own.
        set(
            &format!("peer {} allowed-ips 10.9.0.0/16", key.public()),
            "",
        )?;
        set(
            &format!("peer {} allowed-ips 10.8.0.0/16", psk.public()),
            "",
        )?;
        set("private-key /dev/stdin", &psk.to_string())?;
        set("fwmark off private-key /dev/null", "")?;
        // A newer `wg` removes a single network if the kernel can do so (6.16).
        let known = pair.hosts[1].sh("wg", &["show", "wg0", "dump"])?;
        let minus = [
            "set",
            "wg0",
            "peer",
            &a.to_string(),
            "allowed-ips",
            "-10.0.0.0/8",
        ];
        let taken = pair.hosts[1].sh("wg-rs", &minus);
        let left = pair.hosts[1].sh("wg", &["show", "wg0", "dump"])?;
        match taken {
            Ok(_) => assert_eq!(left, known.replace("10.0.0.0/8", "(none)")),
            Err(error) => {
                assert!(error.to_string().contains("Invalid argument"), "{error}");
                assert_eq!(left, known);
            }
        }
        Ok(())
    });
}

#[test]
fn setconf_addconf_and_syncconf() {
    vm::inside(|| {
        let pair = Pair::new()?;
        let keys = Keys::generate();
        let peer = |i: u8| PeerConfig::new(Key([i; 32])).allow([10, i, 0, 0], 16);
        let full = Config::new(&keys, 7001)
            .peer(peer(1).at(([192, 0, 2, 1], 9)).keepalive(5))
            .peer(
                peer(2)
                    .preshared(Key::random())
                    .allow(Ipv6Addr::LOCALHOST, 128),
            )
            .peer(peer(3).keepalive(7));
        let mut other = Config::new(&keys, 7002)
            .peer(peer(3).keepalive(7))
            .peer(peer(2))
            .peer(peer(4));
        other.fwmark = Some(7);
        let more = Config::default()
            .peer(peer(5))
            .peer(PeerConfig::new(Key([1; 32])));
        for (verb, config) in [
            ("setconf", &full),
            ("addconf", &more),
            ("setconf", &other),
            ("syncconf", &full),
            ("addconf", &full),
            ("setconf", &more),
        ] {
            pair.change(&format!("{verb} wg0 /dev/stdin"), &config.file(&[]))?;
            let shown = pair.show("showconf wg0")?;
            pair.change("syncconf wg0 /dev/stdin", &shown)?;
        }
        // Stock `wg` of 2021 does not change these two.
        let [old, new] = [peer(2).keepalive(9).preshared(Key::random()), peer(2)];
        let host = &pair.hosts[1];
        for peer in [old, new] {
            let file = Config::new(&keys, 7001).peer(peer).file(&[]);
            host.sh_with("wg-rs", &["syncconf", "wg0", "/dev/stdin"], &file)?;
        }
        let peer = host.sh("wg", &["show", "wg0", "dump"])?;
        let fields: Vec<_> = peer.lines().nth(1).unwrap_or("").split('\t').collect();
        assert_eq!((fields[1], fields[7]), ("(none)", "off"), "{peer}");
        Ok(())
    });
}

/// Runs the table of the program `side-by-side` on an interface of the kernel: in two halves, as an
/// emulated processor is slow.
fn side_by_side(skip: &str) -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let _interface = Daemon::kernel(&host)?.start(&host, "wg7", Via::StockWg)?;
    let found = |name| binaries::on_path(name).ok_or_else(|| io::Error::other(name));
    let mut command = Command::new(binaries::build("netns-tests", "side-by-side")?);
    command.arg("--wg").arg(found("wg")?);
    command.arg("--ours").arg(found("wg-rs")?);
    command.args(["--interface", "wg7", "--every", "2", "--skip", skip]);
    let report = host
        .spawn(&mut command)?
        .success(Duration::from_secs(1500))?;
    println!("{report}");
    Ok(())
}

#[test]
fn side_by_side_one_half() {
    vm::inside(|| side_by_side("0"));
}

#[test]
fn side_by_side_the_other_half() {
    vm::inside(|| side_by_side("1"));
}

/// Requests and answers that do not fit in one netlink message.
#[test]
fn a_thousand_allowed_ips_and_a_thousand_peers() {
    vm::inside(|| {
        let pair = Pair::new()?;
        let number = |i: u16| {
            let mut key = [7; 32];
            key[..2].copy_from_slice(&i.to_be_bytes());
            Key(key)
        };
        let v4 = |i: u16| Ipv4Addr::from_bits(0x0a00_0000 | u32::from(i) << 2);
        let v6 = |i: u16| Ipv6Addr::from_bits(0xfd << 120 | u128::from(i) << 32);
        let keys = Keys::generate();
        let mut fat = PeerConfig::new(number(1001));
        for i in 0..1000 {
            fat = fat.allow(v4(i), 30).allow(v6(i), 96);
        }
        let mut config = Config::new(&keys, 7000)
            .peer(PeerConfig::new(number(1000)))
            .peer(fat);
        pair.change("setconf wg0 /dev/stdin", &config.file(&[]))?;
        let shown = pair.show("show wg0 allowed-ips")?;
        assert_eq!(shown.split_whitespace().count(), 3 + 2 * 1000);

        for i in 0..1000 {
            let psk = Key([i as u8 | 1; 32]);
            let peer = PeerConfig::new(number(i)).allow(v4(i), 30).allow(v6(i), 96);
            config = config.peer(peer.preshared(psk).at((v4(i), 9)));
        }
        pair.change("syncconf wg0 /dev/stdin", &config.file(&[]))?;
        assert_eq!(pair.show("show wg0 peers")?.lines().count(), 1002);
        // The thousand peers took all networks of the first one.
        assert!(pair.show("show wg0 allowed-ips")?.contains("(none)"));
        config.peers.truncate(500);
        pair.change("syncconf wg0 /dev/stdin", &config.file(&[]))?;
        let mut removal = String::from("set wg0");
        for i in 0..400 {
            let _ = write!(removal, " peer {} remove", number(i));
        }
        pair.change(&removal, "")?;
        Ok(())
    });
}

#[test]
fn errors_are_those_of_wg() {
    vm::inside(|| {
        let pair = Pair::new()?;
        for args in [
            "show lo",
            "show nope",
            "show a/b",
            "show lo dump",
            "showconf nope",
            "set lo fwmark 1",
            "set nope fwmark 1",
            "syncconf nope /dev/null",
            "setconf lo /dev/null",
        ] {
            let args: Vec<_> = args.split_whitespace().collect();
            let refused = pair.agree(&args, "");
            assert!(refused.is_err(), "{args:?} succeeded");
        }
        // The text of a newer `wg`; the stock one says "Invalid argument".
        let [_, ours] = pair.say(&["show", "a-name-of-16-chr"], "");
        assert!(ours.unwrap_err().contains("File name too long"));
        // Stock `wg` would cut the name, and change the interface of that name.
        let [_, ours] = pair.say(&["set", "a-name-of-16-chr", "fwmark", "1"], "");
        assert!(ours.unwrap_err().contains("No such device"));

        let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        for args in [
            &["show", "wg0"][..],
            &["show", "interfaces"],
            &["set", "wg0", "fwmark", "1"],
        ] {
            let [stock, ours] = ["wg", "wg-rs"].map(|program| {
                let args = [&nobody[..], &[program], args].concat();
                let said = pair.hosts[0].sh("setpriv", &args);
                said.map_err(|error| error.to_string())
            });
            assert_eq!(ours, stock, "{args:?}");
        }
        Ok(())
    });
}

/// `wg-rs link` with interfaces of the kernel. A move sets them down, which ends the session; the first
/// packet begins the next one.
#[test]
fn a_link_is_added_moved_and_deleted() {
    vm::inside(|| {
        let kernel = kernel()?;
        let tunnel = Tunnel::established(&Plan::new(&kernel, &kernel))?;
        let (a, b) = (&tunnel.a, &tunnel.b);
        let inside = tunnel.lab.host("inside")?;
        let anyone = inside.spawn(Command::new("sleep").arg("1000"))?;
        let namespace = format!("pid:{}", anyone.pid());
        a.host.sh("wg-rs", &["link", "move", "wg0", &namespace])?;
        assert!(a.host.run(|| netlink::link("wg0"))?.is_none());
        ping_all(&inside, b.inner(Family::V4), 5)?;
        ping_all(&inside, b.inner(Family::V6), 5)?;
        assert!(a.host.udp_ports()?.contains(&End::PORT));
        let listed = inside.sh("wg-rs", &["link", "list", "--json"])?;
        assert!(
            listed.contains("\"kernel\"") && listed.contains("wg0"),
            "{listed}"
        );

        let config = Config::new(&Keys::generate(), 7777).peer(PeerConfig::new(b.keys.public));
        let add = format!(
            "link add wg1 --backend kernel --netns {namespace} --config /dev/stdin \
             --address 10.99.0.1/24,fd99::1/64 --mtu 1300 --up"
        );
        let add: Vec<_> = add.split_whitespace().collect();
        a.host.sh_with("wg-rs", &add, &config.file(&[]))?;
        let link = inside.run(|| netlink::link("wg1"))?;
        assert_eq!(link.map(|link| (link.up, link.mtu)), Some((true, 1300)));
        let addresses = inside.sh("ip", &["addr", "show", "dev", "wg1"])?;
        assert!(addresses.contains("10.99.0.1/24") && addresses.contains("fd99::1/64"));
        assert!(
            a.host.udp_ports()?.contains(&7777),
            "the socket is not in a"
        );
        // A second interface of this name is refused, and leaves nothing.
        assert!(a.host.sh_with("wg-rs", &add, &config.file(&[])).is_err());
        assert!(a.host.run(|| netlink::link("wg1"))?.is_none());

        for name in ["wg0", "wg1"] {
            inside.sh("wg-rs", &["link", "del", name])?;
            assert!(inside.run(|| netlink::link(name))?.is_none());
        }
        until(PATIENCE, "its ports to close", || {
            Ok(a.host.udp_ports()?.is_empty().then_some(()))
        })?;
        drop(anyone);
        Ok(())
    });
}

/// `wg-rs link` with named namespaces: an interface is created in one, moved to another, listed and
/// deleted.
#[test]
fn a_link_is_moved_between_named_namespaces() {
    vm::inside(|| {
        let lab = Lab::new()?;
        let host = lab.host("host")?;
        for name in ["web", "db"] {
            host.sh("ip", &["netns", "add", name])?;
        }
        let run = |args: &str| {
            let args: Vec<_> = args.split_whitespace().collect();
            host.sh("wg-rs", &args)
        };
        run("link add wg0 --backend kernel --netns web --address 10.77.0.1 --up")?;
        run("--netns web link move wg0 db")?;
        let shown = ["-n", "db", "-o", "addr", "show", "dev", "wg0"];
        let addresses = host.sh("ip", &shown)?;
        assert!(addresses.contains("inet 10.77.0.1/32"), "{addresses}");
        // The interfaces of other tests are listed too.
        let is_listed = || -> io::Result<bool> {
            let listed = run("link list")?;
            Ok(listed.lines().any(|line| {
                let words: Vec<_> = line.split_whitespace().take(3).collect();
                words == ["wg0", "kernel", "db"]
            }))
        };
        assert!(is_listed()?);
        run("--netns db link del wg0")?;
        assert!(!is_listed()?);
        Ok(())
    });
}

#[test]
fn wg_quick_rs_up_reload_and_down() {
    vm::inside(|| {
        let lab = Lab::new()?;
        let (host, inside) = (lab.host("quick")?, lab.host("inside")?);
        let file = format!("{SOCKETS}/wgq.conf");
        let ours = Keys::generate();
        let theirs = Keys::generate().public;
        let write = |networks: &[[u8; 4]], lines: &[&str]| {
            let peer = PeerConfig::new(theirs);
            let peer = networks.iter().fold(peer, |peer, ip| peer.allow(*ip, 16));
            let config = Config {
                private_key: Some(ours.private),
                ..Config::default()
            };
            host.write(&file, &config.peer(peer).file(lines))
        };
        let address = "Address = 10.0.0.1/24, fd00::1/64";
        write(&[[10, 5, 0, 0], [10, 6, 0, 0]], &[address])?;
        host.sh("wg-quick-rs", &["up", &file])?;
        let link = host.sh("ip", &["-d", "link", "show", "wgq"])?;
        assert!(
            link.contains("wireguard") && link.contains("mtu 1420"),
            "{link}"
        );
        let routes = host.sh("ip", &["route", "show", "dev", "wgq"])?;
        assert!(
            routes.contains("10.5.0.0/16") && routes.contains("10.6.0.0/16"),
            "{routes}"
        );
        let port = host.sh("wg", &["show", "wgq", "listen-port"])?;

        // This module cannot remove a single network.
        write(&[[10, 6, 0, 0], [10, 7, 0, 0]], &[address, "MTU = 1300"])?;
        host.sh("wg-quick-rs", &["reload", &file])?;
        let allowed = host.sh("wg", &["show", "wgq", "allowed-ips"])?;
        assert!(allowed.contains("10.6.0.0/16 10.7.0.0/16"), "{allowed}");
        assert!(!allowed.contains("10.5.0.0"), "{allowed}");
        let routes = host.sh("ip", &["route", "show", "dev", "wgq"])?;
        assert!(
            !routes.contains("10.5.0.0/16") && routes.contains("10.7.0.0/16"),
            "{routes}"
        );
        assert_eq!(host.sh("wg", &["show", "wgq", "listen-port"])?, port);
        host.sh("wg-quick-rs", &["down", &file])?;
        assert!(host.run(|| netlink::link("wgq"))?.is_none());

        // In another namespace the interface is found by its key.
        let anyone = inside.spawn(Command::new("sleep").arg("1000"))?;
        let namespace = format!("pid:{}", anyone.pid());
        host.sh("wg-quick-rs", &["up", &file, "--netns", &namespace])?;
        assert!(host.run(|| netlink::link("wgq"))?.is_none());
        let link = inside.run(|| netlink::link("wgq"))?;
        assert_eq!(link.map(|link| (link.up, link.mtu)), Some((true, 1300)));
        host.sh("wg-quick-rs", &["down", &file])?;
        assert!(inside.run(|| netlink::link("wgq"))?.is_none());
        drop(anyone);
        Ok(())
    });
}

/// Locking memory needs CAP_SYS_RESOURCE, which the machine of the other tests may lack.
#[test]
fn the_memory_of_our_daemon_is_locked() {
    vm::inside(|| {
        let lab = Lab::new()?;
        let host = lab.host("alone")?;
        let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
        // It answers once all that is done.
        wg.get()?;
        let status = |label| process::status(wg.pid()?, label);
        assert_eq!(status("Seccomp")?, "2");
        assert_ne!(status("VmLck")?, "0 kB");
        Ok(())
    });
}
