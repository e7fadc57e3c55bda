//! The cookies that we send: each proves that a host receives at an address (paper, section 5.4.7).

use std::net::{IpAddr, SocketAddr};

use rand_core::RngCore;
use wg_crypto::{Cookie, CookieSecret};
use zeroize::Zeroize;

use super::messages::COOKIE_SECRET_MAX_AGE;
use super::time::Time;

/// How many nonces are drawn at once. A system call for each would be a large part of the cost of a reply.
const NONCES: usize = 64;

/// Makes cookies from a secret that is replaced when it is too old.
#[derive(Default)]
pub(super) struct CookieMaker {
    secret: Option<(CookieSecret, Time)>,
    nonces: Vec<[u8; 24]>,
}

impl CookieMaker {
    /// The cookie of an address at this time.
    pub(super) fn cookie(&mut self, from: SocketAddr, now: Time, rng: &mut dyn RngCore) -> Cookie {
        let expired = |since: Time| now.saturating_since(since) >= COOKIE_SECRET_MAX_AGE;
        self.secret.take_if(|(_, since)| expired(*since));
        let (secret, _) = self.secret.get_or_insert_with(|| {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            let secret = CookieSecret::from_bytes(bytes);
            bytes.zeroize();
            (secret, now)
        });
        Cookie::derive(secret, &source(from))
    }

    /// A random nonce for a cookie reply, which was never returned before.
    pub(super) fn nonce(&mut self, rng: &mut dyn RngCore) -> [u8; 24] {
        if self.nonces.is_empty() {
            self.nonces.resize(NONCES, [0; 24]);
            rng.fill_bytes(self.nonces.as_flattened_mut());
        }
        self.nonces.pop().expect("some were drawn")
    }

    /// Must be called when a copy of this machine may return the same nonces.
    pub(super) fn discard_nonces(&mut self) {
        self.nonces.clear();
    }
}

/// Address and port: the input of a cookie.
fn source(from: SocketAddr) -> Vec<u8> {
    let mut source = match from.ip() {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    source.extend(from.port().to_be_bytes());
    source
}
