//! The owner of an interface: handshakes, timers and messages that it sends itself. `config.rs` has
//! its configuration.
//!
//! ```text
//! handle_message   initiation, response, cookie reply --+
//! handle_events    requests of the data path -----------+--> entries --> outgoing --> poll_transmit
//! handle_timeout   timers that are due -----------------+
//! ```
//! An entry (`entry.rs`, `transmit.rs`) handles what concerns one peer; this file only finds the
//! entry.
//!
//! Invariants:
//! - Only the owner creates and ends sessions. The data path may only promote `next` (key
//!   confirmation), and reports this to the owner.
//! - An initiation is created when it is polled, not when it is requested: if a thousand peers want
//!   one at once, the owner is busy with one Diffie-Hellman operation at a time. For the same
//!   reason only a limited number of timers is fired at a time; the rest stay due.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand_core::RngCore;
use tracing::debug;
use wg_crypto::{AeadBackend, PrivateKey, PublicKey, receive_initiation, wipe_stack_after};

use super::calls::Calls;
use super::drops::DropReason;
use super::entry::{DeviceContext, Entry};
use super::hub::{Hub, Surroundings};
use super::hubs::Hubs;
use super::ingress::{HandshakeBacklog, Ingress, Verdict};
use super::messages::*;
use super::networks::Networks;
use super::outgoing::{Outgoing, Transmit};
use super::peer::{Endpoint, Peer};
use super::peers::Peers;
use super::pending::PendingHandshakes;
use super::plane::{Event, Plane};
use super::schedule::Schedule;
use super::time::Time;
use super::trouble::{Strangers, UnreachableAddresses};
use crate::model::status::Refusal;
use crate::model::{Extensions, Wall};

/// Number of peers whose timers are fired at a time.
const PEERS_AT_ONCE: usize = 256;
/// Timers fire at multiples of this, so that many of them share a wake-up. The kernel's timers are
/// coarser: a keepalive may be two seconds late.
const TIMER_GRAIN: Duration = Duration::from_millis(10);

/// The configuration of a device.
pub(super) struct DeviceConfig {
    pub(super) private_key: Option<PrivateKey>,
    pub(super) listen_port: u16,
    pub(super) fwmark: u32,
    /// Whether the link is up. The device is up when its sockets are also open.
    pub(super) link_up: bool,
    pub(super) max_peers: usize,
    /// Extensions of the peers that the current `set` has removed. It may name these peers again,
    /// like stock `wg setconf`, which does not know extensions.
    pub(super) removed: HashMap<PublicKey, Box<Extensions>>,
    /// Whether the current `set` has added or removed a hub that we use.
    pub(super) hubs_changed: bool,
    /// Where peers were that a former daemon relayed for.
    pub(super) former: HashMap<PublicKey, SocketAddr>,
    /// If the sockets are closed because they could not be opened: the errno.
    pub(super) bind_error: Option<i32>,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            private_key: None,
            listen_port: 0,
            fwmark: 0,
            link_up: false,
            max_peers: MAX_PEERS,
            removed: HashMap::new(),
            hubs_changed: false,
            former: HashMap::new(),
            bind_error: None,
        }
    }
}

/// The owner of an interface.
pub struct Device {
    pub(super) context: DeviceContext,
    pub(super) config: DeviceConfig,
    pub(super) networks: Networks,
    pub(super) ingress: Ingress,
    pub(super) strangers: Strangers,
    pub(super) unreachable: UnreachableAddresses,
    pub(super) peers: Peers,
    /// None while no peer has a relay group.
    pub(super) hub: Option<Box<Hub>>,
}

