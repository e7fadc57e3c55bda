//! Whether the path to a peer that speaks is alive, and the choice between hubs that hold the session.
//!
//! ```text
//! used    PING each 2 s by the endpoint's hub; PONG: trusted until 3 s after the PING
//! doubt   PING each 0.5 s by two hubs; data goes by both (`way.rs`); HELLO to the silent hub; with
//!         no second hub that holds the session, an initiation by all others; after 3 s the second
//!         hub becomes the endpoint if a PONG came by it
//! ```
//! "Used" means that data moved in the last 10 s. Otherwise there is no timer and no packet.

use std::time::Duration;

use wg_crypto::PublicKey;

use super::entry::{DeviceContext, Entry};
use super::frame::Frame;
use super::peer::Endpoint;
use super::relayed::{HubPath, session};
use super::time::Time;
use super::way::Paths;
use crate::model::status::PathStatus;

/// For how long after data a peer is used.
const USED: Duration = Duration::from_secs(10);
const PING_INTERVAL: Duration = Duration::from_secs(2);
const DOUBT_INTERVAL: Duration = Duration::from_millis(500);
/// A path is trusted at least this long after a PING that was answered, and by how much longer on a
/// slow path.
const TRUST: Duration = Duration::from_secs(3);
const TRUST_BASE: Duration = Duration::from_secs(2);
/// How long to doubt before the other path becomes the endpoint.
const DOUBT: Duration = Duration::from_secs(3);
/// How long to send twice if nothing is answered at all.
const TWICE: Duration = Duration::from_secs(10);
const PINGS_KEPT: usize = 8;

impl Entry {
    /// The peer understands frames: from now on each end chooses its path.
    pub(super) fn begin_to_speak(&mut self, context: &mut DeviceContext, now: Time) {
        let Some(relayed) = self.relayed.as_mut().filter(|relayed| !relayed.speaks) else {
            return;
        };
        relayed.speaks = true;
        relayed.look = Some(now + DOUBT_INTERVAL);
        let known = context.hubs.addresses();
        self.shared.way(|way| {
            way.paths.get_or_insert_with(|| {
                Box::new(Paths {
                    known,
                    used: now,
                    is_watched: true,
                    ..Paths::default()
                })
            });
        });
    }

    pub(super) fn stop_speaking(&mut self) {
        self.shared.way(|way| way.paths = None);
        if let Some(relayed) = &mut self.relayed {
            relayed.speaks = false;
            relayed.prove_by = None;
            relayed.look = None;
            relayed.doubt = None;
        }
    }

    /// Answers a PING.
    pub(super) fn pinged(
        &mut self,
        context: &mut DeviceContext,
        from: Endpoint,
        id: u64,
        now: Time,
    ) {
        let seen = Some(from.addr);
        let pong = Frame::Pong { id, seen };
        context.outgoing.frame(self.shared.id, Some(from), pong);
        let is_new = self.relayed.as_ref().is_some_and(|relayed| !relayed.speaks);
        self.begin_to_speak(context, now);
        self.proved();
        if is_new {
            self.ping_endpoint(context, now);
        }
        self.reschedule(context);
    }

    fn proved(&mut self) {
        if let Some(relayed) = &mut self.relayed {
            relayed.prove_by = None;
        }
    }

    /// A PONG came. It proves the path if it came from where its PING went.
    pub(super) fn ponged(
        &mut self,
        context: &mut DeviceContext,
        from: Endpoint,
        id: u64,
        now: Time,
    ) {
        let hub = context.hubs.at(from.addr).map(|hub| hub.id());
        let Some(relayed) = &mut self.relayed else {
            return;
        };
        let Some(path) = hub.and_then(|hub| relayed.path(hub)) else {
            return;
        };
        let Some(place) = path.pings.iter().position(|(ping, _)| *ping == id) else {
            return;
        };
        let sent = path.pings[place].1;
        path.pings.drain(..=place);
        let rtt = now.saturating_since(sent);
        path.rtt = Some(rtt);
        path.answered = Some(sent);
        self.begin_to_speak(context, now);
        self.proved();
        let (at, path_hub) = (self.hub_of_endpoint(context), hub);
        if at == path_hub {
            let trusted = sent + TRUST.max(TRUST_BASE + rtt * 3);
            self.trust(trusted);
            if let Some(relayed) = &mut self.relayed {
                relayed.doubt = None;
                relayed.others_asked = false;
            }
        } else if let Some(hub) = hub
            && self.is_faster(hub, at, now)
        {
            self.switch_to(context, hub, sent + TRUST.max(TRUST_BASE + rtt * 3));
        }
        self.reschedule(context);
    }

