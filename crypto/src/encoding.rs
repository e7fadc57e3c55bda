//! Base64 and hex forms of 32 bytes. Decoding is strict and takes constant time for a given length,
//! because secrets pass through it.

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

/// Length of the base64 form in characters, including its one `=`.
const BASE64_LEN: usize = 44;
/// Length of the hex form in characters.
const HEX_LEN: usize = 64;

/// Why a text is not a key. The error never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The base64 form has 44 characters; the text had this many bytes.
    #[error("a base64 key has 44 characters, not {0}")]
    Base64Length(usize),
    /// The text has 44 characters but is not the base64 form of 32 bytes: it has an invalid
    /// character, no `=` at the end, or spare bits that are not zero.
    #[error("not the base64 form of a 32-byte key")]
    Base64,
    /// The hex form has 64 characters; the text had this many bytes.
    #[error("a hexadecimal key has 64 characters, not {0}")]
    HexLength(usize),
    /// The text has 64 characters, but not all are hexadecimal digits.
    #[error("not the hexadecimal form of a 32-byte key")]
    Hex,
}

/// Decodes RFC 4648 section 4: with padding, and with the two spare bits zero (section 3.5).
pub(crate) fn base64_decode(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    if text.len() != BASE64_LEN {
        return Err(KeyError::Base64Length(text.len()));
    }
    let mut bytes = Zeroizing::new([0; 32]);
    match Base64::decode(text, bytes.as_mut_slice()) {
        Ok(decoded) if decoded.len() == 32 => Ok(bytes),
        _ => Err(KeyError::Base64),
    }
}

pub(crate) fn base64_encode(bytes: &[u8; 32]) -> String {
    Base64::encode_string(bytes)
}

/// Decodes RFC 4648 section 8, in upper or lower case.
pub(crate) fn hex_decode(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    if text.len() != HEX_LEN {
        return Err(KeyError::HexLength(text.len()));
    }
    let mut bytes = Zeroizing::new([0; 32]);
    match base16ct::mixed::decode(text, bytes.as_mut_slice()) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(KeyError::Hex),
    }
}

/// Encodes in lower case.
pub(crate) fn hex_encode(bytes: &[u8; 32]) -> String {
    base16ct::lower::encode_string(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rand::{Rng, RngCore, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    #[test]
    fn agrees_with_the_base64_crate_on_good_and_bad_text() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            let text = base64_encode(&bytes);
            assert_eq!(text, STANDARD.encode(bytes));
            assert_eq!(*base64_decode(&text).unwrap(), bytes);

            let mut changed = text.into_bytes();
            changed[rng.random_range(0..44)] = rng.random_range(0..128);
            let changed = String::from_utf8(changed).unwrap();
            let theirs = STANDARD.decode(&changed).ok().filter(|b| b.len() == 32);
            let ours = base64_decode(&changed).ok().map(|b| b.to_vec());
            assert_eq!(ours, theirs, "{changed}");
            if ours.is_some() { good += 1 } else { bad += 1 }
        }
        assert!(good > 1000 && bad > 1000);
    }

    #[test]
    fn hex_reads_both_cases_and_nothing_else() {
        let bytes: [u8; 32] = std::array::from_fn(|i| (i * 37) as u8);
        let text = hex_encode(&bytes);
        let expected: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, expected);
        assert_eq!(*hex_decode(&text).unwrap(), bytes);
        assert_eq!(*hex_decode(&text.to_uppercase()).unwrap(), bytes);
        for bad in ['g', 'G', ' ', '/', ':', '@', '`', '\0', '\u{7f}'] {
            for at in [0, 31, 63] {
                let mut changed: Vec<char> = text.chars().collect();
                changed[at] = bad;
                let changed: String = changed.into_iter().collect();
                assert_eq!(hex_decode(&changed).unwrap_err(), KeyError::Hex);
            }
        }
    }

    #[test]
    fn wrong_lengths_and_spare_bits_are_refused() {
        let zero = base64_encode(&[0; 32]);
        assert_eq!(zero, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        for spare in ["B", "C", "D"] {
            let text = format!("{}{spare}=", &zero[..42]);
            assert_eq!(base64_decode(&text).unwrap_err(), KeyError::Base64);
        }
        assert_eq!(
            base64_decode(&zero[..43]).unwrap_err(),
            KeyError::Base64Length(43)
        );
        assert_eq!(
            base64_decode(&format!("{zero}\n")).unwrap_err(),
            KeyError::Base64Length(45)
        );
        assert_eq!(base64_decode("").unwrap_err(), KeyError::Base64Length(0));
        assert_eq!(
            base64_decode(&"A".repeat(44)).unwrap_err(),
            KeyError::Base64
        );
        assert_eq!(
            base64_decode(&"é".repeat(22)).unwrap_err(),
            KeyError::Base64
        );
        assert_eq!(
            hex_decode(&"0".repeat(63)).unwrap_err(),
            KeyError::HexLength(63)
        );
        assert_eq!(
            hex_decode(&"0".repeat(65)).unwrap_err(),
            KeyError::HexLength(65)
        );
    }
}
