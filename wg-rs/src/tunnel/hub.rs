//! The owner's part of the relay: which peer each handshake message goes to, and the sessions that
//! result. `relay.rs` forwards the packets of these sessions.
//!
//! ```text
//! initiation    from a peer with groups ─► receiver found by mac1: its partners, else its groups
//!               ─► within the pair's budget, else a cookie ─► sent; waits for its response
//! response      to a waiting initiation ─► sender found by mac1 ─► a session; sent back
//! cookie reply  to a waiting initiation or a response ─► sent back; the cookie is stored
//! ```
//! If a pair exceeds its budget, the hub sends a cookie that is made in the same way as the far end
//! would make it. Only a host that receives at the sender's address gets it, so a spoofer cannot use
//! it. If the far end is under load, it sends a cookie of its own; that reply is opened here, and
//! its cookie is accepted too.
//!
//! Invariants:
//! - A relayed message is sent unchanged to the current endpoint of a peer with groups, and never
//!   back to the address that it came from.
//! - A peer that we reach through another hub is not served, because hubs that relay for hubs could
//!   send a packet in a circle.
//! - An index leads from one peer to one other peer. An index that would lead to two, or that is
//!   ours, is refused.

mod in_order;
mod members;
mod pairs;
mod places;

use std::sync::Arc;
use std::time::Duration;

use rand_core::RngCore;
use wg_crypto::Cookie;

use self::members::Members;
pub(super) use self::members::TooManyGroups;
use self::pairs::{NoRoom, Pairs};
use super::cookies::CookieMaker;
use super::drops::DropReason;
use super::entry::DeviceContext;
use super::hubs::Hubs;
use super::messages::*;
use super::outgoing::Outgoing;
use super::peer::{Endpoint, Peer};
use super::plane::Plane;
use super::relay::Pair;
use super::time::Time;
use crate::model::Groups;

/// Most partners of a sender that an initiation is compared with before its groups are searched, and most
/// in all, if there are several possible senders. This is not charged to anyone's budget, so it must cost
/// little.
const PARTNERS_TRIED: usize = 32;
const PARTNERS_TRIED_IN_ALL: usize = 64;

/// For how long after a HELLO a peer counts as one that understands frames.
const SPEAKS: Duration = Duration::from_secs(60);

/// What is needed to handle a message.
pub(super) struct Surroundings<'a> {
    pub(super) plane: &'a Plane,
    pub(super) rng: &'a mut dyn RngCore,
    pub(super) outgoing: &'a mut Outgoing,
    /// The hubs that we use ourselves.
    pub(super) hubs: &'a Hubs,
    /// Whether the device is under load. Then no receiver is searched for.
    pub(super) is_loaded: bool,
    pub(super) now: Time,
}

impl<'a> Surroundings<'a> {
    pub(super) fn new(context: &'a mut DeviceContext, is_loaded: bool, now: Time) -> Self {
        Surroundings {
            plane: &context.plane,
            rng: &mut *context.rng,
            outgoing: &mut context.outgoing,
            hubs: &context.hubs,
            is_loaded,
            now,
        }
    }
}

/// The relay of a device that has peers with groups.
#[derive(Default)]
pub(super) struct Hub {
    members: Members,
    pairs: Pairs,
    pub(super) cookies: CookieMaker,
    /// Distinguishes this relay from one that was here before. 0: not chosen yet.
    epoch: u32,
}

impl Hub {
    /// Puts a peer into exactly these groups. Pairs that no longer share a group end.
    pub(super) fn set_groups(
        &mut self,
        peer: &Arc<Peer>,
        groups: &Groups,
        plane: &Plane,
    ) -> Result<(), TooManyGroups> {
        let result = match groups.is_empty() {
            true => {
                self.members.remove(peer.id);
                Ok(())
            }
            false => self.members.put(peer, groups),
        };
        let partners: Vec<u64> = self.pairs.partners(peer.id).collect();
        for partner in partners {
            if !self.members.share(peer.id, partner) {
                self.pairs.close(peer.id, partner, plane.relay_table());
            }
        }
        plane.relay_table().set_on(!self.members.is_empty());
        result
    }

