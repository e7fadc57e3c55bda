//! Runs every line of a table by two programs that are both called `wg`, on the same interface in the
//! same state, and compares their output, their exit codes and the state that they leave.
//!
//! ```text
//! for each case: reset, run by A, dump │ reset, run by B, dump │ equal, or different as the table says
//! ```
//!
//! For each case the exit code, standard output, standard error and the state are compared. The time
//! since a handshake is compared by the time of the handshake. Texts on standard error may differ in
//! the ways that `words.rs` lists.
//!
//! The program acts in the namespaces in which it runs: the interface must exist, and nobody else may
//! use /var/run/wireguard. It needs only `sh`.

mod case;
mod run;
mod table;
mod time;
mod words;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use netns_tests::exit_code;

use case::{Case, Ours, Then};
use run::{Done, Program, Runner};

#[derive(Debug, Parser)]
struct Options {
    /// The `wg` to compare with
    #[arg(long, default_value = "/usr/bin/wg")]
    wg: PathBuf,
    /// The program to compare
    #[arg(long)]
    ours: PathBuf,
    /// The interface to use; its configuration is overwritten
    #[arg(long)]
    interface: String,
    /// The interface belongs to `wireguard-rs`: also run lines that other daemons cannot do
    #[arg(long)]
    our_daemon: bool,
    /// The daemon lists peers in random order
    #[arg(long)]
    unordered: bool,
    /// Run only lines that contain this text
    #[arg(long, default_value = "")]
    only: String,
    /// Run only every Nth line
    #[arg(long, default_value = "1")]
    every: NonZeroUsize,
    /// Skip the first N lines
    #[arg(long, default_value = "0")]
    skip: usize,
}

fn main() -> ExitCode {
    exit_code("side-by-side", compare(&Options::parse()))
}

/// The result of a case.
enum Verdict {
    Equal,
    /// Equal except for the text on standard error, for these reasons.
    Words(Vec<&'static str>),
    Departs(&'static str),
    Wrong(String),
}

fn compare(options: &Options) -> io::Result<bool> {
    let runner = Runner::new(&options.interface)?;
    let reference = runner.program("reference", &options.wg)?;
    let ours = runner.program("ours", &options.ours)?;
    let version = runner.shell(&reference, "wg --version")?.stdout;
    let old = version.contains("v1.0.2021") || version.contains("v1.0.2020");
    println!("compared with {}", version.trim());

    let (mut equal, mut worded, mut departing, mut wrong) = (0, 0, 0, 0);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let cases = table::all().filter(|case| case.line.contains(&options.only));
    let cases = cases.filter(|case| options.our_daemon || !case.our_daemon);
    for case in cases.skip(options.skip).step_by(options.every.get()) {
        match judge(&runner, &reference, &ours, &case, old, options.unordered)? {
            Verdict::Equal => equal += 1,
            Verdict::Words(whys) => {
                worded += 1;
                for why in whys {
                    *reasons.entry(why).or_default() += 1;
                }
            }
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
        "{} invocations: {equal} equal, {worded} except for the text of an error, \
         {departing} different as listed, {wrong} wrong",
        equal + worded + departing + wrong
    );
    for (why, count) in reasons {
        println!("  {count:3} {why}");
    }
    Ok(wrong == 0)
}

fn judge(
    runner: &Runner,
    reference: &Program,
    ours: &Program,
    case: &Case,
    old: bool,
    unordered: bool,
) -> io::Result<Verdict> {
    let theirs = runner.run(case, reference, reference)?;
    let ours = runner.run(case, ours, reference)?;
    let differs = difference(&theirs, &ours, unordered);
    let (why, outcome) = match case.ours {
        Ours::Departs(why, outcome) => (why, outcome),
        Ours::Newer(why, outcome) if old => (why, outcome),
        Ours::Same | Ours::Newer(..) => {
            let words = match case.words {
                Some((why, text)) => ours.stderr.contains(text).then(|| vec![why]),
                None => words::departures(&theirs.stderr, &ours.stderr),
            };
            return Ok(match (differs, words) {
                (Some(how), _) => Verdict::Wrong(how),
                (None, Some(whys)) if case.words.is_some() && theirs.stderr == ours.stderr => {
                    Verdict::Wrong(format!("  listed as {whys:?}, but the texts are the same"))
                }
                (None, Some(whys)) if whys.is_empty() => Verdict::Equal,
                (None, Some(whys)) => Verdict::Words(whys),
                (None, None) => Verdict::Wrong(format!("  theirs {theirs:?}\n  ours   {ours:?}")),
            });
        }
    };
    if differs.is_none() && theirs.stderr == ours.stderr {
        let text = format!("  listed as different ({why}), but there is no difference");
        return Ok(Verdict::Wrong(text));
    }
    let expected = Done {
        code: outcome.code,
        stdout: outcome.stdout.into(),
        stderr: outcome.stderr.into(),
        dump: match outcome.then {
            Then::Unchanged => runner.state_after(case, ":", reference)?,
            Then::After(line) => runner.state_after(case, line, reference)?,
        },
    };
    let said = match outcome.stderr {
        "" => ours.stderr.is_empty(),
        part => ours.stderr.contains(part),
    };
    Ok(match difference(&expected, &ours, unordered) {
        None if said => Verdict::Departs(why),
        _ => Verdict::Wrong(format!("  wanted {expected:?}\n  ours   {ours:?}")),
    })
}

/// The difference in all but the text on standard error, if there is one.
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
        && theirs.stderr.is_empty() == ours.stderr.is_empty();
    (!same).then(|| format!("  theirs {theirs:?}\n  ours   {ours:?}"))
}
