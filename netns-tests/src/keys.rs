//! Keys in the three forms that the tools use: bytes, hex (UAPI) and base64 (`wg`).

use std::fmt;
use std::fs::File;
use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use boringtun::x25519::{PublicKey, StaticSecret};

/// 32 bytes: a private, public or preshared key. These keys are used only in a lab, so they may be
/// printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// A random key, not clamped.
    pub fn random() -> Key {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .expect("/dev/urandom is readable");
        Key(bytes)
    }

    /// The public key that belongs to this private key.
    pub fn public(&self) -> Key {
        Key(PublicKey::from(&StaticSecret::from(self.0)).to_bytes())
    }

    /// 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Key> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
        }
        Some(Key(bytes))
    }

    /// Reads 44 characters of base64.
    pub fn from_base64(text: &str) -> Option<Key> {
        Some(Key(BASE64_STANDARD.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A private key and its public key.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// The private key, clamped like one of `wg genkey`.
    pub private: Key,
    /// The public key for it.
    pub public: Key,
}

impl Keys {
    /// A new pair.
    pub fn generate() -> Keys {
        let mut private = Key::random();
        private.0[0] &= 248;
        private.0[31] = private.0[31] & 127 | 64;
        Keys {
            private,
            public: private.public(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        // The answer of `wg pubkey` to a key of zeros.
        let zero = Key([0; 32]).public();
        assert_eq!(
            zero.to_string(),
            "L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q="
        );
        assert_eq!(Key::from_base64(&zero.to_string()), Some(zero));
        assert_eq!(Key::from_hex(&zero.hex()), Some(zero));
        assert_eq!(Key::from_hex(&zero.hex()[1..]), None);
    }
}