impl Device {
    /// A device that is down, without keys, peers and sockets. `rng` must be suitable for keys, and
    /// `backend` encrypts data.
    pub fn new(mut rng: Box<dyn RngCore + Send>, backend: AeadBackend) -> Self {
        let plane = Arc::new(Plane::new());
        Self {
            config: DeviceConfig::default(),
            networks: Networks::default(),
            ingress: Ingress::new(&mut *rng),
            strangers: Strangers::default(),
            unreachable: UnreachableAddresses::default(),
            peers: Peers::default(),
            hub: None,
            context: DeviceContext {
                pending: PendingHandshakes::new(&plane),
                plane,
                rng,
                backend,
                identity: None,
                schedule: Schedule::default(),
                outgoing: Outgoing::default(),
                calls: Calls::default(),
                hubs: Hubs::default(),
                buffer: None,
            },
        }
    }

    /// The part that is shared with the data path.
    pub fn plane(&self) -> &Arc<Plane> {
        &self.context.plane
    }

    /// The owner's part of a peer that was not removed, and the context.
    fn entry(&mut self, peer: &Peer) -> Option<(&mut Entry, &mut DeviceContext)> {
        Some((self.peers.get_mut(peer.id)?, &mut self.context))
    }

    /// Calls `work` for each peer.
    pub(super) fn each(&mut self, mut work: impl FnMut(&mut Entry, &mut DeviceContext)) {
        for entry in self.peers.iter_mut() {
            work(entry, &mut self.context);
        }
    }

    /// Handles a handshake message or cookie reply that came from `from`. `backlog` is the number
    /// of messages that wait behind it, and decides whether the device is under load. Returns
    /// whether it was refused before any public-key operation, which costs little.
    pub fn handle_message(
        &mut self,
        now: Time,
        wall: Wall,
        from: Endpoint,
        message: &[u8],
        backlog: HandshakeBacklog,
    ) -> bool {
        let result = match Message::parse(message) {
            _ if !self.plane().is_up() => Err(DropReason::Down),
            Some(Message::Cookie(reply)) => self.consume_cookie(now, reply),
            Some(Message::Initiation(initiation)) => self
                .admit(now, from, message, backlog)
                .and_then(|()| wipe_stack_after(|| self.consume_initiation(now, from, initiation))),
            Some(Message::Response(response)) => {
                self.admit(now, from, message, backlog).and_then(|()| {
                    wipe_stack_after(|| self.consume_response(now, wall, from, response))
                })
            }
            Some(Message::Data) | None => Err(DropReason::Malformed),
        };
        let result = match result {
            Err(reason) if self.is_foreign(reason, message) => {
                self.relay(now, wall, from, message).unwrap_or(Err(reason))
            }
            result => result,
        };
        let Err(reason) = result else { return false };
        // With the relay on, a message for another key may be for a peer.
        let is_for_nobody = matches!(reason, DropReason::BadMac1 | DropReason::RelayNotPeer);
        if is_for_nobody && message.len() != COOKIE_SIZE {
            let from = from.addr;
            self.strangers.note(from, Refusal::OtherKey { from }, now);
        }
        self.plane().drop_packets(reason, 1);
        reason.is_early()
    }

    /// Whether a message that was refused may be for another peer.
    fn is_foreign(&self, reason: DropReason, message: &[u8]) -> bool {
        match reason {
            DropReason::BadMac1 => true,
            DropReason::BadCookie => {
                receiver_index(message).is_some_and(|index| !self.plane().index.is_reserved(index))
            }
            _ => false,
        }
    }

    /// Relays a message that is not for us. None if the device does not relay.
    fn relay(
        &mut self,
        now: Time,
        wall: Wall,
        from: Endpoint,
        message: &[u8],
    ) -> Option<Result<(), DropReason>> {
        self.hub.as_ref()?;
        // First updates the endpoints of peers that have just moved.
        self.handle_events(now, wall);
        let Device {
            hub,
            context,
            ingress,
            ..
        } = self;
        let with = Surroundings::new(context, ingress.is_under_load(now), now);
        Some(hub.as_mut()?.relay(with, from, message))
    }

