//! The scenarios of the kernel module's own test script (`netns.sh`), as far as they make sense in
//! userspace. The numbers are the positions in that script.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use netns_tests::netlink::{self, Route};
use netns_tests::{
    Config, Daemon, End, Family, Key, Keys, Lab, PATIENCE, PeerConfig, Ping, Plan, Tunnel, Via,
    ping_all, until,
};

fn ours() -> io::Result<Tunnel> {
    let daemon = Daemon::ours()?;
    Tunnel::established(&Plan::new(&daemon, &daemon))
}

fn v4(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn v6(last: u16) -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()
}

/// 1, 29, 30: both interfaces are created in one namespace and moved away. Their sockets stay there,
/// and send over its loopback. The daemons still notice up, down, a new MTU and the deletion.
#[test]
fn sockets_stay_in_the_first_namespace() -> io::Result<()> {
    let lab = Lab::new()?;
    let (birth, one, two) = (lab.host("birth")?, lab.host("one")?, lab.host("two")?);
    let daemon = Daemon::ours()?;
    let keys = [Keys::generate(), Keys::generate()];
    let mut wgs = Vec::new();
    for (n, place) in [&one, &two].into_iter().enumerate() {
        let name = format!("wg{}", n + 1);
        let wg = daemon.start(&birth, &name, Via::Uapi)?;
        let number = n as u8 + 1;
        let peer = PeerConfig::new(keys[1 - n].public)
            .at(([127, 0, 0, 1], u16::from(3 - number)))
            .allow([10, 77, 0, 3 - number], 32);
        wg.set(&Config::new(&keys[n], number.into()).peer(peer))?;
        birth.run(|| netlink::move_link(&name, place.net()))?;
        wg.up_in(place, 1420, &[([10, 77, 0, number].into(), 24)])?;
        wgs.push(wg);
    }
    one.reach([10, 77, 0, 2], PATIENCE)?;
    ping_all(&two, [10, 77, 0, 1].into(), 10)?;
    assert!(birth.udp_ports()?.contains(&1) && birth.udp_ports()?.contains(&2));
    assert!(one.udp_ports()?.is_empty() && two.udp_ports()?.is_empty());

    // Down and up, in another namespace than the daemon's.
    one.run(|| netlink::set_up("wg1", false))?;
    until(PATIENCE, "its sockets to close", || {
        Ok((!birth.udp_ports()?.contains(&1)).then_some(()))
    })?;
    one.run(|| netlink::set_up("wg1", true))?;
    one.reach([10, 77, 0, 2], PATIENCE)?;

    // Another MTU.
    for (place, name) in [(&one, "wg1"), (&two, "wg2")] {
        place.run(|| netlink::set_mtu(name, 20_000))?;
    }
    let big = Ping {
        payload: 19_000,
        ..Ping::to([10, 77, 0, 2])
    };
    until(PATIENCE, "a big ping", || {
        let one_ping = Ping {
            count: 1,
            timeout: Duration::from_millis(300),
            ..big.clone()
        };
        Ok((one.ping(&one_ping)?.lost() == 0).then_some(()))
    })?;
    assert_eq!(one.ping(&big)?.lost(), 0);

    // Deletion.
    one.run(|| netlink::delete_link("wg1"))?;
    let mut wg = wgs.remove(0);
    let status = wg.proc.as_mut().expect("a process").wait(PATIENCE)?;
    assert!(status.success(), "{status}");
    assert!(!birth.run(|| std::fs::exists(wg.socket()))?);
    Ok(())
}

/// 30: the daemon ends when the namespace of its link is deleted.
#[test]
fn the_daemon_ends_with_the_namespace_of_its_link() -> io::Result<()> {
    let lab = Lab::new()?;
    let birth = lab.host("birth")?;
    let mut wg = Daemon::ours()?.start(&birth, "wg1", Via::Uapi)?;
    {
        // In a separate lab, which is dropped to delete the namespace.
        let gone = Lab::new()?;
        let elsewhere = gone.host("elsewhere")?;
        birth.run(|| netlink::move_link("wg1", elsewhere.net()))?;
    }
    let status = wg.proc.as_mut().expect("a process").wait(PATIENCE)?;
    assert!(status.success(), "{status}");
    assert!(!birth.run(|| std::fs::exists(wg.socket()))?);
    Ok(())
}

