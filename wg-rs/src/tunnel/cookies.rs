//! The cookies that we send: each proves that a host receives at an address (paper, section 5.4.7).

use std::net::{IpAddr, SocketAddr};

use rand_core::RngCore;
use wg_crypto::{Cookie, CookieSecret};
use zeroize::Zeroize;

use super::messages::COOKIE_SECRET_MAX_AGE;
use super::time::Time;

/// Makes cookies from a secret that is replaced when it is too old.
#[derive(Default)]
pub(super) struct CookieMaker {
    secret: Option<(CookieSecret, Time)>,
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
}

/// A random nonce for a cookie reply.
pub(super) fn nonce(rng: &mut dyn RngCore) -> [u8; 24] {
    let mut nonce = [0; 24];
    rng.fill_bytes(&mut nonce);
    nonce
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
