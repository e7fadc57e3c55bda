//! BLAKE2s (RFC 7693) in the forms that the paper's section 5.4 uses: Hash, Mac, Hmac and Kdf.

use blake2::{
    Blake2s256, Blake2sMac, Blake2sVarCore, Digest,
    digest::{FixedOutput, KeyInit, Mac, block_api::Buffer, consts::U16},
};
use zeroize::{ZeroizeOnDrop, Zeroizing};

// The states of both hashes hold keys. This fails to compile if the `blake2` crate does not wipe
// them.
const _: fn() = || {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<Blake2sVarCore>();
    wiped::<Buffer<Blake2sVarCore>>();
};

/// BLAKE2s of the concatenated `parts`: 32 bytes.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        Digest::update(&mut state, part);
    }
    state.finalize().into()
}

/// Keyed BLAKE2s: 16 bytes. The key has 1 to 32 bytes.
pub(crate) fn mac(key: &[u8], input: &[u8]) -> [u8; 16] {
    let mut state = Blake2sMac::<U16>::new_from_slice(key).expect("the key has 1 to 32 bytes");
    Mac::update(&mut state, input);
    state.finalize_fixed().into()
}

/// HMAC (RFC 2104) over BLAKE2s. The key of 32 bytes is padded with zeros to the block of 64.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let pad = |with: u8| {
        let mut block = Zeroizing::new([with; 64]);
        for (out, byte) in block.iter_mut().zip(key) {
            *out ^= byte;
        }
        block
    };
    let mut inner = Blake2s256::new_with_prefix(pad(0x36).as_slice());
    for part in parts {
        Digest::update(&mut inner, part);
    }
    let inner = Zeroizing::new(<[u8; 32]>::from(inner.finalize()));
    Zeroizing::new(hash(&[pad(0x5c).as_slice(), inner.as_slice()]))
}

/// Kdf_n: HKDF (RFC 5869) with the chaining key as salt and without info.
pub(crate) fn kdf<const N: usize>(chaining: &[u8; 32], input: &[u8]) -> [Zeroizing<[u8; 32]>; N] {
    let secret = hmac(chaining, &[input]);
    let mut outputs = std::array::from_fn(|_| Zeroizing::new([0; 32]));
    let mut previous: &[u8] = &[];
    for (i, output) in (1..).zip(&mut outputs) {
        *output = hmac(&secret, &[previous, &[i]]);
        previous = output.as_slice();
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use blake2::{
        Blake2s,
        digest::consts::{U20, U28, U32},
    };

    /// RFC 7693 appendix B.
    #[test]
    fn rfc7693_abc() {
        let expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
        assert_eq!(
            hash(&[b"abc"]),
            *crate::encoding::hex_decode(expected).unwrap()
        );
        assert_eq!(hash(&[b"a", b"", b"bc"]), hash(&[b"abc"]));
    }

    /// RFC 7693 appendix E: one hash over the keyed and unkeyed hashes of inputs of many lengths.
    /// The two forms that this crate uses (32 bytes unkeyed, 16 bytes keyed) are computed by its
    /// own functions.
    #[test]
    fn rfc7693_self_test() {
        fn sequence(len: usize) -> Vec<u8> {
            let (mut a, mut b) = (0xdead_4bad_u32.wrapping_mul(len as u32), 1u32);
            let mut next = || {
                (a, b) = (b, a.wrapping_add(b));
                (b >> 24) as u8
            };
            (0..len).map(|_| next()).collect()
        }
        fn unkeyed(len: usize, input: &[u8]) -> Vec<u8> {
            match len {
                16 => Blake2s::<U16>::digest(input).to_vec(),
                20 => Blake2s::<U20>::digest(input).to_vec(),
                28 => Blake2s::<U28>::digest(input).to_vec(),
                _ => hash(&[input]).to_vec(),
            }
        }
        fn keyed(len: usize, key: &[u8], input: &[u8]) -> Vec<u8> {
            fn of<M: Mac + KeyInit>(key: &[u8], input: &[u8]) -> Vec<u8> {
                let mac = <M as KeyInit>::new_from_slice(key).unwrap();
                mac.chain_update(input).finalize().into_bytes().to_vec()
            }
            match len {
                16 => mac(key, input).to_vec(),
                20 => of::<Blake2sMac<U20>>(key, input),
                28 => of::<Blake2sMac<U28>>(key, input),
                _ => of::<Blake2sMac<U32>>(key, input),
            }
        }
        let mut all = Vec::new();
        for out in [16, 20, 28, 32] {
            for input in [0, 3, 64, 65, 255, 1024].map(sequence) {
                all.extend(unkeyed(out, &input));
                all.extend(keyed(out, &sequence(out), &input));
            }
        }
        let expected = "6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe";
        assert_eq!(
            hash(&[&all]),
            *crate::encoding::hex_decode(expected).unwrap()
        );
    }
}
