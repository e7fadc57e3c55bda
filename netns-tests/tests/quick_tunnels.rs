//! Tunnels for all traffic by `wg-quick-rs`: two at the same time, and leaks beside one whose peer is
//! dead.
//!
//! ```text
//!            eth0 192.0.2.0/24, 2001:db8:a::/64 ── a ┐
//! client ─┤                                           ├─ 203.0.113.1, 2001:db8:ffff::1 (on either)
//!            eth1 198.51.100.0/24, 2001:db8:b::/64 ─ b ┘
//! ```
//! Without a tunnel the client reaches that address by a, so a leak is seen there.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use netns_tests::quick::{Quick, Site};
use netns_tests::{
    Config, Daemon, Host, Keys, Lab, PATIENCE, PeerConfig, Ping, SeenPacket, Sniffer, Via, Wg,
    ping_all, until,
};

/// An address on the Internet, which is reached by either gateway.
const INTERNET: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(
        0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1,
    )),
];
const PORT: u16 = 51820;

/// A host at the other end of one of the client's cables.
struct Gateway {
    host: Host,
    wg: Option<Wg>,
    keys: Keys,
    /// The client's keys for the tunnel to it.
    client: Keys,
    /// The N in the tunnel's networks 10.77.N.0/24 and fd77:N::/64. The gateway has …2, the client …1.
    number: u16,
    /// Its address on the cable.
    address: IpAddr,
}

impl Gateway {
    fn new(
        lab: &Lab,
        site: &Site,
        (name, link, number): (&str, &str, u16),
        [v4, v6]: [&str; 2],
    ) -> io::Result<Gateway> {
        let host = lab.host(name)?;
        lab.cable((&site.host, link), (&host, "eth0"), 1500)?;
        for (place, link, end) in [(&site.host, link, 1), (&host, "eth0", 2)] {
            for (network, prefix) in [(v4, 24), (v6, 64)] {
                let address: IpAddr = format!("{network}{end}")
                    .parse()
                    .map_err(io::Error::other)?;
                place.address(link, address, prefix)?;
            }
        }
        host.address("lo", INTERNET[0], 32)?;
        host.address("lo", INTERNET[1], 128)?;
        Ok(Gateway {
            host,
            wg: None,
            keys: Keys::generate(),
            client: Keys::generate(),
            number,
            address: format!("{v4}2").parse().map_err(io::Error::other)?,
        })
    }

    fn inner(&self, end: u16) -> [(IpAddr, u8); 2] {
        let (n, end) = (self.number, end);
        [
            ([10, 77, n as u8, end as u8].into(), 24),
            ([0xfd77, n, 0, 0, 0, 0, 0, end].into(), 64),
        ]
    }

    /// Starts its end of the tunnel.
    fn serve(&mut self) -> io::Result<()> {
        let wg = Daemon::ours()?.start(&self.host, "wg0", Via::Uapi)?;
        let [(v4, _), (v6, _)] = self.inner(1);
        let peer = PeerConfig::new(self.client.public)
            .allow(v4, 32)
            .allow(v6, 128);
        wg.set(&Config::new(&self.keys, PORT).peer(peer))?;
        wg.up(1420, &self.inner(2))?;
        self.wg = Some(wg);
        Ok(())
    }

    /// The client's file for a tunnel of all traffic to this gateway.
    fn file(&self) -> String {
        let [(v4, _), (v6, _)] = self.inner(1);
        let peer = PeerConfig::new(self.keys.public)
            .at((self.address, PORT))
            .allow([0, 0, 0, 0], 0)
            .allow([0u16; 8], 0);
        let config = Config {
            private_key: Some(self.client.private),
            ..Config::default()
        };
        config
            .peer(peer)
            .file(&[&format!("Address = {v4}/24, {v6}/64"), "DNS = 10.77.0.53"])
    }

    /// The number of bytes that it received through the tunnel.
    fn heard(&self) -> io::Result<u64> {
        let wg = self.wg.as_ref().expect("it serves");
        Ok(wg.peer(self.client.public)?.rx_bytes)
    }
}

