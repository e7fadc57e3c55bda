//! Base64 and hex of 32 bytes, strict, in constant time.
//!
//! Secrets pass through here, so no branch and no table index depends on a character or a byte:
//! ranges are told by the sign of a difference, and a bad character only raises a flag that is
//! looked at once, at the end. Lengths are public.

use zeroize::Zeroizing;

use crate::key::KeyError;

/// Characters of the base64 form, its one `=` included.
const BASE64_LEN: usize = 44;
/// Characters of the hex form.
const HEX_LEN: usize = 64;

/// RFC 4648 section 4, with padding, and with the two spare bits zero (section 3.5).
pub(crate) fn base64_decode(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let text: &[u8; BASE64_LEN] = text
        .as_bytes()
        .try_into()
        .map_err(|_| KeyError::Base64Length(text.len()))?;
    let mut bytes = Zeroizing::new([0; 32]);
    let mut bad = i32::from(text[BASE64_LEN - 1] ^ b'=');
    for (i, four) in text.chunks_exact(4).enumerate() {
        let mut bits = 0;
        for (j, &c) in four.iter().enumerate() {
            let is_pad = 4 * i + j == BASE64_LEN - 1;
            let value = if is_pad { 0 } else { base64_value(c) };
            bad |= value & !63;
            bits = bits << 6 | (value & 63);
        }
        for (j, &byte) in bits.to_be_bytes()[1..].iter().enumerate() {
            match bytes.get_mut(3 * i + j) {
                Some(out) => *out = byte,
                // The 33rd byte is the spare bits.
                None => bad |= i32::from(byte),
            }
        }
    }
    if bad == 0 {
        Ok(bytes)
    } else {
        Err(KeyError::Base64)
    }
}

pub(crate) fn base64_encode(bytes: &[u8; 32]) -> String {
    let mut text = String::with_capacity(BASE64_LEN);
    for three in bytes.chunks(3) {
        let at = |i| i32::from(three.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..=three.len() {
            text.push(base64_char(bits >> (18 - 6 * i) & 63));
        }
    }
    text.push('=');
    text
}

pub(crate) fn hex_decode(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let text: &[u8; HEX_LEN] = text
        .as_bytes()
        .try_into()
        .map_err(|_| KeyError::HexLength(text.len()))?;
    let mut bytes = Zeroizing::new([0; 32]);
    let mut bad = 0;
    for (out, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (hex_value(pair[0]), hex_value(pair[1]));
        bad |= (high | low) & !15;
        *out = (high << 4 | low) as u8;
    }
    if bad == 0 {
        Ok(bytes)
    } else {
        Err(KeyError::Hex)
    }
}

pub(crate) fn hex_encode(bytes: &[u8; 32]) -> String {
    let mut text = String::with_capacity(HEX_LEN);
    for &byte in bytes {
        text.push(hex_char(i32::from(byte >> 4)));
        text.push(hex_char(i32::from(byte & 15)));
    }
    text
}

/// All ones if `low <= c <= high`, else zero.
fn within(c: i32, low: u8, high: u8) -> i32 {
    ((i32::from(low) - 1 - c) & (c - i32::from(high) - 1)) >> 31
}

/// All ones if `v > limit`, else zero.
fn above(v: i32, limit: i32) -> i32 {
    (limit - v) >> 31
}

/// 0 to 63, or -1.
fn base64_value(c: u8) -> i32 {
    let c = i32::from(c);
    -1 + (within(c, b'A', b'Z') & (c - 64))
        + (within(c, b'a', b'z') & (c - 70))
        + (within(c, b'0', b'9') & (c + 5))
        + (within(c, b'+', b'+') & 63)
        + (within(c, b'/', b'/') & 64)
}

/// Each term is the jump in ASCII from one range of the alphabet to the next.
fn base64_char(v: i32) -> char {
    let c = v
        + 65
        + (above(v, 25) & 6)
        + (above(v, 51) & -75)
        + (above(v, 61) & -15)
        + (above(v, 62) & 3);
    char::from(c as u8)
}

/// 0 to 15, or -1.
fn hex_value(c: u8) -> i32 {
    let c = i32::from(c);
    -1 + (within(c, b'0', b'9') & (c - 47))
        + (within(c, b'a', b'f') & (c - 86))
        + (within(c, b'A', b'F') & (c - 54))
}

fn hex_char(v: i32) -> char {
    char::from((v + 48 + (above(v, 9) & 39)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rand::{Rng, RngCore, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    #[test]
    fn every_character_has_the_value_the_rfc_gives_it() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for c in 0..=255u8 {
            let base64 = alphabet
                .iter()
                .position(|&a| a == c)
                .map_or(-1, |v| v as i32);
            assert_eq!(base64_value(c), base64, "{c}");
            assert_eq!(
                hex_value(c),
                char::from(c).to_digit(16).map_or(-1, |v| v as i32),
                "{c}"
            );
        }
        for (v, &c) in alphabet.iter().enumerate() {
            assert_eq!(base64_char(v as i32), char::from(c));
        }
    }

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
    fn lengths_and_spare_bits_are_strict() {
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
