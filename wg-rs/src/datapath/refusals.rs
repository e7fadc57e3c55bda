//! What the kernel refused to segment or to take coalesced, by endpoint, for a while.
//!
//! Such a refusal belongs to a route, a device on it or a packet, not to the socket: one peer behind
//! a small MTU or an IPsec policy must not cost the others their offload. And routes change, so it is
//! tried again after [`EXPIRY`], which costs one call that fails.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::tunnel::time::Time;

/// How long a refusal is believed.
pub const EXPIRY: Duration = Duration::from_secs(60);
/// Endpoints remembered at most; beyond it all are tried anew.
const MOST: usize = 4096;

/// The refusals of one offload. While there are none, asking costs one load.
#[derive(Debug, Default)]
pub struct Refusals {
    any: AtomicBool,
    by_endpoint: Mutex<HashMap<SocketAddr, Refusal>>,
}

#[derive(Debug)]
struct Refusal {
    /// Datagrams of this length and longer ones.
    stride: usize,
    until: Time,
}

impl Refusals {
    /// Whether datagrams of this length to (or from) `endpoint` were refused lately.
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

    /// Datagrams of this length were refused just now.
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
            .or_insert(Refusal { stride, until });
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
    fn a_refusal_is_of_one_endpoint_of_that_length_and_for_a_while() {
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
    fn they_are_bounded_and_old_ones_go_first() {
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
