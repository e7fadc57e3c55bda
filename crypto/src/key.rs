//! The three kinds of keys, 32 bytes each, and their text forms.
//!
//! Secret keys are wiped when dropped, compared in constant time, and never printed: `Debug` shows
//! only the type, and no error contains the text that it is about.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::encoding;

pub use crate::encoding::KeyError;

/// A Curve25519 private key, clamped (RFC 7748 section 5).
///
/// All-zero bytes are kept: the configuration interfaces use them for "no key" (see
/// [`PrivateKey::is_zero`]).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

/// A Curve25519 public key: any 32 bytes (RFC 7748 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// The optional symmetric key that two peers share. The default, zero, means no key.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl PrivateKey {
    /// A private key from `bytes`, which are clamped unless they are all zero.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        if !is_zero(&bytes) {
            bytes[0] &= 248;
            bytes[31] = bytes[31] & 127 | 64;
        }
        let key = Self(bytes);
        bytes.zeroize();
        key
    }
}

impl PublicKey {
    /// A public key from any 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl PresharedKey {
    /// A preshared key from any 32 bytes.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let key = Self(bytes);
        bytes.zeroize();
        key
    }
}

macro_rules! forms {
    ($key:ident, $text:ty) => {
        impl $key {
            /// The 32 bytes of the key.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads the base64 form: exactly 44 characters, with zero spare bits.
            ///
            /// # Errors
            /// [`KeyError::Base64Length`] or [`KeyError::Base64`].
            pub fn from_base64(text: &str) -> Result<Self, KeyError> {
                Ok(Self::from_bytes(*encoding::base64_decode(text)?))
            }

            /// Reads the hexadecimal form: exactly 64 digits, in upper or lower case.
            ///
            /// # Errors
            /// [`KeyError::HexLength`] or [`KeyError::Hex`].
            pub fn from_hex(text: &str) -> Result<Self, KeyError> {
                Ok(Self::from_bytes(*encoding::hex_decode(text)?))
            }

            /// The base64 form: 44 characters.
            pub fn to_base64(&self) -> $text {
                encoding::base64_encode(&self.0).into()
            }

            /// The hexadecimal form: 64 lower-case digits.
            pub fn to_hex(&self) -> $text {
                encoding::hex_encode(&self.0).into()
            }

            /// Whether all 32 bytes are zero.
            pub fn is_zero(&self) -> bool {
                is_zero(&self.0)
            }
        }
    };
}
forms!(PrivateKey, Zeroizing<String>);
forms!(PublicKey, String);
forms!(PresharedKey, Zeroizing<String>);

macro_rules! secret {
    ($key:ident) => {
        impl PartialEq for $key {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $key {}

        redacted!($key);
    };
}
secret!(PrivateKey);
secret!(PresharedKey);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_base64())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_base64())
    }
}

fn is_zero(bytes: &[u8; 32]) -> bool {
    bytes.ct_eq(&[0; 32]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_clamped() {
        let key = PrivateKey::from_bytes([0xff; 32]);
        let mut clamped = [0xff; 32];
        (clamped[0], clamped[31]) = (0xf8, 0x7f);
        assert_eq!(key.as_bytes(), &clamped);
        let text = encoding::base64_encode(&[0xff; 32]);
        assert_eq!(
            *PrivateKey::from_base64(&text).unwrap().to_base64(),
            encoding::base64_encode(&clamped)
        );
        assert_eq!(
            *PrivateKey::from_hex(&"ff".repeat(32)).unwrap().to_hex(),
            encoding::hex_encode(&clamped)
        );
    }

    #[test]
    fn clamping_does_not_change_the_public_key() {
        let mut bytes = [0x07; 32];
        bytes[31] = 0xff;
        let raw = PrivateKey(bytes);
        assert_eq!(raw.public_key(), PrivateKey::from_bytes(bytes).public_key());
    }

    #[test]
    fn zero_keys_are_kept_and_recognised() {
        assert!(PrivateKey::from_bytes([0; 32]).is_zero());
        assert!(PresharedKey::default().is_zero());
        assert!(!PresharedKey::from_bytes([1; 32]).is_zero());
        let mut one = [0; 32];
        one[0] = 1;
        assert!(!PrivateKey::from_bytes(one).is_zero());
    }

    #[test]
    fn neither_debug_nor_an_error_shows_a_secret() {
        let key = PrivateKey::from_bytes([0x41; 32]);
        let psk = PresharedKey::from_bytes([0x41; 32]);
        assert_eq!(format!("{key:?} {key:#?}"), "PrivateKey(..) PrivateKey(..)");
        assert_eq!(
            format!("{psk:?} {psk:#?}"),
            "PresharedKey(..) PresharedKey(..)"
        );
        let text = "oJ7v3VvCvK1kG0hS4mWvQW3t0C2kz3zQmJ5cJz9R8E!=";
        let error = PrivateKey::from_base64(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("oJ7v"));
    }

    #[test]
    fn a_public_key_prints_as_base64() {
        let key = PublicKey::from_bytes([0; 32]);
        assert_eq!(
            format!("{key:?}"),
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        );
        assert_eq!(format!("{key}"), format!("{key:?}"));
        assert_eq!(PublicKey::from_base64(&key.to_base64()), Ok(key));
        assert_eq!(PublicKey::from_hex(&key.to_hex()), Ok(key));
    }
}
