//! A datagram each ten milliseconds, for measuring how long nothing arrives.
//!
//! Time is counted in datagrams of the sender, not by a clock: if the machine is so busy that programs wait
//! for it, the sender waits as well, and a pause of the tunnel is not taken to be longer than it is.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{Host, until};

/// The time between two datagrams.
const PACE: Duration = Duration::from_millis(10);
/// How often a thread looks whether it must end.
const LOOK: Duration = Duration::from_millis(20);

/// A running flow; it ends when it is dropped.
#[derive(Debug)]
pub struct Beat {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The number of the last datagram that was sent, from 1 on.
    sent: AtomicU64,
    /// The highest number that has arrived.
    arrived: AtomicU64,
    /// The last number that was sent before the measurement began.
    before: AtomicU64,
    /// The greatest distance between two numbers that arrived one after the other since then.
    gap: AtomicU64,
}

impl Shared {
    fn arrives(&self, number: u64) {
        let last = self.arrived.fetch_max(number, Relaxed);
        let before = last.max(self.before.load(Relaxed));
        self.gap.fetch_max(number.saturating_sub(before), Relaxed);
    }
}

impl Beat {
    /// Starts to send from one host to an address of another, and waits until the first one arrives.
    pub fn start(from: &Host, to: (&Host, IpAddr), patience: Duration) -> io::Result<Beat> {
        let receiver = to.0.run(|| UdpSocket::bind((to.1, 0)))?;
        let target = receiver.local_addr()?;
        receiver.set_read_timeout(Some(LOOK))?;
        let any: SocketAddr = match to.1 {
            IpAddr::V4(_) => ([0; 4], 0).into(),
            IpAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let sender = from.run(|| UdpSocket::bind(any))?;
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        let sends = move || {
            while !state.stop.load(Relaxed) {
                let number = state.sent.fetch_add(1, Relaxed) + 1;
                // What cannot be sent does not arrive.
                let _ = sender.send_to(&number.to_le_bytes(), target);
                std::thread::sleep(PACE);
            }
            Ok(())
        };
        let state = shared.clone();
        let receives = move || {
            let mut number = [0; 8];
            while !state.stop.load(Relaxed) {
                match receiver.recv(&mut number) {
                    Ok(8) => state.arrives(u64::from_le_bytes(number)),
                    Ok(_) => return Err(io::Error::other("a datagram of another length")),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let threads = vec![from.thread(sends), to.0.thread(receives)];
        let beat = Beat { shared, threads };
        beat.until_it_arrives(patience)?;
        beat.begin();
        Ok(beat)
    }

    /// Waits until a datagram arrives that was sent after this call.
    pub fn until_it_arrives(&self, patience: Duration) -> io::Result<()> {
        let sent = self.shared.sent.load(Relaxed);
        until(patience, "a datagram to arrive", || {
            if self.threads.iter().any(JoinHandle::is_finished) {
                return Err(io::Error::other("a thread of the flow has failed"));
            }
            Ok((self.shared.arrived.load(Relaxed) > sent).then_some(()))
        })
    }

    /// Begins to measure: what was sent before does not count.
    pub fn begin(&self) {
        self.shared
            .before
            .store(self.shared.sent.load(Relaxed), Relaxed);
        self.shared.gap.store(0, Relaxed);
    }

    /// The longest time in which nothing arrived since the last call of `begin`.
    pub fn longest_gap(&self) -> Duration {
        PACE * self.shared.gap.load(Relaxed) as u32
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Hosts, PATIENCE, netlink};

    #[test]
    fn a_pause_is_measured() -> io::Result<()> {
        let hosts = Hosts::new(1500)?;
        let [a, b] = &hosts.hosts;
        let beat = Beat::start(a, (b, hosts.address(1, Family::V4)), PATIENCE)?;
        beat.until_it_arrives(PATIENCE)?;
        assert!(beat.longest_gap() <= PACE * 2, "{:?}", beat.longest_gap());
        a.run(|| netlink::set_up("eth0", false))?;
        let sent = || beat.shared.sent.load(Relaxed);
        let goal = sent() + 30;
        until(PATIENCE, "datagrams to be sent", || {
            Ok((sent() >= goal).then_some(()))
        })?;
        a.run(|| netlink::set_up("eth0", true))?;
        beat.until_it_arrives(PATIENCE)?;
        assert!(beat.longest_gap() >= PACE * 29, "{:?}", beat.longest_gap());
        beat.begin();
        beat.until_it_arrives(PATIENCE)?;
        assert!(beat.longest_gap() <= PACE * 2, "{:?}", beat.longest_gap());
        Ok(())
    }
}
