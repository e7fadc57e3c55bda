//! The owner of an interface: handshakes, timers and what is sent on its own account. Its
//! configuration is in `config.rs`.
//!
//! ```text
//! handle_message   initiation, response, cookie reply --+
//! handle_events    what the data path asks for ---------+--> outbox, ready peers --> poll_transmit
//! handle_timeout   timers that are due -----------------+
//! ```
//! Invariants:
//! - Only the owner makes and ends sessions; the data path may only promote `next` (key
//!   confirmation), and tells the owner.
//! - `schedule` holds a peer at most once, at its `wake_at`; a peer without a pending timer is not
//!   in it, so idle peers cost nothing.
//! - An initiation is made when it is polled for, not when it is asked for: a thousand peers that
//!   want one at once hold the owner for one Diffie-Hellman at a time. The same goes for timers: so
//!   many are fired at a time, and the rest stay due.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand_core::RngCore;
use tracing::debug;
use wg_crypto::{
    Backend, Identity, PrivateKey, PublicKey, SessionKeys, receive_initiation, wipe_stack_after,
};
use zeroize::Zeroize;

use super::config::Config;
use super::drops::Drop;
use super::handshake::{Handshake, Parties};
use super::ingress::{Backlog, Ingress, Verdict};
use super::keypair::{Keypair, Origin};
use super::messages::*;
use super::peer::{Endpoint, Peer};
use super::plane::{Event, Plane, Routes};
use super::send::OutBuffer;
use super::time::{Time, Wall};
use super::transmit::Transmit;

/// Peers whose timers are fired at a time.
const PEERS_AT_ONCE: usize = 256;

/// The owner of an interface: see the head of this file.
pub struct Device {
    pub(super) plane: Arc<Plane>,
    pub(super) rng: Box<dyn RngCore + Send>,
    /// What the keys of sessions are made for.
    backend: Backend,
    pub(super) config: Config,
    pub(super) identity: Option<Identity>,
    pub(super) ingress: Ingress,
    /// In the order in which they were added.
    pub(super) peers: BTreeMap<u64, Entry>,
    pub(super) by_key: HashMap<PublicKey, u64>,
    /// Pending initiations by index, each of which has its slot in the plane's.
    pub(super) handshakes: HashMap<u32, u64>,
    /// What `plane` has a copy of.
    pub(super) routes: Routes,
    pub(super) schedule: BTreeSet<(Time, u64)>,
    /// Peers that have something to send, but for an initiation.
    pub(super) ready: VecDeque<u64>,
    /// Peers that want an initiation sent.
    pub(super) initiating: VecDeque<u64>,
    /// Messages that are ready.
    pub(super) outbox: VecDeque<(Transmit, Vec<u8>)>,
    /// For staged packets; there once some were sent.
    pub(super) buffer: Option<OutBuffer>,
}

/// The owner's part of a peer.
pub(super) struct Entry {
    pub(super) shared: Arc<Peer>,
    pub(super) config: super::config::PeerConfig,
    /// There once a handshake was made or received.
    pub(super) handshake: Option<Box<Handshake>>,
    pub(super) last_handshake: Option<Wall>,
    pub(super) retransmit_handshake: Option<Time>,
    pub(super) zero_key_material: Option<Time>,
    /// Where it is in `schedule`.
    pub(super) scheduled: Option<Time>,
    pub(super) is_ready: bool,
    pub(super) wants_keepalive: bool,
    pub(super) wants_initiation: bool,
    pub(super) wants_another_keepalive: bool,
}

impl Entry {
    pub(super) fn new(shared: Arc<Peer>) -> Self {
        Self {
            shared,
            config: super::config::PeerConfig::default(),
            handshake: None,
            last_handshake: None,
            retransmit_handshake: None,
            zero_key_material: None,
            scheduled: None,
            is_ready: false,
            wants_keepalive: false,
            wants_initiation: false,
            wants_another_keepalive: false,
        }
    }

    pub(super) fn handshake(&mut self) -> &mut Handshake {
        let key = self.shared.public_key();
        self.handshake
            .get_or_insert_with(|| Box::new(Handshake::new(key)))
    }

