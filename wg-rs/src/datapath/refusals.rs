//! Remembers, by endpoint and for a limited time, what the kernel refused to segment or to accept
//! coalesced.
//!
//! A refusal concerns a route, a device or a packet, not the socket: one peer with a small MTU or
//! an IPsec policy must not disable the offload for the others. Routes change, so the offload is
//! tried again after [`EXPIRY`], which costs one failed call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::tunnel::time::Time;

/// How long a refusal is remembered.
pub const EXPIRY: Duration = Duration::from_secs(60);
/// Most endpoints that are remembered. When there are more, all are forgotten.
const MOST: usize = 4096;

/// The refusals of one offload. While there are none, a check costs one load.
#[derive(Debug, Default)]
pub struct Refusals {
    any: AtomicBool,
    by_endpoint: Mutex<HashMap<SocketAddr, RefusedStride>>,
}

#[derive(Debug)]
struct RefusedStride {
    /// The refusal applies to datagrams of this length or longer.
    stride: usize,
    until: Time,
}

impl Refusals {
    /// Whether datagrams of this length to (or from) `endpoint` were refused recently.
    pub fn cover(&self, endpoint: &SocketAddr, stride: usize, now: Time) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let mut by_endpoint = self
            .by_endpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(refusal) = by_endpoint.get(endpoint) else {
            return false;
        };
        if now < refusal.until {
            return stride >= refusal.stride;
        }
        by_endpoint.remove(endpoint);
        self.any.store(!by_endpoint.is_empty(), Ordering::Relaxed);
        false
    }

    /// Records that datagrams of this length were refused.
    pub fn note(&self, endpoint: SocketAddr, stride: usize, now: Time) {
        let mut by_endpoint = self
            .by_endpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if by_endpoint.len() >= MOST && !by_endpoint.contains_key(&endpoint) {
            by_endpoint.retain(|_, refusal| now < refusal.until);
            if by_endpoint.len() >= MOST {
                by_endpoint.clear();
            }
        }
        let until = now + EXPIRY;
        let refusal = by_endpoint
            .entry(endpoint)
            .or_insert(RefusedStride { stride, until });
        refusal.stride = refusal.stride.min(stride);
        refusal.until = until;
        self.any.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Time = Time::from_nanos(1_000_000_000_000);

    fn endpoint(n: usize) -> SocketAddr {
        ([10, 0, (n >> 8) as u8, n as u8], 51820).into()
    }

    #[test]
    fn a_refusal_applies_to_its_endpoint_and_length_for_a_limited_time() {
        let refusals = Refusals::default();
        assert!(!refusals.cover(&endpoint(1), 1452, T));
        refusals.note(endpoint(1), 1452, T);
        assert!(refusals.cover(&endpoint(1), 1452, T));
        assert!(!refusals.cover(&endpoint(1), 1451, T));
        assert!(!refusals.cover(&endpoint(2), 1452, T));
        refusals.note(endpoint(1), 500, T);
        refusals.note(endpoint(1), 1452, T);
        assert!(refusals.cover(&endpoint(1), 500, T + EXPIRY / 2));
        assert!(!refusals.cover(&endpoint(1), 1452, T + EXPIRY));
        assert!(!refusals.any.load(Ordering::Relaxed), "forgotten");
    }

    #[test]
    fn refusals_are_bounded_and_the_oldest_are_forgotten() {
        let refusals = Refusals::default();
        let count = || refusals.by_endpoint.lock().unwrap().len();
        (0..MOST).for_each(|n| refusals.note(endpoint(n), 1, T));
        refusals.note(endpoint(0), 1, T + EXPIRY);
        refusals.note(endpoint(MOST), 1, T + EXPIRY);
        assert_eq!(count(), 2);
        (0..2 * MOST).for_each(|n| refusals.note(endpoint(n), 1, T + EXPIRY));
        assert!(count() <= MOST);
        assert!(refusals.cover(&endpoint(2 * MOST - 1), 1, T + EXPIRY));
    }
}
