//! Encrypted packets whose path is slow, or leads back into the tunnel.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netns_tests::netlink::Route;
use netns_tests::{
    Config, Daemon, Family, Host, Keys, Lab, PATIENCE, PeerConfig, Ping, Plan, Tunnel, Via, Wg,
    binaries, require, until,
};
use nix::sys::signal::Signal;

/// A hub and two peers, each on its own cable. Their tunnel addresses are 10.78.0.1, .2 and .3.
struct Star {
    hub: Host,
    peers: Vec<Host>,
    // Ends are dropped before the lab.
    _wgs: Vec<Wg>,
    _lab: Lab,
}

impl Star {
    fn new() -> io::Result<Star> {
        let lab = Lab::new()?;
        let daemon = Daemon::ours()?;
        let hub = lab.host("hub")?;
        let keys = Keys::generate();
        let mut config = Config::new(&keys, 51820);
        let (mut peers, mut wgs) = (Vec::new(), Vec::new());
        for n in 2..4u8 {
            let host = lab.host(&format!("peer{n}"))?;
            let link = format!("eth{n}");
            lab.cable((&hub, &link), (&host, "eth0"), 1500)?;
            hub.address(&link, [198, 51, n, 1], 24)?;
            host.address("eth0", [198, 51, n, 2], 24)?;
            let own = Keys::generate();
            config = config.peer(
                PeerConfig::new(own.public)
                    .allow([10, 78, 0, n], 32)
                    .at(([198, 51, n, 2], 51820)),
            );
            let wg = daemon.start(&host, "wg0", Via::Uapi)?;
            let peer = PeerConfig::new(keys.public)
                .allow([10, 78, 0, 1], 32)
                .at(([198, 51, n, 1], 51820));
            wg.set(&Config::new(&own, 51820).peer(peer))?;
            wg.up(1420, &[([10, 78, 0, n].into(), 24)])?;
            peers.push(host);
            wgs.push(wg);
        }
        let wg = daemon.start(&hub, "wg0", Via::Uapi)?;
        wg.set(&config)?;
        wg.up(1420, &[([10, 78, 0, 1].into(), 24)])?;
        wgs.push(wg);
        for n in 2..4 {
            hub.reach([10, 78, 0, n], PATIENCE)?;
        }
        Ok(Star {
            hub,
            peers,
            _wgs: wgs,
            _lab: lab,
        })
    }
}

/// One socket serves all peers. Packets that wait for a slow link to one peer must not delay packets to
/// other peers, or make them be dropped.
#[test]
fn a_slow_link_of_one_peer_does_not_delay_the_others() -> io::Result<()> {
    if require("tc", binaries::on_path("tc")).is_none() {
        return Ok(());
    }
    let star = Star::new()?;
    assert_eq!(star.peers.len(), 2);
    let slow = "qdisc add dev eth2 root tbf rate 10mbit burst 32kb limit 64mb";
    let args: Vec<&str> = slow.split(' ').collect();
    star.hub.sh("tc", &args)?;
    // Ten times the rate of the link, until the test ends it.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let flood = star.hub.thread(move || -> io::Result<u64> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let mut sent = 0;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            for _ in 0..20 {
                let to = SocketAddr::from(([10, 78, 0, 2], 9));
                sent += u64::from(socket.send_to(&[0; 1200], to).is_ok());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(sent)
    });
    let queue_is_full = || {
        let shown = star.hub.sh("tc", &["-s", "qdisc", "show", "dev", "eth2"])?;
        let backlog = shown.split("backlog ").nth(1).unwrap_or_default();
        let waits = backlog.contains("Mb") || backlog.contains("Kb");
        Ok(waits.then_some(()))
    };
    until(PATIENCE, "a queue on the slow link", queue_is_full)?;
    // One round must be good, as this machine may be busy with other things for a while. The queue on
    // the slow link would delay each of them: it is never empty.
    let mut rounds = Vec::new();
    let good = until(PATIENCE, "a round without delay", || {
        let pinged = star.hub.ping(&Ping {
            count: 80,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(1),
            ..Ping::to([10, 78, 0, 3])
        })?;
        let worst = pinged.rtts.iter().max().copied().unwrap_or(Duration::MAX);
        rounds.push((pinged.lost(), worst));
        let is_good = pinged.lost() == 0 && worst < Duration::from_millis(20);
        Ok(is_good.then_some(()))
    });
    drop(stop);
    let sent = flood.join().expect("no panic")?;
    assert!(sent > 1000, "that was no flood: {sent} datagrams");
    good.map_err(|error| {
        let text = format!("{error}; lost and worst round trip of each round: {rounds:?}");
        io::Error::new(error.kind(), text)
    })
}

/// If the route to the endpoint leads into the tunnel, each encrypted packet would become the next one,
/// without end.
#[test]
fn a_routing_loop_is_cut_and_reported_once() -> io::Result<()> {
    let mut tunnel = Tunnel::established(&Plan::new(&Daemon::ours()?, &Daemon::ours()?))?;
    let (here, there) = (&tunnel.a, &tunnel.b);
    let endpoint = there.outer(Family::V4);
    here.wg.set(&Config::of(
        PeerConfig::new(there.keys.public).allow(endpoint, 32),
    ))?;
    let sent =
        |tunnel: &Tunnel| Ok::<_, io::Error>(tunnel.a.wg.peer(tunnel.b.keys.public)?.tx_bytes);
    let before = sent(&tunnel)?;
    let looped = Route::dev(endpoint, 32, "wg0");
    here.host.run(|| looped.add())?;
    let lost = here.host.ping(&Ping {
        count: 20,
        timeout: Duration::from_millis(50),
        ..Ping::to(there.inner(Family::V4))
    })?;
    assert_eq!(lost.received(), 0, "the loop is none");
    let stormed = sent(&tunnel)? - before;
    assert!(stormed < 20_000, "{stormed} bytes were sent for 20 pings");
    here.host.run(|| looped.delete())?;
    here.host.reach(there.inner(Family::V4), PATIENCE)?;
    let proc = tunnel.a.wg.proc.as_mut().expect("a process");
    proc.signal(Signal::SIGTERM)?;
    proc.wait(PATIENCE)?;
    let said = proc.output();
    assert_eq!(said.matches("routing loop").count(), 1, "{said}");
    assert!(said.contains(&endpoint.to_string()), "{said}");
    Ok(())
}
