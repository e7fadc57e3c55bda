//! What frames do, at a hub and at its clients.
//!
//! ```text
//! client                                hub
//!   HELLO ───────────────────────────────► it roams to the sender; YOU
//!   YOU ◄─────────────────────────────────   another epoch: BIND all sessions
//!   BIND ────────────────────────────────► the session is relayed; BIND
//! peer                                  peer
//!   PING ────────────────────────────────► PONG, to where the PING came from
//! ```
//! A type is taken only from a peer in the right role. Everything else is counted and ignored.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use wg_crypto::PublicKey;

use super::device::Device;
use super::drops::DropReason;
use super::entry::{DeviceContext, Entry};
use super::frame::{Answer, Frame};
use super::hub::Surroundings;
use super::peer::{Endpoint, Peer};
use super::time::Time;
use super::way::Heard;

/// Seconds until the next HELLO of a client.
const NEXT_HELLO: u16 = 25;

impl Device {
    /// Handles a frame that came from this address in the peer's session.
    pub(super) fn handle_frame(
        &mut self,
        peer: &Arc<Peer>,
        from: Endpoint,
        plaintext: &[u8],
        now: Time,
    ) {
        let handled = match Frame::parse(plaintext) {
            Ok(None) => Ok(()),
            Ok(Some(frame)) => self.dispatch(peer, from, frame, now),
            Err(_) => Err(DropReason::BadFrame),
        };
        if let Err(reason) = handled {
            self.plane().drop_packets(reason, 1);
        }
    }

    fn dispatch(
        &mut self,
        peer: &Arc<Peer>,
        from: Endpoint,
        frame: Frame,
        now: Time,
    ) -> Result<(), DropReason> {
        let Device { peers, context, .. } = self;
        let entry = peers.get_mut(peer.id).ok_or(DropReason::BadFrame)?;
        let is_client = entry.is_client();
        match frame {
            Frame::Hello { seq } if is_client => self.hello(peer, from, seq, now),
            Frame::You(answer) if entry.is_hub => {
                self.you(peer, answer, now);
                Ok(())
            }
            Frame::Bind {
                key,
                mine,
                theirs,
                speaks,
            } if entry.is_hub => {
                let other = peers.by_key(&key).and_then(|id| peers.get_mut(id));
                let is_answer = other.is_some_and(|other| {
                    other.bound(context, peer.id, (mine, theirs), speaks, now)
                });
                match (is_answer, is_client) {
                    (true, _) => Ok(()),
                    (false, true) => self.bind(peer, from, frame, now),
                    // Of a session that has ended since.
                    (false, false) => Ok(()),
                }
            }
            Frame::Bind { .. } if is_client => self.bind(peer, from, frame, now),
            Frame::Ping { id } if entry.relayed.is_some() => {
                entry.pinged(context, from, id, now);
                Ok(())
            }
            Frame::Pong { id, .. } if entry.relayed.is_some() => {
                entry.ponged(context, from, id, now);
                Ok(())
            }
            _ => Err(DropReason::BadFrame),
        }
    }

    /// A client of this hub keeps its path open: it is now where the frame came from.
    fn client_is_at(&mut self, peer: &Arc<Peer>, from: Endpoint, now: Time) {
        let DeviceContext { plane, hubs, .. } = &self.context;
        plane.heard(peer, from, Heard::Order, now);
        plane.wake(peer, peer.timers.any_authenticated_packet_traversal(now));
        if let Some(hub) = &mut self.hub {
            hub.roamed(peer.id, hubs, plane);
        }
    }

    fn hello(
        &mut self,
        peer: &Arc<Peer>,
        from: Endpoint,
        seq: u32,
        now: Time,
    ) -> Result<(), DropReason> {
        self.client_is_at(peer, from, now);
        let hub = self.hub.as_mut().ok_or(DropReason::BadFrame)?;
        hub.spoke(peer.id, now);
        let you = Frame::You(Answer {
            seq,
            epoch: hub.epoch(&mut *self.context.rng),
            relays: true,
            next: NEXT_HELLO,
            seen: Some(from.addr),
        });
        self.context.outgoing.frame(peer.id, Some(from), you);
        Ok(())
    }

    /// Relays a session of a client. What is refused is not answered.
    fn bind(
        &mut self,
        peer: &Arc<Peer>,
        from: Endpoint,
        frame: Frame,
        now: Time,
    ) -> Result<(), DropReason> {
        let Frame::Bind {
            key, mine, theirs, ..
        } = frame
        else {
            return Err(DropReason::BadFrame);
        };
        self.client_is_at(peer, from, now);
        let Device {
            hub,
            context,
            ingress,
            peers,
            ..
        } = self;
        let hub = hub.as_mut().ok_or(DropReason::BadFrame)?;
        let other = peers.by_key(&key).ok_or(DropReason::RelayUnknown)?;
        let with = Surroundings::new(context, ingress.is_under_load(now), now);
        hub.bind(&with, (peer.id, mine), (other, theirs))?;
        let answer = Frame::Bind {
            key,
            mine,
            theirs,
            speaks: hub.speaks(other, now),
        };
        context.outgoing.frame(peer.id, Some(from), answer);
        Ok(())
    }

