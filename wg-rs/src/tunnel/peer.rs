//! The data path's part of a peer: its sessions, its endpoint, its timers, its byte counts and the
//! packets that wait for a session. `entry.rs` has the owner's part (handshake, preshared key,
//! allowed IPs).
//!
//! It is shared by `Arc` between the routes, the bursts in flight and the owner. There are no
//! reference cycles: a session has a weak reference to its peer. A removed peer is `dead`: it is no
//! longer in the routes, its sessions are no longer in the index, and bursts that still refer to it
//! are dropped.
//!
//! It is small, because there may be a hundred thousand peers. What only an active peer needs is
//! behind a pointer.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use wg_crypto::key::PublicKey;

pub use super::endpoint::{Endpoint, Source};
use super::keypair::Keypairs;
use super::staged::StagedQueue;
use super::time::Time;
use super::timers::{Deadline, REKEY_TIMEOUT, Timers};
use super::trouble::Trouble;
use super::way::{Destination, Heard, Way};
use crate::model::status::{Refusal, Refused};

/// The last endpoint of the peer, and whether its source must not be used.
#[derive(Default)]
struct Slot {
    endpoint: Option<Endpoint>,
    source_is_refused: bool,
    /// None unless frames may be exchanged with the peer.
    way: Option<Box<Way>>,
}

/// The effect of something heard from a peer.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Effect {
    /// The peer's address has changed.
    pub(crate) has_moved: bool,
    /// The owner must watch the paths to the peer from now on.
    pub(crate) is_news: bool,
}

/// A peer, as the data path sees it. As it is configured and shown, it is a [`crate::model::Peer`].
pub struct Peer {
    pub(crate) id: u64,
    public_key: PublicKey,
    pub(crate) keypairs: Keypairs<Peer>,
    pub(crate) staged: StagedQueue,
    pub(crate) timers: Timers,
    endpoint: Mutex<Slot>,
    /// The state of the routes, as numbered by the data path, in which the source was last judged;
    /// 0: never. It only changes while `endpoint` is locked.
    source_judged: AtomicU32,
    /// Also if no endpoint is known, but the peer may be reached through a hub.
    has_endpoint: AtomicBool,
    rx_bytes: AtomicU64,
    tx_bytes: AtomicU64,
    /// Also set when a response is sent.
    pub(crate) last_sent_handshake: Deadline,
    pub(crate) handshake_attempts: AtomicU32,
    /// A handshake was requested, and the owner has not handled the request yet.
    pub(crate) handshake_asked: AtomicBool,
    /// A flush of staged packets was requested, and the owner has not handled the request yet.
    pub(crate) flush_asked: AtomicBool,
    /// Whether the last minute of the current session was noticed.
    pub(crate) sent_lastminute_handshake: AtomicBool,
    /// Whether the owner must be told when the peer's address changes, because we relay to the peer.
    pub(crate) is_followed: AtomicBool,
    /// Whether the peer's frames are accepted: then it has a [`Way`].
    takes_frames: AtomicBool,
    /// The owner was told that the address changed, and has not handled that yet.
    pub(crate) roaming_told: AtomicBool,
    dead: AtomicBool,
    /// None until something fails.
    trouble: Mutex<Option<Box<Trouble>>>,
}

