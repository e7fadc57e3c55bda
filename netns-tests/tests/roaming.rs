//! Endpoints that change, and a session that outlives its keys.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netns_tests::{
    Config, Daemon, End, Family, Nat, PATIENCE, Peer, Ping, Plan, Tunnel, netlink, ping_all,
    transfer, until,
};

/// Ours with each: each as `a`, which roams, and as `b`, which must follow.
fn with_each(test: impl Fn(&Plan) -> io::Result<()>) -> io::Result<()> {
    let ours = Daemon::ours()?;
    for other in Daemon::all()? {
        test(&Plan::new(&other, &ours)).map_err(|error| other.blame(error))?;
        if other != ours {
            test(&Plan::new(&ours, &other)).map_err(|error| other.blame(error))?;
        }
    }
    Ok(())
}

/// Pings from a until b has seen it at `endpoint`, then both ways without loss.
fn follows(tunnel: &Tunnel, endpoint: SocketAddr) -> io::Result<()> {
    let (a, b) = (&tunnel.a, &tunnel.b);
    let once = Ping {
        count: 1,
        timeout: Duration::from_millis(200),
        ..Ping::to(b.inner(Family::V4))
    };
    until(PATIENCE, &format!("b to see a at {endpoint}"), || {
        a.host.ping(&once)?;
        Ok((b.wg.peer(a.keys.public)?.endpoint == Some(endpoint)).then_some(()))
    })?;
    tunnel.ping_both_ways(Family::V4)?;
    tunnel.ping_both_ways(Family::V6)
}

#[test]
fn a_changed_address_is_followed() -> io::Result<()> {
    with_each(|plan| {
        for outer in Family::ALL {
            let tunnel = Tunnel::established(&Plan {
                outer,
                ..plan.clone()
            })?;
            let old = tunnel.a.outer(outer);
            let (new, prefix) = match outer {
                Family::V4 => ([192, 0, 2, 99].into(), 24),
                Family::V6 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 99].into(), 64),
            };
            tunnel.a.host.run(|| {
                netlink::delete_address("eth0", old, prefix)?;
                netlink::add_address("eth0", new, prefix)
            })?;
            follows(&tunnel, (new, End::PORT).into())?;
        }
        Ok(())
    })
}

#[test]
fn a_changed_port_is_followed() -> io::Result<()> {
    with_each(|plan| {
        // gotatun 0.10.2 now and then ends when its port is changed ("channel closed").
        if plan.daemons[0].name == "gotatun-cli" {
            return Ok(());
        }
        let tunnel = Tunnel::established(plan)?;
        tunnel.a.wg.set(&Config {
            listen_port: Some(9999),
            ..Config::default()
        })?;
        follows(&tunnel, (tunnel.a.outer(Family::V4), 9999).into())
    })
}

/// netns.sh 8: the peer is told another endpoint, of the other family.
#[test]
fn from_ipv4_to_ipv6_and_back() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&ours, &ours))?;
    for family in [Family::V6, Family::V4] {
        let endpoint = tunnel.b.endpoint(family);
        tunnel
            .a
            .wg
            .set(&Config::of(Peer::new(tunnel.b.keys.public).at(endpoint)))?;
        follows(&tunnel, tunnel.a.endpoint(family))?;
    }
    Ok(())
}

/// netns.sh 13: a NAT box that forgets after two seconds, kept open by a keepalive of one.
#[test]
fn a_persistent_keepalive_holds_a_nat_mapping() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan {
        both_endpoints: false,
        ..Plan::new(&ours, &ours)
    })?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    // The box sits in b's host: to a it is b's address at another port.
    let inside = (b.outer(Family::V4), 0).into();
    let server = b.endpoint(Family::V4);
    let nat = Nat::start(&b.host, inside, server, Duration::from_secs(2))?;
    let through = Peer::new(b.keys.public).at(nat.inside).keepalive(1);
    a.wg.set(&Config::of(through))?;
    let mapped =
        b.wg.until_peer(a.keys.public, "b to see the NAT's port", |peer| {
            peer.endpoint
                .is_some_and(|endpoint| endpoint.port() != End::PORT)
        })?
        .endpoint;
    // Longer than the mapping would live: only keepalives pass.
    let quiet = Instant::now();
    until(Duration::from_secs(9), "five idle seconds", || {
        Ok((quiet.elapsed() > Duration::from_secs(5)).then_some(()))
    })?;
    ping_all(&b.host, a.inner(Family::V4), 10)?;
    assert_eq!(
        b.wg.peer(a.keys.public)?.endpoint,
        mapped,
        "the mapping was never lost"
    );
    Ok(())
}

/// A real rekey under traffic: pings and a paced TCP stream for longer than REKEY_AFTER_TIME.
fn rekey(plan: &Plan) -> io::Result<()> {
    const LONG: Duration = Duration::from_secs(128);
    const RATE: u64 = 2_000_000;
    let tunnel = Tunnel::established(plan)?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let first = a.wg.peer(b.keys.public)?.last_handshake;
    let done = AtomicBool::new(false);
    let (pinged, sent) = std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let pace = Duration::from_millis(50);
            let ping = Ping {
                interval: pace,
                ..Ping::to(b.inner(Family::V4))
            };
            a.host.ping_while(&ping, |_| !done.load(Ordering::Relaxed))
        });
        let bytes = RATE * LONG.as_secs();
        let to = (&b.host, b.inner(Family::V6));
        // At a steady pace, also after a pause: a burst to catch up would overrun a slow peer.
        let pace = Duration::from_secs_f64(16384.0 / RATE as f64);
        let sent = transfer(&a.host, to, bytes, |_| std::thread::sleep(pace));
        done.store(true, Ordering::Relaxed);
        (pings.join().expect("pings do not panic"), sent)
    });
    let (pinged, sent) = (pinged?, sent?);
    let slowest = pinged.rtts.iter().max().copied().unwrap_or_default();
    let pause = sent.longest_pause;
    // On a busy machine a peer with a small socket buffer, other than ours, overflows.
    let overflows = a.host.udp_overflows()? + b.host.udp_overflows()?;
    let smooth = pinged.lost() as u64 <= overflows && slowest.max(pause) < Duration::from_secs(3);
    assert!(
        smooth && pinged.sent > 500,
        "{} and {}: {} pings, lost at {:?}, {overflows} datagrams overflowed a socket, the slowest \
         ping {slowest:?}, TCP's longest pause {pause:?}",
        plan.daemons[0],
        plan.daemons[1],
        pinged.sent,
        pinged.lost_at,
    );
    if plan.daemons[0] == plan.daemons[1] {
        assert_eq!(overflows, 0, "our sockets have room");
    }
    let last = a.wg.peer(b.keys.public)?.last_handshake;
    let between = last
        .zip(first)
        .and_then(|(last, first)| last.duration_since(first).ok());
    assert!(
        between.is_some_and(|between| between >= Duration::from_secs(100)),
        "no new handshake: first {first:?}, last {last:?}"
    );
    Ok(())
}

/// All at once: they are paced, and most of it is waiting. By its name the first of this file, so
/// that it runs beside the others, which leave it the CPU that it needs to lose nothing.
#[test]
fn a_rekey_under_traffic() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let others = Daemon::all()?;
    std::thread::scope(|scope| {
        let runs: Vec<_> = others
            .iter()
            .map(|other| {
                let plan = Plan::new(&ours, other);
                scope.spawn(move || rekey(&plan).map_err(|error| other.blame(error)))
            })
            .collect();
        runs.into_iter()
            .try_for_each(|run| run.join().expect("a rekey does not panic"))
    })
}
