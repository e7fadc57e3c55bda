//! The part of a device that the data path shares with the owner: routes, sessions, drop counters,
//! and the queue of events for the owner.
//!
//! Nothing here takes a lock for each packet. The routes are a table that does not change while it
//! is here (`routes.rs`), and sessions are in a table of atomic slots. Events are rare, because each
//! kind is requested only once until the owner has handled it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::{ArcSwap, Guard};
use rand_core::RngCore;

use super::allowed_ips::AllowedIps;
pub(super) use super::allowed_ips::NetworkPosition;
use super::drops::{DropReason, Drops};
use super::index::Index;
use super::keypair::Discarded;
use super::messages::{Message, receiver_index, sender_index};
use super::peer::{Endpoint, Peer};
use super::relay::Relay;
use super::time::Time;
use super::timers::Wake;
use super::way::{Destination, Heard};

/// Cryptokey routing: the owner of each inner address.
pub type Routes = AllowedIps<Arc<Peer>>;

/// A request of the data path to the owner.
#[derive(Debug)]
pub(crate) enum Event {
    /// A session is missing or getting old.
    Handshake(Arc<Peer>),
    /// The peer used a session for the first time, so the handshake is complete.
    Confirmed(Arc<Peer>),
    /// Packets were staged although there is a session.
    Flush(Arc<Peer>),
    /// A timer was armed for a time before the owner's next wake-up.
    Wake(Arc<Peer>),
    /// A peer to which we relay, or a hub of ours, has another address.
    Roamed(Arc<Peer>),
    /// The paths to a peer that speaks are used.
    Used(Arc<Peer>),
    /// A frame: where it came from, and the plaintext.
    Frame(Arc<Peer>, Endpoint, Box<[u8]>),
}

impl Event {
    /// The peer that the event is about.
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        let (Self::Handshake(peer)
        | Self::Confirmed(peer)
        | Self::Flush(peer)
        | Self::Wake(peer)
        | Self::Roamed(peer)
        | Self::Used(peer)
        | Self::Frame(peer, ..)) = self;
        peer
    }
}

/// Most frames that wait for the owner.
const FRAMES_WAITING: usize = 1024;

/// The events that wait for the owner.
#[derive(Default)]
struct Events {
    queue: Vec<Event>,
    /// The number of frames among them.
    frames: usize,
}

/// The shared part of a device.
pub struct Plane {
    up: AtomicBool,
    mtu: AtomicUsize,
    pub(crate) index: Index,
    routes: ArcSwap<Routes>,
    relay: OnceLock<Relay>,
    drops: Drops,
    events: Mutex<Events>,
    /// Our own addresses may have changed.
    network_changed: AtomicBool,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Plane {
    pub(crate) fn new() -> Self {
        Self {
            up: AtomicBool::new(false),
            mtu: AtomicUsize::new(1420),
            index: Index::default(),
            routes: ArcSwap::from_pointee(Routes::new()),
            relay: OnceLock::new(),
            drops: Drops::new(),
            events: Mutex::default(),
            network_changed: AtomicBool::new(false),
            waker: OnceLock::new(),
        }
    }

    /// The current routes. Loaded once for each burst.
    pub fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// Replaces the routes. Returns the former ones, which bursts in flight may still use.
    pub(crate) fn exchange_routes(&self, routes: Arc<Routes>) -> Arc<Routes> {
        self.routes.swap(routes)
    }

    /// The relay table. None while no peer has a relay group.
    pub fn relay(&self) -> Option<&Relay> {
        self.relay.get().filter(|relay| relay.is_on())
    }

    /// The relay table, which is created when it is first needed.
    pub(crate) fn relay_table(&self) -> &Relay {
        self.relay.get_or_init(Relay::default)
    }

    /// Reserves an index for us that is not in the relay table, because ours would hide the other.
    pub(crate) fn reserve_index(&self, rng: &mut dyn RngCore) -> u32 {
        loop {
            let index = self.index.reserve(rng);
            if self.relay().is_none_or(|relay| !relay.has(index)) {
                return index;
            }
            self.index.release(index);
        }
    }

    /// Whether `datagram` is a message that we sent to `peer`, judged by its index: the index of
    /// one of the peer's sessions, or for a handshake an index that is reserved here.
    pub fn is_message_to(&self, peer: &Peer, datagram: &[u8]) -> bool {
        match Message::parse(datagram) {
            Some(Message::Data) => {
                receiver_index(datagram).is_some_and(|index| peer.keypairs.sends_as(index))
            }
            Some(Message::Initiation(_) | Message::Response(_)) => {
                sender_index(datagram).is_some_and(|index| self.index.is_reserved(index))
            }
            _ => false,
        }
    }

    /// The counters of dropped packets.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Counts `packets` dropped for `reason`.
    pub fn drop_packets(&self, reason: DropReason, packets: usize) {
        self.drops.add(reason, packets as u64);
    }

    /// Whether the device is up.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Release);
    }

