//! What happens to the machine beneath the tunnel.
//!
//! A virtual machine that is copied, or restored from a snapshot, would use each counter of a session
//! twice, under the same key; its kernel tells (vmgenid). A machine that was suspended resumes with
//! sessions that may be too old to be of use.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use crate::sys::async_fd;
use crate::sys::resume::Resumes;
use crate::sys::uevent::{Uevent, Uevents};

/// Something that sessions do not outlive, or may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The machine may be a copy of another.
    Copied,
    /// It was suspended, and goes on.
    Resumed,
}

/// What is listened to, and tells nothing new most of the time.
trait Source: AsFd {
    /// Takes all that there is to be heard.
    fn take(&mut self) -> io::Result<Option<Happened>>;
}

impl Source for Uevents {
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

impl Source for Resumes {
    fn take(&mut self) -> io::Result<Option<Happened>> {
        Ok(Resumes::take(self).then_some(Happened::Resumed))
    }
}

struct Heard<S> {
    source: S,
    ready: AsyncFd<OwnedFd>,
}

/// Listens to a source. `None`, and a line in the log, where there is none.
fn listen<S: Source>(source: io::Result<S>, to_what: &str) -> Option<Heard<S>> {
    let heard = source.and_then(|source| {
        let ready = async_fd::readable(source.as_fd().try_clone_to_owned()?)?;
        Ok(Heard { source, ready })
    });
    heard
        .inspect_err(|error| tracing::error!(%error, "cannot listen for {to_what}"))
        .ok()
}

async fn hear<S: Source>(heard: &mut Option<Heard<S>>) -> io::Result<Option<Happened>> {
    let Some(Heard { source, ready }) = heard else {
        return std::future::pending().await;
    };
    ready.readable().await?.clear_ready();
    source.take()
}

/// The machine. See the head of the file.
pub struct Machine {
    uevents: Option<Heard<Uevents>>,
    resumes: Option<Heard<Resumes>>,
}

impl Machine {
    /// Listens from now on. Within a tokio runtime.
    pub fn watch() -> Self {
        Machine {
            uevents: listen(Uevents::open(), "copies of this virtual machine"),
            resumes: listen(Resumes::new(), "the machine's resuming"),
        }
    }

    /// Waits until something happens. What happens while nobody waits is told to who waits next.
    ///
    /// # Errors
    /// Of waiting.
    pub async fn happens(&mut self) -> io::Result<Happened> {
        loop {
            let happened = tokio::select! {
                happened = hear(&mut self.uevents) => happened?,
                happened = hear(&mut self.resumes) => happened?,
            };
            if let Some(happened) = happened {
                return Ok(happened);
            }
        }
    }
}
