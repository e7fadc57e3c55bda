//! Runs a command many times while the machine is busy, to find out whether a test can fail.
//!
//! ```text
//! repeat --runs 200 --loops 4 -- cargo test -q -p netns-tests --test roaming from_ipv4
//! ```

use std::io;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;

/// Runs a command many times beside busy loops, and prints the output of each run that fails.
#[derive(Debug, Parser)]
#[command(name = "repeat")]
struct Options {
    /// Number of runs.
    #[arg(long, default_value_t = 200)]
    runs: u32,
    /// Number of busy loops beside it.
    #[arg(long, default_value_t = 4)]
    loops: u32,
    /// The command with its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let stop = AtomicBool::new(false);
    let failed = std::thread::scope(|scope| {
        for _ in 0..options.loops {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let failed = repeat(&options);
        stop.store(true, Relaxed);
        failed
    });
    match failed {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("repeat: {}: {error}", options.command[0]);
            ExitCode::FAILURE
        }
    }
}

/// Returns the number of runs that failed.
fn repeat(options: &Options) -> io::Result<u32> {
    let mut failed = 0;
    let mut longest = Duration::ZERO;
    for run in 1..=options.runs {
        let start = Instant::now();
        let done = Command::new(&options.command[0])
            .args(&options.command[1..])
            .stdin(Stdio::null())
            .output()?;
        longest = longest.max(start.elapsed());
        if !done.status.success() {
            failed += 1;
            let output = [done.stdout, done.stderr].concat();
            println!("run {run}: {}", done.status);
            println!("{}", String::from_utf8_lossy(&output));
        }
    }
    println!(
        "{failed} of {} runs failed; the longest took {:.1} s",
        options.runs,
        longest.as_secs_f64()
    );
    Ok(failed)
}