    /// Must be called when a peer's endpoint may have changed. `hubs` are those that we use.
    pub(super) fn roamed(&mut self, id: u64, hubs: &Hubs, plane: &Plane) {
        self.members.follow(id);
        self.end_chains(id, hubs, plane);
    }

    /// Must be called for each peer when the hubs that we use have changed.
    pub(super) fn end_chains(&mut self, id: u64, hubs: &Hubs, plane: &Plane) {
        if self.is_beyond(id, hubs) {
            let partners: Vec<u64> = self.pairs.partners(id).collect();
            for partner in partners {
                self.pairs.close(id, partner, plane.relay_table());
            }
        }
    }

    /// Whether we reach a peer through one of these hubs.
    fn is_beyond(&self, id: u64, hubs: &Hubs) -> bool {
        let endpoint = self
            .members
            .get(id)
            .and_then(|member| member.peer.endpoint());
        let hub = endpoint.and_then(|endpoint| hubs.at(endpoint.addr));
        hub.is_some_and(|hub| hub.id() != id)
    }

    /// A random number that is not 0 and never changes.
    pub(super) fn epoch(&mut self, rng: &mut dyn RngCore) -> u32 {
        while self.epoch == 0 {
            self.epoch = rng.next_u32();
        }
        self.epoch
    }

    /// Records that a peer understands frames.
    pub(super) fn spoke(&mut self, id: u64, now: Time) {
        if let Some(member) = self.members.get_mut(id) {
            member.spoke = Some(now);
        }
    }

    /// Whether a peer has lately shown that it understands frames.
    pub(super) fn speaks(&self, id: u64, now: Time) -> bool {
        let spoke = self.members.get(id).and_then(|member| member.spoke);
        spoke.is_some_and(|spoke| now.saturating_since(spoke) < SPEAKS)
    }

    /// Relays a session that one of its ends has told, as if its handshake had passed here. Each end
    /// is given as a peer and its index.
    pub(super) fn bind(
        &mut self,
        with: &Surroundings<'_>,
        teller: (u64, u32),
        other: (u64, u32),
    ) -> Result<(), DropReason> {
        self.pairs.expire(with.plane.relay_table(), with.now);
        if teller.0 == other.0 || !self.members.share(teller.0, other.0) {
            return Err(DropReason::RelayUnknown);
        }
        if self.is_beyond(teller.0, with.hubs) || self.is_beyond(other.0, with.hubs) {
            return Err(DropReason::RelayChain);
        }
        self.check_index(with, teller.1, other.0, &[teller.0])?;
        self.check_index(with, other.1, teller.0, &[other.0])?;
        let member = |id| self.members.get(id).ok_or(DropReason::RelayUnknown);
        let (a, b) = (member(teller.0)?, member(other.0)?);
        let opened = self.pairs.open(&a.peer, &b.peer, with.now);
        opened.map_err(|NoRoom| DropReason::RelayLimited)?;
        let table = with.plane.relay_table();
        self.pairs.begin(teller, other, table, with.now);
        Ok(())
    }

