//! Receives ICMP errors about datagrams that did not arrive. Without CAP_NET_RAW, none are received.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::sys::async_fd;
use crate::sys::icmp::{IcmpSocket, Undelivered};
use crate::sys::udp::Family;

/// How many messages are read at once, and the pause after that. It limits the cost, as anybody can send
/// such messages.
const AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(100);

/// The ICMP sockets, in the network namespace where this was created.
pub struct IcmpErrors(Vec<(IcmpSocket, AsyncFd<OwnedFd>)>);

impl IcmpErrors {
    /// Opens the sockets. Must be called before capabilities are dropped.
    pub fn open() -> Vec<IcmpSocket> {
        let open = |family| {
            IcmpSocket::open(family)
                .inspect_err(|error| {
                    tracing::debug!(%error, "cannot receive ICMP messages");
                })
                .ok()
        };
        [Family::V4, Family::V6]
            .into_iter()
            .filter_map(open)
            .collect()
    }

    /// Registers the sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A descriptor cannot be duplicated or registered.
    pub fn new(sockets: Vec<IcmpSocket>) -> io::Result<Self> {
        let register = |socket: IcmpSocket| {
            let ready = async_fd::readable(socket.as_fd().try_clone_to_owned()?)?;
            Ok((socket, ready))
        };
        let registered: io::Result<_> = sockets.into_iter().map(register).collect();
        Ok(IcmpErrors(registered?))
    }

    /// Waits until `from`, and then for messages. Returns at most `AT_ONCE`. Safe to cancel.
    pub async fn recv(&self, from: Instant) -> Vec<Undelivered> {
        sleep_until(from).await;
        match &self.0[..] {
            [] => std::future::pending().await,
            [one] => read(one).await,
            [one, two, ..] => tokio::select! {
                errors = read(one) => errors,
                errors = read(two) => errors,
            },
        }
    }

    /// Returns the time for the next call of `recv` after messages were received.
    pub fn next() -> Instant {
        Instant::now() + PAUSE
    }
}

async fn read((socket, ready): &(IcmpSocket, AsyncFd<OwnedFd>)) -> Vec<Undelivered> {
    let Ok(mut ready) = ready.readable().await else {
        // The runtime is shutting down, and this task will end with it.
        return std::future::pending().await;
    };
    let mut errors = Vec::new();
    for _ in 0..AT_ONCE {
        match socket.recv() {
            Ok(error) => errors.extend(error),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                break;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot receive ICMP messages");
                break;
            }
        }
    }
    errors
}
