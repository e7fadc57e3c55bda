//! Connections that others asked for, on their way to whoever listens on their port.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::flow::{Accepts, Flow};

/// Connections that are not established yet, at most; the others are ignored, and asked for again.
const MOST_HALF_OPEN: usize = 256;
/// Established ones that nobody has taken yet, at most.
const MOST_READY: usize = 1024;

/// See the head of the file.
#[derive(Default)]
pub(super) struct Backlog {
    /// Of which address; `None` for any.
    address: Option<IpAddr>,
    half_open: AtomicUsize,
    ready: Mutex<VecDeque<Arc<Flow>>>,
    closed: AtomicBool,
    news: Notify,
}

impl Backlog {
    /// For connections to this address, or to any of the interface's.
    pub fn new(address: Option<IpAddr>) -> Self {
        Backlog {
            address,
            ..Backlog::default()
        }
    }

    /// Whether it is for connections to this address.
    pub fn is_for(&self, address: IpAddr) -> bool {
        self.address.is_none_or(|own| own == address)
    }

    /// Whether one for this address would get the same connections.
    pub fn overlaps(&self, address: Option<IpAddr>) -> bool {
        self.address.is_none() || address.is_none() || self.address == address
    }

    /// Room for one connection more; it is to be made then.
    pub fn begin(&self) -> bool {
        if self.ready.lock().len() >= MOST_READY || self.is_closed() {
            return false;
        }
        let more = |half_open| (half_open < MOST_HALF_OPEN).then_some(half_open + 1);
        self.half_open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok()
    }

    /// The oldest connection that nobody has taken yet. `None`: it is closed.
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

    /// Nobody listens any longer. The connections that nobody has taken.
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
