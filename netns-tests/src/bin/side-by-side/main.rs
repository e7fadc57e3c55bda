//! Runs every line of a table by two programs that are called `wg`, on the same interface in the same
//! state, and compares what they print, their exit codes and the state they leave.
//!
//! ```text
//! for each case: reset, run by A, dump │ reset, run by B, dump │ equal, or departing as the table says
//! ```
//!
//! Acts where it is run: the interface exists, and /var/run/wireguard is not anybody else's. Needs
//! `sh`, and nothing else that a small machine may lack.

mod case;
mod run;
mod table;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use case::{Case, Ours, Then};
use run::{Bench, Done, Program};

/// Lines on standard error that scripts look for: these must be the same. Of others only whether
/// there are any.
const MATCHED: [&str; 6] = [
    "Usage:",
    "Invalid subcommand:",
    "Invalid parameter:",
    "Unable to access interface",
    "Unable to list interfaces",
    "Unable to modify interface",
];

#[derive(Debug, Parser)]
struct Options {
    /// The `wg` to compare with
    #[arg(long, default_value = "/usr/bin/wg")]
    wg: PathBuf,
    /// The program to compare
    #[arg(long)]
    ours: PathBuf,
    /// An interface, which is overwritten
    #[arg(long)]
    interface: String,
    /// It is kept by `wireguard-rs`: run also what others cannot do
    #[arg(long)]
    our_daemon: bool,
    /// Its peers are listed in no order
    #[arg(long)]
    unordered: bool,
    /// Run only lines that contain this
    #[arg(long, default_value = "")]
    only: String,
    /// Run only one line in so many
    #[arg(long, default_value = "1")]
    every: NonZeroUsize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match compare(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("side-by-side: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How a case came out.
enum Verdict {
    Equal,
    Departs(&'static str),
    Wrong(String),
}

fn compare(options: &Options) -> io::Result<bool> {
    let bench = Bench::new(&options.interface)?;
    let reference = bench.program("reference", &options.wg)?;
    let ours = bench.program("ours", &options.ours)?;
    let version = bench.shell(&reference, "wg --version")?.stdout;
    let old = version.contains("v1.0.2021") || version.contains("v1.0.2020");
    println!("compared with {}", version.trim());

    let (mut equal, mut departing, mut wrong) = (0, 0, 0);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let cases = table::all().filter(|case| case.line.contains(&options.only));
    let cases = cases.filter(|case| options.our_daemon || !case.our_daemon);
    for case in cases.step_by(options.every.get()) {
        let judge = || judge(&bench, &reference, &ours, &case, old, options.unordered);
        let mut verdict = judge()?;
        // What was printed may hold a time, and a second may have passed in between.
        for _ in 0..20 {
            if matches!(verdict, Verdict::Wrong(_)) {
                verdict = judge()?;
            }
        }
        match verdict {
            Verdict::Equal => equal += 1,
            Verdict::Departs(why) => {
                departing += 1;
                *reasons.entry(why).or_default() += 1;
            }
            Verdict::Wrong(how) => {
                wrong += 1;
                println!("\n{}\n{how}", case.line);
            }
        }
    }
    println!(
        "{} invocations: {equal} equal, {departing} departing as listed, {wrong} wrong",
        equal + departing + wrong
    );
    for (why, count) in reasons {
        println!("  {count:3} {why}");
    }
    Ok(wrong == 0)
}

fn judge(
    bench: &Bench,
    reference: &Program,
    ours: &Program,
    case: &Case,
    old: bool,
    unordered: bool,
) -> io::Result<Verdict> {
    let theirs = bench.run(case, reference, reference)?;
    let ours = bench.run(case, ours, reference)?;
    let differs = difference(&theirs, &ours, unordered);
    let (why, outcome) = match case.ours {
        Ours::Departs(why, outcome) => (why, outcome),
        Ours::Newer(why, outcome) if old => (why, outcome),
        Ours::Same | Ours::Newer(..) => {
            return Ok(differs.map_or(Verdict::Equal, Verdict::Wrong));
        }
    };
    if differs.is_none() && theirs.stderr == ours.stderr {
        let text = format!("  listed as departing ({why}), but there is no difference");
        return Ok(Verdict::Wrong(text));
    }
    let expected = Done {
        code: outcome.code,
        stdout: outcome.stdout.into(),
        stderr: outcome.stderr.into(),
        dump: match outcome.then {
            Then::Unchanged => bench.state_after(case, ":", reference)?,
            Then::After(line) => bench.state_after(case, line, reference)?,
        },
    };
    let said = match outcome.stderr {
        "" => ours.stderr.is_empty(),
        part => ours.stderr.contains(part),
    };
    let actual = Done {
        stderr: if said {
            outcome.stderr.into()
        } else {
            ours.stderr
        },
        ..ours
    };
    Ok(match difference(&expected, &actual, unordered) {
        None => Verdict::Departs(why),
        Some(_) => Verdict::Wrong(format!("  wanted {expected:?}\n  ours   {actual:?}")),
    })
}

fn difference(theirs: &Done, ours: &Done, unordered: bool) -> Option<String> {
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if unordered {
            lines.sort();
        }
        lines
    };
    let same_text = |a: &str, b: &str| a == b || (unordered && lines(a) == lines(b));
    let same = theirs.code == ours.code
        && same_text(&theirs.stdout, &ours.stdout)
        && same_text(&theirs.dump, &ours.dump)
        && theirs.stderr.is_empty() == ours.stderr.is_empty()
        && matched(&theirs.stderr) == matched(&ours.stderr);
    (!same).then(|| format!("  theirs {theirs:?}\n  ours   {ours:?}"))
}

fn matched(stderr: &str) -> Vec<&str> {
    let one = |line: &&str| MATCHED.iter().any(|begin| line.starts_with(begin));
    stderr.lines().filter(one).collect()
}
