//! Very many peers.

use std::io;
use std::time::{Duration, Instant};

use netns_tests::process::{cpu_time, peak_memory};
use netns_tests::{Config, Daemon, Key, Keys, Lab, PeerConfig, Via, Wg};

fn with_peers(count: u32) -> io::Result<(Lab, Wg, Config)> {
    let lab = Lab::new()?;
    let host = lab.host("hub")?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    wg.up(1420, &[([10, 0, 0, 1].into(), 8)])?;
    let mut config = Config::new(&Keys::generate(), 0);
    for n in 0..count {
        let [_, high, middle, low] = n.to_be_bytes();
        let peer = PeerConfig::new(Key::random()).allow([10, high, middle, low], 32);
        config.peers.push(peer.at(([192, 0, 2, 1], 1)));
    }
    Ok((lab, wg, config))
}

#[test]
fn ten_thousand_idle_peers_cost_no_cpu() -> io::Result<()> {
    let (_lab, wg, config) = with_peers(10_000)?;
    wg.set(&config)?;
    let before = cpu_time(wg.pid()?)?;
    // A fixed time, over which CPU use is measured.
    std::thread::sleep(Duration::from_secs(10));
    let used = cpu_time(wg.pid()?)? - before;
    assert!(used <= Duration::from_millis(10), "{used:?} in 10 s");
    Ok(())
}

#[test]
fn a_hundred_thousand_peers_in_one_set() -> io::Result<()> {
    const PEERS: u32 = 100_000;
    let (_lab, wg, config) = with_peers(PEERS)?;
    let empty = peak_memory(wg.pid()?)?;
    let start = Instant::now();
    wg.set(&config)?;
    let took = start.elapsed();
    // The limit is for an optimised build; a debug build beside other tests gets more time.
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 3 });
    assert!(took <= limit, "{took:?}");
    let each = (peak_memory(wg.pid()?)? - empty) / u64::from(PEERS);
    assert!(each <= 4096, "{each} bytes a peer");
    assert_eq!(wg.get()?.peers.len(), PEERS as usize);
    Ok(())
}