    fn admit(
        &mut self,
        now: Time,
        from: Endpoint,
        message: &[u8],
        backlog: HandshakeBacklog,
    ) -> Result<(), DropReason> {
        let DeviceContext {
            rng,
            pending,
            outgoing,
            ..
        } = &mut self.context;
        match self
            .ingress
            .judge(now, from.addr, message, backlog, pending.len(), &mut **rng)
        {
            Verdict::Admit => Ok(()),
            Verdict::Refuse(reason) => Err(reason),
            Verdict::Reply(reply) => {
                outgoing.unaccounted(from, 0, &reply);
                Err(DropReason::CookieSent)
            }
        }
    }

    fn consume_initiation(
        &mut self,
        now: Time,
        from: Endpoint,
        message: &[u8; INITIATION_SIZE],
    ) -> Result<(), DropReason> {
        let identity = self
            .context
            .identity
            .as_ref()
            .ok_or(DropReason::NoPrivateKey)?;
        let received =
            receive_initiation(identity, message).map_err(|_| DropReason::BadInitiation)?;
        let key = received.remote();
        let id = self.peers.by_key(&key);
        let Some(entry) = id.and_then(|id| self.peers.get_mut(id)) else {
            let from = from.addr;
            let refusal = Refusal::UnknownKey { from, key };
            self.strangers.note(from, refusal, now);
            return Err(DropReason::UnknownPeer);
        };
        let answered = entry.answer(&mut self.context, received, message.len(), from, now);
        if answered == Err(DropReason::ReplayedInitiation) {
            entry.shared.refused(Refusal::Timestamp, now);
        }
        answered
    }

    fn consume_response(
        &mut self,
        now: Time,
        wall: Wall,
        from: Endpoint,
        message: &[u8; RESPONSE_SIZE],
    ) -> Result<(), DropReason> {
        let index = receiver_index(message).ok_or(DropReason::Malformed)?;
        let id = self.context.pending.peer(index);
        let entry = id.and_then(|id| self.peers.get_mut(id));
        let entry = entry.ok_or(DropReason::UnexpectedResponse)?;
        let accepted = entry.accept_response(&mut self.context, message, from, now, wall);
        // The sender of a response has opened our initiation, so the public keys are right.
        if accepted == Err(DropReason::BadResponse) {
            entry.shared.refused(Refusal::PresharedKey, now);
        }
        let peer = entry.shared.id;
        if accepted.is_ok() {
            self.session_begun(peer, now);
        }
        accepted
    }

    fn consume_cookie(&mut self, now: Time, reply: &[u8; COOKIE_SIZE]) -> Result<(), DropReason> {
        let index = receiver_index(reply).ok_or(DropReason::Malformed)?;
        let DeviceContext { plane, pending, .. } = &self.context;
        let of_session = || Some(plane.index.lookup(index).as_ref()?.peer()?.id);
        let id = pending.peer(index).or_else(of_session);
        let entry = id.and_then(|id| self.peers.get_mut(id));
        let entry = entry.ok_or(DropReason::BadCookie)?;
        let handshake = entry.handshake.as_mut().ok_or(DropReason::BadCookie)?;
        handshake.accept_cookie(reply, now)?;
        entry.shared.refused(Refusal::UnderLoad, now);
        debug!(peer = %entry.shared, "cookie received");
        Ok(())
    }

    /// Handles the requests of the data path. `poll_transmit` does this too.
    pub fn handle_events(&mut self, now: Time, wall: Wall) {
        if self.plane().take_network_changed() {
            self.moved(now);
        }
        for event in self.plane().take_events() {
            let peer = event.peer();
            match &event {
                Event::Handshake(_) => peer.handshake_asked.store(false, Ordering::Release),
                Event::Flush(_) => peer.flush_asked.store(false, Ordering::Release),
                Event::Roamed(_) => peer.roaming_told.store(false, Ordering::Release),
                _ => {}
            }
            if let Event::Roamed(peer) = &event {
                self.roamed(peer.id);
            }
            if let Event::Frame(peer, from, frame) = &event {
                self.handle_frame(peer, *from, frame, now);
            }
            let Some((entry, context)) = self.entry(peer) else {
                continue;
            };
            match &event {
                Event::Handshake(_) => entry.send_initiation(context, now),
                Event::Flush(_) => entry.send_staged(context),
                Event::Wake(_) => entry.reschedule(context),
                Event::Used(_) => entry.watch(context, now),
                Event::Roamed(_) | Event::Frame(..) => {}
                Event::Confirmed(peer) => {
                    debug!(%peer, "session confirmed");
                    entry.handshake_complete(wall);
                    entry.reschedule(context);
                    entry.send_staged(context);
                    self.session_begun(peer.id, now);
                }
            }
        }
    }

