//! Hears by ICMP of what did not arrive. Without CAP_NET_RAW nothing is heard.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::sys::async_fd;
use crate::sys::icmp::{IcmpSocket, Undelivered};
use crate::sys::udp::Family;

/// Messages read at a time, and how long it then takes to the next: anybody can send some.
const AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(100);

/// The sockets that hear it, in the namespace in which this was made.
pub struct Ears(Vec<(IcmpSocket, AsyncFd<OwnedFd>)>);

impl Ears {
    /// To be opened before capabilities are given up.
    pub fn open() -> Vec<IcmpSocket> {
        let open = |family| {
            IcmpSocket::open(family)
                .inspect_err(|error| {
                    tracing::debug!(%error, "closed ports will not be heard of");
                })
                .ok()
        };
        [Family::V4, Family::V6]
            .into_iter()
            .filter_map(open)
            .collect()
    }

    /// Within a tokio runtime.
    ///
    /// # Errors
    /// Of descriptors.
    pub fn new(sockets: Vec<IcmpSocket>) -> io::Result<Self> {
        let ear = |socket: IcmpSocket| {
            let ready = async_fd::readable(socket.as_fd().try_clone_to_owned()?)?;
            Ok((socket, ready))
        };
        let ears: io::Result<_> = sockets.into_iter().map(ear).collect();
        Ok(Ears(ears?))
    }

    /// Waits until `from`, and then for messages: some of those there are. Safe to be cancelled.
    pub async fn hear(&self, from: Instant) -> Vec<Undelivered> {
        sleep_until(from).await;
        match &self.0[..] {
            [] => std::future::pending().await,
            [one] => read(one).await,
            [one, two, ..] => tokio::select! {
                heard = read(one) => heard,
                heard = read(two) => heard,
            },
        }
    }

    /// When to hear again after something was heard.
    pub fn next() -> Instant {
        Instant::now() + PAUSE
    }
}

async fn read((socket, ready): &(IcmpSocket, AsyncFd<OwnedFd>)) -> Vec<Undelivered> {
    let Ok(mut ready) = ready.readable().await else {
        // The reactor is gone, and so is soon whoever waits.
        return std::future::pending().await;
    };
    let mut heard = Vec::new();
    for _ in 0..AT_ONCE {
        match socket.recv() {
            Ok(told) => heard.extend(told),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                break;
            }
            Err(error) => {
                tracing::debug!(%error, "what did not arrive is not to be heard");
                break;
            }
        }
    }
    heard
}
