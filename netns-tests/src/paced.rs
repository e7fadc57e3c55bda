//! A flow of numbered datagrams at a steady pace, none of which may be lost or come twice.

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
/// So many may be on their way: what does not get to run for a while on a busy machine finds no more
/// than this in its queues, none of which then overflows.
const ON_THEIR_WAY: u64 = 64;
/// What has not arrived after so long is lost, and not on its way.
const LATE: Duration = Duration::from_secs(1);
const LEN: usize = 1000;
/// After the last one was sent, those on their way have so long.
const DRAIN: Duration = Duration::from_secs(2);

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

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Those that arrived, each counted once.
    pub received: u64,
}

impl Count {
    /// Datagrams that did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

impl Paced {
    /// A datagram each millisecond from one host to another's address.
    pub fn start(from: &Host, to: (&Host, IpAddr)) -> io::Result<Paced> {
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
                // One that cannot be sent is as good as lost.
                let _ = socket.send_to(&datagram, target);
                state.sent.store(number + 1, Relaxed);
                std::thread::sleep(PACE);
            }
            Ok(())
        });
        Ok(Paced {
            shared,
            sender: Some(sender),
            receiver: Some(receiver),
        })
    }

    /// Datagrams so far.
    pub fn count(&self) -> Count {
        // In this order: one that arrives in between is not one too many.
        let received = self.shared.received.load(Relaxed);
        let sent = self.shared.sent.load(Relaxed);
        Count {
            sent: sent.max(received),
            received,
        }
    }

    /// Waits until so many more have been sent.
    pub fn go_on(&self, more: u64) -> io::Result<()> {
        let goal = self.count().sent + more;
        until(Duration::from_secs(30), "datagrams to be sent", || {
            Ok((self.count().sent >= goal).then_some(()))
        })
    }

    /// Ends it, once all have arrived or no more come.
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
    fn counts_what_is_lost() -> io::Result<()> {
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
