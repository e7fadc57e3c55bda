//! Incoming connections of a listening port, until the listener accepts them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::flow::{Accepts, Flow};

/// Maximum number of connections that are not established yet. Further SYNs are ignored; peers repeat them.
const MOST_HALF_OPEN: usize = 256;
/// Maximum number of established connections that have not been accepted yet.
const MOST_READY: usize = 1024;

/// The queue of one listener, see the head of the file.
#[derive(Default)]
pub(super) struct Backlog {
    /// The address that it listens on; `None` for any.
    address: Option<IpAddr>,
    half_open: AtomicUsize,
    ready: Mutex<VecDeque<Arc<Flow>>>,
    closed: AtomicBool,
    news: Notify,
}

impl Backlog {
    /// Creates the backlog of a listener on this address, or on all addresses of the interface.
    pub fn new(address: Option<IpAddr>) -> Self {
        Backlog {
            address,
            ..Backlog::default()
        }
    }

    /// Whether connections to this address belong to this listener.
    pub fn is_for(&self, address: IpAddr) -> bool {
        self.address.is_none_or(|own| own == address)
    }

    /// Whether a listener on `address` would get some of the same connections.
    pub fn overlaps(&self, address: Option<IpAddr>) -> bool {
        self.address.is_none() || address.is_none() || self.address == address
    }

    /// Reserves room for one more connection, which the caller must then create. False if there is none.
    pub fn begin(&self) -> bool {
        if self.ready.lock().len() >= MOST_READY || self.is_closed() {
            return false;
        }
        let more = |half_open| (half_open < MOST_HALF_OPEN).then_some(half_open + 1);
        self.half_open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok()
    }

    /// Waits for the oldest connection that has not been accepted yet. `None` if the backlog is closed.
    pub async fn next(&self) -> Option<Arc<Flow>> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if let Some(flow) = self.ready.lock().pop_front() {
                return Some(flow);
            }
            if self.is_closed() {
                return None;
            }
            news.await;
        }
    }

    /// Closes the backlog and returns the connections that were not accepted.
    pub fn close(&self) -> VecDeque<Arc<Flow>> {
        let mut ready = self.ready.lock();
        self.closed.store(true, Ordering::Release);
        self.news.notify_waiters();
        std::mem::take(&mut ready)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Accepts for Backlog {
    fn ready(&self, flow: Arc<Flow>) {
        self.half_open.fetch_sub(1, Ordering::AcqRel);
        let mut ready = self.ready.lock();
        if self.is_closed() {
            drop(ready);
            return flow.abort();
        }
        ready.push_back(flow);
        drop(ready);
        self.news.notify_one();
    }

    fn withdrawn(&self) {
        self.half_open.fetch_sub(1, Ordering::AcqRel);
    }
}