/// The client and the gateways a and b.
fn world(lab: &Lab) -> io::Result<Option<(Site, Gateway, Gateway)>> {
    let Some(site) = Site::new(lab, "client")? else {
        return Ok(None);
    };
    let a = Gateway::new(lab, &site, ("a", "eth0", 1), ["192.0.2.", "2001:db8:a::"])?;
    let b = Gateway::new(
        lab,
        &site,
        ("b", "eth1", 2),
        ["198.51.100.", "2001:db8:b::"],
    )?;
    site.sh("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8:a::2")?;
    for address in INTERNET {
        site.host.reach(address, PATIENCE)?;
    }
    Ok(Some((site, a, b)))
}

/// Checks that both addresses answer, through this gateway's tunnel.
fn routes_by(site: &Site, gateway: &Gateway) -> io::Result<()> {
    const COUNT: usize = 5;
    for address in INTERNET {
        site.host.reach(address, PATIENCE)?;
        let before = gateway.heard()?;
        ping_all(&site.host, address, COUNT)?;
        let heard = gateway.heard()? - before;
        // An echo request of 56 bytes, with its header, is more than 80 in the tunnel.
        assert!(
            heard >= 80 * COUNT as u64,
            "{address}: {heard} bytes by the tunnel"
        );
    }
    Ok(())
}

#[test]
fn the_second_of_two_full_tunnels_works_when_the_first_goes_down() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, mut a, mut b)) = world(&lab)? else {
        return Ok(());
    };
    let ours = Quick::ours()?;
    for gateway in [&mut a, &mut b] {
        gateway.serve()?;
    }
    site.configure("wg0", &a.file())?;
    site.configure("wg1", &b.file())?;
    let before = site.state()?;
    let quick = |args: [&str; 2]| site.run(&ours, &args)?.success();
    // Each of them may come up first, and go down first.
    for [first, second] in [["wg0", "wg1"], ["wg1", "wg0"]] {
        for [goes, stays] in [[first, second], [second, first]] {
            let by = |name| if name == "wg0" { &a } else { &b };
            quick(["up", first])?;
            routes_by(&site, by(first))?;
            quick(["up", second])?;
            routes_by(&site, by(second))?;
            quick(["down", goes])?;
            routes_by(&site, by(stays))?;
            // Only the other tunnel's rules are left.
            let rules = site.state()?;
            for family in ["rules -4", "rules -6"] {
                let rules = rules.part(family).len() - before.part(family).len();
                assert_eq!(rules, 2, "{goes} went: {family}");
            }
            quick(["down", stays])?;
            site.sh("echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark")?;
            let mut left = before.against(&site.state()?);
            let restored = until(PATIENCE, "the state before", || {
                left = before.against(&site.state()?);
                Ok(left.none().then_some(()))
            });
            assert!(restored.is_ok(), "{left}");
            for address in INTERNET {
                site.host.reach(address, PATIENCE)?;
            }
        }
    }
    Ok(())
}

/// Sends to the Internet in several ways until it is stopped: datagrams with and without a given source
/// address, connections and pings.
fn send_out(site: &Site, stop: &AtomicBool) -> io::Result<()> {
    let ping = |to: IpAddr| -> io::Result<()> {
        let ping = Ping {
            count: 1,
            timeout: Duration::from_millis(50),
            ..Ping::to(to)
        };
        // One that no route takes does not leak.
        let _ = site.host.ping(&ping);
        Ok(())
    };
    while !stop.load(Relaxed) {
        for to in INTERNET {
            ping(to)?;
            site.host.run(|| {
                let sources: &[&str] = match to {
                    IpAddr::V4(_) => &["0.0.0.0", "192.0.2.1", "10.77.1.1"],
                    IpAddr::V6(_) => &["::", "2001:db8:a::1", "fd77:1::1"],
                };
                for source in sources {
                    let Ok(socket) = UdpSocket::bind((*source, 0)) else {
                        continue;
                    };
                    let _ = socket.send_to(b"leak", (to, 53));
                }
                let target = SocketAddr::new(to, 80);
                let _ = TcpStream::connect_timeout(&target, Duration::from_millis(20));
            });
        }
    }
    Ok(())
}

