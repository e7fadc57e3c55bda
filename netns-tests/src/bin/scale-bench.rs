//! Measures interfaces with very many peers: the time of one `set` of all peers, of `wg show` and of a
//! change of one peer, and the memory. The daemons take turns, and the medians are compared.
//!
//! wireguard-go refuses more than 65 536 peers, so it gets fewer of them than we do. If it fails
//! nevertheless, the reason is printed, and our own figures are still held to their limits.

use std::fmt::Write;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use netns_tests::{Config, Daemon, Host, Key, Keys, Lab, PeerConfig, Via, Wg, exit_code, process};

/// The limits for 100 000 peers: the time of one `set`, and the bytes of each peer.
const SET: Duration = Duration::from_secs(2);
const MEMORY: f64 = 4096.0;
/// The greatest allowed ratio of the memory to that of the program of `--before`.
const GROWTH: f64 = 1.01;
/// The greatest allowed ratio of the time of a change of one peer to that among 100 peers.
const FLAT: f64 = 3.0;
const FEW: usize = 100;
/// The most peers for wireguard-go, whose limit is 65 536. The changes add one more.
const MOST_OF_OTHER: usize = 65_000;
/// Number of changes in a round.
const CHANGES: usize = 101;

/// Compares WireGuard implementations with very many peers. Needs root, and wg on PATH.
#[derive(Debug, Parser)]
#[command(name = "scale-bench")]
struct Options {
    /// Number of peers of the interface.
    #[arg(long, default_value_t = 100_000)]
    peers: usize,
    /// Number of rounds; the medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// An earlier build of wireguard-rs. With --check, its memory may be exceeded by one percent.
    #[arg(long, value_name = "COMMAND")]
    before: Option<String>,
    /// Fail if one set takes more than 2 s, if a peer needs more than 4096 bytes, if a change of one peer
    /// takes more than 3 times as long as among 100 peers, or if wg show takes longer than with wireguard-go,
    /// which gets at most 65000 peers.
    #[arg(long)]
    check: bool,
}

/// The results of a round, in milliseconds and bytes.
#[derive(Debug, Clone, Copy)]
struct Figures {
    set: f64,
    show: f64,
    change: f64,
    memory: f64,
}