/// 3: ten pings after the handshake are 1372 bytes in one direction (a response or an initiation, and
/// ten packets of 128 bytes), and 1428 or, with a keepalive, 1460 bytes in the other.
#[test]
fn transfer_counters_equal_the_kernels() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::new(&Plan::new(&daemon, &daemon))?;
    ping_all(&tunnel.a.host, tunnel.b.inner(Family::V4), 10)?;
    // The last answer may arrive before its sender has counted it.
    let counted = |end: &End, other: &End, what| {
        end.wg.until_peer(other.keys.public, what, |peer| {
            peer.rx_bytes.min(peer.tx_bytes) >= 1372
        })
    };
    let a = counted(&tunnel.a, &tunnel.b, "a to count all")?;
    let b = counted(&tunnel.b, &tunnel.a, "b to count all")?;
    assert_eq!((a.rx_bytes, b.tx_bytes), (1372, 1372), "{a:?} {b:?}");
    assert!([1428, 1460].contains(&a.tx_bytes), "{a:?}");
    assert_eq!(b.rx_bytes, a.tx_bytes);
    assert!(a.last_handshake.is_some() && b.last_handshake.is_some());
    Ok(())
}

/// 9: a packet whose source belongs to a peer with a more specific network is dropped if another peer
/// sends it. The endpoint of that peer roams nevertheless.
#[test]
fn a_source_of_another_peer_is_dropped() -> io::Result<()> {
    let tunnel = ours()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let network = PeerConfig::new(a.keys.public).allow([10, 77, 0, 0], 24);
    b.wg.set(&Config::of(network))?;
    ping_all(&a.host, b.inner(Family::V4), 5)?;
    let stranger = Keys::generate().public;
    b.wg.set(&Config::of(
        PeerConfig::new(stranger).allow(a.inner(Family::V4), 32),
    ))?;
    a.wg.set(&Config {
        listen_port: Some(9997),
        ..Config::default()
    })?;
    let ping = Ping {
        timeout: Duration::from_millis(200),
        ..Ping::to(b.inner(Family::V4))
    };
    assert_eq!(
        a.host.ping(&ping)?.received(),
        0,
        "a's address belongs to another peer now"
    );
    let seen = b.wg.peer(a.keys.public)?.endpoint;
    assert_eq!(seen, Some((a.outer(Family::V4), 9997).into()));
    // The network moved to the other peer; moved back, it works again.
    b.wg.set(&Config::of(PeerConfig::removed(stranger)))?;
    b.wg.set(&Config::of(
        PeerConfig::new(a.keys.public).allow(a.inner(Family::V4), 32),
    ))?;
    a.host.reach(b.inner(Family::V4), PATIENCE)?;
    ping_all(&a.host, b.inner(Family::V4), 10)
}

/// 10: both private keys change, with one `set` on each side. Traffic goes on after a new handshake.
#[test]
fn a_change_of_keys_is_followed_by_a_handshake_at_once() -> io::Result<()> {
    let tunnel = ours()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let (new_a, new_b) = (Keys::generate(), Keys::generate());
    for (here, there, mine, theirs) in [(a, b, new_a, new_b), (b, a, new_b, new_a)] {
        let peer = PeerConfig::new(theirs.public)
            .at(there.endpoint(Family::V4))
            .allow(there.inner(Family::V4), 32);
        let mut config = Config::of(PeerConfig::removed(there.keys.public)).peer(peer);
        config.private_key = Some(mine.private);
        here.wg.set(&config)?;
    }
    // The first ping starts the handshake and waits for it: none is lost, and none takes 5 s.
    let ping = Ping {
        timeout: Duration::from_secs(4),
        ..Ping::to(b.inner(Family::V4))
    };
    assert_eq!(a.host.ping(&ping)?.lost(), 0);
    assert_eq!(a.wg.get()?.peers.len(), 1);

    // Setting the same key again changes nothing: the session stays.
    let before = a.wg.peer(new_b.public)?.last_handshake;
    a.wg.set(&Config {
        private_key: Some(new_a.private),
        ..Config::default()
    })?;
    ping_all(&a.host, b.inner(Family::V4), 5)?;
    assert_eq!(a.wg.peer(new_b.public)?.last_handshake, before);
    Ok(())
}