/// Sends traffic during `work`, and returns what the far end of the cable saw of the client: the
/// number of the tunnel's own packets, and all other packets except neighbour discovery.
fn seen_while(
    site: &Site,
    gateway: &Gateway,
    sniffer: &Sniffer,
    work: impl FnOnce() -> io::Result<()>,
) -> io::Result<(usize, Vec<SeenPacket>)> {
    let stop = AtomicBool::new(false);
    sniffer.take();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_out(site, &stop));
        let worked = work();
        stop.store(true, Relaxed);
        let sent = sender
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        worked.and(sent)
    })?;
    let mine = [gateway.address, INTERNET[0], INTERNET[1]];
    // Neighbour discovery and multicast listener reports, which every link has.
    let neighbours = |seen: &SeenPacket| match (seen.to, seen.protocol) {
        (IpAddr::V6(to), 0 | 58) => to.is_multicast() || !INTERNET.contains(&seen.to),
        _ => false,
    };
    let (tunnel, other): (Vec<_>, Vec<_>) = sniffer
        .take()
        .into_iter()
        .filter(|seen| !mine.contains(&seen.from) && !neighbours(seen))
        .partition(|seen| (seen.to, seen.protocol, seen.port) == (gateway.address, 17, PORT));
    Ok((tunnel.len(), other))
}

/// How much of the traffic was sent unencrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    None,
    All,
    /// All of it up to a moment and then nothing, or the other way round.
    OneChange,
    /// It changed more than once.
    Several,
}

impl Share {
    fn of(clear: &[bool]) -> Share {
        let changes = clear.windows(2).filter(|pair| pair[0] != pair[1]).count();
        match (changes, clear.first()) {
            (0, Some(true)) => Share::All,
            (0, _) => Share::None,
            (1, _) => Share::OneChange,
            _ => Share::Several,
        }
    }
}

/// How much was sent unencrypted to one address before, during and after a command.
#[derive(Debug)]
struct Clear {
    to: IpAddr,
    before: Share,
    during: Share,
    after: Share,
}

impl Clear {
    /// Checks the shares before and after, and that there was at most one change in between.
    fn is_from_to(&self, before: Share, after: Share) {
        let to = self.to;
        assert_eq!((self.before, self.after), (before, after), "{to}: {self:?}");
        assert_ne!(self.during, Share::Several, "{to}: more than one change");
    }
}

