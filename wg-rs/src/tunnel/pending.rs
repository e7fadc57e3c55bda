//! Initiations of ours that wait for their response: which peer's each one is.
//!
//! Invariant: each has its slot in the index that sessions are found by, until a session takes the slot
//! over or it is released.

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

    /// An initiation with this index, which was reserved, was made for a peer.
    pub(super) fn begin(&mut self, index: u32, peer: u64) {
        self.peers.insert(index, peer);
    }

    /// Whose initiation has this index.
    pub(super) fn peer(&self, index: u32) -> Option<u64> {
        self.peers.get(&index).copied()
    }

    /// The response came: the index is the session's.
    pub(super) fn complete(&mut self, index: u32) {
        self.peers.remove(&index);
    }

    /// The initiation is void: so is its index.
    pub(super) fn release(&mut self, index: u32) {
        self.peers.remove(&index);
        self.plane.index.release(index);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}
