//! Waiting for a condition, and the rule for tools that are absent.

use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Asks every 10 ms until there is an answer. An error ends it, and so does `limit`, with an
/// error that names `what`.
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

/// What a test is about and this machine may lack. Absent, it says so where no test runner hides
/// it and returns `None`: the test is skipped. Under `CI=true` absence is a failure.
pub fn require<T>(what: &str, found: Option<T>) -> Option<T> {
    if found.is_none() {
        let ci = std::env::var("CI");
        assert_ne!(ci.as_deref(), Ok("true"), "{what} is not on this machine");
        skipped(what);
    }
    found
}

/// Says, where no test runner hides it, that the running test is skipped because this is not here.
/// Of what a machine need not lack or have; for all else there is [`require`].
pub fn skipped(what: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    // Not eprintln!: the test runner would keep it to itself.
    let _ = writeln!(
        io::stderr(),
        "\n*** SKIPPED {test}: {what} is not on this machine ***"
    );
}
