//! Many clients change and read one interface at the same time, for ten seconds or for as many as
//! `NETNS_TESTS_SECONDS` says, while packets pass in both directions. No answer is wrong and no packet is
//! lost.

use std::collections::HashSet;
use std::env;
use std::io;
use std::time::{Duration, Instant};

use netns_tests::{
    Churn, Config, Crew, Daemon, End, Family, Key, Paced, PeerConfig, Plan, SOCKETS, Tunnel, Uapi,
    binaries,
};

const SECONDS: u64 = 10;
/// Clients that each have their own peers, and the number of those.
const CLIENTS: u8 = 6;
const PEERS: usize = 8;

#[test]
fn many_clients_change_and_read_an_interface() -> io::Result<()> {
    let seconds = env::var("NETNS_TESTS_SECONDS").ok();
    let seconds = seconds
        .and_then(|text| text.parse().ok())
        .unwrap_or(SECONDS);
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let flows = [
        Paced::start(&a.host, (&b.host, b.inner(Family::V4)))?,
        Paced::start(&b.host, (&a.host, a.inner(Family::V6)))?,
    ];
    flows.iter().try_for_each(|flow| flow.go_on(20))?;

    let mut crew = Crew::default();
    for number in 0..CLIENTS {
        let random = |_| Ok(PeerConfig::new(Key::random().public()));
        let mut client = Churn::new(100 + number, &a.host, PEERS, random)?;
        crew.repeat(format!("client {number}"), Duration::ZERO, move || {
            client.change()?;
            client.check()
        });
    }
    // Each reply is of one moment: it has the peer of the flow, and no network twice.
    let (host, key, networks) = (
        a.host.clone(),
        b.keys.public,
        a.wg.peer(b.keys.public)?.allowed_ips,
    );
    crew.repeat("reader", Duration::ZERO, move || {
        let state = Uapi::connect(&host, "wg0")?.get()?;
        assert_eq!(state.peer(key)?.allowed_ips, networks);
        let mut seen = HashSet::new();
        let all = state.peers.iter().flat_map(|peer| &peer.allowed_ips);
        all.for_each(|network| assert!(seen.insert(network), "{network:?} is listed twice"));
        Ok(())
    });
    // At the other end, a file with more peers and one with fewer are applied in turn.
    let own = PeerConfig::new(a.keys.public)
        .allow(a.inner(Family::V4), 32)
        .allow(a.inner(Family::V6), 128)
        .at(a.endpoint(Family::V4));
    let short = Config::new(&b.keys, End::PORT).peer(own);
    let more = (0..50).map(|n| PeerConfig::new(Key::random().public()).allow([10, 99, n, 0], 24));
    let long = more.fold(short.clone(), Config::peer);
    let (host, wg_rs) = (b.host.clone(), binaries::wg_rs()?);
    let path = format!("{SOCKETS}/synced.conf");
    let mut turn = 0;
    crew.repeat("syncconf", Duration::ZERO, move || {
        turn += 1;
        let file = if turn % 2 == 0 { &short } else { &long };
        host.write(&path, &file.file(&[]))?;
        host.sh(&wg_rs, &["syncconf", "wg0", &path])?;
        let found = Uapi::connect(&host, "wg0")?.get()?.peers.len();
        assert_eq!(found, file.peers.len());
        Ok(())
    });

    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end && !crew.has_failed() {
        flows.iter().try_for_each(|flow| flow.go_on(20))?;
    }
    crew.finish()?;
    for flow in flows {
        let count = flow.finish()?;
        assert_eq!(count.lost(), 0, "{count:?}");
    }
    Ok(())
}