    /// Whether this hub is to be chosen because it is faster, at the beginning of a session.
    fn is_faster(&self, hub: u64, at: Option<u64>, now: Time) -> bool {
        let Some(relayed) = &self.relayed else {
            return false;
        };
        let rtt = |id| relayed.hubs.iter().find(|path| path.hub == id)?.rtt;
        let (there, here) = (rtt(hub), at.and_then(rtt));
        now < relayed.choose_until
            && matches!((there, here), (Some(there), Some(here)) if there * 5 < here * 4)
    }

    pub(super) fn hub_of_endpoint(&self, context: &DeviceContext) -> Option<u64> {
        let endpoint = self.shared.endpoint()?;
        context.hubs.at(endpoint.addr).map(|hub| hub.id())
    }

    fn trust(&self, until: Time) {
        self.shared.way(|way| {
            if let Some(paths) = &mut way.paths {
                paths.trusted = paths.trusted.max(until);
            }
        });
    }

    /// Makes this hub the endpoint.
    fn switch_to(&mut self, context: &mut DeviceContext, hub: u64, trusted: Time) {
        let Some(to) = context.hubs.endpoint(hub) else {
            return;
        };
        self.shared.lead_to(to);
        self.shared.way(|way| {
            if let Some(paths) = &mut way.paths {
                paths.trusted = trusted;
            }
        });
        if let Some(relayed) = &mut self.relayed {
            relayed.doubt = None;
            relayed.others_asked = false;
        }
    }

    /// Chooses the path that is used as well in doubt: another hub that holds the session.
    pub(super) fn choose_other(&mut self, context: &DeviceContext, now: Time) -> Option<u64> {
        let at = self.hub_of_endpoint(context);
        let mine = session(&self.shared, now).map(|(mine, _)| mine);
        let relayed = self.relayed.as_ref()?;
        let is_usable = |path: &&HubPath| {
            at.is_some()
                && Some(path.hub) != at
                && path.holds.is_some()
                && path.holds == mine
                && context
                    .hubs
                    .get(path.hub)
                    .is_some_and(|hub| hub.is_fresh(now))
        };
        let usable = relayed.hubs.iter().filter(is_usable);
        let other = usable.min_by_key(|path| path.rtt.unwrap_or(Duration::MAX));
        let other = other.map(|path| path.hub);
        let is_over = relayed
            .doubt
            .is_some_and(|since| now.saturating_since(since) > TWICE);
        let endpoint = other
            .filter(|_| !is_over)
            .and_then(|hub| context.hubs.endpoint(hub));
        self.shared.way(|way| {
            if let Some(paths) = &mut way.paths {
                paths.other = endpoint;
            }
        });
        other
    }

    /// Sends a PING by a hub.
    pub(super) fn ping(&mut self, context: &mut DeviceContext, hub: u64, now: Time) {
        let to = context.hubs.endpoint(hub);
        let path = self.relayed.as_mut().and_then(|relayed| relayed.path(hub));
        let (Some(to), Some(path)) = (to, path) else {
            return;
        };
        let id = context.rng.next_u64();
        path.pings.push_back((id, now));
        if path.pings.len() > PINGS_KEPT {
            path.pings.pop_front();
        }
        path.pinged = Some(now);
        context
            .outgoing
            .frame(self.shared.id, Some(to), Frame::Ping { id });
    }

    pub(super) fn ping_endpoint(&mut self, context: &mut DeviceContext, now: Time) {
        if let Some(hub) = self.hub_of_endpoint(context) {
            self.ping(context, hub, now);
        }
    }

    /// The paths to a peer that speaks are used.
    pub(super) fn watch(&mut self, context: &mut DeviceContext, now: Time) {
        if let Some(relayed) = self.relayed.as_mut().filter(|relayed| relayed.speaks) {
            relayed.look = Some(now);
        } else {
            self.shared.way(|way| {
                if let Some(paths) = &mut way.paths {
                    paths.is_watched = false;
                }
            });
        }
        self.reschedule(context);
    }

