//! What the data path knows of a peer: its sessions, its endpoint, its timers, its byte counts and
//! the packets that wait for a session. The owner's part (handshake, preshared key, allowed IPs)
//! is in `device.rs`.
//!
//! Shared by `Arc` between the routes, the bursts in flight and the owner. There are no reference
//! cycles: a session points back weakly. A removed peer is `dead`: it has left the routes and its
//! sessions the index, and bursts that still hold it are dropped.
//!
//! Kept small, because there may be a hundred thousand of them: what only an active peer needs is
//! behind a pointer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use wg_crypto::key::PublicKey;

use super::keypair::Keypairs;
use super::messages::REKEY_TIMEOUT;
use super::staged::StagedQueue;
use super::time::Time;
use super::timers::{Deadline, Timers};
use super::trouble::Trouble;
use crate::model::status::{Refusal, Refused};

/// Where a peer is reached, and from where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The peer's address. Flow information is not part of it: zero.
    pub addr: SocketAddr,
    /// Our address that the peer last wrote to, if still of use.
    pub src: Option<Source>,
}

/// A local address and the interface that packets for it came in by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// Our address.
    pub ip: IpAddr,
    /// Interface index.
    pub ifindex: u32,
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, src: None }
    }
}

/// Where the peer was last heard from, and whether its source is not to be used.
#[derive(Default)]
struct Slot {
    endpoint: Option<Endpoint>,
    source_is_refused: bool,
}

/// A peer, as the data path sees it.
pub struct Peer {
    pub(crate) id: u64,
    public_key: PublicKey,
    pub(crate) keypairs: Keypairs<Peer>,
    pub(crate) staged: StagedQueue,
    pub(crate) timers: Timers,
    endpoint: Mutex<Slot>,
    /// As which state of the routes, on the data path's count, the source was judged last; 0: never.
    /// Changed only under the lock of `endpoint`.
    source_judged: AtomicU32,
    has_endpoint: AtomicBool,
    rx_bytes: AtomicU64,
    tx_bytes: AtomicU64,
    /// Also set when a response is sent.
    pub(crate) last_sent_handshake: Deadline,
    pub(crate) handshake_attempts: AtomicU32,
    /// The owner was asked for a handshake and has not looked yet.
    pub(crate) handshake_asked: AtomicBool,
    /// The owner was asked to send staged packets and has not looked yet.
    pub(crate) flush_asked: AtomicBool,
    /// The last minute of the current session was noticed.
    pub(crate) sent_lastminute_handshake: AtomicBool,
    /// The owner wants to know when its address changes: others reach it by us.
    pub(crate) is_followed: AtomicBool,
    /// The owner was told that the address changed and has not looked yet.
    pub(crate) roaming_told: AtomicBool,
    dead: AtomicBool,
    /// There once something went wrong.
    trouble: Mutex<Option<Box<Trouble>>>,
}

impl Peer {
    /// A peer of which nothing is known yet; `id` is the owner's.
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

    /// Where the peer is, if known. Takes a lock: once a burst.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let slot = self.endpoint_slot();
        let mut endpoint = slot.endpoint?;
        endpoint.src.take_if(|_| slot.source_is_refused);
        Some(endpoint)
    }

    /// As [`Peer::endpoint`], with the source that was refused.
    pub fn learned_endpoint(&self) -> Option<Endpoint> {
        self.endpoint_slot().endpoint
    }

    /// Whether the source was judged when the routes were in this state. Takes no lock.
    pub fn source_is_judged(&self, state: u32) -> bool {
        self.source_judged.load(Ordering::Relaxed) == state
    }

    /// The source of `endpoint` is fit to be used, or not, in this state of the routes. Void if the
    /// peer was heard from elsewhere since.
    pub fn judge_source(&self, endpoint: Endpoint, is_fit: bool, state: u32) {
        let mut slot = self.endpoint_slot();
        if slot.endpoint == Some(endpoint) {
            slot.source_is_refused = !is_fit;
            self.source_judged.store(state, Ordering::Relaxed);
        }
    }

    /// Whether an endpoint is known. Takes no lock.
    pub fn has_endpoint(&self) -> bool {
        self.has_endpoint.load(Ordering::Acquire)
    }

    /// The peer was heard from here. Whether that is another address than before.
    pub(crate) fn set_endpoint(&self, endpoint: Endpoint) -> bool {
        let mut slot = self.endpoint_slot();
        if slot.endpoint == Some(endpoint) {
            return false;
        }
        let has_moved = slot
            .endpoint
            .is_none_or(|known| known.addr != endpoint.addr);
        *slot = Slot {
            endpoint: Some(endpoint),
            source_is_refused: false,
        };
        self.source_judged.store(0, Ordering::Relaxed);
        self.has_endpoint.store(true, Ordering::Release);
        has_moved
    }

    /// Whether the peer is at this address now. Takes a lock: once a burst.
    pub(crate) fn is_at(&self, addr: SocketAddr) -> bool {
        let endpoint = self.endpoint_slot().endpoint;
        endpoint.is_some_and(|endpoint| endpoint.addr == addr)
    }

    /// Forgets the local address, so that the routing table chooses: it proved unusable.
    pub fn clear_source(&self) {
        if let Some(endpoint) = &mut self.endpoint_slot().endpoint {
            endpoint.src = None;
        }
    }

    /// Forgets the local address if it is `source`: as `clear_source`, but leaves one learned since.
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

    /// Something of this peer, or to it, was refused. Takes a lock: once a burst.
    pub(crate) fn refused(&self, refusal: Refusal, now: Time) {
        self.trouble(|trouble| trouble.note(refusal, now));
    }

    /// Sending to it failed. Takes a lock: once a burst. A failure that lasts is logged, once.
    pub fn send_failed(&self, error: &io::Error, now: Time) {
        tracing::debug!(peer = %self, %error, "sending failed");
        let errno = error.raw_os_error().filter(|errno| !is_passing(*errno));
        let Some(errno) = errno else {
            return;
        };
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

    /// Bytes of accepted messages, handshakes included, as the kernel counts them.
    pub fn rx_bytes(&self) -> u64 {
        self.rx_bytes.load(Ordering::Relaxed)
    }

    /// UDP payload bytes sent, handshakes included and cookie replies not.
    pub fn tx_bytes(&self) -> u64 {
        self.tx_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_rx_bytes(&self, bytes: usize) {
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_tx_bytes(&self, bytes: usize) {
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether an initiation or response went out less than `REKEY_TIMEOUT` ago.
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

/// Whether it says no more than that a queue is full.
fn is_passing(errno: i32) -> bool {
    [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM].contains(&errno)
}

/// Peers are equal if they are the same object.
impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Peer {}

/// As logs name it: the beginning of its public key.
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
