//! A flow of numbered datagrams at a steady pace, which counts those that are lost.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Host, until};

/// Pause between two datagrams.
const PACE: Duration = Duration::from_millis(1);
/// The number of datagrams that may be on their way at a time. If a busy machine delays a program, at
/// most this many wait in a queue, so that no queue overflows.
const ON_THEIR_WAY: u64 = 64;
/// A datagram that has not arrived after this time is lost. A busy machine may stop a daemon for
/// seconds, which loses nothing.
const LATE: Duration = Duration::from_secs(5);
const LEN: usize = 1000;
/// The time in which the last datagrams must arrive. Only a loss makes it pass.
const DRAIN: Duration = Duration::from_secs(10);

/// A running flow; it ends when it is dropped or finished.
#[derive(Debug)]
pub struct Paced {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<io::Result<()>>>,
    receiver: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    drained: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

/// The result of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Number of datagrams sent.
    pub sent: u64,
    /// Number of datagrams that arrived, each counted once.
    pub received: u64,
}

impl Count {
    /// Number of datagrams that did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

impl Paced {
    /// Sends a datagram each millisecond from one host to an address of another.
    pub fn start(from: &Host, to: (&Host, IpAddr)) -> io::Result<Paced> {
        Paced::with_pause(from, to, PACE)
    }

    /// As [`Paced::start`], as fast as the datagrams arrive.
    pub fn bulk(from: &Host, to: (&Host, IpAddr)) -> io::Result<Paced> {
        Paced::with_pause(from, to, Duration::ZERO)
    }

    fn with_pause(from: &Host, to: (&Host, IpAddr), pause: Duration) -> io::Result<Paced> {
        let socket = to.0.run(|| UdpSocket::bind((to.1, 0)))?;
        let target = socket.local_addr()?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        let receiver = to.0.thread(move || {
            let mut numbers = HashSet::new();
            let mut datagram = [0; LEN];
            while !state.drained.load(Relaxed) {
                match socket.recv(&mut datagram) {
                    Ok(LEN) => {
                        let number = datagram.first_chunk().expect("longer than a number");
                        if numbers.insert(u64::from_le_bytes(*number)) {
                            state.received.fetch_add(1, Relaxed);
                        }
                    }
                    Ok(len) => return Err(io::Error::other(format!("a datagram of {len} bytes"))),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let any: SocketAddr = match to.1 {
            IpAddr::V4(_) => ([0; 4], 0).into(),
            IpAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let state = shared.clone();
        let sender = from.thread(move || {
            let socket = UdpSocket::bind(any)?;
            let mut datagram = [0; LEN];
            let (mut lost, mut waiting) = (0, None);
            while !state.stop.load(Relaxed) {
                let number = state.sent.load(Relaxed);
                let ahead = number.saturating_sub(state.received.load(Relaxed) + lost);
                if ahead >= ON_THEIR_WAY {
                    if waiting.get_or_insert_with(Instant::now).elapsed() > LATE {
                        lost += ahead;
                    }
                    std::thread::sleep(PACE);
                    continue;
                }
                waiting = None;
                datagram[..8].copy_from_slice(&number.to_le_bytes());
                // A datagram that cannot be sent counts as lost.
                let _ = socket.send_to(&datagram, target);
                state.sent.store(number + 1, Relaxed);
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
            }
            Ok(())
        });
        Ok(Paced {
            shared,
            sender: Some(sender),
            receiver: Some(receiver),
        })
    }

    /// The result so far.
    pub fn count(&self) -> Count {
        // In this order, as a datagram may arrive in between.
        let received = self.shared.received.load(Relaxed);
        let sent = self.shared.sent.load(Relaxed);
        Count {
            sent: sent.max(received),
            received,
        }
    }

    /// Waits until `more` further datagrams have been sent.
    pub fn go_on(&self, more: u64) -> io::Result<()> {
        let goal = self.count().sent + more;
        until(Duration::from_secs(30), "datagrams to be sent", || {
            Ok((self.count().sent >= goal).then_some(()))
        })
    }

    /// Ends the flow when all datagrams have arrived, or no more arrive.
    pub fn finish(mut self) -> io::Result<Count> {
        self.shared.stop.store(true, Relaxed);
        join(self.sender.take())?;
        let arrived = until(DRAIN, "all datagrams to arrive", || {
            Ok((self.count().lost() == 0).then_some(()))
        });
        drop(arrived);
        self.shared.drained.store(true, Relaxed);
        join(self.receiver.take())?;
        Ok(self.count())
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.shared.drained.store(true, Relaxed);
    }
}

fn join(thread: Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let ended = thread.map(JoinHandle::join);
    ended
        .unwrap_or(Ok(Ok(())))
        .unwrap_or_else(|_| Err(io::Error::other("a flow panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Hosts, netlink};

    #[test]
    fn lost_datagrams_are_counted() -> io::Result<()> {
        let hosts = Hosts::new(1500)?;
        let [a, b] = &hosts.hosts;
        let flow = Paced::start(a, (b, hosts.address(1, Family::V4)))?;
        flow.go_on(100)?;
        assert_eq!(flow.finish()?.lost(), 0);

        let flow = Paced::start(a, (b, hosts.address(1, Family::V4)))?;
        flow.go_on(20)?;
        b.run(|| netlink::set_up("eth0", false))?;
        flow.go_on(20)?;
        let count = flow.finish()?;
        assert!(count.lost() >= 19 && count.received > 0, "{count:?}");
        Ok(())
    }
}
