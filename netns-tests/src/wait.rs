//! Waiting for a condition, and the rule for missing tools.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How long something that always happens may take on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `ask` every 10 ms until it returns a value. An error of `ask` ends the wait. After `limit` the
/// error says that it waited for `what`.
pub fn until<T>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() >= limit {
            let text = format!("waited {limit:?} in vain for {what}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Passes on something that a test needs and this machine may lack. If it is missing, prints that the
/// test is skipped and returns `None`; with `CI=true` it panics.
pub fn require<T>(what: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        let ci = std::env::var("CI");
        assert_ne!(ci.as_deref(), Ok("true"), "{what} is not on this machine");
        skipped(what);
    }
    found
}

/// Prints that the running test is skipped because something is not on this machine. For things that
/// not every machine can have; for all others there is [`require`].
pub fn skipped(what: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    // Not eprintln!, which the test runner captures.
    let _ = writeln!(
        io::stderr(),
        "\n*** SKIPPED {test}: {what} is not on this machine ***"
    );
}