impl Peer {
    /// A new peer. The owner chooses `id`.
    pub fn new(id: u64, public_key: PublicKey) -> Self {
        Self {
            id,
            public_key,
            keypairs: Keypairs::default(),
            staged: StagedQueue::default(),
            timers: Timers::default(),
            endpoint: Mutex::default(),
            source_judged: AtomicU32::new(0),
            has_endpoint: AtomicBool::new(false),
            rx_bytes: AtomicU64::new(0),
            tx_bytes: AtomicU64::new(0),
            last_sent_handshake: Deadline::default(),
            handshake_attempts: AtomicU32::new(0),
            handshake_asked: AtomicBool::new(false),
            flush_asked: AtomicBool::new(false),
            sent_lastminute_handshake: AtomicBool::new(false),
            is_followed: AtomicBool::new(false),
            takes_frames: AtomicBool::new(false),
            roaming_told: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// The peer's static public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn endpoint_slot(&self) -> MutexGuard<'_, Slot> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer's endpoint, if known. Takes a lock, so it is called once for a burst.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let slot = self.endpoint_slot();
        let mut endpoint = slot.endpoint?;
        endpoint.src.take_if(|_| slot.source_is_refused);
        Some(endpoint)
    }

    /// Like [`Peer::endpoint`], but also returns a source that was judged unusable.
    pub fn learned_endpoint(&self) -> Option<Endpoint> {
        self.endpoint_slot().endpoint
    }

    /// Whether the source was judged in this state of the routes. Takes no lock.
    pub fn source_is_judged(&self, state: u32) -> bool {
        self.source_judged.load(Ordering::Relaxed) == state
    }

    /// Stores whether the source of `endpoint` can be used in this state of the routes. Ignored if
    /// the peer has sent from another address since.
    pub fn judge_source(&self, endpoint: Endpoint, is_fit: bool, state: u32) {
        let mut slot = self.endpoint_slot();
        if slot.endpoint == Some(endpoint) {
            slot.source_is_refused = !is_fit;
            self.source_judged.store(state, Ordering::Relaxed);
        }
    }

    /// Whether packets may be sent to the peer: an endpoint is known, or a hub may reach it. Takes
    /// no lock.
    pub fn has_endpoint(&self) -> bool {
        self.has_endpoint.load(Ordering::Acquire)
    }

    /// Where a burst must be sent now. Keepalives have no data. Takes a lock, so it is called once for a burst.
    pub fn destination(&self, has_data: bool, now: Time) -> Option<Destination> {
        let mut slot = self.endpoint_slot();
        let mut to = slot.endpoint?;
        to.src.take_if(|_| slot.source_is_refused);
        let mut destination = Destination {
            to,
            also: None,
            is_news: false,
        };
        if let Some(way) = &mut slot.way
            && let Some(paths) = &mut way.paths
        {
            destination.is_news = has_data && paths.moves(now);
            let other = paths.other.filter(|other| other.addr != to.addr);
            destination.also = other.filter(|_| now > paths.trusted);
        }
        Some(destination)
    }

    /// Stores the endpoint that the peer sent from, unless the paths to the peer are chosen by us.
    pub(crate) fn heard(&self, endpoint: Endpoint, heard: Heard, now: Time) -> Effect {
        let mut slot = self.endpoint_slot();
        let mut effect = Effect::default();
        let current = slot.endpoint;
        if let Some(way) = &mut slot.way
            && let Some(paths) = &mut way.paths
        {
            effect.is_news = heard == Heard::Data && paths.moves(now);
            if !paths.moves_to(endpoint, current, heard, now) {
                return effect;
            }
        }
        if current == Some(endpoint) {
            return effect;
        }
        effect.has_moved = current.is_none_or(|known| known.addr != endpoint.addr);
        slot.endpoint = Some(endpoint);
        slot.source_is_refused = false;
        self.source_judged.store(0, Ordering::Relaxed);
        self.has_endpoint.store(true, Ordering::Release);
        effect
    }

    /// Makes this the endpoint, whatever the peer sends from.
    pub(crate) fn lead_to(&self, endpoint: Endpoint) {
        let mut slot = self.endpoint_slot();
        if slot.endpoint != Some(endpoint) {
            slot.endpoint = Some(endpoint);
            slot.source_is_refused = false;
            self.source_judged.store(0, Ordering::Relaxed);
            self.has_endpoint.store(true, Ordering::Release);
        }
    }

    /// Whether the peer's frames are accepted. Takes no lock.
    pub(crate) fn takes_frames(&self) -> bool {
        self.takes_frames.load(Ordering::Relaxed)
    }

    /// Accepts the peer's frames or not. If `is_reachable`, packets may be sent to the peer even if
    /// no endpoint is known.
    pub(crate) fn exchange_frames(&self, takes_frames: bool, is_reachable: bool) {
        let mut slot = self.endpoint_slot();
        match takes_frames {
            true => drop(slot.way.get_or_insert_default()),
            false => slot.way = None,
        }
        self.takes_frames.store(takes_frames, Ordering::Relaxed);
        let has_endpoint = is_reachable || slot.endpoint.is_some();
        self.has_endpoint.store(has_endpoint, Ordering::Release);
    }

    /// Reads or changes the peer's [`Way`], if it has one.
    pub(crate) fn way<T>(&self, work: impl FnOnce(&mut Way) -> T) -> Option<T> {
        self.endpoint_slot().way.as_deref_mut().map(work)
    }

    /// Whether this is the peer's current address. Takes a lock, so it is called once for a burst.
    pub(crate) fn is_at(&self, addr: SocketAddr) -> bool {
        let endpoint = self.endpoint_slot().endpoint;
        endpoint.is_some_and(|endpoint| endpoint.addr == addr)
    }

    /// Forgets the local address because it cannot be used. The routing table then chooses one.
    pub fn clear_source(&self) {
        if let Some(endpoint) = &mut self.endpoint_slot().endpoint {
            endpoint.src = None;
        }
    }

    /// Like `clear_source`, but only if the local address is still `source`.
    pub fn clear_source_if(&self, source: Source) {
        if let Some(endpoint) = &mut self.endpoint_slot().endpoint
            && endpoint.src == Some(source)
        {
            endpoint.src = None;
        }
    }

    fn trouble<T>(&self, work: impl FnOnce(&mut Trouble) -> T) -> T {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        work(trouble.get_or_insert_default())
    }

    /// Records that a message of the peer was refused. Takes a lock, so it is called once for a
    /// burst.
    pub(crate) fn refused(&self, refusal: Refusal, now: Time) {
        self.trouble(|trouble| trouble.note(refusal, now));
    }

    /// Records that sending to the peer failed. Takes a lock, so it is called once for a burst. A
    /// lasting failure is logged once.
    pub fn send_failed(&self, error: &io::Error, now: Time) {
        tracing::debug!(peer = %self, %error, "sending failed");
        let errno = error.raw_os_error().filter(|errno| !is_passing(*errno));
        let Some(errno) = errno else {
            return;
        };
        if is_of_path(errno) {
            self.way(|way| way.paths.as_mut().map(|paths| paths.end_trust()));
        }
        if self.trouble(|trouble| trouble.send_failed(errno, now)) {
            let endpoint = self.endpoint().map(|endpoint| endpoint.addr);
            let to = endpoint.map_or_else(String::new, |addr| addr.to_string());
            tracing::error!(peer = %self, %to, %error, "packets cannot be sent");
        }
    }

    /// The last refusal of each kind.
    pub(crate) fn refusals(&self, now: Time) -> Vec<Refused> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble
            .as_ref()
            .map_or_else(Vec::new, |trouble| trouble.list(now))
    }

