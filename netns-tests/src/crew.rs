//! Jobs that are repeated on threads of their own until all are stopped.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The jobs; they end when this is dropped or finished.
#[derive(Debug, Default)]
pub struct Crew {
    stop: Arc<Stop>,
    jobs: Vec<Job>,
}

#[derive(Debug, Default)]
struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until it is set, or for this time. Returns whether it is set.
    fn wait(&self, limit: Duration) -> bool {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(set, limit, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[derive(Debug)]
struct Job {
    name: String,
    turns: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Crew {
    /// Repeats a job until it returns an error. A turn begins at least `pace` after the one before has begun.
    pub fn repeat(
        &mut self,
        name: impl Into<String>,
        pace: Duration,
        mut turn: impl FnMut() -> io::Result<()> + Send + 'static,
    ) {
        let turns = Arc::new(AtomicU64::new(0));
        let (stop, counter) = (self.stop.clone(), turns.clone());
        let thread = thread::spawn(move || {
            loop {
                let start = Instant::now();
                turn()?;
                counter.fetch_add(1, Relaxed);
                if stop.wait(pace.saturating_sub(start.elapsed())) {
                    return Ok(());
                }
            }
        });
        let name = name.into();
        self.jobs.push(Job {
            name,
            turns,
            thread,
        });
    }

    /// How many turns a job has had.
    pub fn turns(&self, name: &str) -> u64 {
        let jobs = self.jobs.iter().filter(|job| job.name == name);
        jobs.map(|job| job.turns.load(Relaxed)).sum()
    }

    /// Whether a job has failed.
    pub fn has_failed(&self) -> bool {
        self.jobs.iter().any(|job| job.thread.is_finished())
    }

    /// Ends all jobs.
    ///
    /// # Errors
    /// The first error of a job, also if it panicked.
    pub fn finish(mut self) -> io::Result<()> {
        self.stop.set();
        let jobs = std::mem::take(&mut self.jobs);
        jobs.into_iter()
            .map(Job::finish)
            .fold(Ok(()), io::Result::and)
    }
}

impl Job {
    fn finish(self) -> io::Result<()> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", self.name);
        match self.thread.join() {
            Err(_) => Err(io::Error::other(named(&"it panicked"))),
            Ok(Err(error)) => Err(io::Error::new(error.kind(), named(&error))),
            Ok(Ok(())) => Ok(()),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop.set();
        for job in self.jobs.drain(..) {
            let _ = job.thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PATIENCE, until};

    #[test]
    fn jobs_have_turns_until_the_end_and_their_errors_are_named() -> io::Result<()> {
        let mut crew = Crew::default();
        crew.repeat("count", Duration::ZERO, || Ok(()));
        until(PATIENCE, "turns", || {
            Ok((crew.turns("count") > 2).then_some(()))
        })?;
        assert!(!crew.has_failed());
        crew.repeat("fail", Duration::ZERO, || Err(io::Error::other("no")));
        until(PATIENCE, "the error", || {
            Ok(crew.has_failed().then_some(()))
        })?;
        assert_eq!(crew.finish().unwrap_err().to_string(), "fail: no");
        Ok(())
    }
}