    /// Any of the five.
    fn earliest_timer(&self) -> Option<Time> {
        [
            self.shared.timers.earliest(),
            self.retransmit_handshake,
            self.zero_key_material,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Device {
    /// A device without keys, peers or sockets, down. `rng` must be fit for keys; data is encrypted
    /// by `backend`.
    pub fn new(mut rng: Box<dyn RngCore + Send>, backend: Backend) -> Self {
        let plane = Arc::new(Plane::new());
        Self {
            ingress: Ingress::new(&mut *rng),
            plane,
            rng,
            backend,
            config: Config::default(),
            identity: None,
            peers: BTreeMap::new(),
            by_key: HashMap::new(),
            handshakes: HashMap::new(),
            routes: Routes::new(),
            schedule: BTreeSet::new(),
            ready: VecDeque::new(),
            initiating: VecDeque::new(),
            outbox: VecDeque::new(),
            buffer: None,
        }
    }

    /// What the data path works with.
    pub fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    /// Takes a handshake message or cookie reply that came from `from`; `backlog` is what waits
    /// behind it, which decides whether the device is under load.
    pub fn handle_message(
        &mut self,
        now: Time,
        wall: Wall,
        from: Endpoint,
        message: &[u8],
        backlog: Backlog,
    ) {
        let result = match Message::parse(message) {
            _ if !self.plane.is_up() => Err(Drop::Down),
            Some(Message::Cookie(reply)) => self.consume_cookie(now, reply),
            Some(Message::Initiation(initiation)) => self
                .admit(now, from, message, backlog)
                .and_then(|()| wipe_stack_after(|| self.consume_initiation(now, from, initiation))),
            Some(Message::Response(response)) => {
                self.admit(now, from, message, backlog).and_then(|()| {
                    wipe_stack_after(|| self.consume_response(now, wall, from, response))
                })
            }
            Some(Message::Data(_)) | None => Err(Drop::Malformed),
        };
        if let Err(reason) = result {
            self.plane.drop_packets(reason, 1);
        }
    }

    fn admit(
        &mut self,
        now: Time,
        from: Endpoint,
        message: &[u8],
        backlog: Backlog,
    ) -> Result<(), Drop> {
        let pending = self.handshakes.len();
        match self
            .ingress
            .judge(now, from.addr, message, backlog, pending, &mut *self.rng)
        {
            Verdict::Admit => Ok(()),
            Verdict::Refuse(reason) => Err(reason),
            Verdict::Reply(reply) => {
                let stride = reply.len();
                let transmit = Transmit {
                    to: from,
                    tos: 0,
                    stride,
                    receipt: None,
                    is_initiation: false,
                };
                self.outbox.push_back((transmit, reply.to_vec()));
                Err(Drop::CookieSent)
            }
        }
    }

    fn consume_initiation(
        &mut self,
        now: Time,
        from: Endpoint,
        message: &[u8; INITIATION_SIZE],
    ) -> Result<(), Drop> {
        let identity = self.identity.as_ref().ok_or(Drop::NoPrivateKey)?;
        let received = receive_initiation(identity, message).map_err(|_| Drop::BadInitiation)?;
        let (remote, receiver) = (received.remote(), received.sender());
        let id = *self.by_key.get(&remote).ok_or(Drop::UnknownPeer)?;
        let ephemeral = random_key(&mut *self.rng);
        let jitter = jitter(&mut *self.rng);
        let entry = self.peers.get_mut(&id).expect("by_key names peers");
        let parties = Parties {
            local: identity,
            remote: &remote,
        };

        let responder = entry
            .handshake()
            .accept_initiation(parties, received, now)?;
        if Handshake::gives_way(parties)
            && let Some(index) = entry.handshake().clear()
        {
            self.handshakes.remove(&index);
            self.plane.index.release(index);
        }
        let peer = entry.shared.clone();
        peer.set_endpoint(from);
        let psk = &entry.config.preshared_key;
        let handshake = entry.handshake.as_mut().expect("just used");
        let index = self.plane.index.reserve(&mut *self.rng);
        let (response, keys) = handshake
            .respond(responder, psk, ephemeral, index, self.backend, now)
            .inspect_err(|_| self.plane.index.release(index))?;
        peer.last_sent_handshake.set(now);
        debug!(%peer, from = %from.addr, "handshake initiation answered");
        let origin = Origin {
            local: index,
            receiver,
            is_initiator: false,
            jitter,
            created: now,
        };
        self.begin_session(id, keys, origin);
        self.send_message(&peer, from, &response, now);
        self.authenticated(&peer, message.len(), now);
        self.reschedule(id);
        Ok(())
    }

    fn consume_response(
        &mut self,
        now: Time,
        wall: Wall,
        from: Endpoint,
        message: &[u8; RESPONSE_SIZE],
    ) -> Result<(), Drop> {
        let identity = self.identity.as_ref().ok_or(Drop::NoPrivateKey)?;
        let index = receiver_index(message).ok_or(Drop::Malformed)?;
        let receiver = sender_index(message).ok_or(Drop::Malformed)?;
        let id = *self
            .handshakes
            .get(&index)
            .ok_or(Drop::UnexpectedResponse)?;
        let jitter = jitter(&mut *self.rng);
        let entry = self.peers.get_mut(&id).ok_or(Drop::UnexpectedResponse)?;
        let handshake = entry.handshake.as_mut().ok_or(Drop::UnexpectedResponse)?;
        let psk = &entry.config.preshared_key;
        let keys = handshake.accept_response(identity, psk, self.backend, message)?;
        self.handshakes.remove(&index);
        let peer = entry.shared.clone();
        peer.set_endpoint(from);
        debug!(%peer, from = %from.addr, "handshake response: new session");
        let origin = Origin {
            local: index,
            receiver,
            is_initiator: true,
            jitter,
            created: now,
        };
        self.begin_session(id, keys, origin);
        self.handshake_complete(id, wall);
        self.authenticated(&peer, message.len(), now);
        // Staged packets or, if there are none, a keepalive: the responder waits for either.
        self.send_keepalive(id);
        self.reschedule(id);
        Ok(())
    }

    fn consume_cookie(&mut self, now: Time, reply: &[u8; COOKIE_SIZE]) -> Result<(), Drop> {
        let index = receiver_index(reply).ok_or(Drop::Malformed)?;
        let session_peer = || Some(self.plane.index.lookup(index).as_ref()?.peer()?.id);
        let id = self.handshakes.get(&index).copied().or_else(session_peer);
        let entry = id
            .and_then(|id| self.peers.get_mut(&id))
            .ok_or(Drop::BadCookie)?;
        entry
            .handshake
            .as_mut()
            .ok_or(Drop::BadCookie)?
            .accept_cookie(reply, now)?;
        debug!(peer = %entry.shared, "cookie received");
        Ok(())
    }

    fn begin_session(&mut self, id: u64, keys: SessionKeys, origin: Origin) {
        let Some(entry) = self.peers.get_mut(&id) else {
            return;
        };
        let keypair = Keypair::new(&entry.shared, keys, origin);
        self.plane.index.insert(&keypair);
        self.plane.forget(entry.shared.keypairs.add(keypair));
        entry.zero_key_material = Some(origin.created + REJECT_AFTER_TIME * 3);
    }

    fn handshake_complete(&mut self, id: u64, wall: Wall) {
        let Some(entry) = self.peers.get_mut(&id) else {
            return;
        };
        entry.retransmit_handshake = None;
        entry.last_handshake = Some(wall);
        entry.shared.handshake_attempts.store(0, Ordering::Relaxed);
        entry
            .shared
            .sent_lastminute_handshake
            .store(false, Ordering::Relaxed);
    }

    /// A handshake message of `peer`, `len` bytes long, was accepted.
    fn authenticated(&mut self, peer: &Arc<Peer>, len: usize, now: Time) {
        peer.add_rx_bytes(len);
        peer.timers.any_authenticated_packet_received();
        self.plane
            .wake(peer, peer.timers.any_authenticated_packet_traversal(now));
    }

    /// Does what the data path asked for. Also done by `poll_transmit`.
    pub fn handle_events(&mut self, now: Time, wall: Wall) {
        for event in self.plane.take_events() {
            match event {
                Event::Handshake(peer) => {
                    peer.handshake_asked.store(false, Ordering::Release);
                    self.send_initiation(peer.id, now);
                }
                Event::Confirmed(peer) => {
                    debug!(%peer, "session confirmed");
                    self.handshake_complete(peer.id, wall);
                    self.reschedule(peer.id);
                    self.send_staged(peer.id);
                }
                Event::Flush(peer) => {
                    peer.flush_asked.store(false, Ordering::Release);
                    self.send_staged(peer.id);
                }
                Event::Wake(peer) => self.reschedule(peer.id),
            }
        }
    }

    /// When `handle_timeout` is next to be called.
    pub fn next_timeout(&self) -> Option<Time> {
        self.schedule.first().map(|(at, _)| *at)
    }

    /// Fires timers that are due, but not too many: `next_timeout` says whether more are.
    pub fn handle_timeout(&mut self, now: Time, wall: Wall) {
        self.handle_events(now, wall);
        for _ in 0..PEERS_AT_ONCE {
            let due = self.schedule.first().filter(|(at, _)| *at <= now);
            let Some(&(at, id)) = due else { break };
            self.schedule.remove(&(at, id));
            if let Some(entry) = self.peers.get_mut(&id) {
                entry.scheduled = None;
                self.fire(id, now);
                self.reschedule(id);
            }
        }
    }

    fn fire(&mut self, id: u64, now: Time) {
        let Some(entry) = self.peers.get_mut(&id) else {
            return;
        };
        let peer = entry.shared.clone();
        if entry
            .retransmit_handshake
            .take_if(|at| *at <= now)
            .is_some()
        {
            self.retransmit(id, now);
        }
        if peer.timers.send_keepalive.take_due(now) {
            // Armed when this one is sent, which would clear it.
            if peer.timers.take_need_another_keepalive()
                && let Some(entry) = self.peers.get_mut(&id)
            {
                entry.wants_another_keepalive = true;
            }
            self.send_keepalive(id);
        }
        if peer.timers.new_handshake.take_due(now) {
            peer.clear_source();
            peer.handshake_attempts.store(0, Ordering::Relaxed);
            self.send_initiation(id, now);
        }
        if peer.timers.persistent_keepalive.take_due(now)
            && let Some(interval) = peer.timers.persistent_interval()
        {
            // The kernel arms it again only once something was sent, which may never be.
            peer.timers.persistent_keepalive.set(now + interval);
            self.send_keepalive(id);
        }
        let Some(entry) = self.peers.get_mut(&id) else {
            return;
        };
        if entry.zero_key_material.take_if(|at| *at <= now).is_some() {
            debug!(%peer, "sessions wiped");
            self.end_sessions(id);
        }
    }

    fn retransmit(&mut self, id: u64, now: Time) {
        let jitter = jitter(&mut *self.rng);
        let Some(entry) = self.peers.get_mut(&id) else {
            return;
        };
        let peer = &entry.shared;
        let attempts = peer.handshake_attempts.load(Ordering::Relaxed);
        if attempts > MAX_TIMER_HANDSHAKES {
            debug!(%peer, attempts, "handshake given up");
            peer.timers.send_keepalive.clear();
            self.plane
                .drop_packets(Drop::StagedPurged, peer.staged.purge() as usize);
            entry
                .zero_key_material
                .get_or_insert(now + REJECT_AFTER_TIME * 3);
            return;
        }
        if let Some(last) = peer.last_sent_handshake.get()
            && peer.sent_handshake_lately(now)
        {
            // A response went out since: its session may still be confirmed, but need not be.
            entry.retransmit_handshake = Some(last + REKEY_TIMEOUT + jitter);
            return;
        }
        peer.handshake_attempts
            .store(attempts + 1, Ordering::Relaxed);
        peer.clear_source();
        self.send_initiation(id, now);
    }

    /// Wipes sessions and the pending handshake.
    pub(super) fn end_sessions(&mut self, id: u64) {
        self.end_handshake(id);
        if let Some(entry) = self.peers.get(&id) {
            self.plane.forget(entry.shared.keypairs.clear());
        }
    }

    /// The machine may be a copy of another that goes on with the same sessions (paper, section 5.4.6:
    /// no counter twice). Nothing more is sent under them; what comes under them is received. The next
    /// packet to a peer starts a handshake.
    pub fn end_sending(&mut self) {
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.end_sending_to(id);
        }
    }

    /// As [`Device::end_sending`], for one peer.
    pub(super) fn end_sending_to(&mut self, id: u64) {
        self.end_handshake(id);
        if let Some(entry) = self.peers.get(&id) {
            entry.shared.keypairs.end_sending();
            entry.shared.last_sent_handshake.clear();
        }
    }

    /// The clock jumped, as the machine was suspended: wipes the sessions that this has made too old
    /// to be of use.
    pub fn end_outlasted(&mut self, now: Time) {
        for entry in self.peers.values() {
            let discarded = entry.shared.keypairs.discard_outlasted(now);
            self.plane.forget(discarded);
        }
    }

    /// Wipes the pending handshake.
    pub(super) fn end_handshake(&mut self, id: u64) {
        if let Some(entry) = self.peers.get_mut(&id)
            && let Some(handshake) = &mut entry.handshake
            && let Some(index) = handshake.clear()
        {
            self.handshakes.remove(&index);
            self.plane.index.release(index);
        }
    }

    /// Moves the peer to its earliest timer in the schedule.
    pub(super) fn reschedule(&mut self, id: u64) {
        let Some(entry) = self.peers.get_mut(&id) else {
            return;
        };
        let timers = &entry.shared.timers;
        loop {
            let earliest = entry.earliest_timer();
            if entry.scheduled != earliest {
                if let Some(at) = entry.scheduled {
                    self.schedule.remove(&(at, id));
                }
                if let Some(at) = earliest {
                    self.schedule.insert((at, id));
                }
                entry.scheduled = earliest;
            }
            match earliest {
                Some(at) => timers.wake_at.set(at),
                None => timers.wake_at.clear(),
            }
            // One armed meanwhile, by a thread that saw the old `wake_at`?
            if entry.earliest_timer() == earliest {
                return;
            }
        }
    }
}

/// To be called where the stack is wiped afterwards.
pub(super) fn random_key(rng: &mut dyn RngCore) -> PrivateKey {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    let key = PrivateKey::from_bytes(bytes);
    bytes.zeroize();
    key
}

pub(super) fn jitter(rng: &mut dyn RngCore) -> Duration {
    let fraction = (u128::from(rng.next_u64()) * REKEY_TIMEOUT_JITTER_MAX.as_nanos()) >> 64;
    Duration::from_nanos(fraction as u64)
}
