//! Which handshake messages are worth a Diffie-Hellman.
//!
//! ```text
//! mac1 wrong                              -> dropped
//! not under load                          -> admitted
//! under load, mac2 missing or wrong       -> a cookie is sent
//! under load, mac2 right, source too fast -> dropped
//! under load, mac2 right                  -> admitted
//! ```
//! Under load means that many messages wait, now or a second ago (paper, section 5.3). The answers to
//! our own initiations do not count: a thousand peers may well answer at once.

use std::net::SocketAddr;
use std::time::Duration;

use rand_core::RngCore;
use wg_crypto::{MacKeys, PublicKey};

use super::cookies::{CookieMaker, nonce};
use super::drops::DropReason;
use super::messages::*;
use super::ratelimiter::RateLimiter;
use super::time::Time;

/// How many messages must wait for the device to be under load.
const LOADED: usize = MAX_QUEUED_INCOMING_HANDSHAKES / 8;
/// How long it then stays so.
const LOAD_MEMORY: Duration = Duration::from_secs(1);

/// Handshake messages that wait behind the one that is being handled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// Initiations.
    pub initiations: usize,
    /// Responses and cookie replies.
    pub answers: usize,
}

impl Backlog {
    /// What others have made of it, if `expected` answers may be to initiations of ours.
    fn of_others(self, expected: usize) -> usize {
        self.initiations + self.answers.saturating_sub(expected)
    }
}

pub(super) struct Ingress {
    /// Of our public key; none without one.
    mac_keys: Option<MacKeys>,
    cookies: CookieMaker,
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

    /// `pending` is how many initiations of ours wait for their response.
    pub(super) fn judge(
        &mut self,
        now: Time,
        from: SocketAddr,
        message: &[u8],
        backlog: Backlog,
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
            return Verdict::Reply(mac_keys.create_reply(message, &cookie, nonce(rng)));
        }
        if !self.rate_limiter.allow(from.ip(), now) {
            return Verdict::Refuse(DropReason::RateLimited);
        }
        Verdict::Admit
    }

    /// Whether it was so when the last message came.
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
