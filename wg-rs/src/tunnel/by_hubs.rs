//! The owner's part of reaching a peer through hubs: how an initiation gets there, and which
//! hubs hold the current session.
//!
//! ```text
//! initiation   to the endpoint, if there is one, else by the first hub with a session; by the other
//!              hubs 300 ms later, unless it is answered. A hub without a session gets one first
//! session ─► BIND to each hub that knows the peer, until it comes back ─► that hub holds the session
//! ```
//! `liveness.rs` chooses between hubs that hold the session.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::entry::{DeviceContext, Entry};
use super::frame::Frame;
use super::messages::INITIATION_SIZE;
use super::peer::Endpoint;
use super::relayed::{Bind, HubPath, SentInitiation, session};
use super::time::Time;

/// How much later an initiation goes by the other hubs.
const STAGGER: Duration = Duration::from_millis(300);
/// After these times a BIND is repeated.
const BIND_AGAIN: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(6),
];
/// In a new session, a peer that was known to speak must show it within this time.
const PROOF: Duration = Duration::from_secs(5);
/// After a new session, the fastest hub is chosen within this time.
const CHOICE: Duration = Duration::from_secs(3);

impl Entry {
    /// Sends an initiation to a peer that may be reached through hubs.
    pub(super) fn initiate_by_hubs(
        &mut self,
        context: &mut DeviceContext,
        message: [u8; INITIATION_SIZE],
        index: u32,
        now: Time,
    ) {
        let Some(relayed) = &mut self.relayed else {
            return;
        };
        let peer = &self.shared;
        let hubs = &context.hubs;
        let current = peer.endpoint();
        let at = current.and_then(|current| hubs.at(current.addr));
        let (at, is_live) = (
            at.map(|hub| hub.id()),
            at.is_none_or(|hub| hub.is_live(now)),
        );
        let knows = |id| relayed.hubs.iter().any(|path| path.hub == id);
        let is_doubted = relayed.doubt.is_some() && relayed.others_asked;
        let mut unsent = hubs.in_order(|id| match (Some(id) == at, knows(id)) {
            (true, _) => u8::from(is_doubted) * 3,
            (false, true) => 1,
            (false, false) => 2,
        });
        // A rekey by a path that works goes by this path alone.
        let is_retry = peer.handshake_attempts.load(Ordering::Relaxed) > 0;
        let works = session(peer, now).is_some() && current.is_some() && is_live;
        if works && !is_retry && !is_doubted {
            unsent.retain(|id| Some(*id) == at);
        }
        for id in &unsent {
            if let Some(hub) = hubs.get(*id).filter(|hub| !hub.is_live(now)) {
                context.plane.ask_handshake(&hub.peer, now);
            }
        }
        relayed.initiation = Some(SentInitiation {
            message,
            index,
            unsent,
            rest_at: None,
        });
        match current.filter(|_| at.is_none()) {
            Some(direct) => self.send_message(context, direct, &message, now),
            None => drop(self.initiate_by_next(context, now)),
        }
        let has_live = |sent: &SentInitiation| {
            let live = |id: &u64| context.hubs.get(*id).is_some_and(|hub| hub.is_live(now));
            sent.unsent.iter().any(live)
        };
        if let Some(sent) = self.relayed.as_mut().and_then(|it| it.initiation.as_mut()) {
            sent.rest_at = has_live(sent).then_some(now + STAGGER);
        }
    }

    /// Sends the initiation by the first hub that has a session, of those that are left.
    fn initiate_by_next(&mut self, context: &mut DeviceContext, now: Time) -> bool {
        let Some(sent) = self.relayed.as_ref().and_then(|it| it.initiation.as_ref()) else {
            return false;
        };
        let mut live = sent.unsent.iter().filter_map(|id| context.hubs.get(*id));
        let next = live.find(|hub| hub.is_live(now)).map(|hub| hub.id());
        next.is_some_and(|id| self.initiate_by(context, id, now))
    }

    /// Sends the initiation by this hub, unless it has been answered.
    fn initiate_by(&mut self, context: &mut DeviceContext, hub: u64, now: Time) -> bool {
        let pending = self
            .handshake
            .as_ref()
            .and_then(|handshake| handshake.pending());
        let Some(relayed) = &mut self.relayed else {
            return false;
        };
        relayed
            .initiation
            .take_if(|sent| pending != Some(sent.index));
        let Some(sent) = &mut relayed.initiation else {
            return false;
        };
        sent.unsent.retain(|id| *id != hub);
        let (message, to) = (sent.message, context.hubs.endpoint(hub));
        if let Some(to) = to {
            self.send_message(context, to, &message, now);
        }
        // If the hub was started again, it does not know us: the answer to a HELLO will tell.
        if let Some(hub) = context.hubs.get_mut(hub) {
            hub.check_unless_heard(&context.plane, now);
        }
        to.is_some()
    }

    /// A session with a hub began: what waits for the hub is sent.
    pub(super) fn hub_is_live(&mut self, context: &mut DeviceContext, hub: u64, now: Time) {
        let at = self.shared.endpoint();
        let is_there =
            at.is_some_and(|at| context.hubs.endpoint(hub).map(|to| to.addr) == Some(at.addr));
        let sent = self.relayed.as_ref().and_then(|it| it.initiation.as_ref());
        if sent.is_some_and(|sent| is_there || sent.unsent.contains(&hub)) {
            self.initiate_by(context, hub, now);
            self.reschedule(context);
        }
    }

