//! Measures how fast a hub relays TCP, compared with a direct tunnel over the same cables, with the same hub
//! when it decrypts and routes, and with a program that copies datagrams and does nothing else.
//!
//! ```text
//! a ── hub ── b     direct    the hub's kernel forwards the datagrams of a tunnel between a and b
//!                   relayed   wireguard-rs on the hub relays that tunnel
//!                   routed    a and b have tunnels to the hub, whose kernel routes between them
//!                   copied    a loop on the hub sends each burst of that tunnel from one end to the other
//! ```

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use netns_tests::{By, Daemon, Family, Load, Spokes, exit_code, median};

/// The required ratio of relayed to direct.
const OF_DIRECT: f64 = 0.85;
/// The required ratio of relayed to routed.
const OF_ROUTED: f64 = 1.3;
const WARM_UP: Duration = Duration::from_millis(400);

/// Compares one TCP stream from a to b through a relaying hub, a direct tunnel, a routing hub, and a bare copy
/// of datagrams on the hub. Needs root.
#[derive(Debug, Parser)]
#[command(name = "relay-bench")]
struct Options {
    /// Number of rounds. Each measures all four in turn; the medians are compared.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Fail if relayed is less than 0.85 of direct or 1.3 of routed.
    #[arg(long)]
    check: bool,
}

/// Returns the throughput of one stream in Mbit/s.
fn measure(spokes: &Spokes, window: Duration) -> io::Result<f64> {
    let [a, b] = &spokes.ends;
    let load = Load::tcp(a, (b, Family::V4.inside(2)), 1)?;
    load.flowing()?;
    std::thread::sleep(WARM_UP);
    let (start, (_, before)) = (Instant::now(), load.counts());
    std::thread::sleep(window);
    let ((_, after), time) = (load.counts(), start.elapsed());
    load.stop()?;
    Ok((after - before) as f64 * 8.0 / time.as_secs_f64() / 1e6)
}

fn main() -> ExitCode {
    exit_code("relay-bench", run(&Options::parse()))
}

/// Whether the required ratios were reached, or no check was requested.
fn run(options: &Options) -> io::Result<bool> {
    let daemon = Daemon::ours()?;
    let window = Duration::try_from_secs_f64(options.seconds).map_err(io::Error::other)?;
    let spokes = |by| Spokes::new([&daemon; 2], by, Family::V4, None);
    let setups = [
        spokes(By::Forwarding)?,
        spokes(By::Relay)?,
        spokes(By::Routing)?,
        spokes(By::Copying)?,
    ];
    let mut rates: [Vec<f64>; 4] = Default::default();
    for round in 1..=options.rounds {
        for (setup, rates) in setups.iter().zip(&mut rates) {
            rates.push(measure(setup, window)?);
        }
        let last = rates
            .each_ref()
            .map(|rates| rates.last().copied().unwrap_or_default());
        println!(
            "round {round}: direct {:.0}, relayed {:.0}, routed {:.0}, copied {:.0} Mbit/s",
            last[0], last[1], last[2], last[3]
        );
    }
    let [direct, relayed, routed, copied] = rates.map(|rates| median(rates).unwrap_or_default());
    let (of_direct, of_routed) = (relayed / direct, relayed / routed);
    println!(
        "medians: direct {direct:.0}, relayed {relayed:.0}, routed {routed:.0}, copied {copied:.0} Mbit/s"
    );
    println!(
        "relayed is {of_direct:.2} of direct, {of_routed:.2} of routed and {:.2} of copied; copied is {:.2} of \
         direct",
        relayed / copied,
        copied / direct
    );
    let met = of_direct >= OF_DIRECT && of_routed >= OF_ROUTED;
    if options.check && !met {
        eprintln!(
            "relay-bench: relayed must be at least {OF_DIRECT} of direct and {OF_ROUTED} of routed"
        );
    }
    Ok(met || !options.check)
}
