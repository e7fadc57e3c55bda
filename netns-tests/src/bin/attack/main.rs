//! Attacks a daemon while a legitimate transfer runs over the same interface, and compares daemons.
//!
//! ```text
//! client  192.0.2.1 ────┐
//! newcomer 203.0.113.1 ─┼─ .2 server: the daemon under attack, 10.77.0.2 inside
//! attacker 198.51.100.1 ┘
//! ```
//! Before a flood of handshake messages, the same flood is sent beside a transfer without a tunnel, to a
//! socket that nobody reads: no daemon can keep much more of its rate than that transfer, because attacker,
//! sender and receiver share the cores of one machine.
//!
//! The client sends TCP through its tunnel, the newcomer makes its first handshake during the attack,
//! and the attacker knows only public things: addresses, the server's port and public key, and what
//! went over the wire. In some attacks it is a peer as well.

mod arena;
mod ceiling;
mod cpu;
mod fight;
mod flood;
mod insider;
mod local;
mod packets;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use netns_tests::Daemon;

use arena::Pace;
use fight::Outcome;

/// Attacks WireGuard daemons while a transfer runs over the same interface. Needs root.
#[derive(Debug, Parser)]
#[command(name = "attack")]
struct Options {
    /// Daemons, separated by commas: wireguard-rs (of this workspace), boringtun (built in),
    /// wireguard-go, boringtun-cli, gotatun-cli (on PATH), or NAME=COMMAND for any program that takes
    /// `-f IFACE`.
    #[arg(long, value_delimiter = ',', default_value = "wireguard-rs")]
    daemons: Vec<String>,
    /// Attacks, separated by commas. Default: all.
    #[arg(long, value_delimiter = ',')]
    attacks: Vec<Attack>,
    /// Datagrams a second that the attacker tries to send.
    #[arg(long, default_value_t = 60_000)]
    rate: u32,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Fail if wireguard-rs ends, grows by more than 64 MiB, delivers a packet that it must not
    /// deliver, or does not complete the newcomer's handshake in time.
    #[arg(long)]
    check: bool,
    /// The time in seconds that --check gives the newcomer's handshake.
    #[arg(long, default_value_t = 10.0)]
    handshake: f64,
    /// With --check, also fail if the transfer keeps less than this part of its rate under a flood of
    /// handshake messages.
    #[arg(long, value_name = "PART")]
    keep: Option<f64>,
}

/// What the attacker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// Sends random datagrams of random lengths.
    Random,
    /// Sends initiations with a valid mac1 from one address.
    Handshakes,
    /// Sends initiations with a valid mac1, each from another, spoofed address.
    Spoofed,
    /// Sends again what went over the wire: initiations, responses, data, and cookie replies.
    Replay,
    /// Sends messages of every type with every length, some of them cut or extended real ones.
    Lengths,
    /// Is a peer, and sends inner packets with sources that are not its own.
    InnerSources,
    /// Is a peer, and sends inner packets that are malformed in many ways.
    InnerPackets,
    /// Has access to the UAPI socket; stalls, floods and sends nonsense.
    Uapi,
}

impl Attack {
    fn is_handshake_flood(self) -> bool {
        matches!(self, Attack::Handshakes | Attack::Spoofed)
    }
}

/// The growth of resident memory that --check allows, in bytes.
const GROWTH: u64 = 64 << 20;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            for failure in failures {
                eprintln!("attack: {failure}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("attack: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the attacks. Returns what --check has found.
fn run(options: &Options) -> io::Result<Vec<String>> {
    if options.rate == 0 || !(0.1..=3600.0).contains(&options.seconds) {
        return Err(io::Error::other(
            "at least one datagram a second, and 0.1 to 3600 seconds",
        ));
    }
    let pace = Pace {
        rate: options.rate,
        window: Duration::from_secs_f64(options.seconds),
    };
    let attacks = match &options.attacks[..] {
        [] => Attack::value_variants(),
        some => some,
    };
    let daemons: io::Result<Vec<Daemon>> = options.daemons.iter().map(|name| find(name)).collect();
    let daemons = daemons?;
    println!(
        "{:14}{:14}{:>9}{:>9}{:>9}{:>7}{:>11}{:>9}{:>9}{:>11}  end",
        "attack",
        "daemon",
        "sent/s",
        "Mbit/s",
        "under",
        "kept",
        "handshake",
        "MiB",
        "peak",
        "forbidden"
    );
    let mut failures = Vec::new();
    for &attack in attacks {
        let name = attack.to_possible_value().expect("no attack is hidden");
        if attack.is_handshake_flood() {
            let ceiling = ceiling::measure(attack, pace)?;
            println!("{:14}{:14}{ceiling}", name.get_name(), "(no tunnel)");
        }
        for daemon in &daemons {
            let outcome = fight::fight(daemon, attack, pace);
            let outcome = outcome.map_err(|error| daemon.blame(error))?;
            println!("{:14}{:14}{outcome}", name.get_name(), daemon.name);
            for (when, cpu) in [
                ("before", outcome.cpu_before),
                ("under", outcome.cpu_during),
            ] {
                println!("{:28}{when:8}{cpu}", "");
            }
            for counter in &outcome.counters {
                println!("{:28}{counter}", "");
            }
            if options.check && daemon.name == "wireguard-rs" {
                let faults = faults(options, attack, &outcome);
                failures.extend(faults.map(|fault| format!("{}: {fault}", name.get_name())));
            }
        }
    }
    Ok(failures)
}

/// The promises that were not kept.
fn faults(
    options: &Options,
    attack: Attack,
    outcome: &Outcome,
) -> impl Iterator<Item = String> + use<> {
    let limit = Duration::from_secs_f64(options.handshake);
    let in_time = outcome.handshake.is_some_and(|time| time <= limit);
    let bar = options.keep.filter(|_| attack.is_handshake_flood());
    let ended = outcome.end.as_ref();
    [
        ended.map(|end| format!("the daemon ended: {end}")),
        (!in_time).then(|| format!("no handshake of the newcomer within {limit:?}")),
        (outcome.growth() > GROWTH).then(|| format!("it grew by {} bytes", outcome.growth())),
        (outcome.forbidden > 0).then(|| format!("{} packets got through", outcome.forbidden)),
        bar.filter(|bar| outcome.kept() < *bar)
            .map(|bar| format!("{:.2} of the rate is less than {bar:.2}", outcome.kept())),
    ]
    .into_iter()
    .flatten()
}

fn find(name: &str) -> io::Result<Daemon> {
    match (name.split_once('='), name) {
        (Some((name, command)), _) => Ok(Daemon::program(name, command)),
        (None, "wireguard-rs") => Daemon::ours(),
        (None, "boringtun") => Daemon::foreign(),
        (None, name) => Daemon::installed(name).ok_or_else(|| {
            let text = format!("{name} is not on PATH (or give {name}=/path/to/it)");
            io::Error::new(io::ErrorKind::NotFound, text)
        }),
    }
}
