//! Tries `wireguard-rs` with other implementations of WireGuard, and prints what works as a matrix.
//!
//! ```text
//! each peer on a thread ─┬─ a rekey, which takes two minutes
//!                        └─ the other trials, one after the other
//! ```
//! The kernel's module is tried here if this kernel has it, else in a virtual machine, by this same program.

mod report;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use netns_tests::{Daemon, Lab, Trial, Via, binaries, exit_code, vm};

use report::{Cell, Row};

/// Tries wireguard-rs with other implementations of WireGuard, and prints what works. Needs root.
#[derive(Debug, Parser)]
#[command(name = "matrix")]
struct Options {
    /// Peers, separated by commas: kernel (the module, if need be in a virtual machine), wireguard-go,
    /// boringtun-cli, gotatun-cli (on PATH), boringtun (built in), wireguard-rs.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "kernel,wireguard-go,boringtun-cli,gotatun-cli,wireguard-rs"
    )]
    peers: Vec<String>,
    /// Trials, separated by commas. Default: all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Trial>,
    /// Write the results to this file as well; `-` prints them instead of the matrix.
    #[arg(long)]
    json: Option<String>,
}

fn main() -> ExitCode {
    exit_code("matrix", run(&Options::parse()))
}

/// Whether nothing failed except for known faults of others.
fn run(options: &Options) -> io::Result<bool> {
    let trials = match &options.only[..] {
        [] => Trial::value_variants(),
        some => some,
    };
    let ours = Daemon::ours()?;
    let rows: io::Result<Vec<Row>> = thread::scope(|scope| {
        let ours = &ours;
        let run = |peer| scope.spawn(move || row(ours, peer, trials));
        let runs: Vec<_> = options.peers.iter().map(String::as_str).map(run).collect();
        let ended = runs
            .into_iter()
            .map(|run| run.join().expect("panics are caught"));
        ended.collect()
    });
    let rows = rows?;
    let json = || serde_json::to_string(&rows).map_err(io::Error::from);
    match options.json.as_deref() {
        Some("-") => println!("{}", json()?),
        other => {
            if let Some(file) = other {
                fs::write(file, json()?)?;
            }
            io::stdout().write_all(report::text(&rows, trials).as_bytes())?;
        }
    }
    // What fails in the virtual machine is judged outside.
    Ok(vm::is_inside() || rows.iter().all(Row::is_fine))
}

/// Where a peer is tried.
enum Place {
    Here(Daemon),
    Machine,
    Nowhere(String),
}

fn place(peer: &str) -> io::Result<Place> {
    Ok(match peer {
        "wireguard-rs" => Place::Here(Daemon::ours()?),
        "boringtun" => Place::Here(Daemon::foreign()?),
        "kernel" => match Daemon::kernel(&Lab::new()?.host("probe")?) {
            Ok(kernel) => Place::Here(kernel),
            Err(error) if vm::is_inside() => return Err(error),
            Err(_) => Place::Machine,
        },
        name => match Daemon::installed(name) {
            Some(found) => Place::Here(found.that_roams()),
            None => Place::Nowhere("it is not on PATH".into()),
        },
    })
}

fn row(ours: &Daemon, peer: &str, trials: &[Trial]) -> io::Result<Row> {
    let nowhere = |reason: String| {
        let cells = trials
            .iter()
            .map(|trial| (*trial, Cell::NotTried(reason.clone())));
        Row {
            peer: peer.into(),
            version: String::new(),
            cells: cells.collect(),
        }
    };
    match place(peer)? {
        Place::Here(theirs) => Ok(Row {
            peer: peer.into(),
            version: version(&theirs)?,
            cells: cells(ours, &theirs, trials),
        }),
        Place::Machine => Ok(in_the_machine(peer, trials)?.unwrap_or_else(|| {
            nowhere("this kernel has no module, and .ci/kernel or qemu is missing".into())
        })),
        Place::Nowhere(reason) => Ok(nowhere(reason)),
    }
}

fn cells(ours: &Daemon, theirs: &Daemon, trials: &[Trial]) -> Vec<(Trial, Cell)> {
    // As a user would configure it.
    let via = match binaries::on_path("wg") {
        Some(_) => Via::StockWg,
        None => Via::Uapi,
    };
    let cell = |trial: Trial| {
        let verdict = trial.verdict(ours, theirs, via);
        eprintln!("{theirs}: {} is done", trial.name());
        (trial, Cell::Tried(verdict))
    };
    let (slow, fast): (Vec<_>, Vec<_>) = trials.iter().partition(|trial| **trial == Trial::Rekey);
    let mut cells = thread::scope(|scope| {
        let slow = scope.spawn(|| slow.into_iter().map(cell).collect::<Vec<_>>());
        let fast: Vec<_> = fast.into_iter().map(cell).collect();
        [slow.join().expect("panics are caught"), fast].concat()
    });
    cells.sort_by_key(|(trial, _)| trials.iter().position(|known| known == trial));
    cells
}

/// Makes the row in the virtual machine; `None` if that is missing.
fn in_the_machine(peer: &str, trials: &[Trial]) -> io::Result<Option<Row>> {
    let names: Vec<_> = trials.iter().map(|trial| trial.name()).collect();
    let arguments = ["--peers", peer, "--only", &names.join(","), "--json", "-"];
    let Some(output) = vm::run(&arguments)? else {
        return Ok(None);
    };
    let line = output.lines().find(|line| line.starts_with('['));
    let mut rows: Vec<Row> = serde_json::from_str(line.unwrap_or_default())?;
    let row = rows.pop().ok_or_else(|| io::Error::other(output))?;
    Ok(Some(Row {
        version: format!("{}, in a virtual machine", row.version),
        ..row
    }))
}

/// What a program says about its version, or the kernel's release.
fn version(daemon: &Daemon) -> io::Result<String> {
    if daemon.path().is_none() {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        return Ok(release.trim().into());
    }
    if daemon.name == "boringtun" {
        return Ok("boringtun's own device, built in".into());
    }
    let lab = Lab::new()?;
    let host = lab.host("version")?;
    let mut asked = host.spawn(&mut daemon.command(&["--version"]))?;
    let said = asked.success(Duration::from_secs(10))?;
    Ok(said.lines().next().unwrap_or_default().trim().into())
}