    /// The peers that we relay for and have a session with, and their addresses.
    pub fn clients(&self, now: Time) -> Vec<(PublicKey, SocketAddr)> {
        let clients = self.peers.iter().filter(|entry| entry.is_client());
        let place = |entry: &Entry| {
            let peer = &entry.shared;
            let has_session =
                matches!(&*peer.keypairs.current(), Some(current) if current.can_send(now));
            let endpoint = peer.endpoint().filter(|_| has_session)?;
            Some((*peer.public_key(), endpoint.addr))
        };
        clients.filter_map(place).collect()
    }

    /// Sets where such peers were before this device existed. Those without an endpoint are called
    /// there.
    pub fn clients_were_at(&mut self, addresses: HashMap<PublicKey, SocketAddr>) {
        self.config.former = addresses;
    }

    fn you(&mut self, peer: &Arc<Peer>, answer: Answer, now: Time) {
        let random = self.context.rng.next_u32();
        let hub = self.context.hubs.get_mut(peer.id);
        let Some(hub) = hub.filter(|hub| hub.awaits(answer.seq)) else {
            return;
        };
        let is_new = hub.answered(answer, random, now);
        for entry in self.peers.iter_mut() {
            if entry.relayed.is_some() {
                match is_new {
                    true => entry.bind_anew(&mut self.context, Some(peer.id), now),
                    false => entry.bind_waiting(&mut self.context, peer.id, now),
                }
            } else if entry.shared.id == peer.id {
                entry.reschedule(&mut self.context);
            }
        }
    }

    /// A session with this peer began that we can send in.
    pub(super) fn session_begun(&mut self, id: u64, now: Time) {
        let Device {
            peers,
            context,
            hub,
            ..
        } = self;
        if let Some(hub) = hub {
            hub.roamed(id, &context.hubs, &context.plane);
        }
        if let Some(hub) = context.hubs.get_mut(id) {
            hub.session_begun(now);
            for entry in peers.iter_mut() {
                match entry.shared.id == id {
                    true => entry.reschedule(context),
                    false => entry.hub_is_live(context, id, now),
                }
            }
        } else if let Some(entry) = peers.get_mut(id) {
            entry.relayed_session_begun(context, now);
        }
    }

    /// The address of a peer has changed, to which we relay, or which is a hub of ours.
    pub(super) fn roamed(&mut self, id: u64) {
        if let Some(hub) = &mut self.hub {
            hub.roamed(id, &self.context.hubs, &self.context.plane);
        }
        let Device { peers, context, .. } = self;
        let (Some(former), Some(to)) = (context.hubs.moved(id), context.hubs.endpoint(id)) else {
            return;
        };
        for entry in peers.iter_mut() {
            let is_there = !entry.is_hub && entry.shared.is_at(former);
            entry.follow_hub(context, is_there.then_some((id, to)));
        }
    }

    /// Decides for each peer whether it may be reached through hubs. Called when hubs, peers or
    /// endpoints were set.
    pub(super) fn review(&mut self) {
        self.each(Entry::review);
        let DeviceContext { plane, hubs, .. } = &self.context;
        if let Some(hub) = &mut self.hub {
            for entry in self.peers.iter() {
                hub.end_chains(entry.shared.id, hubs, plane);
            }
        }
    }

    /// Must be called when our address may have changed: the hubs are asked, and so told, at once.
    pub(super) fn moved(&mut self, now: Time) {
        self.context.hubs.check_all(&self.context.plane, now);
    }
}

impl Entry {
    /// Whether we relay for the peer.
    pub(super) fn is_client(&self) -> bool {
        let extensions = self.config.extensions.as_ref();
        extensions.is_some_and(|extensions| !extensions.relay.is_empty())
    }

    /// Decides whether the peer may be reached through hubs, and whether frames are exchanged with
    /// it.
    pub(super) fn review(&mut self, context: &mut DeviceContext) {
        let peer = self.shared.clone();
        let at_hub = |at: Endpoint| context.hubs.at(at.addr).is_some();
        let may = !context.hubs.is_empty()
            && !self.is_hub
            && (!self.has_own_endpoint || peer.endpoint().is_some_and(at_hub));
        match may {
            true => drop(self.relayed.get_or_insert_default()),
            false => self.relayed = None,
        }
        let is_client = self.is_client();
        peer.exchange_frames(may || self.is_hub || is_client, may);
        if !may {
            peer.way(|way| way.paths = None);
        }
        self.follow_hub(context, None);
        self.reschedule(context);
    }
}
