//! Events of the machine that affect sessions.
//!
//! A virtual machine that is copied, or restored from a snapshot, would use each counter of a
//! session twice with the same key; its kernel reports this (vmgenid). A machine that was suspended
//! resumes with sessions that may be too old to be used.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use crate::sys::async_fd;
use crate::sys::resume::Resumes;
use crate::sys::uevent::{Uevent, Uevents};

/// An event after which sessions cannot be used, or may be too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The machine may be a copy of another machine.
    Copied,
    /// The machine was suspended and has resumed.
    Resumed,
}

/// A source of events, which are usually of no interest.
trait EventSource: AsFd {
    /// Takes all queued events.
    fn take(&mut self) -> io::Result<Option<Happened>>;
}

impl EventSource for Uevents {
    fn take(&mut self) -> io::Result<Option<Happened>> {
        let mut happened = None;
        loop {
            match self.recv() {
                Ok(Uevent::NewGeneration | Uevent::Lost) => happened = Some(Happened::Copied),
                Ok(Uevent::Other) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(happened),
                Err(error) => return Err(error),
            }
        }
    }
}

impl EventSource for Resumes {
    fn take(&mut self) -> io::Result<Option<Happened>> {
        Ok(Resumes::take(self).then_some(Happened::Resumed))
    }
}

struct Registered<S> {
    source: S,
    ready: AsyncFd<OwnedFd>,
}

/// Starts to listen to a source. None, with a line in the log, if that is not possible.
fn listen<S: EventSource>(source: io::Result<S>, to_what: &str) -> Option<Registered<S>> {
    let registered = source.and_then(|source| {
        let ready = async_fd::readable(source.as_fd().try_clone_to_owned()?)?;
        Ok(Registered { source, ready })
    });
    registered
        .inspect_err(|error| tracing::error!(%error, "cannot detect {to_what}"))
        .ok()
}

async fn take<S: EventSource>(
    registered: &mut Option<Registered<S>>,
) -> io::Result<Option<Happened>> {
    let Some(Registered { source, ready }) = registered else {
        return std::future::pending().await;
    };
    ready.readable().await?.clear_ready();
    source.take()
}

/// The sources of the machine's events.
pub struct Machine {
    uevents: Option<Registered<Uevents>>,
    resumes: Option<Registered<Resumes>>,
}

impl Machine {
    /// Starts listening. Must be called within a tokio runtime.
    pub fn watch() -> Self {
        Machine {
            uevents: listen(Uevents::open(), "copies of this virtual machine"),
            resumes: listen(Resumes::new(), "that the machine was suspended"),
        }
    }

    /// Waits for an event. Events that occur between calls are returned by the next call.
    ///
    /// # Errors
    /// Waiting fails.
    pub async fn happens(&mut self) -> io::Result<Happened> {
        loop {
            let happened = tokio::select! {
                happened = take(&mut self.uevents) => happened?,
                happened = take(&mut self.resumes) => happened?,
            };
            if let Some(happened) = happened {
                return Ok(happened);
            }
        }
    }
}
