//! The two MACs at the end of a handshake message, and cookie replies (paper, sections 5.4.4 and
//! 5.4.7).
//!
//! ```text
//! handshake message: | type, sender, … | mac1 16 | mac2 16 |
//!     mac1: keyed by the receiver's public key, over all bytes before it. It shows that the
//!           sender knows that key.
//!     mac2: keyed by a cookie, over all bytes before it, including mac1. It shows that the sender
//!           receives at the address that it sends from. Zero if the sender has no cookie.
//! cookie reply:      | 3 0 0 0 | receiver u32 | nonce 24 | cookie 16, sealed | tag 16 |
//!     sealed by XChaCha20-Poly1305 with the mac1 of the answered message as associated data, so
//!     that only a host that sent or saw that message can receive a valid cookie.
//! ```

use chacha20::{R20, hchacha};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    aead::Key,
    hash::{hash, mac},
    key::PublicKey,
};

/// Length of a cookie reply in bytes.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Length of a MAC, and of a cookie, in bytes.
pub const MAC_LEN: usize = 16;

const MESSAGE_COOKIE_REPLY: u32 = 3;
const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// The keys of both MACs, derived from the public key of a message's receiver. Our own public key
/// gives the keys to check received messages; a peer's gives the keys to sign messages to that
/// peer.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    /// Keys for messages to the owner of `public`.
    pub fn new(public: &PublicKey) -> Self {
        Self {
            mac1: hash(&[LABEL_MAC1, public.as_bytes()]),
            cookie: hash(&[LABEL_COOKIE, public.as_bytes()]),
        }
    }

    /// The first MAC of a message that is given without its MACs.
    pub fn mac1(&self, msg_without_macs: &[u8]) -> [u8; MAC_LEN] {
        mac(&self.mac1, msg_without_macs)
    }

    /// Whether the first MAC of a complete message is right. False if the message is too short for
    /// MACs.
    #[must_use]
    pub fn verify_mac1(&self, msg: &[u8]) -> bool {
        split(msg).is_some_and(|(body, mac1, _)| self.mac1(body).ct_eq(mac1).into())
    }

    /// Writes both MACs of a complete message and returns the first, which is needed to open a
    /// cookie reply. Without a cookie the second MAC is zero.
    ///
    /// # Panics
    /// If `msg` is too short for the MACs.
    pub fn sign(&self, msg: &mut [u8], cookie: Option<&Cookie>) -> [u8; MAC_LEN] {
        let (signed, mac2) = msg
            .split_last_chunk_mut()
            .expect("msg is long enough for mac2");
        let (body, mac1) = signed
            .split_last_chunk_mut()
            .expect("msg is long enough for mac1");
        *mac1 = self.mac1(body);
        let mac1 = *mac1;
        *mac2 = cookie.map_or([0; MAC_LEN], |cookie| mac(&cookie.0, signed));
        mac1
    }

    /// A cookie reply with `cookie`, in answer to a handshake message whose first MAC is right.
    /// `nonce` is random and must never be used twice.
    ///
    /// # Panics
    /// If `msg` is too short for a handshake message.
    pub fn create_reply(
        &self,
        msg: &[u8],
        cookie: &Cookie,
        nonce: [u8; 24],
    ) -> [u8; COOKIE_REPLY_LEN] {
        let (body, mac1, _) = split(msg).expect("msg is long enough for the MACs");
        let mut reply = [0; COOKIE_REPLY_LEN];
        reply[..4].copy_from_slice(&MESSAGE_COOKIE_REPLY.to_le_bytes());
        reply[4..8].copy_from_slice(&body[4..8]);
        reply[8..32].copy_from_slice(&nonce);
        reply[32..48].copy_from_slice(&cookie.0);
        let (key, nonce) = xchacha(&self.cookie, &nonce);
        let mut tag = [0; 16];
        key.seal(nonce, mac1, &mut reply[32..48], &mut tag);
        reply[48..].copy_from_slice(&tag);
        reply
    }

    /// The cookie in `reply`, which answers the message whose first MAC was `mac1_sent`. None if
    /// `reply` is not a cookie reply, or is not authentic for that message.
    pub fn open_reply(
        &self,
        reply: &[u8; COOKIE_REPLY_LEN],
        mac1_sent: &[u8; MAC_LEN],
    ) -> Option<Cookie> {
        if reply[..4] != MESSAGE_COOKIE_REPLY.to_le_bytes() {
            return None;
        }
        let (nonce, rest) = reply[8..].split_first_chunk()?;
        let (sealed, tag) = rest.split_first_chunk()?;
        let mut cookie = Cookie(*sealed);
        let (key, nonce) = xchacha(&self.cookie, nonce);
        let tag = tag.first_chunk()?;
        key.open(nonce, mac1_sent, &mut cookie.0, tag)
            .then_some(cookie)
    }
}

/// A proof of address ownership: a receiver under load sends it, and the sender must then use it in
/// mac2.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Cookie([u8; MAC_LEN]);

impl Cookie {
    /// The cookie for `source`: the address and port that a message came from, in any encoding that
    /// is always the same for the same address.
    pub fn derive(secret: &CookieSecret, source: &[u8]) -> Self {
        Self(mac(&secret.0, source))
    }

    /// Whether the second MAC of a complete message was made with this cookie. False if the message
    /// is too short for MACs, and at once if its sender had no cookie.
    #[must_use]
    pub fn verify_mac2(&self, msg: &[u8]) -> bool {
        msg.split_last_chunk::<MAC_LEN>()
            .is_some_and(|(signed, mac2)| {
                *mac2 != [0; MAC_LEN] && mac(&self.0, signed).ct_eq(mac2).into()
            })
    }
}

