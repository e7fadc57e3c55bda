//! A flow of numbered datagrams at a steady pace, which counts those that are lost, repeated or damaged.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::traffic::pattern;
use crate::{Host, until};

/// What most tests send: bytes of a datagram, and the pause between two.
const LEN: usize = 1000;
const PACE: Duration = Duration::from_millis(1);
/// The number of datagrams that may be on their way at a time. If a busy machine delays a program, at
/// most this many wait in a queue, so that no queue overflows.
const ON_THEIR_WAY: u64 = 64;
/// Bytes of a receiver's buffer: the kernel counts several times the length of each datagram.
const BUFFER: usize = 4 << 20;
/// A datagram that has not arrived after this time is lost. A busy machine may stop a daemon for
/// seconds, which loses nothing.
const LATE: Duration = Duration::from_secs(5);
/// The time in which the last datagrams must arrive. Only a loss makes it pass.
const DRAIN: Duration = Duration::from_secs(10);

/// The datagrams of a flow.
#[derive(Debug, Clone, Copy)]
pub struct Datagrams {
    /// Bytes in each, at least 8 for its number.
    pub len: usize,
    /// Pause between two of them.
    pub pace: Duration,
}

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
    repeated: AtomicU64,
    damaged: AtomicU64,
}

/// The result of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Number of datagrams sent.
    pub sent: u64,
    /// Number of datagrams that arrived, each counted once.
    pub received: u64,
    /// Number of datagrams that arrived once more.
    pub repeated: u64,
    /// Number of datagrams that arrived with another content or length.
    pub damaged: u64,
}

impl Count {
    /// Number of datagrams that did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

impl Add for Count {
    type Output = Count;

    fn add(self, other: Count) -> Count {
        Count {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            repeated: self.repeated + other.repeated,
            damaged: self.damaged + other.damaged,
        }
    }
}

impl Paced {
    /// Sends a datagram of 1000 bytes each millisecond from one host to an address of another.
    pub fn start(from: &Host, to: (&Host, IpAddr)) -> io::Result<Paced> {
        Paced::of(
            Datagrams {
                len: LEN,
                pace: PACE,
            },
            from,
            to,
        )
    }

    /// As [`Paced::start`], as fast as the datagrams arrive.
    pub fn bulk(from: &Host, to: (&Host, IpAddr)) -> io::Result<Paced> {
        let pace = Duration::ZERO;
        Paced::of(Datagrams { len: LEN, pace }, from, to)
    }

    /// Sends such datagrams from one host to an address of another.
    pub fn of(datagrams: Datagrams, from: &Host, to: (&Host, IpAddr)) -> io::Result<Paced> {
        let Datagrams { len, pace } = datagrams;
        let socket = to.0.run(|| UdpSocket::bind((to.1, 0)))?;
        let target = socket.local_addr()?;
        // A busy machine may stop the receiver while all that may be on its way arrives.
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        let receiver = to.0.thread(move || {
            let mut arrivals = Arrivals::default();
            let (mut datagram, mut wanted) = (vec![0; len + 1], vec![0; len]);
            while !state.drained.load(Relaxed) {
                let got = match socket.recv(&mut datagram) {
                    Ok(got) => &datagram[..got],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                };
                let number = got.first_chunk().map(|number| u64::from_le_bytes(*number));
                let counter = match number {
                    Some(number) if is_intact(got, number, &mut wanted) => {
                        match arrivals.add(number) {
                            true => &state.received,
                            false => &state.repeated,
                        }
                    }
                    _ => &state.damaged,
                };
                counter.fetch_add(1, Relaxed);
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
            let mut datagram = vec![0; len];
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
                fill(&mut datagram, number);
                // A datagram that cannot be sent counts as lost.
                let _ = socket.send_to(&datagram, target);
                state.sent.store(number + 1, Relaxed);
                if !pace.is_zero() {
                    std::thread::sleep(pace);
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
            repeated: self.shared.repeated.load(Relaxed),
            damaged: self.shared.damaged.load(Relaxed),
        }
    }

    /// Whether one of its threads has failed.
    pub fn has_failed(&self) -> bool {
        let threads = [&self.sender, &self.receiver];
        threads.into_iter().flatten().any(JoinHandle::is_finished)
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

/// The content of datagram `number`: the number, and bytes that depend on it.
fn fill(datagram: &mut [u8], number: u64) {
    let (start, rest) = datagram.split_at_mut(8);
    start.copy_from_slice(&number.to_le_bytes());
    pattern(number.wrapping_mul(1 << 16), rest);
}

fn is_intact(got: &[u8], number: u64, wanted: &mut [u8]) -> bool {
    fill(wanted, number);
    got == wanted
}

/// The numbers that have arrived. It remembers only those that are missing.
#[derive(Debug, Default)]
struct Arrivals {
    next: u64,
    missing: HashSet<u64>,
}

impl Arrivals {
    /// Adds a number. Returns whether it is new.
    fn add(&mut self, number: u64) -> bool {
        if number < self.next {
            return self.missing.remove(&number);
        }
        self.missing.extend(self.next..number);
        self.next = number + 1;
        true
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
    fn each_number_is_new_once_in_any_order() {
        let mut arrivals = Arrivals::default();
        let numbers = [0, 3, 1, 3, 1, 2, 2, 4, 0];
        let new = numbers.map(|number| arrivals.add(number));
        let wanted = [true, true, true, false, false, true, false, true, false];
        assert_eq!(new, wanted);
        assert!(arrivals.missing.is_empty());
    }

    #[test]
    fn a_damaged_datagram_is_recognised() {
        let (mut datagram, mut wanted) = (vec![0; 100], vec![0; 100]);
        fill(&mut datagram, 7);
        assert!(is_intact(&datagram, 7, &mut wanted));
        assert!(!is_intact(&datagram[..99], 7, &mut wanted));
        datagram[99] ^= 1;
        assert!(!is_intact(&datagram, 7, &mut wanted));
    }

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