    /// Received bytes of accepted messages, including handshakes, counted as in the kernel.
    pub fn rx_bytes(&self) -> u64 {
        self.rx_bytes.load(Ordering::Relaxed)
    }

    /// Sent bytes of UDP payload, including handshakes but not cookie replies.
    pub fn tx_bytes(&self) -> u64 {
        self.tx_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_rx_bytes(&self, bytes: usize) {
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_tx_bytes(&self, bytes: usize) {
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether an initiation or response was sent less than `REKEY_TIMEOUT` ago.
    pub(crate) fn sent_handshake_lately(&self, now: Time) -> bool {
        self.last_sent_handshake
            .get()
            .is_some_and(|at| now.saturating_since(at) < REKEY_TIMEOUT)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }
}

/// Whether the error only means that a queue is full.
fn is_passing(errno: i32) -> bool {
    [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM].contains(&errno)
}

/// Whether the error means that this host has no way to the address, but may have one to another.
fn is_of_path(errno: i32) -> bool {
    [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EAFNOSUPPORT].contains(&errno)
}

/// Peers are equal if they are the same object.
impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Peer {}

/// The name in logs: the beginning of the public key.
impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.8}…", self.public_key)
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::way::Paths;
    use super::*;

    #[test]
    fn a_path_to_which_this_host_has_no_route_is_no_longer_trusted() {
        let now = Time::from_nanos(1_000_000_000_000);
        let peer = Peer::new(1, PublicKey::from_bytes([1; 32]));
        peer.exchange_frames(true, true);
        for (errno, ends) in [
            (libc::ENETUNREACH, true),
            (libc::EHOSTUNREACH, true),
            (libc::EAFNOSUPPORT, true),
            (libc::EPERM, false),
            (libc::ENOBUFS, false),
        ] {
            peer.way(|way| {
                way.paths = Some(Box::new(Paths {
                    trusted: now,
                    ..Paths::default()
                }));
            });
            peer.send_failed(&io::Error::from_raw_os_error(errno), now);
            let trusted = peer.way(|way| way.paths.as_ref().map(|paths| paths.trusted));
            let expected = if ends { Time::ZERO } else { now };
            assert_eq!(trusted.flatten(), Some(expected), "{errno}");
        }
    }
}