/// The secret that cookies are derived from. The caller makes a new one every two minutes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CookieSecret([u8; 32]);

impl CookieSecret {
    /// A secret from 32 random bytes.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let secret = Self(bytes);
        bytes.zeroize();
        secret
    }
}

redacted!(MacKeys, Cookie, CookieSecret);

/// The key and the nonce of ChaCha20-Poly1305 that XChaCha20-Poly1305 uses for its key and nonce
/// (draft-irtf-cfrg-xchacha, section 2.3). No cookie key is secret, as it is derived from a public key.
fn xchacha(key: &[u8; 32], nonce: &[u8; 24]) -> (Key, [u8; 12]) {
    let (first, last) = nonce.split_first_chunk::<16>().expect("it has 24 bytes");
    let subkey = hchacha::<R20>(key.into(), first.into());
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(last);
    (Key::new(&subkey.into()), nonce)
}

/// The bytes before the MACs, and the two MACs. None if the message is too short.
fn split(msg: &[u8]) -> Option<(&[u8], &[u8; MAC_LEN], &[u8; MAC_LEN])> {
    let (signed, mac2) = msg.split_last_chunk()?;
    let (body, mac1) = signed.split_last_chunk()?;
    Some((body, mac1, mac2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> MacKeys {
        MacKeys::new(&PublicKey::from_bytes([9; 32]))
    }

    fn cookie(source: &[u8]) -> Cookie {
        Cookie::derive(&CookieSecret::from_bytes([5; 32]), source)
    }

    #[test]
    fn signed_messages_verify() {
        let mut message = [0xff; 92];
        let mac1 = keys().sign(&mut message, None);
        assert!(keys().verify_mac1(&message));
        assert_eq!(
            (&message[60..76], &message[76..]),
            (&mac1[..], &[0; 16][..])
        );
        assert!(!cookie(b"a").verify_mac2(&message));

        keys().sign(&mut message, Some(&cookie(b"a")));
        assert!(keys().verify_mac1(&message) && cookie(b"a").verify_mac2(&message));
        assert!(!cookie(b"b").verify_mac2(&message));
        let other = Cookie::derive(&CookieSecret::from_bytes([6; 32]), b"a");
        assert!(!other.verify_mac2(&message));
        assert!(!MacKeys::new(&PublicKey::from_bytes([8; 32])).verify_mac1(&message));
    }

    #[test]
    fn every_flipped_bit_invalidates_a_mac() {
        let mut message = [0xff; 92];
        keys().sign(&mut message, Some(&cookie(b"a")));
        for bit in 0..92 * 8 {
            message[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys().verify_mac1(&message), bit >= 76 * 8, "bit {bit}");
            assert!(!cookie(b"a").verify_mac2(&message), "bit {bit}");
            message[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn short_messages_are_refused() {
        for len in 0..32 {
            assert!(!keys().verify_mac1(&vec![0; len]));
        }
        for len in 0..16 {
            assert!(!cookie(b"a").verify_mac2(&vec![0; len]));
        }
    }

    #[test]
    fn only_the_sender_can_open_a_reply() {
        let mut message = [0xff; 148];
        message[4..8].copy_from_slice(&[1, 2, 3, 4]);
        let mac1 = keys().sign(&mut message, None);
        let reply = keys().create_reply(&message, &cookie(b"a"), [7; 24]);
        assert_eq!(reply[..8], [3, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(reply[8..32], [7; 24]);
        assert_ne!(reply[32..48], cookie(b"a").0);
        assert_eq!(keys().open_reply(&reply, &mac1).unwrap().0, cookie(b"a").0);

        assert!(keys().open_reply(&reply, &[0; 16]).is_none());
        let other = MacKeys::new(&PublicKey::from_bytes([8; 32]));
        assert!(other.open_reply(&reply, &mac1).is_none());
    }

    /// The receiver's index is not authenticated by the reply itself: the caller uses it to find
    /// the message that is answered, and the mac1 of that message must then match.
    #[test]
    fn every_flipped_bit_of_a_reply_is_refused() {
        let mut message = [0xff; 148];
        let mac1 = keys().sign(&mut message, None);
        let reply = keys().create_reply(&message, &cookie(b"a"), [7; 24]);
        for bit in 0..COOKIE_REPLY_LEN * 8 {
            let mut changed = reply;
            changed[bit / 8] ^= 1 << (bit % 8);
            let is_index = (32..64).contains(&bit);
            assert_eq!(
                keys().open_reply(&changed, &mac1).is_some(),
                is_index,
                "bit {bit}"
            );
        }
    }

    /// The crate `chacha20poly1305` has another implementation.
    #[test]
    fn replies_are_sealed_by_xchacha20_poly1305() {
        use chacha20poly1305::{KeyInit, XChaCha20Poly1305, aead::AeadInOut};
        for n in 0..64 {
            let keys = MacKeys::new(&PublicKey::from_bytes([n; 32]));
            let mut message = [n ^ 0x55; 148];
            let mac1 = keys.sign(&mut message, None);
            let nonce = std::array::from_fn(|i| n.wrapping_mul(i as u8 + 3));
            let reply = keys.create_reply(&message, &cookie(&[n]), nonce);
            let mut sealed = cookie(&[n]).0;
            let tag = XChaCha20Poly1305::new(&keys.cookie.into())
                .encrypt_inout_detached(&nonce.into(), &mac1, sealed.as_mut_slice().into())
                .unwrap();
            assert_eq!((&reply[32..48], &reply[48..]), (&sealed[..], &tag[..]));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = CookieSecret::from_bytes([5; 32]);
        let text = format!("{:?} {:?} {secret:?}", keys(), cookie(b"a"));
        assert_eq!(text, "MacKeys(..) Cookie(..) CookieSecret(..)");
    }
}