    /// When `handle_timeout` must be called next: at the earliest timer, or up to `TIMER_GRAIN` later.
    pub fn next_timeout(&self) -> Option<Time> {
        let timers = [self.context.schedule.first(), self.context.calls.due()];
        Some(timers.into_iter().flatten().min()?.round_up(TIMER_GRAIN))
    }

    /// Fires due timers, up to a limit; `next_timeout` then tells whether there are more.
    pub fn handle_timeout(&mut self, now: Time, wall: Wall) {
        self.handle_events(now, wall);
        while let Some(id) = self.context.calls.next(now) {
            let entry = self.peers.get_mut(id);
            if entry.is_some_and(|entry| entry.call(&mut self.context)) {
                self.context.calls.made(now);
            }
        }
        for _ in 0..PEERS_AT_ONCE {
            let due = self.context.schedule.due(now);
            let Some(entry) = due.and_then(|id| self.peers.get_mut(id)) else {
                break;
            };
            entry.fire(&mut self.context, now);
            entry.reschedule(&mut self.context);
        }
    }

    /// The next datagrams to send. They replace the content of `out`, and must be sent, and
    /// reported to `Transmit::sent`, before the next call. After any other method this must be
    /// called until it returns None; other methods may be called in between.
    pub fn poll_transmit(&mut self, now: Time, wall: Wall, out: &mut Vec<u8>) -> Option<Transmit> {
        self.handle_events(now, wall);
        let Device { peers, context, .. } = self;
        loop {
            if let Some((transmit, message)) = context.outgoing.next_message() {
                *out = message;
                return Some(transmit);
            }
            if let Some(id) = context.outgoing.next_flush() {
                let mut entry = peers.get_mut(id);
                if let Some(entry) = &mut entry
                    && let Some(transmit) = entry.flush(context, now, out)
                {
                    return Some(transmit);
                }
                context
                    .outgoing
                    .flushed(entry.map(|entry| &mut entry.wants));
                continue;
            }
            if let Some(frame) = context.outgoing.next_frame() {
                if let Some(entry) = peers.get_mut(frame.peer)
                    && let Some(transmit) = entry.seal_frame(context, frame, now, out)
                {
                    return Some(transmit);
                }
                continue;
            }
            let id = context.outgoing.next_initiation()?;
            if let Some(entry) = peers.get_mut(id) {
                entry.wants.take_initiation();
                wipe_stack_after(|| entry.initiate(context, now, wall));
            }
        }
    }

    /// Starts a handshake with every peer that has an endpoint, unless one was started in the last five
    /// seconds.
    pub fn greet(&mut self, now: Time) {
        self.each(|entry, context| entry.send_initiation(context, now));
    }

    /// Must be called when the machine may be a copy of another one that continues with the same
    /// sessions (paper, section 5.4.6: no counter twice). Nothing more is sent in these sessions,
    /// but packets in them are received. The next packet to a peer starts a handshake.
    pub fn end_sending(&mut self) {
        self.each(Entry::end_sending);
        self.ingress.cookies.discard_nonces();
        if let Some(hub) = &mut self.hub {
            hub.cookies.discard_nonces();
        }
    }

    /// Must be called after the machine was suspended and the clock jumped: wipes sessions that are
    /// now too old.
    pub fn end_outlasted(&mut self, now: Time) {
        self.each(|entry, context| {
            let outlasted = entry.shared.keypairs.discard_outlasted(now);
            context.plane.forget(outlasted);
        });
        self.moved(now);
    }
}
