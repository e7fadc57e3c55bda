//! Random hosts and packets for the tests against other implementations.
#![allow(dead_code)] // Each test takes what it needs.

use rand::{Rng, RngCore};
use rand_chacha::ChaCha20Rng;
use wg_crypto::{
    HEADER, Identity, OpeningKey, PresharedKey, PrivateKey, PublicKey, SealingKey, TAG, Tai64n,
};

/// A host with a key pair.
pub struct Host {
    pub key: PrivateKey,
    pub identity: Identity,
    pub public: PublicKey,
}

impl Host {
    pub fn new(key: PrivateKey) -> Self {
        let identity = Identity::new(&key);
        let public = identity.public_key();
        Self {
            key,
            identity,
            public,
        }
    }

    pub fn random(rng: &mut ChaCha20Rng) -> Self {
        Self::new(private(rng))
    }
}

pub fn private(rng: &mut ChaCha20Rng) -> PrivateKey {
    PrivateKey::from_bytes(rng.random())
}

/// Zero, which means no key, in half of the cases.
pub fn psk(rng: &mut ChaCha20Rng) -> PresharedKey {
    if rng.random() {
        PresharedKey::from_bytes(rng.random())
    } else {
        PresharedKey::default()
    }
}

pub fn timestamp(rng: &mut ChaCha20Rng) -> Tai64n {
    Tai64n::from_unix(
        rng.random::<u32>().into(),
        rng.random_range(0..1_000_000_000),
    )
}

/// An IP packet with random content, but with the right version and length.
pub fn ip_packet(rng: &mut ChaCha20Rng) -> Vec<u8> {
    let mut packet = vec![0; rng.random_range(40..1500)];
    rng.fill_bytes(&mut packet);
    let len = packet.len() as u16;
    if rng.random() {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
    } else {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
    }
    packet
}

pub fn seal(key: &SealingKey, receiver: u32, counter: u64, plain: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; HEADER + plain.len() + TAG];
    datagram[HEADER..HEADER + plain.len()].copy_from_slice(plain);
    key.seal(receiver, counter, &mut datagram);
    datagram
}

pub fn open(key: &OpeningKey, datagram: &[u8]) -> Option<Vec<u8>> {
    let mut datagram = datagram.to_vec();
    let end = datagram.len().checked_sub(TAG)?;
    key.open(&mut datagram)
        .then(|| datagram[HEADER..end].to_vec())
}
