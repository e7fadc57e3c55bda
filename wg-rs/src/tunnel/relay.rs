//! What is relayed between peers, as the data path sees it: sessions that are not ours, whose handshake
//! passed through us.
//!
//! ```text
//! data packet, index none of ours ─► route: hops of that index, of a sender that is at this address now
//!                                       ─► the other end's endpoint of now; counted for the pair
//! ```
//! Nothing is opened and nothing is changed: what leaves is what came, of the same size. The owner fills
//! the table (`hub.rs`).
//!
//! Invariants:
//! - Ends choose their indices, so one index may lead from several peers to several others, but from one
//!   peer to one other at most.
//! - The sender's address must fit although the index is a secret: otherwise a peer could lend its index
//!   to others, who would reach through the hole in the other's NAT.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::drops::DropReason;
use super::peer::{Endpoint, Peer};
use super::time::Time;

/// Two peers between which we relay, and what they sent each other.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Who sent the first initiation, and to whom.
    pub(crate) ends: [Arc<Peer>; 2],
    /// Bytes of data packets that each end sent to the other.
    bytes: [AtomicU64; 2],
    /// When the last packet was relayed, in nanoseconds; 0: never.
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

    /// Bytes of data packets relayed: from the first end to the second, and back.
    pub(crate) fn bytes(&self) -> [u64; 2] {
        self.bytes
            .each_ref()
            .map(|bytes| bytes.load(Ordering::Relaxed))
    }

    /// When the last packet was relayed, if one was.
    pub(crate) fn last(&self) -> Option<Time> {
        let last = self.last.load(Ordering::Relaxed);
        (last != 0).then(|| Time::from_nanos(last))
    }

    pub(crate) fn used(&self, now: Time) {
        self.last.store(now.as_nanos(), Ordering::Relaxed);
    }
}

/// A session between the ends of a pair.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) pair: Arc<Pair>,
    /// The index of each end: what is sent to it has it.
    pub(crate) indices: [u32; 2],
    /// Nothing is relayed any more from then on.
    pub(crate) until: Time,
}

/// The way to one end of a session, from the other.
#[derive(Clone)]
struct Hop {
    session: Arc<Session>,
    /// Which end it leads to.
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

/// Where data packets go.
pub struct Route {
    hop: Hop,
    /// The receiver's endpoint.
    pub to: Endpoint,
}

impl Route {
    /// The receiver.
    pub fn peer(&self) -> &Peer {
        self.hop.receiver()
    }

    /// The network took so many bytes.
    pub fn sent(&self, bytes: usize, now: Time) {
        let pair = &self.hop.session.pair;
        pair.bytes[1 - self.hop.to].fetch_add(bytes as u64, Ordering::Relaxed);
        pair.used(now);
    }
}

/// The table; see the head of this file.
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

    /// Whose packets with this index, coming from this address, are: where they go. One lock, and one
    /// for each endpoint looked at: for a run of packets.
    ///
    /// # Errors
    /// Why they are dropped.
    pub fn route(&self, index: u32, from: SocketAddr, now: Time) -> Result<Route, DropReason> {
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
        Ok(Route { hop, to })
    }

    /// Whether anything is relayed by this index.
    pub(crate) fn has(&self, index: u32) -> bool {
        let hops = self.hops.read().unwrap_or_else(PoisonError::into_inner);
        hops.contains_key(&index)
    }

    /// Whether this index, coming from `sender`, leads to a peer that is none of `receivers`.
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

    /// Relays a session from now on.
    pub(crate) fn insert(&self, session: &Arc<Session>) {
        let mut hops = self.hops.write().unwrap_or_else(PoisonError::into_inner);
        for to in 0..2 {
            hops.entry(session.indices[to]).or_default().push(Hop {
                session: session.clone(),
                to,
            });
        }
    }

    /// Relays a session no longer.
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
