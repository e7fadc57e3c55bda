//! The handshake with one peer: at most one pending initiation of ours, the last initiation that
//! was accepted from the peer, and the peer's cookie.
//!
//! - An invalid response does not affect the pending initiation, because the right one may still
//!   arrive.
//! - If an initiation is accepted while ours is pending, the kernel forgets ours, so two peers that
//!   start at the same time wait five seconds for the next attempt. Here the peer with the greater
//!   public key keeps its own, so that the handshake succeeds at once.
//! - The timestamp and time of the last accepted initiation are kept when sessions end, keys change
//!   or the link goes down: they protect against replays.

use std::time::Duration;

use wg_crypto::noise::{self, Identity, Initiation, ReceivedInitiation, Responder, SharedSecret};
use wg_crypto::{
    AeadBackend, Cookie, MacKeys, PresharedKey, PrivateKey, PublicKey, SessionKeys, Tai64n,
};

use super::drops::DropReason;
use super::messages::*;
use super::time::Time;
use crate::model::Wall;
use crate::model::status::Unanswered;

pub(crate) struct Handshake {
    pending: Option<Pending>,
    latest_timestamp: Option<Tai64n>,
    last_initiation_consumption: Option<Time>,
    /// Computed when it is first needed, because it costs as much as everything else in an idle
    /// peer together.
    static_static: Option<SharedSecret>,
    mac_keys: MacKeys,
    /// mac1 of the last message sent, until a cookie for it arrives.
    mac1_sent: Option<[u8; 16]>,
    cookie: Option<(Cookie, Time)>,
    /// The number of initiations since the last completed handshake, and the time of the first of
    /// them.
    unanswered: Option<(u32, Time)>,
    /// Initiations of the peer that were answered since then.
    unconfirmed: u32,
    /// Completed handshakes.
    count: u64,
}

struct Pending {
    initiation: Initiation,
    index: u32,
}

/// Both static keys: ours and the peer's.
#[derive(Clone, Copy)]
pub(crate) struct Parties<'a> {
    pub(crate) local: &'a Identity,
    pub(crate) remote: &'a PublicKey,
}

impl Handshake {
    pub(crate) fn new(remote: &PublicKey) -> Self {
        Self {
            pending: None,
            latest_timestamp: None,
            last_initiation_consumption: None,
            static_static: None,
            mac_keys: MacKeys::new(remote),
            mac1_sent: None,
            cookie: None,
            unanswered: None,
            unconfirmed: 0,
            count: 0,
        }
    }

    /// Index of the pending initiation.
    pub(crate) fn pending(&self) -> Option<u32> {
        self.pending.as_ref().map(|pending| pending.index)
    }

    #[cfg(test)]
    pub(crate) fn latest_timestamp(&self) -> Option<Tai64n> {
        self.latest_timestamp
    }

    /// Initiations sent since the last completed handshake.
    pub(crate) fn unanswered(&self, now: Time) -> Option<Unanswered> {
        let (count, first) = self.unanswered?;
        Some(Unanswered {
            count,
            age: now.saturating_since(first),
        })
    }

    /// Initiations of the peer that were answered since the last completed handshake.
    pub(crate) fn unconfirmed(&self) -> u32 {
        self.unconfirmed
    }

    /// Number of completed handshakes.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Counts a completed handshake.
    pub(crate) fn completed(&mut self) {
        self.count += 1;
        self.forget_attempts();
    }

    /// Resets the counters of attempts.
    pub(crate) fn forget_attempts(&mut self) {
        self.unanswered = None;
        self.unconfirmed = 0;
    }

    /// Forgets the pending initiation. Returns its index.
    pub(crate) fn clear(&mut self) -> Option<u32> {
        let index = self.pending();
        // `take` would leave the keys in this memory.
        self.pending = None;
        index
    }

    /// Called when our private key changed.
    pub(crate) fn forget_static_static(&mut self) {
        self.static_static = None;
    }

    fn static_static(&mut self, parties: Parties<'_>) -> Option<&SharedSecret> {
        if self.static_static.is_none() {
            self.static_static = parties.local.static_static(parties.remote);
        }
        self.static_static.as_ref()
    }

