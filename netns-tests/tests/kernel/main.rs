//! The real kernel module, in a virtual machine: its interfaces with `wg` and `wg-rs`, and tunnels
//! between it and ours.

mod configuration;
mod people;
mod trials;

use std::io;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use netns_tests::way::{SERVER_V6, Way, echo, get, http, round, socks};
use netns_tests::{
    By, Config, Daemon, End, Family, Key, Keys, Lab, PATIENCE, PeerConfig, Plan, SOCKETS, Spokes,
    Tunnel, Via, netlink, ping_all, process, rekey, transfer, until, vm,
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