    pub(super) fn look(&mut self, context: &mut DeviceContext, now: Time) {
        let paths = self.shared.way(|way| {
            let paths = way.paths.as_mut()?;
            paths.is_watched = now.saturating_since(paths.used) <= USED;
            paths.is_watched.then_some(paths.trusted)
        });
        let at = self.hub_of_endpoint(context);
        let (Some(trusted), Some(at)) = (paths.flatten(), at) else {
            // Idle, or not through a hub. The next packet starts it again.
            self.shared
                .way(|way| way.paths.as_mut().map(|paths| paths.is_watched = false));
            if let Some(relayed) = &mut self.relayed {
                relayed.doubt = None;
                relayed.others_asked = false;
                relayed.hubs.iter_mut().for_each(|path| path.pings.clear());
            }
            return;
        };
        let is_trusted = now <= trusted;
        if let Some(relayed) = &mut self.relayed {
            match is_trusted {
                true => relayed.doubt = None,
                false => drop(relayed.doubt.get_or_insert(now)),
            }
        }
        let other = self.choose_other(context, now);
        match is_trusted {
            true => self.look_at_trusted(context, at, now),
            false => self.look_at_doubted(context, at, other, now),
        }
        if let Some(relayed) = &mut self.relayed {
            let next = now + DOUBT_INTERVAL;
            // At the end of the trust at the latest.
            let end = trusted + Duration::from_nanos(1);
            relayed.look = Some(if is_trusted { next.min(end) } else { next });
        }
    }

    fn look_at_trusted(&mut self, context: &mut DeviceContext, at: u64, now: Time) {
        let Some(path) = self.relayed.as_mut().and_then(|relayed| relayed.path(at)) else {
            return;
        };
        let since = path
            .pinged
            .map_or(PING_INTERVAL, |at| now.saturating_since(at));
        // One that is not answered is repeated once, so that a single loss makes no doubt.
        let is_repeated = path.pings.len() > 1;
        if since >= PING_INTERVAL || path.is_silent(now) && !is_repeated {
            self.ping(context, at, now);
        }
    }

    fn look_at_doubted(
        &mut self,
        context: &mut DeviceContext,
        at: u64,
        other: Option<u64>,
        now: Time,
    ) {
        let Some(relayed) = &mut self.relayed else {
            return;
        };
        let since = relayed.doubt.unwrap_or(now);
        let is_silent = relayed.path(at).is_none_or(|path| path.is_silent(now));
        let is_proved = other.is_some_and(|other| {
            let answered = relayed.path(other).and_then(|path| path.answered);
            answered.is_some_and(|sent| sent >= since)
        });
        if let Some(other) = other
            && is_proved
            && now.saturating_since(since) >= DOUBT
        {
            return self.switch_to(context, other, now + TRUST_BASE);
        }
        let asks = is_silent
            && other.is_none()
            && !relayed.others_asked
            && !self.shared.sent_handshake_lately(now)
            && context
                .hubs
                .each()
                .any(|hub| hub.id() != at && hub.is_live(now));
        relayed.others_asked |= asks;
        self.ping(context, at, now);
        if let Some(other) = other {
            self.ping(context, other, now);
        }
        if is_silent && let Some(hub) = context.hubs.get_mut(at) {
            hub.check(&context.plane, now);
        }
        if asks {
            self.send_initiation(context, now);
        }
    }

    /// How the peer is reached.
    pub(super) fn path_status(&self, context: &DeviceContext, now: Time) -> Option<PathStatus> {
        let relayed = self.relayed.as_ref()?;
        let key = |id| -> Option<PublicKey> { Some(*context.hubs.get(id)?.peer.public_key()) };
        let has_session = session(&self.shared, now).is_some();
        let at = self.hub_of_endpoint(context).filter(|_| has_session);
        let rtt = |id| relayed.hubs.iter().find(|path| path.hub == id)?.rtt;
        let paths = self.shared.way(|way| {
            let other = way.paths.as_ref().and_then(|paths| paths.other);
            other.filter(|_| relayed.doubt.is_some())
        });
        let other = paths
            .flatten()
            .and_then(|other| context.hubs.at(other.addr));
        Some(PathStatus {
            hub: at.and_then(key),
            other: other.map(|hub| hub.id()).and_then(key),
            rtt: at.and_then(rtt),
            speaks: relayed.speaks,
            doubt: relayed.doubt.map(|since| now.saturating_since(since)),
        })
    }
}