/// 10, slowly: the key changes here long before it is set on the other side. The change itself sends
/// nothing, so the first packet afterwards starts a handshake at once.
#[test]
fn a_key_that_the_peer_learns_late_causes_no_delay() -> io::Result<()> {
    let tunnel = ours()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let new = Keys::generate();
    a.wg.set(&Config {
        private_key: Some(new.private),
        ..Config::default()
    })?;
    b.wg.set(
        &Config::of(PeerConfig::removed(a.keys.public))
            .peer(PeerConfig::new(new.public).allow(a.inner(Family::V4), 32)),
    )?;
    // An initiation before that would delay the next one by 5 s.
    let ping = Ping {
        timeout: Duration::from_secs(4),
        ..Ping::to(b.inner(Family::V4))
    };
    assert_eq!(a.host.ping(&ping)?.lost(), 0);
    Ok(())
}

/// Changes of a peer during traffic lose no packet and start no handshake.
#[test]
fn live_changes_keep_the_session() -> io::Result<()> {
    let tunnel = ours()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let before = b.wg.peer(a.keys.public)?;
    let changes = [
        PeerConfig::new(a.keys.public).keepalive(25),
        PeerConfig::new(a.keys.public).allow([10, 88, 0, 0], 16),
        PeerConfig::new(a.keys.public).preshared(Key::random()),
        PeerConfig::new(a.keys.public).at(a.endpoint(Family::V4)),
        PeerConfig {
            replace_allowed_ips: true,
            ..PeerConfig::new(a.keys.public)
        }
        .allow(a.inner(Family::V4), 32),
    ];
    let done = std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            a.host.ping(&Ping {
                count: 200,
                interval: Duration::from_millis(2),
                ..Ping::to(b.inner(Family::V4))
            })
        });
        let set = changes
            .into_iter()
            .cycle()
            .take(50)
            .try_for_each(|peer| b.wg.set(&Config::of(peer)));
        set.and(pings.join().expect("pings do not panic"))
    })?;
    assert_eq!(done.lost(), 0);
    let after = b.wg.peer(a.keys.public)?;
    assert_eq!(after.last_handshake, before.last_handshake);
    assert!(after.rx_bytes > before.rx_bytes);
    Ok(())
}

/// 11: a tunnel inside the tunnel.
#[test]
fn wireguard_over_wireguard() -> io::Result<()> {
    let tunnel = ours()?;
    let daemon = Daemon::ours()?;
    let keys = [Keys::generate(), Keys::generate()];
    let mut wgs = Vec::new();
    for (n, (here, there)) in tunnel.ways().into_iter().enumerate() {
        let wg = daemon.start(&here.host, "wg1", Via::Uapi)?;
        let address = |number: u8| IpAddr::from([10, 99, 0, number]);
        let peer = PeerConfig::new(keys[1 - n].public)
            .at((there.inner(Family::V6), 2))
            .allow(address(there.number), 32);
        wg.set(&Config::new(&keys[n], 2).peer(peer))?;
        wg.up(1340, &[(address(here.number), 24)])?;
        wgs.push(wg);
    }
    tunnel.a.host.reach([10, 99, 0, 2], PATIENCE)?;
    ping_all(&tunnel.b.host, [10, 99, 0, 1].into(), 10)?;
    let to = (&tunnel.b.host, [10, 99, 0, 2].into());
    netns_tests::transfer(&tunnel.a.host, to, 20_000_000, |_| ()).map(|_| ())
}

