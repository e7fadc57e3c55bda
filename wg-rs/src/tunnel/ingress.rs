//! Decides which handshake messages are worth a Diffie-Hellman operation.
//!
//! ```text
//! mac1 wrong                              -> dropped
//! not under load                          -> admitted
//! under load, mac2 missing or wrong       -> a cookie is sent
//! under load, mac2 right, source too fast -> dropped
//! under load, mac2 right                  -> admitted
//! ```
//! The device is under load if many messages wait, now or during the last second (paper, section
//! 5.3). Responses to our own initiations do not count, because a thousand peers may respond at
//! once.

use std::net::SocketAddr;
use std::time::Duration;

use rand_core::RngCore;
use wg_crypto::{MacKeys, PublicKey};

use super::cookies::CookieMaker;
use super::drops::DropReason;
use super::messages::*;
use super::ratelimiter::RateLimiter;
use super::time::Time;

/// The device is under load if this many messages wait.
const LOADED: usize = MAX_QUEUED_INCOMING_HANDSHAKES / 8;
/// How long it then remains under load.
const LOAD_MEMORY: Duration = Duration::from_secs(1);

/// Handshake messages that wait behind the current one.
#[derive(Clone, Copy, Debug, Default)]
pub struct HandshakeBacklog {
    /// Initiations.
    pub initiations: usize,
    /// Responses and cookie replies.
    pub answers: usize,
}

impl HandshakeBacklog {
    /// The part that others have caused, if up to `expected` messages may be responses to our
    /// initiations.
    fn of_others(self, expected: usize) -> usize {
        self.initiations + self.answers.saturating_sub(expected)
    }
}

pub(super) struct Ingress {
    /// Derived from our public key; None without one.
    mac_keys: Option<MacKeys>,
    pub(super) cookies: CookieMaker,
    last_under_load: Option<Time>,
    rate_limiter: RateLimiter,
}

pub(super) enum Verdict {
    Admit,
    Refuse(DropReason),
    Reply([u8; COOKIE_SIZE]),
}

impl Ingress {
    pub(super) fn new(rng: &mut dyn RngCore) -> Self {
        let mut seed = [0; 16];
        rng.fill_bytes(&mut seed);
        Self {
            mac_keys: None,
            cookies: CookieMaker::default(),
            last_under_load: None,
            rate_limiter: RateLimiter::new(seed),
        }
    }

    pub(super) fn set_public_key(&mut self, key: Option<&PublicKey>) {
        self.mac_keys = key.map(MacKeys::new);
    }

    /// `pending` is the number of our initiations that wait for a response.
    pub(super) fn judge(
        &mut self,
        now: Time,
        from: SocketAddr,
        message: &[u8],
        backlog: HandshakeBacklog,
        pending: usize,
        rng: &mut dyn RngCore,
    ) -> Verdict {
        let under_load = self.under_load(now, backlog.of_others(pending));
        let Some(mac_keys) = &self.mac_keys else {
            return Verdict::Refuse(DropReason::NoPrivateKey);
        };
        if !mac_keys.verify_mac1(message) {
            return Verdict::Refuse(DropReason::BadMac1);
        }
        if !under_load {
            return Verdict::Admit;
        }
        let cookie = self.cookies.cookie(from, now, rng);
        if !cookie.verify_mac2(message) {
            let nonce = self.cookies.nonce(rng);
            return Verdict::Reply(mac_keys.create_reply(message, &cookie, nonce));
        }
        if !self.rate_limiter.allow(from.ip(), now) {
            return Verdict::Refuse(DropReason::RateLimited);
        }
        Verdict::Admit
    }

    /// Whether the device was under load at the last message.
    pub(super) fn is_under_load(&self, now: Time) -> bool {
        self.last_under_load
            .is_some_and(|last| now.saturating_since(last) < LOAD_MEMORY)
    }

    fn under_load(&mut self, now: Time, waiting: usize) -> bool {
        if waiting >= LOADED {
            self.last_under_load = Some(now);
        }
        self.last_under_load
            .take_if(|last| now.saturating_since(*last) >= LOAD_MEMORY);
        self.last_under_load.is_some()
    }
}