/// One of the figures, with its name.
type Column = (&'static str, fn(&Figures) -> f64);

const COLUMNS: [Column; 4] = [
    ("one set, ms", |figures| figures.set),
    ("wg show, ms", |figures| figures.show),
    ("one peer changed, ms", |figures| figures.change),
    ("memory, bytes a peer", |figures| figures.memory),
];

fn main() -> ExitCode {
    exit_code("scale-bench", run(&Options::parse()))
}

/// Whether all limits were kept, or no check was requested.
fn run(options: &Options) -> io::Result<bool> {
    if options.peers == 0 || options.rounds == 0 {
        return Err(io::Error::other("at least one peer and one round"));
    }
    let ours = Daemon::ours()?;
    let other = Daemon::installed("wireguard-go");
    let of_other = options.peers.min(MOST_OF_OTHER);
    let before = (options.before.as_deref()).map(|command| Daemon::program("before", command));
    let mut samples: [Vec<Figures>; 4] = Default::default();
    let mut absent = other.is_none().then(|| "it is not on PATH".to_owned());
    for _ in 0..options.rounds {
        samples[0].push(round_of(&ours, options.peers)?);
        samples[1].push(round_of(&ours, FEW)?);
        if let Some(before) = &before {
            samples[3].push(round_of(before, options.peers)?);
        }
        if let (Some(other), None) = (&other, &absent) {
            match round_of(other, of_other) {
                Ok(figures) => samples[2].push(figures),
                Err(error) => absent = Some(error.to_string()),
            }
        }
    }
    let median = |figures: &[Figures], of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let mut heads = vec![(&*ours.name, options.peers), (&*ours.name, FEW)];
    if !samples[2].is_empty() {
        heads.push(("wireguard-go", of_other));
    }
    if before.is_some() {
        heads.push(("before", options.peers));
    }
    println!(
        "{:22}{}",
        "",
        heads
            .iter()
            .map(|(name, _)| format!("{name:>14}"))
            .collect::<String>()
    );
    println!(
        "{:22}{}",
        "peers",
        heads
            .iter()
            .map(|(_, peers)| format!("{peers:>14}"))
            .collect::<String>()
    );
    let mut rows = Vec::new();
    for (what, of) in COLUMNS {
        let row = [0, 1, 2, 3].map(|n: usize| median(&samples[n], of));
        let mut line = format!("{what:22}");
        for value in row.iter().flatten() {
            // Writing to a string cannot fail.
            let _ = write!(line, "{value:>14.2}");
        }
        println!("{line}");
        rows.push(row);
    }
    if let Some(reason) = absent {
        println!("wireguard-go is not compared: {reason}");
    }
    let value = |row: usize, column: usize| rows[row][column].unwrap_or(f64::INFINITY);
    let bars = [
        ("one set", value(0, 0), SET.as_secs_f64() * 1e3),
        ("wg show", value(1, 0), value(1, 2)),
        ("one peer changed", value(2, 0), value(2, 1) * FLAT),
        ("memory", value(3, 0), MEMORY),
        ("memory", value(3, 0), value(3, 3) * GROWTH),
    ];
    let mut met = true;
    for (what, is, bar) in bars {
        if is > bar {
            met = false;
            eprintln!("scale-bench: {what}: {is:.2} is more than {bar:.2}");
        }
    }
    Ok(met || !options.check)
}

/// Creates an interface, gives it `peers` peers, and measures. The daemon is named in the error.
fn round_of(daemon: &Daemon, peers: usize) -> io::Result<Figures> {
    measure(daemon, peers).map_err(|error| daemon.blame(error))
}

fn measure(daemon: &Daemon, peers: usize) -> io::Result<Figures> {
    let lab = Lab::new()?;
    let host = lab.host("hub")?;
    let wg = daemon.start(&host, "wg0", Via::Uapi)?;
    let mut config = Config::new(&Keys::generate(), 0);
    config.peers = (0..peers).map(peer).collect();
    let before = process::peak_memory(wg.pid()?)?;
    let set = time(|| wg.set(&config))?;
    let memory = process::peak_memory(wg.pid()?)?.saturating_sub(before);
    let show = time(|| show(&host, peers))?;
    let mut changes = Vec::new();
    for n in 0..CHANGES {
        changes.push(change(&wg, peers + n)?);
    }
    changes.sort_by(f64::total_cmp);
    Ok(Figures {
        set,
        show,
        change: changes[CHANGES / 2],
        memory: memory as f64 / peers as f64,
    })
}

fn peer(n: usize) -> PeerConfig {
    let [.., high, middle, low] = n.to_be_bytes();
    let peer = PeerConfig::new(Key::random()).allow([10, high, middle, low], 32);
    peer.at(([192, 0, 2, 1], 51820))
}

/// Runs `wg show` and checks that it lists all peers.
fn show(host: &Host, peers: usize) -> io::Result<()> {
    let shown = host.sh("wg", &["show", "wg0", "dump"])?;
    match shown.lines().count() {
        lines if lines == peers + 1 => Ok(()),
        lines => Err(io::Error::other(format!("{lines} lines were shown"))),
    }
}

/// Adds one peer and removes it again, with two requests. Returns the time.
fn change(wg: &Wg, n: usize) -> io::Result<f64> {
    let new = peer(n);
    let key = new.public_key;
    let [add, remove] = [Config::of(new), Config::of(PeerConfig::removed(key))];
    time(|| {
        wg.set(&add)?;
        wg.set(&remove)
    })
}

/// Returns the time of `work` in milliseconds.
fn time(work: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
