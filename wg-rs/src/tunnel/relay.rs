//! The data path's part of the relay: sessions between other peers whose handshake passed through
//! us.
//!
//! ```text
//! data packet, index not ours ─► route: the hops of that index whose sender has this address now
//!                                   ─► the current endpoint of the other end; counted for the pair
//! ```
//! Packets are not opened and not changed, so their size stays the same. The owner fills the table
//! (`hub.rs`).
//!
//! Invariants:
//! - The ends choose their indices, so one index may lead from several peers to several others, but
//!   from one peer to at most one other.
//! - The sender's address must match although the index is secret. Otherwise a peer could pass its
//!   index to others, who could then reach the other end through the hole in its NAT.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::drops::DropReason;
use super::peer::{Endpoint, Peer};
use super::time::Time;

/// Most sessions with the same index. Honest peers choose at random among four billion.
const SESSIONS_OF_INDEX: usize = 16;

/// Two peers between which we relay, and the number of bytes.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The sender and the receiver of the first initiation.
    pub(crate) ends: [Arc<Peer>; 2],
    /// Bytes of data packets from each end to the other.
    bytes: [AtomicU64; 2],
    /// When the last packet was relayed, in nanoseconds; 0 means never.
    last: AtomicU64,
}

impl Pair {
    pub(crate) fn new(ends: [Arc<Peer>; 2]) -> Self {
        Pair {
            ends,
            bytes: Default::default(),
            last: AtomicU64::new(0),
        }
    }

    /// Bytes of relayed data packets: from the first end to the second, and back.
    pub(crate) fn bytes(&self) -> [u64; 2] {
        self.bytes
            .each_ref()
            .map(|bytes| bytes.load(Ordering::Relaxed))
    }

    /// When the last packet was relayed. None if there was none.
    pub(crate) fn last(&self) -> Option<Time> {
        let last = self.last.load(Ordering::Relaxed);
        (last != 0).then(|| Time::from_nanos(last))
    }

    /// Records that a packet was relayed.
    pub(crate) fn used(&self, now: Time) {
        self.last.store(now.as_nanos(), Ordering::Relaxed);
    }
}

/// A session between the two ends of a pair.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) pair: Arc<Pair>,
    /// The index of each end, which is in packets to that end.
    pub(crate) indices: [u32; 2],
    /// Nothing is relayed after this time.
    pub(crate) until: Time,
}

/// The way from one end of a session to the other.
#[derive(Clone)]
struct Hop {
    session: Arc<Session>,
    /// The end that it leads to.
    to: usize,
}

impl Hop {
    fn sender(&self) -> &Arc<Peer> {
        &self.session.pair.ends[1 - self.to]
    }

    fn receiver(&self) -> &Arc<Peer> {
        &self.session.pair.ends[self.to]
    }
}

/// The destination of relayed data packets.
pub struct RelayRoute {
    hop: Hop,
    /// The receiver's endpoint.
    pub to: Endpoint,
}

impl RelayRoute {
    /// The receiving peer.
    pub fn peer(&self) -> &Peer {
        self.hop.receiver()
    }

    /// The sending peer.
    pub(crate) fn sender(&self) -> &Peer {
        self.hop.sender()
    }

    /// Records that `bytes` bytes were sent.
    pub fn sent(&self, bytes: usize, now: Time) {
        let pair = &self.hop.session.pair;
        pair.bytes[1 - self.hop.to].fetch_add(bytes as u64, Ordering::Relaxed);
        pair.used(now);
    }
}

/// The table of relayed sessions.
#[derive(Default)]
pub struct Relay {
    on: AtomicBool,
    hops: RwLock<HashMap<u32, Vec<Hop>>>,
}

impl Relay {
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(crate) fn set_on(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Finds the receiver of packets with this index from this address. Takes one lock, and another
    /// one for each endpoint that is compared, so it is called once for a run of packets.
    ///
    /// # Errors
    /// The reason for dropping the packets.
    pub fn route(&self, index: u32, from: SocketAddr, now: Time) -> Result<RelayRoute, DropReason> {
        let hop = {
            let hops = self.hops.read().unwrap_or_else(PoisonError::into_inner);
            let mut of_index = hops.get(&index).into_iter().flatten();
            let hop = of_index.find(|hop| hop.session.until > now && hop.sender().is_at(from));
            hop.ok_or(DropReason::RelayStale)?.clone()
        };
        let to = hop.receiver().endpoint().ok_or(DropReason::NoEndpoint)?;
        if to.addr == from {
            return Err(DropReason::RelayLoop);
        }
        Ok(RelayRoute { hop, to })
    }

    /// Whether so many sessions use this index that no further one may: each packet with it is compared with
    /// all of them, and a peer could choose the same index for all its sessions.
    pub(crate) fn is_crowded(&self, index: u32) -> bool {
        let hops = self.hops.read().unwrap_or_else(PoisonError::into_inner);
        hops.get(&index)
            .is_some_and(|of_index| of_index.len() >= SESSIONS_OF_INDEX)
    }

    /// Whether the table contains this index.
    pub(crate) fn has(&self, index: u32) -> bool {
        let hops = self.hops.read().unwrap_or_else(PoisonError::into_inner);
        hops.contains_key(&index)
    }

    /// Whether this index leads from `sender` to a peer that `is_receiver` does not accept.
    pub(crate) fn leads_elsewhere(
        &self,
        index: u32,
        sender: &Peer,
        is_receiver: impl Fn(&Peer) -> bool,
        now: Time,
    ) -> bool {
        let hops = self.hops.read().unwrap_or_else(PoisonError::into_inner);
        hops.get(&index).into_iter().flatten().any(|hop| {
            hop.session.until > now && **hop.sender() == *sender && !is_receiver(hop.receiver())
        })
    }

    /// Starts relaying a session.
    pub(crate) fn insert(&self, session: &Arc<Session>) {
        let mut hops = self.hops.write().unwrap_or_else(PoisonError::into_inner);
        for to in 0..2 {
            hops.entry(session.indices[to]).or_default().push(Hop {
                session: session.clone(),
                to,
            });
        }
    }

    /// Stops relaying a session.
    pub(crate) fn remove(&self, session: &Arc<Session>) {
        let mut hops = self.hops.write().unwrap_or_else(PoisonError::into_inner);
        for index in session.indices {
            if let Some(of_index) = hops.get_mut(&index) {
                of_index.retain(|hop| !Arc::ptr_eq(&hop.session, session));
                if of_index.is_empty() {
                    hops.remove(&index);
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let hops = self.hops.read().unwrap_or_else(PoisonError::into_inner);
        hops.values().map(Vec::len).sum()
    }
}