/// Sends numbered datagrams before, during and after `work`. Finds out by their numbers which of them
/// the far end of the cable saw.
fn in_clear_while(
    site: &Site,
    sniffer: &Sniffer,
    work: impl FnOnce() -> io::Result<()>,
) -> io::Result<[Clear; 2]> {
    /// The number of datagrams before and after.
    const AROUND: usize = 100;
    /// A datagram's number is its port minus this one.
    const FIRST: u16 = 1024;
    let sent = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let send = || -> io::Result<()> {
        let sockets = site.host.run(|| -> io::Result<_> {
            Ok([UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?])
        })?;
        while !stop.load(Relaxed) {
            let number = sent.load(Relaxed);
            let port = u16::try_from(number)
                .ok()
                .and_then(|n| n.checked_add(FIRST));
            let port = port.ok_or_else(|| io::Error::other("more datagrams than ports"))?;
            for (socket, to) in sockets.iter().zip(INTERNET) {
                // One that no route takes does not leak.
                let _ = socket.send_to(b"leak", (to, port));
            }
            sent.store(number + 1, Relaxed);
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    };
    let more = |count: usize| {
        let goal = sent.load(Relaxed) + count;
        until(PATIENCE, "datagrams to be sent", || {
            Ok((sent.load(Relaxed) >= goal).then_some(()))
        })
    };
    sniffer.take();
    let bounds = std::thread::scope(|scope| {
        let sender = scope.spawn(send);
        let worked = more(AROUND).and_then(|()| {
            let start = sent.load(Relaxed);
            work()?;
            // The datagram that is being sent may be counted on either side.
            let end = sent.load(Relaxed) + 1;
            more(AROUND)?;
            Ok((start, end))
        });
        stop.store(true, Relaxed);
        let sent = sender
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent.and(worked)
    })?;
    let all = sent.into_inner();
    let mut seen = Vec::new();
    // Waits until the sniffer has read all packets.
    loop {
        std::thread::sleep(Duration::from_millis(200));
        match sniffer.take() {
            none if none.is_empty() => break,
            more => seen.extend(more),
        }
    }
    Ok(INTERNET.map(|to| {
        let mut clear = vec![false; all];
        for packet in seen
            .iter()
            .filter(|seen| (seen.to, seen.protocol) == (to, 17))
        {
            if let Some(number) = packet.port.checked_sub(FIRST)
                && let Some(one) = clear.get_mut(usize::from(number))
            {
                *one = true;
            }
        }
        let (start, end) = bounds;
        Clear {
            to,
            before: Share::of(&clear[..start]),
            during: Share::of(&clear[start..end.min(all)]),
            after: Share::of(&clear[end.min(all)..]),
        }
    }))
}

#[test]
fn nothing_leaks_beside_a_full_tunnel_with_a_dead_peer() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, a, _b)) = world(&lab)? else {
        return Ok(());
    };
    let ours = Quick::ours()?;
    let sniffer = Sniffer::start(&a.host)?;
    let some_time = || {
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    };

    // Without the tunnel all traffic arrives, so the test would see a leak.
    let (_, others) = seen_while(&site, &a, &sniffer, some_time)?;
    for address in INTERNET {
        for protocol in [6, 17, if address.is_ipv4() { 1 } else { 58 }] {
            let seen = |seen: &&SeenPacket| (seen.to, seen.protocol) == (address, protocol);
            assert!(
                others.iter().any(|packet| seen(&packet)),
                "{address}, protocol {protocol}: {others:?}"
            );
        }
    }

    // All traffic is unencrypted until the tunnel is up, and none from then on.
    site.configure("wg0", &a.file())?;
    let in_clear = in_clear_while(&site, &sniffer, || {
        site.run(&ours, &["up", "wg0"])?.success().map(|_| ())
    })?;
    for clear in in_clear {
        clear.is_from_to(Share::All, Share::None);
    }

    // A handshake is retried after five seconds.
    let sent = || site.sh("wg show wg0 transfer | cut -f3");
    let before = sent()?;
    let another = || {
        until(PATIENCE, "another handshake", || {
            Ok((sent()? != before).then_some(()))
        })
    };
    let (tunnel, others) = seen_while(&site, &a, &sniffer, another)?;
    assert!(tunnel > 0, "no handshake was tried");
    assert!(others.is_empty(), "leaked: {others:?}");

    // Nothing leaks during a reload.
    let file = a
        .file()
        .replace("10.77.1.1/24", "10.77.1.1/24, 10.78.1.1/24, fd78:1::1/64");
    site.configure("wg0", &file.replace("[Peer]", "MTU = 1300\n[Peer]"))?;
    let (_, others) = seen_while(&site, &a, &sniffer, || {
        site.run(&ours, &["reload", "wg0"])?.success().map(|_| ())
    })?;
    assert!(others.is_empty(), "leaked in a reload: {others:?}");

    // No traffic is unencrypted until the tunnel is down, and all from then on.
    let in_clear = in_clear_while(&site, &sniffer, || {
        site.run(&ours, &["down", "wg0"])?.success().map(|_| ())
    })?;
    for clear in in_clear {
        clear.is_from_to(Share::None, Share::All);
    }

    // The host has its former routes again.
    for address in INTERNET {
        site.host.reach(address, PATIENCE)?;
    }
    Ok(())
}