/// 12, 15: a peer whose endpoint is routed into its own tunnel must not disturb the machine or the
/// other peers.
#[test]
fn an_endpoint_inside_its_own_tunnel_does_no_harm() -> io::Result<()> {
    let tunnel = ours()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let looped = Keys::generate().public;
    let inside = IpAddr::from([10, 66, 0, 1]);
    a.wg.set(&Config::of(
        PeerConfig::new(looped)
            .at((inside, 1))
            .allow([10, 66, 0, 0], 16),
    ))?;
    a.wg.route([10, 66, 0, 0], 16)?;
    let ping = Ping {
        timeout: Duration::from_millis(100),
        ..Ping::to(inside)
    };
    assert_eq!(a.host.ping(&ping)?.received(), 0);
    assert!(
        a.wg.peer(looped)?.tx_bytes < 70_000,
        "{:?}",
        a.wg.peer(looped)?
    );
    // An endpoint inside of the tunnel to another peer works.
    ping_all(&a.host, b.inner(Family::V4), 10)
}

/// 17: for a destination without a peer or without an endpoint, a local sender gets ICMP host or
/// address unreachable.
#[test]
fn icmp_unreachable_for_no_peer_and_no_endpoint() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let lost = PeerConfig::new(Keys::generate().public)
        .allow([10, 88, 0, 0], 16)
        .allow([0xfd88, 0, 0, 0, 0, 0, 0, 0], 64);
    wg.set(&Config::new(&Keys::generate(), 0).peer(lost))?;
    wg.up(
        1420,
        &[
            ([10, 77, 0, 1].into(), 24),
            ([0xfd77, 0, 0, 0, 0, 0, 0, 1].into(), 64),
        ],
    )?;
    wg.route([10, 88, 0, 0], 16)?;
    wg.route([0xfd88, 0, 0, 0, 0, 0, 0, 0], 64)?;
    let cases: [IpAddr; 4] = [
        [10, 77, 0, 9].into(),
        [10, 88, 0, 9].into(),
        [0xfd77, 0, 0, 0, 0, 0, 0, 9].into(),
        [0xfd88, 0, 0, 0, 0, 0, 0, 9].into(),
    ];
    for to in cases {
        let icmp = host.icmp(to.is_ipv6())?;
        host.run(|| -> io::Result<()> {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any)?
                .send_to(b"anybody?", (to, 7))
                .map(|_| ())
        })?;
        let unreachable = if to.is_ipv6() { (1, 3) } else { (3, 1) };
        let heard = icmp.wait(PATIENCE, |kind, code, rest| {
            // The undeliverable packet begins 6 bytes later; its destination is compared.
            let quoted = rest.get(6..)?;
            let destination = match to {
                IpAddr::V4(to) => quoted.get(16..20)? == to.octets(),
                IpAddr::V6(to) => quoted.get(24..40)? == to.octets(),
            };
            ((kind, code) == unreachable && destination).then_some(())
        })?;
        assert!(heard.is_some(), "nothing heard about {to}");
    }
    Ok(())
}

/// 17, forwarded: a sender behind the host gets it too.
#[test]
fn icmp_unreachable_reaches_a_sender_behind() -> io::Result<()> {
    let lab = Lab::new()?;
    let (host, behind) = (lab.host("host")?, lab.host("behind")?);
    lab.cable((&host, "eth0"), (&behind, "eth0"), 1500)?;
    host.address("eth0", v4(1), 24)?;
    behind.address("eth0", v4(2), 24)?;
    host.write("/proc/sys/net/ipv4/conf/all/forwarding", "1")?;
    behind.run(|| Route::via([10, 77, 0, 0].into(), 24, v4(1), "eth0").add())?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    wg.set(&Config::new(&Keys::generate(), 0))?;
    wg.up(1420, &[([10, 77, 0, 1].into(), 24)])?;
    let icmp = behind.icmp(false)?;
    behind.run(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"anybody?", "10.77.0.9:7"))?;
    let heard = icmp.wait(PATIENCE, |kind, code, _| {
        ((kind, code) == (3, 1)).then_some(())
    })?;
    assert!(heard.is_some());
    Ok(())
}

