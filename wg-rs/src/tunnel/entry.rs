//! The owner's part of a peer: its configuration, its handshake, and the timers that only the owner
//! uses. A [`DeviceContext`] gives access to the rest of the device.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand_core::RngCore;
use tracing::debug;
use wg_crypto::{AeadBackend, Identity, PresharedKey, PrivateKey, ReceivedInitiation, SessionKeys};
use zeroize::Zeroize;

use super::calls::Calls;
use super::drops::DropReason;
use super::frame::Frame;
use super::handshake::{Handshake, Parties};
use super::hubs::{HubStep, Hubs};
use super::keypair::{Keypair, Origin};
use super::messages::*;
use super::outgoing::{Outgoing, Wants};
use super::peer::{Endpoint, Peer};
use super::pending::PendingHandshakes;
use super::plane::Plane;
use super::relayed::Relayed;
use super::schedule::{Schedule, ScheduledAt};
use super::send::OutBuffer;
use super::time::Time;
use super::timers::{
    MAX_TIMER_HANDSHAKES, REJECT_AFTER_TIME, REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER_MAX,
};
use super::way::Heard;
use crate::model::{Extensions, Wall};

/// The part that all peers of a device share.
pub(super) struct DeviceContext {
    pub(super) plane: Arc<Plane>,
    pub(super) rng: Box<dyn RngCore + Send>,
    /// The backend that session keys are made for.
    pub(super) backend: AeadBackend,
    pub(super) identity: Option<Identity>,
    pub(super) pending: PendingHandshakes,
    pub(super) schedule: Schedule,
    pub(super) outgoing: Outgoing,
    pub(super) calls: Calls,
    /// The hubs that we use.
    pub(super) hubs: Hubs,
    /// Memory for staged packets; None until it is needed.
    pub(super) buffer: Option<OutBuffer>,
}

/// The part of a peer's configuration that only the owner needs.
#[derive(Default)]
pub(super) struct PeerConfig {
    /// In its own memory, which is wiped: an entry leaves its bytes behind where it is moved or removed.
    pub(super) preshared_key: Option<Box<PresharedKey>>,
    /// Settings beyond WireGuard's own, if any.
    pub(super) extensions: Option<Box<Extensions>>,
}

impl PeerConfig {
    /// Zero if there is none. Must be called where the stack is wiped afterwards.
    pub(super) fn preshared_key(&self) -> PresharedKey {
        self.preshared_key.as_deref().cloned().unwrap_or_default()
    }
}

/// The owner's part of a peer.
pub(super) struct Entry {
    pub(super) shared: Arc<Peer>,
    pub(super) config: PeerConfig,
    /// None until a handshake message is sent or received.
    pub(super) handshake: Option<Box<Handshake>>,
    pub(super) last_handshake: Option<Wall>,
    pub(super) retransmit_handshake: Option<Time>,
    zero_key_material: Option<Time>,
    scheduled: ScheduledAt,
    pub(super) wants: Wants,
    /// Whether an endpoint was configured.
    pub(super) has_own_endpoint: bool,
    /// Whether the peer is a hub that we use.
    pub(super) is_hub: bool,
    /// None unless the peer may be reached through hubs.
    pub(super) relayed: Option<Box<Relayed>>,
}

impl Entry {
    pub(super) fn new(shared: Arc<Peer>) -> Self {
        Self {
            shared,
            config: PeerConfig::default(),
            handshake: None,
            last_handshake: None,
            retransmit_handshake: None,
            zero_key_material: None,
            scheduled: ScheduledAt::default(),
            wants: Wants::default(),
            has_own_endpoint: false,
            is_hub: false,
            relayed: None,
        }
    }

    pub(super) fn handshake(&mut self) -> &mut Handshake {
        let key = self.shared.public_key();
        self.handshake
            .get_or_insert_with(|| Box::new(Handshake::new(key)))
    }