    /// A handshake message of the peer came from this address; it belongs to the session with this
    /// index of ours.
    pub(super) fn heard_by_hub(&mut self, context: &DeviceContext, from: Endpoint, local: u32) {
        let (Some(relayed), Some(hub)) = (&mut self.relayed, context.hubs.at(from.addr)) else {
            return;
        };
        let hub = hub.id();
        if relayed.path(hub).is_none() {
            relayed.hubs.push(HubPath::new(hub));
        }
        if let Some(path) = relayed.path(hub) {
            path.holds = Some(local);
        }
    }

    /// A session with the peer began: the hubs that know the peer are told.
    pub(super) fn relayed_session_begun(&mut self, context: &mut DeviceContext, now: Time) {
        let Some(relayed) = &mut self.relayed else {
            return;
        };
        relayed.initiation = None;
        relayed.doubt = None;
        relayed.others_asked = false;
        relayed.choose_until = now + CHOICE;
        for path in &mut relayed.hubs {
            path.pings.clear();
        }
        if relayed.speaks {
            relayed.prove_by = Some(now + PROOF);
        }
        self.bind_anew(context, None, now);
        if self.relayed.as_ref().is_some_and(|relayed| relayed.speaks) {
            self.ping_endpoint(context, now);
        }
        self.reschedule(context);
    }

    /// Tells the current session to this hub, or to all that know the peer.
    pub(super) fn bind_anew(&mut self, context: &mut DeviceContext, hub: Option<u64>, now: Time) {
        let (Some(relayed), Some((mine, theirs))) = (&mut self.relayed, session(&self.shared, now))
        else {
            return;
        };
        for path in &mut relayed.hubs {
            if hub.is_none_or(|hub| hub == path.hub) {
                path.bind = Some(Bind {
                    mine,
                    theirs,
                    tries: 0,
                    due: Some(now),
                });
            }
        }
        self.bind_due(context, now);
        self.reschedule(context);
    }

    /// A hub answered a HELLO: what waits for that is told now.
    pub(super) fn bind_waiting(&mut self, context: &mut DeviceContext, hub: u64, now: Time) {
        let path = self.relayed.as_mut().and_then(|relayed| relayed.path(hub));
        if let Some(bind) = path.and_then(|path| path.bind.as_mut())
            && bind.tries == 0
        {
            bind.due = Some(now);
            self.bind_due(context, now);
            self.reschedule(context);
        }
    }

    fn bind_due(&mut self, context: &mut DeviceContext, now: Time) {
        let Some(relayed) = &mut self.relayed else {
            return;
        };
        for path in &mut relayed.hubs {
            let Some(bind) = path
                .bind
                .as_mut()
                .filter(|bind| bind.due.is_some_and(|at| at <= now))
            else {
                continue;
            };
            bind.due = None;
            if !context
                .hubs
                .get(path.hub)
                .is_some_and(|hub| hub.is_fresh(now))
            {
                bind.tries = 0;
                continue;
            }
            bind.due = BIND_AGAIN.get(bind.tries).map(|after| now + *after);
            bind.tries += 1;
            let frame = Frame::Bind {
                key: *self.shared.public_key(),
                mine: bind.mine,
                theirs: bind.theirs,
                speaks: false,
            };
            context.outgoing.frame(path.hub, None, frame);
        }
    }

    /// A hub accepted a BIND. Returns whether that was expected.
    pub(super) fn bound(
        &mut self,
        context: &mut DeviceContext,
        hub: u64,
        (mine, theirs): (u32, u32),
        speaks: bool,
        now: Time,
    ) -> bool {
        let Some(path) = self.relayed.as_mut().and_then(|relayed| relayed.path(hub)) else {
            return false;
        };
        let is_it = |bind: &&mut Bind| (bind.mine, bind.theirs) == (mine, theirs) && bind.tries > 0;
        let Some(bind) = path.bind.as_mut().filter(is_it) else {
            return false;
        };
        bind.due = None;
        path.holds = Some(mine);
        if speaks {
            self.begin_to_speak(context, now);
            self.ping(context, hub, now);
        }
        self.choose_other(context, now);
        self.reschedule(context);
        true
    }

    /// Must be called when a hub has moved, and when the hubs have changed.
    pub(super) fn follow_hub(
        &mut self,
        context: &mut DeviceContext,
        moved: Option<(u64, Endpoint)>,
    ) {
        if self.relayed.is_none() {
            return;
        }
        if let Some((_, to)) = moved {
            self.shared.lead_to(to);
        }
        let addresses = context.hubs.addresses();
        self.shared.way(|way| {
            if let Some(paths) = &mut way.paths {
                paths.known = addresses;
                paths.other = None;
            }
        });
        if let Some(relayed) = &mut self.relayed {
            let is_hub = |path: &HubPath| context.hubs.get(path.hub).is_some();
            relayed.hubs.retain(is_hub);
        }
    }

    /// Fires the timers that are due.
    pub(super) fn fire_relayed(&mut self, context: &mut DeviceContext, now: Time) {
        let Some(relayed) = &mut self.relayed else {
            return;
        };
        let is_due = |at: &mut Time| *at <= now;
        let rest = relayed
            .initiation
            .as_mut()
            .and_then(|sent| sent.rest_at.take_if(is_due));
        let is_unproved = relayed.prove_by.take_if(is_due).is_some();
        let looks = relayed.look.take_if(is_due).is_some();
        if rest.is_some() {
            while self.initiate_by_next(context, now) {}
        }
        if is_unproved {
            self.stop_speaking();
        }
        self.bind_due(context, now);
        if looks {
            self.look(context, now);
        }
    }
}