/// 18: traffic goes on after the source address of packets is replaced.
#[test]
fn a_deleted_source_address_is_given_up() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    for (outer, old, new, prefix) in [
        (Family::V4, v4(1), v4(50), 24),
        (Family::V6, v6(1), v6(50), 64),
    ] {
        let plan = Plan {
            outer,
            ..Plan::new(&daemon, &daemon)
        };
        let tunnel = Tunnel::established(&plan)?;
        tunnel.ping_both_ways(Family::V4)?;
        tunnel.a.host.run(|| {
            netlink::delete_address("eth0", old, prefix)?;
            netlink::add_address("eth0", new, prefix)
        })?;
        tunnel.a.host.reach(tunnel.b.inner(Family::V4), PATIENCE)?;
        tunnel.ping_both_ways(Family::V4)?;
        let seen = tunnel.b.wg.peer(tunnel.a.keys.public)?.endpoint;
        assert_eq!(seen, Some((new, End::PORT).into()));
    }
    Ok(())
}

/// 19: an answer has the source address to which the request was sent.
#[test]
fn answers_come_from_the_address_asked() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    for (outer, asked, prefix) in [
        (Family::V4, v4(2), 24),
        (Family::V4, v4(60), 24),
        (Family::V6, v6(2), 64),
        (Family::V6, v6(60), 64),
    ] {
        let plan = Plan {
            outer,
            both_endpoints: false,
            ..Plan::new(&daemon, &daemon)
        };
        let tunnel = Tunnel::new(&plan)?;
        if asked != tunnel.b.outer(outer) {
            tunnel.b.host.address("eth0", asked, prefix)?;
        }
        let peer = PeerConfig::new(tunnel.b.keys.public).at((asked, End::PORT));
        tunnel.a.wg.set(&Config::of(peer))?;
        tunnel.a.host.reach(tunnel.b.inner(Family::V4), PATIENCE)?;
        tunnel.ping_both_ways(Family::V4)?;
        let seen = tunnel.a.wg.peer(tunnel.b.keys.public)?.endpoint;
        assert_eq!(seen, Some((asked, End::PORT).into()), "asked {asked}");
    }
    Ok(())
}

/// 20: the address of the request belongs to another interface than the route of the answer.
#[test]
fn answers_come_from_an_address_of_another_interface() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let plan = Plan {
        both_endpoints: false,
        ..Plan::new(&daemon, &daemon)
    };
    let tunnel = Tunnel::new(&plan)?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let asked = IpAddr::from([10, 50, 0, 1]);
    b.host.address("lo", asked, 32)?;
    a.host
        .run(|| Route::via([10, 50, 0, 0].into(), 24, b.outer(Family::V4), "eth0").add())?;
    a.wg.set(&Config::of(
        PeerConfig::new(b.keys.public).at((asked, End::PORT)),
    ))?;
    a.host.reach(b.inner(Family::V4), PATIENCE)?;
    tunnel.ping_both_ways(Family::V4)?;
    let seen = a.wg.peer(b.keys.public)?.endpoint;
    assert_eq!(seen, Some((asked, End::PORT).into()));
    Ok(())
}

/// 21: when a better route appears through another interface, the old source address is given up.
#[test]
fn a_better_route_is_taken() -> io::Result<()> {
    let tunnel = ours()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    // A second cable with its own addresses, by which b's address is also reached.
    tunnel
        .lab
        .cable((&a.host, "eth1"), (&b.host, "eth1"), 1500)?;
    a.host.address("eth1", [198, 51, 100, 1], 24)?;
    b.host.address("eth1", [198, 51, 100, 2], 24)?;
    for (host, link) in [
        (&a.host, "eth0"),
        (&a.host, "eth1"),
        (&b.host, "eth0"),
        (&b.host, "eth1"),
    ] {
        host.write(&format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), "0")?;
    }
    for host in [&a.host, &b.host] {
        host.write("/proc/sys/net/ipv4/conf/all/rp_filter", "0")?;
    }
    tunnel.ping_both_ways(Family::V4)?;
    a.host
        .run(|| Route::via(b.outer(Family::V4), 32, [198, 51, 100, 2].into(), "eth1").add())?;
    let better = (IpAddr::from([198, 51, 100, 1]), End::PORT).into();
    until(PATIENCE, "b to see a over the better route", || {
        ping_all(&a.host, b.inner(Family::V4), 1)?;
        Ok((b.wg.peer(a.keys.public)?.endpoint == Some(better)).then_some(()))
    })?;
    tunnel.ping_both_ways(Family::V4)
}
