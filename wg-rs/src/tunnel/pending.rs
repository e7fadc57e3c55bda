//! Our initiations that wait for a response, and the peer of each.
//!
//! Invariant: each has a slot in the index of sessions until a session takes over the slot, or the
//! slot is released.

use std::collections::HashMap;
use std::sync::Arc;

use super::plane::Plane;

pub(super) struct PendingHandshakes {
    plane: Arc<Plane>,
    peers: HashMap<u32, u64>,
}

impl PendingHandshakes {
    pub(super) fn new(plane: &Arc<Plane>) -> Self {
        Self {
            plane: plane.clone(),
            peers: HashMap::new(),
        }
    }

    /// Records an initiation to a peer, with this reserved index.
    pub(super) fn begin(&mut self, index: u32, peer: u64) {
        self.peers.insert(index, peer);
    }

    /// The peer of the initiation with this index.
    pub(super) fn peer(&self, index: u32) -> Option<u64> {
        self.peers.get(&index).copied()
    }

    /// The response arrived: the index now belongs to the session.
    pub(super) fn complete(&mut self, index: u32) {
        self.peers.remove(&index);
    }

    /// The initiation is no longer valid: releases its index.
    pub(super) fn release(&mut self, index: u32) {
        self.peers.remove(&index);
        self.plane.index.release(index);
    }

    /// The number of pending initiations.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}