    /// All pairs, also those that have had no session yet.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &Arc<Pair>> {
        self.pairs.each()
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        self.pairs.sizes()
    }

    /// Handles a handshake message or cookie reply that is not for us: relays it, or returns the
    /// reason for dropping it.
    pub(super) fn relay(
        &mut self,
        mut with: Surroundings<'_>,
        from: Endpoint,
        message: &[u8],
    ) -> Result<(), DropReason> {
        self.pairs.expire(with.plane.relay_table(), with.now);
        match Message::parse(message) {
            Some(Message::Initiation(initiation)) => self.initiation(&mut with, from, initiation),
            Some(Message::Response(response)) => self.response(&mut with, from, response),
            Some(Message::Cookie(reply)) => self.cookie(&mut with, from, reply),
            Some(Message::Data) | None => Err(DropReason::Malformed),
        }
    }

    fn initiation(
        &mut self,
        with: &mut Surroundings<'_>,
        from: Endpoint,
        message: &[u8; INITIATION_SIZE],
    ) -> Result<(), DropReason> {
        let now = with.now;
        let mut senders = self.members.may_be_at(from.addr);
        let is_any = !senders.is_empty();
        senders.retain(|id| !self.is_beyond(*id, with.hubs));
        if is_any && senders.is_empty() {
            return Err(DropReason::RelayChain);
        }
        let (first, to) = self.find(&senders, message, with)?;
        senders.retain(|id| *id != first && *id != to && self.members.share(*id, to));
        senders.insert(0, first);

        let endpoint = self.endpoint(with, to, from)?;
        let index = sender_index(message).ok_or(DropReason::Malformed)?;
        self.check_index(with, index, to, &senders)?;
        let member = |id| self.members.get(id).ok_or(DropReason::RelayUnknown);
        let (sender, receiver) = (member(first)?, member(to)?);
        let opened = self.pairs.open(&sender.peer, &receiver.peer, now);
        opened.map_err(|NoRoom| DropReason::RelayLimited)?;

        let cookie = self.cookies.cookie(from.addr, now, with.rng);
        let mac2_fits = |cookie: &Cookie| cookie.verify_mac2(message);
        if !self.pairs.may_initiate(first, to, &cookie, mac2_fits, now) {
            let nonce = self.cookies.nonce(with.rng);
            let reply = receiver.mac_keys.create_reply(message, &cookie, nonce);
            with.outgoing.unaccounted(from, 0, &reply);
            return Err(DropReason::RelayCookie);
        }
        self.pairs.wait((to, index), senders, mac1(message), now);
        with.outgoing.unaccounted(endpoint, HANDSHAKE_DSCP, message);
        Ok(())
    }

    /// The sender (one of `senders`) and the receiver of an initiation. The sender's partners are
    /// compared first, up to a limit, and then the other peers in its groups.
    fn find(
        &mut self,
        senders: &[u64],
        message: &[u8],
        with: &Surroundings<'_>,
    ) -> Result<(u64, u64), DropReason> {
        let is_to = |id: &u64| {
            let member = self.members.get(*id);
            member.is_some_and(|member| member.mac_keys.verify_mac1(message))
        };
        let tried = partners_tried(senders.len());
        for &sender in senders {
            let mut partners = self.pairs.partners(sender).take(tried);
            if let Some(partner) = partners.find(is_to) {
                return Ok((sender, partner));
            }
        }
        let mut reason = DropReason::RelayNotPeer;
        for &sender in senders {
            if with.is_loaded {
                return Err(DropReason::RelayLimited);
            }
            match self.members.search(sender, message, with.now) {
                Ok(found) => return Ok((sender, found)),
                Err(refused) => reason = refused,
            }
        }
        Err(reason)
    }

    fn response(
        &mut self,
        with: &mut Surroundings<'_>,
        from: Endpoint,
        message: &[u8; RESPONSE_SIZE],
    ) -> Result<(), DropReason> {
        let now = with.now;
        let asked = receiver_index(message).ok_or(DropReason::Malformed)?;
        let answered = sender_index(message).ok_or(DropReason::Malformed)?;
        let responders = self.members.at(from.addr);
        if responders.is_empty() {
            return Err(DropReason::RelayNotPeer);
        }
        let waiting = |id: &u64| Some((*id, &self.pairs.pending((*id, asked), now)?.senders));
        let found = responders.iter().find_map(waiting);
        let (responder, senders) = found.ok_or(DropReason::RelayStale)?;
        // It is signed for the peer that sent the initiation.
        let is_to = |id: &&u64| {
            let member = self.members.get(**id);
            member.is_some_and(|member| member.mac_keys.verify_mac1(message))
                && self.members.share(**id, responder)
        };
        let initiator = *senders.iter().find(is_to).ok_or(DropReason::BadMac1)?;

        let endpoint = self.endpoint(with, initiator, from)?;
        self.check_index(with, answered, initiator, &[responder])?;
        self.check_index(with, asked, responder, &[initiator])?;
        let member = |id| self.members.get(id).ok_or(DropReason::RelayUnknown);
        let (asker, answerer) = (member(initiator)?, member(responder)?);
        let opened = self.pairs.open(&asker.peer, &answerer.peer, now);
        opened.map_err(|NoRoom| DropReason::RelayLimited)?;
        let (asker, answerer) = ((initiator, asked), (responder, answered));
        self.pairs
            .begin(asker, answerer, with.plane.relay_table(), now);
        with.outgoing.unaccounted(endpoint, HANDSHAKE_DSCP, message);
        Ok(())
    }

    fn cookie(
        &mut self,
        with: &mut Surroundings<'_>,
        from: Endpoint,
        reply: &[u8; COOKIE_SIZE],
    ) -> Result<(), DropReason> {
        let index = receiver_index(reply).ok_or(DropReason::Malformed)?;
        let givers = self.members.at(from.addr);
        if givers.is_empty() {
            return Err(DropReason::RelayNotPeer);
        }
        for giver in givers {
            let Some(pending) = self.pairs.pending((giver, index), with.now) else {
                continue;
            };
            let sender = pending
                .senders
                .first()
                .copied()
                .ok_or(DropReason::RelayStale)?;
            let endpoint = self.endpoint(with, sender, from)?;
            let member = self.members.get(giver);
            let cookie = member.and_then(|member| member.mac_keys.open_reply(reply, &pending.mac1));
            let cookie = cookie.ok_or(DropReason::BadCookie)?;
            if !self.pairs.may_reply(giver, sender, with.now) {
                return Err(DropReason::RelayLimited);
            }
            self.pairs.cookie_given(giver, sender, cookie, with.now);
            with.outgoing.unaccounted(endpoint, 0, reply);
            return Ok(());
        }
        // A reply to the response that began a session.
        let route = with.plane.relay_table().route(index, from.addr, with.now)?;
        if !self
            .pairs
            .may_reply(route.sender().id, route.peer().id, with.now)
        {
            return Err(DropReason::RelayLimited);
        }
        with.outgoing.unaccounted(route.to, 0, reply);
        Ok(())
    }

    /// The endpoint of a peer, for relaying a message that came `from` another address.
    fn endpoint(
        &self,
        with: &Surroundings<'_>,
        id: u64,
        from: Endpoint,
    ) -> Result<Endpoint, DropReason> {
        let member = self.members.get(id).ok_or(DropReason::RelayUnknown)?;
        let endpoint = member.peer.endpoint().ok_or(DropReason::NoEndpoint)?;
        match endpoint.addr == from.addr {
            true => Err(DropReason::RelayLoop),
            false if self.is_beyond(id, with.hubs) => Err(DropReason::RelayChain),
            false => Ok(endpoint),
        }
    }

    /// Whether the index that `user` sends to may lead to `owners`, one of whom chose it.
    fn check_index(
        &self,
        with: &Surroundings<'_>,
        index: u32,
        user: u64,
        owners: &[u64],
    ) -> Result<(), DropReason> {
        let is_owner = |peer: &Peer| owners.contains(&peer.id);
        let member = self.members.get(user).ok_or(DropReason::RelayUnknown)?;
        let table = with.plane.relay_table();
        let pending = self.pairs.pending((user, index), with.now);
        let is_another = |id: &u64| !owners.contains(id);
        if with.plane.index.is_reserved(index)
            || table.is_crowded(index)
            || table.leads_elsewhere(index, &member.peer, is_owner, with.now)
            || pending.is_some_and(|pending| pending.senders.iter().all(is_another))
        {
            return Err(DropReason::RelayCollision);
        }
        Ok(())
    }
}

/// The number of partners of each sender that an initiation is compared with.
fn partners_tried(senders: usize) -> usize {
    (PARTNERS_TRIED_IN_ALL / senders.max(1)).min(PARTNERS_TRIED)
}

fn mac1(message: &[u8; INITIATION_SIZE]) -> [u8; 16] {
    let mut mac1 = [0; 16];
    mac1.copy_from_slice(&message[INITIATION_SIZE - 32..INITIATION_SIZE - 16]);
    mac1
}

#[cfg(test)]
mod tests {
    use super::places::MOST_AT_ONCE;
    use super::*;

    #[test]
    fn the_senders_share_the_comparisons_that_are_free() {
        assert_eq!(partners_tried(1), PARTNERS_TRIED);
        for senders in 1..=MOST_AT_ONCE {
            let tried = partners_tried(senders);
            assert!(tried >= 3 && tried * senders <= PARTNERS_TRIED_IN_ALL);
        }
    }
}
