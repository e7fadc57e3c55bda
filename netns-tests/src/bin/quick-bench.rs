//! Measures how long `up` and `down` of a plain tunnel take, by stock `wg-quick` and ours in turn, and
//! compares medians. Both start `wireguard-rs` if the kernel has no module.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use netns_tests::quick::{Quick, Site};
use netns_tests::{Lab, PATIENCE, exit_code, median, until};

/// The largest accepted ratio of our time to stock's.
const BAR: f64 = 0.2;

/// Compares the time that wg-quick and wg-quick-rs take for `up` and `down`, in network namespaces
/// of their own. Needs root, and the stock tools on PATH.
#[derive(Debug, Parser)]
#[command(name = "quick-bench")]
struct Options {
    /// Number of rounds; the medians are reported.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Fails if up and down together take ours more than a fifth of stock's time.
    #[arg(long)]
    check: bool,
}

/// A plain tunnel: one peer, and a route to its network.
const CONFIG: &str = "[Interface]
PrivateKey = 6AgToMTGwKJV1BBqhMlUFyAb3JQrbLBtRIMwkVMCi1g=
Address = 10.0.0.2/24, fd00::2/64
[Peer]
PublicKey = eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw=
AllowedIPs = 10.0.0.0/16, fd00::/48
Endpoint = 192.0.2.1:51820
";

fn main() -> ExitCode {
    exit_code("quick-bench", run(&Options::parse()))
}

/// Returns whether the limit was met, or was not to be checked.
fn run(options: &Options) -> io::Result<bool> {
    let missing = || io::Error::other("the stock tools are not on PATH");
    let programs = [Quick::stock()?.ok_or_else(missing)?, Quick::ours()?];
    let mut times: [[Vec<Duration>; 2]; 2] = Default::default();
    // The first round only fills caches, and is not counted.
    for round in 0..=options.rounds {
        for (program, times) in programs.iter().zip(&mut times) {
            let [up, down] = round_of(program, &missing)?;
            if round > 0 {
                times[0].push(up);
                times[1].push(down);
            }
        }
    }
    println!(
        "{:6}{:>12}{:>14}{:>8}   medians of {} rounds",
        "", "wg-quick", "wg-quick-rs", "ratio", options.rounds
    );
    let mut met = false;
    for (n, what) in ["up", "down", "both"].into_iter().enumerate() {
        let [stock, ours] = [0, 1].map(|program: usize| {
            let [up, down] = &times[program];
            let rounds = up.iter().zip(down).map(|(up, down)| match n {
                0 => *up,
                1 => *down,
                _ => *up + *down,
            });
            median(rounds.map(|time| time.as_secs_f64() * 1e3)).unwrap_or_default()
        });
        let ratio = ours / stock;
        println!("{what:6}{stock:>9.1} ms{ours:>11.1} ms{ratio:>8.3}");
        met = ratio <= BAR;
    }
    if options.check && !met {
        eprintln!("quick-bench: our time is more than {BAR} of stock's");
    }
    Ok(met || !options.check)
}

/// The times of `up` and `down` in a new host.
fn round_of(program: &Quick, missing: &impl Fn() -> io::Error) -> io::Result<[Duration; 2]> {
    let lab = Lab::new()?;
    let site = Site::new(&lab, "bench")?.ok_or_else(missing)?;
    site.sh(
        "ip link add eth0 type veth peer cable; ip link set eth0 up; ip link set cable up
             ip addr add 192.0.2.2/24 dev eth0; ip route add default via 192.0.2.1",
    )?;
    site.configure("wg0", CONFIG)?;
    let time = |verb: &str| -> io::Result<Duration> {
        let mut command = site.command(program, &[verb, "wg0"])?;
        let output = std::process::Stdio::null;
        command.stdin(output()).stdout(output()).stderr(output());
        site.host.run(|| {
            let start = Instant::now();
            let status = command.status()?;
            let time = start.elapsed();
            match status.success() {
                true => Ok(time),
                false => Err(io::Error::other(format!(
                    "{} {verb}: {status}",
                    program.name
                ))),
            }
        })
    };
    let up = time("up")?;
    let down = time("down")?;
    // A daemon that still runs would slow the next round down.
    until(PATIENCE, "the daemon to end", || {
        Ok(site.state()?.part("processes").is_empty().then_some(()))
    })?;
    Ok([up, down])
}