    /// The interface's MTU in bytes. Packets are not padded beyond it.
    pub fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Sets the interface's MTU in bytes.
    pub fn set_mtu(&self, mtu: usize) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// Sets the function that is called when an event is added to an empty queue. It must cause a
    /// call of `Device::handle_events` soon, may be called from any thread, and must not block. It
    /// can be set only once.
    pub fn set_waker(&self, waker: Box<dyn Fn() + Send + Sync>) {
        // A second waker would be an error of the caller; the first one is kept.
        let _ = self.waker.set(waker);
    }

    fn push(&self, event: Event) {
        let was_empty = {
            let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            let is_frame = matches!(event, Event::Frame(..));
            if is_frame && events.frames == FRAMES_WAITING {
                drop(events);
                return self.drop_packets(DropReason::FrameFlood, 1);
            }
            events.frames += usize::from(is_frame);
            events.queue.push(event);
            events.queue.len() == 1
        };
        if was_empty && let Some(waker) = self.waker.get() {
            waker();
        }
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *events).queue
    }

    /// Requests a handshake, unless one was sent in the last five seconds. It counts as a new
    /// attempt, whatever the number of retries.
    pub(crate) fn ask_handshake(&self, peer: &Arc<Peer>, now: Time) {
        peer.handshake_attempts.store(0, Ordering::Relaxed);
        if peer.sent_handshake_lately(now) || !peer.has_endpoint() || peer.is_dead() {
            return;
        }
        if !peer.handshake_asked.swap(true, Ordering::AcqRel) {
            self.push(Event::Handshake(peer.clone()));
        }
    }

    pub(crate) fn ask_flush(&self, peer: &Arc<Peer>) {
        if !peer.flush_asked.swap(true, Ordering::AcqRel) {
            self.push(Event::Flush(peer.clone()));
        }
    }

    pub(crate) fn confirmed(&self, peer: &Arc<Peer>) {
        self.push(Event::Confirmed(peer.clone()));
    }

    /// Stores a new endpoint of the peer: the peer has sent from it, or the configuration contains it.
    pub(crate) fn heard(&self, peer: &Arc<Peer>, from: Endpoint, heard: Heard, now: Time) {
        let effect = peer.heard(from, heard, now);
        if effect.is_news {
            self.used(peer);
        }
        if effect.has_moved
            && peer.is_followed.load(Ordering::Acquire)
            && !peer.roaming_told.swap(true, Ordering::AcqRel)
        {
            self.push(Event::Roamed(peer.clone()));
        }
    }

    /// Must be called after [`Peer::destination`].
    pub fn note(&self, peer: &Arc<Peer>, destination: &Destination) {
        if destination.is_news {
            self.used(peer);
        }
    }

    /// Must be called when our own addresses or routes have changed.
    pub fn network_changed(&self) {
        self.network_changed.store(true, Ordering::Release);
        if let Some(waker) = self.waker.get() {
            waker();
        }
    }

    pub(crate) fn take_network_changed(&self) -> bool {
        self.network_changed.load(Ordering::Relaxed)
            && self.network_changed.swap(false, Ordering::AcqRel)
    }

    fn used(&self, peer: &Arc<Peer>) {
        self.push(Event::Used(peer.clone()));
    }

    /// Passes a frame of a peer to the owner, if that is within the limits.
    pub(crate) fn frame(&self, peer: &Arc<Peer>, from: Endpoint, frame: &[u8], now: Time) {
        match peer.way(|way| way.take_frame(now)) {
            Some(true) => self.push(Event::Frame(peer.clone(), from, frame.into())),
            Some(false) => self.drop_packets(DropReason::FrameFlood, 1),
            None => self.drop_packets(DropReason::InnerMalformed, 1),
        }
    }

    pub(crate) fn wake(&self, peer: &Arc<Peer>, wake: Wake) {
        if wake.0 {
            self.push(Event::Wake(peer.clone()));
        }
    }

    /// Makes the owner look at the peer's timers.
    pub(crate) fn look_at(&self, peer: &Arc<Peer>) {
        self.push(Event::Wake(peer.clone()));
    }

    /// Removes sessions that left their slots from the index.
    pub(crate) fn forget(&self, discarded: Discarded<Peer>) {
        self.index.remove(&discarded);
    }
}
