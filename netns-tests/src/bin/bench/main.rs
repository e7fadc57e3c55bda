//! The benchmark: it compares daemons over the same topology, in interleaved rounds, by medians.
//!
//! In each round, for each daemon, it builds two hosts and a tunnel, takes all measurements, and
//! removes everything. So slow changes of the machine's speed affect all daemons alike.

mod check;
mod measure;
mod profile;
mod progress;
mod report;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use netns_tests::{Daemon, Lab};

use check::Kept;
use measure::{Bench, Conditions, Setup};
use profile::Perf;
use progress::Progress;
use report::Report;

/// Compares WireGuard implementations on this machine: two hosts in network namespaces, joined by
/// a veth pair, a tunnel between them. Needs root.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// Daemons, separated by commas: wireguard-rs (of this workspace), boringtun (built in),
    /// wireguard-go, boringtun-cli, gotatun-cli (on PATH), kernel, none (plain veth), or
    /// NAME=COMMAND for any program that takes `-f IFACE`. Default: all that are installed.
    #[arg(long, value_delimiter = ',')]
    daemons: Vec<String>,
    /// Number of rounds; the medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Measurements, separated by commas: any of tcp1, tcp1r, tcp1b, tcp4, tcp4r, tcp4b, udp1200,
    /// udp64, rtt, rttload (r: reverse, b: both at once). CPU time is measured with tcp1, memory
    /// at the end. Default: all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Bench>,
    /// One round with measurements of half a second. It shows that everything works, but not how fast.
    #[arg(long)]
    quick: bool,
    /// Also writes medians and every sample to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compares the ratios of this run with those in FILE, which an earlier run wrote with --json, and
    /// fails if one is worse than the tolerance allows. Such files are kept in netns-tests/ratios/.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// The fraction by which a ratio may be worse than the one in the file of --check.
    #[arg(long, value_name = "PART", default_value_t = 0.25)]
    tolerance: f64,
    /// Afterwards runs each load once more for each daemon, and shows how its CPU time is spent: on
    /// AEAD, copies, wakeups, system calls. Needs perf.
    #[arg(long)]
    profile: bool,
    /// MTU of the tunnel; the veth's is 80 more.
    #[arg(long, default_value_t = 1420)]
    mtu: u32,
    /// TCP's congestion control, for instance cubic. Pacing (bbr) slows the plain veth down much more
    /// than a tunnel, which changes the ratio. Default: this machine's.
    #[arg(long, value_name = "NAME")]
    congestion_control: Option<String>,
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds) = (1, 0.5);
    }
    if options.only.is_empty() {
        options.only = Bench::ALL.to_vec();
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    if options.rounds == 0 || !(0.1..=3600.0).contains(&options.seconds) {
        return Err(io::Error::other(
            "at least one round, of 0.1 to 3600 seconds",
        ));
    }
    let setups = setups(&options.daemons)?;
    let names: Vec<&str> = setups.iter().map(Setup::name).collect();
    eprintln!("daemons: {}", names.join(", "));
    let congestion_control = match &options.congestion_control {
        Some(name) => name.clone(),
        None => measure::congestion_control()?,
    };
    let conditions = Conditions {
        window: Duration::from_secs_f64(options.seconds),
        mtu: options.mtu,
        congestion_control,
    };
    let kept = options.check.as_deref().map(Kept::read).transpose()?;
    if let Some(kept) = &kept {
        kept.comparable(names[0], options.mtu, &conditions.congestion_control)?;
    }
    let perf = options.profile.then(Perf::find);
    let mut report = Report::new(&names);
    let mut failures = Vec::new();
    let mut progress = Progress::new(io::stderr());
    let start = Instant::now();
    for round in 1..=options.rounds {
        for setup in &setups {
            let name = setup.name();
            let seconds = start.elapsed().as_secs();
            progress.begin(&format!(
                "[{seconds:4}s] round {round}/{}, {name}:",
                options.rounds
            ));
            let taken = measure::take(setup, &options.only, &conditions, |bench, failed| {
                progress.add(&format!(" {bench}"));
                if let Some(error) = failed {
                    progress.add(" FAILED");
                    failures.push(format!("round {round}, {name}, {bench}: {error}"));
                }
            })
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
            report.add(name, taken);
        }
    }
    progress.end();
    println!("\nTCP with {}.", conditions.congestion_control);
    print!("{}", report.table());
    if let Some(file) = &options.json {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, report.json(options.rounds, &conditions)?)?;
    }
    match perf {
        None => {}
        Some(Ok(perf)) => profile(&perf, &setups, options, &conditions)?,
        Some(Err(error)) => println!("\nNo profile: {error}."),
    }
    if !failures.is_empty() {
        let text = format!("measurements that failed:\n  {}", failures.join("\n  "));
        return Err(io::Error::other(text));
    }
    if let Some(kept) = kept {
        let ratio = |metric: &str, daemon: &str| report.ratio(metric, daemon);
        let verdict = kept.compare(options.tolerance, ratio)?;
        print!("\n{}", verdict.table);
        if verdict.short > 0 {
            let text = format!("{} of the ratios are worse than those kept", verdict.short);
            return Err(io::Error::other(text));
        }
    }
    Ok(())
}

/// Runs each load once more for each daemon, and prints how its CPU time is spent.
fn profile(
    perf: &Perf,
    setups: &[Setup],
    options: &Options,
    conditions: &Conditions,
) -> io::Result<()> {
    println!("\nCPU time of both daemons by part, with the largest functions of each, in percent.");
    for setup in setups {
        if matches!(setup, Setup::Plain) {
            continue;
        }
        measure::profile(setup, &options.only, conditions, perf, |bench, profile| {
            println!("\n{}, {bench}, {} samples", setup.name(), profile.len());
            if profile.len() == 0 {
                println!("  perf began after the load had ended. Give more --seconds.");
            }
            print!("{}", profile.table());
        })?;
    }
    Ok(())
}

/// The requested daemons, which must all be installed; or all that are installed.
fn setups(asked: &[String]) -> io::Result<Vec<Setup>> {
    let lab = Lab::new()?;
    let kernel = || Daemon::kernel(&lab.host("probe")?);
    if asked.is_empty() {
        let mut found = vec![Daemon::ours()?, Daemon::foreign()?];
        for name in ["wireguard-go", "boringtun-cli", "gotatun-cli"] {
            found.extend(Daemon::installed(name));
        }
        found.extend(kernel());
        return Ok(found
            .into_iter()
            .map(Setup::Tunnel)
            .chain([Setup::Plain])
            .collect());
    }
    asked
        .iter()
        .map(|asked| {
            Ok(match (asked.split_once('='), asked.as_str()) {
                (Some((name, command)), _) => Setup::Tunnel(Daemon::program(name, command)),
                (None, "none") => Setup::Plain,
                (None, "wireguard-rs") => Setup::Tunnel(Daemon::ours()?),
                (None, "boringtun") => Setup::Tunnel(Daemon::foreign()?),
                (None, "kernel") => Setup::Tunnel(kernel()?),
                (None, name) => Setup::Tunnel(Daemon::installed(name).ok_or_else(|| {
                    let text = format!("{name} is not on PATH (or give {name}=/path/to/it)");
                    io::Error::new(io::ErrorKind::NotFound, text)
                })?),
            })
        })
        .collect()
}