    /// Answers an initiation of this peer.
    pub(super) fn answer(
        &mut self,
        context: &mut DeviceContext,
        received: ReceivedInitiation,
        len: usize,
        from: Endpoint,
        now: Time,
    ) -> Result<(), DropReason> {
        let identity = context.identity.as_ref().ok_or(DropReason::NoPrivateKey)?;
        let receiver = received.sender();
        let peer = self.shared.clone();
        let parties = Parties {
            local: identity,
            remote: peer.public_key(),
        };
        let responder = self.handshake().accept_initiation(parties, received, now)?;
        if Handshake::gives_way(parties)
            && let Some(index) = self.handshake().clear()
        {
            context.pending.release(index);
        }
        context.plane.heard(&peer, from, Heard::Initiation, now);
        let ephemeral = random_key(&mut *context.rng);
        let index = context.plane.reserve_index(&mut *context.rng);
        let handshake = self.handshake.as_mut().expect("just used");
        let (response, keys) = handshake
            .respond(
                responder,
                &self.config.preshared_key(),
                ephemeral,
                index,
                context.backend,
                now,
            )
            .inspect_err(|_| context.plane.index.release(index))?;
        peer.last_sent_handshake.set(now);
        debug!(%peer, from = %from.addr, "handshake initiation answered");
        let origin = Origin {
            local: index,
            receiver,
            is_initiator: false,
            jitter: jitter(&mut *context.rng),
            created: now,
        };
        self.begin_session(context, keys, origin);
        self.heard_by_hub(context, from, index);
        self.send_message(context, from, &response, now);
        self.authenticated(context, len, now);
        self.reschedule(context);
        Ok(())
    }

    /// Handles the response to our initiation with this index.
    pub(super) fn accept_response(
        &mut self,
        context: &mut DeviceContext,
        message: &[u8; RESPONSE_SIZE],
        from: Endpoint,
        now: Time,
        wall: Wall,
    ) -> Result<(), DropReason> {
        let identity = context.identity.as_ref().ok_or(DropReason::NoPrivateKey)?;
        let local = receiver_index(message).ok_or(DropReason::Malformed)?;
        let receiver = sender_index(message).ok_or(DropReason::Malformed)?;
        let handshake = self
            .handshake
            .as_mut()
            .ok_or(DropReason::UnexpectedResponse)?;
        let psk = &self.config.preshared_key();
        let keys = handshake.accept_response(identity, psk, context.backend, message)?;
        context.pending.complete(local);
        context
            .plane
            .heard(&self.shared, from, Heard::Response, now);
        debug!(peer = %self.shared, from = %from.addr, "handshake response: new session");
        let origin = Origin {
            local,
            receiver,
            is_initiator: true,
            jitter: jitter(&mut *context.rng),
            created: now,
        };
        self.begin_session(context, keys, origin);
        self.heard_by_hub(context, from, local);
        self.handshake_complete(wall);
        self.authenticated(context, message.len(), now);
        // Sends staged packets or, if there are none, a keepalive: the responder waits for either.
        self.send_keepalive(context);
        self.reschedule(context);
        Ok(())
    }

    fn begin_session(&mut self, context: &mut DeviceContext, keys: SessionKeys, origin: Origin) {
        let keypair = Keypair::new(&self.shared, keys, origin);
        context.plane.index.insert(&keypair);
        context.plane.forget(self.shared.keypairs.add(keypair));
        self.zero_key_material = Some(origin.created + REJECT_AFTER_TIME * 3);
    }

    pub(super) fn handshake_complete(&mut self, wall: Wall) {
        self.retransmit_handshake = None;
        self.last_handshake = Some(wall);
        if let Some(handshake) = &mut self.handshake {
            handshake.completed();
        }
        let peer = &self.shared;
        peer.handshake_attempts.store(0, Ordering::Relaxed);
        peer.sent_lastminute_handshake
            .store(false, Ordering::Relaxed);
    }

    /// Called when a handshake message of `len` bytes from the peer was accepted.
    fn authenticated(&self, context: &DeviceContext, len: usize, now: Time) {
        let peer = &self.shared;
        peer.add_rx_bytes(len);
        peer.timers.any_authenticated_packet_received();
        let wake = peer.timers.any_authenticated_packet_traversal(now);
        context.plane.wake(peer, wake);
    }

    /// Fires the timers that are due.
    pub(super) fn fire(&mut self, context: &mut DeviceContext, now: Time) {
        let peer = self.shared.clone();
        if self.retransmit_handshake.take_if(|at| *at <= now).is_some() {
            self.retransmit(context, now);
        }
        if peer.timers.send_keepalive.take_due(now) {
            // This timer is armed when the handshake message is sent, so it must be cleared before.
            self.wants.another_keepalive |= peer.timers.take_need_another_keepalive();
            self.send_keepalive(context);
        }
        if peer.timers.new_handshake.take_due(now) {
            peer.clear_source();
            peer.handshake_attempts.store(0, Ordering::Relaxed);
            self.send_initiation(context, now);
        }
        if peer.timers.persistent_keepalive.take_due(now)
            && let Some(interval) = peer.timers.persistent_interval()
        {
            // The kernel arms this timer again only after something was sent, which may never
            // happen.
            peer.timers.persistent_keepalive.set(now + interval);
            self.send_keepalive(context);
        }
        if self.zero_key_material.take_if(|at| *at <= now).is_some() {
            debug!(%peer, "sessions wiped");
            self.end_sessions(context);
        }
        if self.is_hub {
            self.ask_hub(context, now);
        }
        if self.relayed.is_some() {
            self.fire_relayed(context, now);
        }
    }

