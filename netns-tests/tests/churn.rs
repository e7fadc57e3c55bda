//! Many clients change and read one interface at the same time, for ten seconds or for as many as
//! `NETNS_TESTS_SECONDS` says, while packets pass in both directions. No answer is wrong and no packet is
//! lost.

use std::collections::HashSet;
use std::env;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netns_tests::{
    Config, Daemon, End, Family, Host, Key, Paced, PeerConfig, Plan, SOCKETS, Tunnel, Uapi,
    binaries,
};

const SECONDS: u64 = 10;
/// Clients that each have their own peers, and the number of those.
const CLIENTS: u8 = 6;
const PEERS: usize = 8;

/// Numbers that look random, from a seed that is printed when a client fails.
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        let seed = Key::random().hex();
        Dice(u64::from_str_radix(&seed[..15], 16).unwrap_or(1) | 1)
    }

    /// A number below `limit`.
    fn roll(&mut self, limit: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A client, which knows what its own peers must look like. Nobody else changes them.
struct Client {
    number: u8,
    host: Host,
    dice: Dice,
    keys: Vec<Key>,
    peers: Vec<Option<PeerConfig>>,
    connection: Option<Uapi>,
}

impl Client {
    fn new(number: u8, host: &Host) -> Client {
        Client {
            number,
            host: host.clone(),
            dice: Dice::new(),
            keys: (0..PEERS).map(|_| Key::random().public()).collect(),
            peers: vec![None; PEERS],
            connection: None,
        }
    }

    /// Changes one of its peers, and checks all of them.
    fn turn(&mut self) -> io::Result<()> {
        let n = self.dice.roll(PEERS);
        let mut change = PeerConfig::new(self.keys[n]);
        if self.peers[n].is_some() && self.dice.roll(3) == 0 {
            change = PeerConfig::removed(self.keys[n]);
            self.peers[n] = None;
        } else {
            for _ in 0..self.dice.roll(4) {
                let network = self.dice.roll(40) as u8;
                change = change.allow([10, 100 + self.number, network, 0], 24);
            }
            change.keepalive = Some(self.dice.roll(3) as u16);
            change.preshared_key = Some(Key::random());
            change.replace_allowed_ips = true;
            // A network moves to the peer that got it last.
            let taken: HashSet<_> = change.allowed_ips.iter().copied().collect();
            for other in self.peers.iter_mut().flatten() {
                other.allowed_ips.retain(|network| !taken.contains(network));
            }
            change.allowed_ips = taken.into_iter().collect();
            self.peers[n] = Some(change.clone());
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Uapi::connect(&self.host, "wg0")?,
        };
        connection.set(&Config::of(change))?;
        let state = connection.get()?;
        if self.dice.roll(4) > 0 {
            self.connection = Some(connection);
        }
        for (key, wanted) in self.keys.iter().zip(&self.peers) {
            let found = state.peer(*key).ok();
            assert_eq!(found.is_some(), wanted.is_some(), "{key}");
            if let (Some(found), Some(wanted)) = (found, wanted) {
                let networks: HashSet<_> = found.allowed_ips.iter().collect();
                assert_eq!(networks, wanted.allowed_ips.iter().collect(), "{key}");
                assert_eq!(Some(found.keepalive), wanted.keepalive, "{key}");
                assert_eq!(found.preshared_key, wanted.preshared_key, "{key}");
            }
        }
        Ok(())
    }
}

/// Repeats `turn` on a thread until `stop`. Returns how often.
fn repeat(
    stop: &Arc<AtomicBool>,
    mut turn: impl FnMut() -> io::Result<()> + Send + 'static,
) -> JoinHandle<io::Result<u64>> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut turns = 0;
        while !stop.load(Relaxed) {
            turn()?;
            turns += 1;
        }
        Ok(turns)
    })
}

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

    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for number in 0..CLIENTS {
        let mut client = Client::new(number, &a.host);
        threads.push(repeat(&stop, move || client.turn()));
    }
    // Each reply is of one moment: it has the peer of the flow, and no network twice.
    let (host, key, networks) = (
        a.host.clone(),
        b.keys.public,
        a.wg.peer(b.keys.public)?.allowed_ips,
    );
    threads.push(repeat(&stop, move || {
        let state = Uapi::connect(&host, "wg0")?.get()?;
        assert_eq!(state.peer(key)?.allowed_ips, networks);
        let mut seen = HashSet::new();
        let all = state.peers.iter().flat_map(|peer| &peer.allowed_ips);
        all.for_each(|network| assert!(seen.insert(network), "{network:?} is listed twice"));
        Ok(())
    }));
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
    threads.push(repeat(&stop, move || {
        turn += 1;
        let file = if turn % 2 == 0 { &short } else { &long };
        host.write(&path, &file.file(&[]))?;
        host.sh(&wg_rs, &["syncconf", "wg0", &path])?;
        let found = Uapi::connect(&host, "wg0")?.get()?.peers.len();
        assert_eq!(found, file.peers.len());
        Ok(())
    }));

    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end && !threads.iter().any(JoinHandle::is_finished) {
        flows.iter().try_for_each(|flow| flow.go_on(20))?;
    }
    stop.store(true, Relaxed);
    for thread in threads {
        let turns = thread.join().expect("a client saw a wrong answer")?;
        assert!(turns > 0, "a client had no turn");
    }
    for flow in flows {
        let count = flow.finish()?;
        assert_eq!(count.lost(), 0, "{count:?}");
    }
    Ok(())
}
