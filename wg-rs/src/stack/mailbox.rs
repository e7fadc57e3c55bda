//! Received datagrams of a UDP port, until they are read.

use std::collections::VecDeque;
use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Maximum bytes that wait, including `ENVELOPE` for each datagram. Further datagrams are dropped.
const MOST: usize = 256 << 10;
/// Bytes of memory for each datagram besides its payload.
const ENVELOPE: usize = 128;

/// The receive queue of a UDP port.
#[derive(Default)]
pub(super) struct Mailbox {
    state: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    bytes: usize,
    closed: bool,
}

impl Mailbox {
    /// Adds a datagram. False if there is no room.
    pub fn put(&self, from: SocketAddr, payload: &[u8]) -> bool {
        let mut state = self.state.lock();
        let cost = payload.len() + ENVELOPE;
        if state.bytes + cost > MOST || state.closed {
            return false;
        }
        state.bytes += cost;
        state.datagrams.push_back((from, payload.to_vec()));
        drop(state);
        self.news.notify_one();
        true
    }

    /// Waits for the oldest datagram. Returns its sender and payload; `None` if the mailbox is closed.
    pub async fn take(&self) -> Option<(SocketAddr, Vec<u8>)> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            {
                let mut state = self.state.lock();
                if let Some((from, payload)) = state.datagrams.pop_front() {
                    state.bytes -= payload.len() + ENVELOPE;
                    let more = !state.datagrams.is_empty();
                    drop(state);
                    // One notification may stand for several datagrams.
                    if more {
                        self.news.notify_one();
                    }
                    return Some((from, payload));
                }
                if state.closed {
                    return None;
                }
            }
            news.await;
        }
    }

    /// Closes the mailbox: no more datagrams will come.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.news.notify_waiters();
        self.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_wait_in_order_and_in_bounds() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        let mailbox = Mailbox::default();
        let from = SocketAddr::from(([10, 0, 0, 1], 7));
        let count = (0u32..)
            .take_while(|n| mailbox.put(from, &n.to_be_bytes()))
            .count();
        assert_eq!(count, MOST / (ENVELOPE + 4));
        for n in 0..count as u32 {
            let got = runtime.block_on(mailbox.take());
            assert_eq!(got, Some((from, n.to_be_bytes().to_vec())));
        }
        assert!(mailbox.put(from, &[]));
        mailbox.close();
        assert_eq!(runtime.block_on(mailbox.take()), Some((from, Vec::new())));
        assert_eq!(runtime.block_on(mailbox.take()), None);
        assert!(!mailbox.put(from, &[]));
    }
}