    /// Sends a HELLO to this hub, if one is due.
    fn ask_hub(&mut self, context: &mut DeviceContext, now: Time) {
        let id = self.shared.id;
        let step = context.hubs.get_mut(id).and_then(|hub| hub.step(now));
        match step {
            Some(HubStep::Hello(seq)) => context.outgoing.frame(id, None, Frame::Hello { seq }),
            Some(HubStep::Handshake) => {
                self.shared.handshake_attempts.store(0, Ordering::Relaxed);
                self.send_initiation(context, now);
            }
            None => {}
        }
    }

    fn retransmit(&mut self, context: &mut DeviceContext, now: Time) {
        let peer = &self.shared;
        let attempts = peer.handshake_attempts.load(Ordering::Relaxed);
        if attempts > MAX_TIMER_HANDSHAKES {
            debug!(%peer, attempts, "handshake given up");
            peer.timers.send_keepalive.clear();
            context.drop_staged(peer);
            self.zero_key_material
                .get_or_insert(now + REJECT_AFTER_TIME * 3);
            return;
        }
        if let Some(last) = peer.last_sent_handshake.get()
            && peer.sent_handshake_lately(now)
        {
            // A response was sent since. Its session may still be confirmed, but need not be.
            let jitter = jitter(&mut *context.rng);
            self.retransmit_handshake = Some(last + REKEY_TIMEOUT + jitter);
            return;
        }
        peer.handshake_attempts
            .store(attempts + 1, Ordering::Relaxed);
        peer.clear_source();
        self.send_initiation(context, now);
    }

    /// Wipes sessions and the pending handshake.
    pub(super) fn end_sessions(&mut self, context: &mut DeviceContext) {
        self.end_handshake(context);
        context.plane.forget(self.shared.keypairs.clear());
    }

    /// Nothing more is sent in the current sessions, but packets in them are received. The next
    /// packet may start a handshake at once.
    pub(super) fn end_sending(&mut self, context: &mut DeviceContext) {
        self.end_handshake(context);
        self.shared.keypairs.end_sending();
        self.shared.last_sent_handshake.clear();
    }

    /// Wipes the pending handshake.
    fn end_handshake(&mut self, context: &mut DeviceContext) {
        let handshake = self.handshake.as_mut();
        if let Some(index) = handshake.and_then(|handshake| handshake.clear()) {
            context.pending.release(index);
        }
    }

    /// Called when the link is down: wipes all session keys, and stops the timers.
    pub(super) fn stop(&mut self, context: &mut DeviceContext) {
        self.end_sessions(context);
        if let Some(handshake) = &mut self.handshake {
            handshake.forget_attempts();
        }
        self.retransmit_handshake = None;
        self.zero_key_material = None;
        self.wants = Wants::default();
        if let Some(hub) = context.hubs.get_mut(self.shared.id) {
            hub.stop();
        }
        if let Some(relayed) = &mut self.relayed {
            relayed.stop();
            self.shared.way(|way| way.paths = None);
        }
        self.shared.timers.clear();
        self.shared.last_sent_handshake.clear();
        context.drop_staged(&self.shared);
        self.reschedule(context);
    }

    /// Called when the peer is removed: makes the data path forget it.
    pub(super) fn remove(mut self, context: &mut DeviceContext) {
        self.end_sessions(context);
        self.shared.kill();
        // Again, because the data path may have confirmed a session meanwhile.
        context.plane.forget(self.shared.keypairs.clear());
        context.drop_staged(&self.shared);
        let id = self.shared.id;
        context.schedule.put(id, &mut self.scheduled, None);
    }

    /// Moves the peer to its earliest timer in the schedule.
    pub(super) fn reschedule(&mut self, context: &mut DeviceContext) {
        let hello = self.is_hub.then(|| context.hubs.due(self.shared.id));
        let own = [
            self.retransmit_handshake,
            self.zero_key_material,
            hello.flatten(),
            self.relayed.as_ref().and_then(|relayed| relayed.due()),
        ];
        let earliest = self.shared.timers.sleep(own.into_iter().flatten().min());
        let id = self.shared.id;
        context.schedule.put(id, &mut self.scheduled, earliest);
    }
}

impl DeviceContext {
    fn drop_staged(&self, peer: &Peer) {
        let purged = peer.staged.purge();
        self.plane
            .drop_packets(DropReason::StagedPurged, purged as usize);
    }
}

/// Must be called where the stack is wiped afterwards.
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
