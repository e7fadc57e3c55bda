//! The symmetric state of a handshake: a hash of all messages so far, and a key from all secrets so
//! far (the SymmetricState of the Noise framework; paper, section 5.4).

use std::sync::LazyLock;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    aead,
    hash::{hash, kdf},
    key::{PresharedKey, PublicKey},
    x25519::SharedSecret,
};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

pub(crate) type Key = Zeroizing<[u8; 32]>;

/// The chaining key C and the hash H.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Symmetric {
    chaining: [u8; 32],
    hash: [u8; 32],
}

impl Symmetric {
    pub(crate) fn new(responder: &PublicKey) -> Self {
        static START: LazyLock<([u8; 32], [u8; 32])> = LazyLock::new(|| {
            let chaining = hash(&[CONSTRUCTION]);
            (chaining, hash(&[&chaining, IDENTIFIER]))
        });
        let (chaining, start) = *START;
        Self {
            chaining,
            hash: hash(&[&start, responder.as_bytes()]),
        }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    fn mix_key<const N: usize>(&mut self, input: &[u8; 32]) -> [Key; N] {
        let outputs = kdf(&self.chaining, input);
        self.chaining = *outputs[0];
        outputs
    }

    /// Token "e". In a pattern with a psk, an ephemeral key is mixed into both the hash and the
    /// chaining key.
    pub(crate) fn mix_ephemeral(&mut self, ephemeral: &PublicKey) {
        self.mix_hash(ephemeral.as_bytes());
        let [_] = self.mix_key(ephemeral.as_bytes());
    }

    /// A Diffie-Hellman token that is followed by another token.
    pub(crate) fn mix_dh(&mut self, secret: &SharedSecret) {
        let [_] = self.mix_key(&secret.0);
    }

    /// A Diffie-Hellman token, and the key for the field that follows it.
    pub(crate) fn mix_dh_key(&mut self, secret: &SharedSecret) -> Key {
        let [_, key] = self.mix_key(&secret.0);
        key
    }

    /// Token "psk", and the key for the field that follows it.
    pub(crate) fn mix_psk(&mut self, psk: &PresharedKey) -> Key {
        let [_, temp, key] = self.mix_key(psk.as_bytes());
        self.mix_hash(temp.as_slice());
        key
    }

    /// Seals `text` into `out`. Each key seals only one field, so the nonce is zero.
    pub(crate) fn seal<const N: usize>(&mut self, key: &Key, text: &[u8], out: &mut [u8; N]) {
        let (body, tag) = out.split_last_chunk_mut().expect("room for a tag");
        body.copy_from_slice(text);
        aead::Key::new(key).seal([0; 12], &self.hash, body, tag);
        self.mix_hash(out);
    }

    /// Opens a field of `S` bytes, including its tag. None if it is not authentic.
    pub(crate) fn open<const S: usize, const N: usize>(
        &mut self,
        key: &Key,
        sealed: [u8; S],
    ) -> Option<[u8; N]> {
        const { assert!(S == N + aead::TAG) }
        let (mut text, tag) = ([0; N], sealed.last_chunk().expect("room for a tag"));
        text.copy_from_slice(&sealed[..N]);
        if !aead::Key::new(key).open([0; 12], &self.hash, &mut text, tag) {
            return None;
        }
        self.mix_hash(&sealed);
        Some(text)
    }

    /// The transport keys: from initiator to responder, and from responder to initiator.
    pub(crate) fn split(&self) -> [Key; 2] {
        kdf(&self.chaining, &[])
    }
}