    fn sign(&mut self, message: &mut [u8], now: Time) {
        const LIFE: Duration = COOKIE_SECRET_MAX_AGE.saturating_sub(COOKIE_SECRET_LATENCY);
        self.cookie
            .take_if(|(_, since)| now.saturating_since(*since) >= LIFE);
        let cookie = self.cookie.as_ref().map(|(cookie, _)| cookie);
        self.mac1_sent = Some(self.mac_keys.sign(message, cookie));
    }

    /// Creates an initiation that replaces the pending one. None if the peer's key is a point of
    /// low order.
    pub(crate) fn initiate(
        &mut self,
        parties: Parties<'_>,
        ephemeral: PrivateKey,
        index: u32,
        now: Time,
        wall: Wall,
    ) -> Option<[u8; INITIATION_SIZE]> {
        let mut message = [0; INITIATION_SIZE];
        let timestamp = Tai64n::from_unix(wall.secs, wall.nanos);
        let ss = self.static_static(parties)?;
        let Parties { local, remote } = parties;
        let initiation =
            noise::create_initiation(local, remote, ss, ephemeral, index, timestamp, &mut message);
        self.pending = Some(Pending {
            initiation: initiation.ok()?,
            index,
        });
        self.sign(&mut message, now);
        let (count, first) = self.unanswered.unwrap_or((0, now));
        self.unanswered = Some((count.saturating_add(1), first));
        Some(message)
    }

    /// Accepts an initiation of this peer, if it is authentic and new. Returns the state for the
    /// response.
    pub(crate) fn accept_initiation(
        &mut self,
        parties: Parties<'_>,
        received: ReceivedInitiation,
        now: Time,
    ) -> Result<Responder, DropReason> {
        const INTERVAL: Duration =
            Duration::from_nanos(1_000_000_000 / INITIATIONS_PER_SECOND as u64);
        let ss = self
            .static_static(parties)
            .ok_or(DropReason::BadInitiation)?;
        let (timestamp, responder) = received.finish(ss).map_err(|_| DropReason::BadInitiation)?;
        if self
            .latest_timestamp
            .is_some_and(|latest| timestamp <= latest)
        {
            return Err(DropReason::ReplayedInitiation);
        }
        if self
            .last_initiation_consumption
            .is_some_and(|last| now < last + INTERVAL)
        {
            return Err(DropReason::FloodedInitiation);
        }
        self.latest_timestamp = Some(timestamp);
        self.last_initiation_consumption = Some(now);
        Ok(responder)
    }

    /// Whether a pending initiation is dropped when one of the peer is accepted.
    pub(crate) fn gives_way(parties: Parties<'_>) -> bool {
        parties.local.public_key() < *parties.remote
    }

    /// Answers an accepted initiation.
    pub(crate) fn respond(
        &mut self,
        responder: Responder,
        psk: &PresharedKey,
        ephemeral: PrivateKey,
        index: u32,
        backend: AeadBackend,
        now: Time,
    ) -> Result<([u8; RESPONSE_SIZE], SessionKeys), DropReason> {
        let mut message = [0; RESPONSE_SIZE];
        let keys = responder.respond(psk, ephemeral, index, backend, &mut message);
        let keys = keys.map_err(|_| DropReason::BadInitiation)?;
        self.unconfirmed = self.unconfirmed.saturating_add(1);
        self.sign(&mut message, now);
        Ok((message, keys))
    }

    /// Handles the response to the pending initiation.
    pub(crate) fn accept_response(
        &mut self,
        local: &Identity,
        psk: &PresharedKey,
        backend: AeadBackend,
        message: &[u8; RESPONSE_SIZE],
    ) -> Result<SessionKeys, DropReason> {
        let pending = self
            .pending
            .as_ref()
            .ok_or(DropReason::UnexpectedResponse)?;
        let keys = pending.initiation.finish(local, psk, backend, message);
        let keys = keys.map_err(|_| DropReason::BadResponse)?;
        self.pending = None;
        Ok(keys)
    }

    /// Accepts a cookie: one for each message sent.
    pub(crate) fn accept_cookie(
        &mut self,
        reply: &[u8; COOKIE_SIZE],
        now: Time,
    ) -> Result<(), DropReason> {
        let mac1 = self.mac1_sent.as_ref().ok_or(DropReason::BadCookie)?;
        let cookie = self
            .mac_keys
            .open_reply(reply, mac1)
            .ok_or(DropReason::BadCookie)?;
        self.cookie = Some((cookie, now));
        self.mac1_sent = None;
        Ok(())
    }
}
