//! ChaCha20-Poly1305 for data messages, on CPUs with AVX-512 (F, BW, DQ, VL, IFMA, VBMI2): Intel
//! Ice Lake and later, AMD Zen 4 and later.
//!
//! ```text
//! vector             memory, transposes          the only loads and stores
//! chacha             rounds, blocks              lane = block
//! poly1305           limbs, products, carries    8 lanes
//! poly1305_packets   tags of a burst             lane = packet
//! poly1305_blocks    tag of a packet             lane = block
//! poly1305_scalar    tag of a small packet
//! passes             keystream of a burst        16 blocks at a time, of any packets
//! burst, single      seal and open
//! ```
//!
//! Constant time: no branch, index or length depends on a key, keystream, text or tag, except for
//! whether a tag is right. Lengths, counters and the shape of a burst are public.
//!
//! Arrays of keystream, keys and powers of keys are wiped when they go out of scope. Registers that
//! the compiler spills are not.

mod burst;
mod chacha;
mod passes;
mod poly1305;
mod poly1305_blocks;
mod poly1305_packets;
mod poly1305_scalar;
mod single;
#[cfg(test)]
mod tests;
mod vector;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{GROUP, Packet, TAG};

/// Proof that the CPU has all required features: only [`Avx512::detect`] can create one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    /// Detects whether the CPU and the operating system support all required features.
    pub fn detect() -> Option<Self> {
        // All features that functions in this folder enable, and the features that those imply.
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("bmi2");
        all.then_some(Self(()))
    }
}

/// A key for this implementation.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Key {
    words: chacha::Words,
    #[zeroize(skip)]
    _cpu: Avx512,
}

#[allow(unsafe_code)]
impl Key {
    pub(super) fn new(cpu: Avx512, key: &[u8; 32]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { words, _cpu: cpu }
    }

    /// Seals one packet.
    pub(super) fn seal(&self, counter: u64, body: &mut [u8], tag: &mut [u8; TAG]) {
        check(body);
        // SAFETY: only `detect` creates an `Avx512`, so the CPU has the features that the function
        // enables.
        *tag = unsafe { single::seal(&self.words, counter, body) };
    }

    /// Opens one packet. A refused body does not change.
    pub(super) fn open(&self, counter: u64, body: &mut [u8], tag: &[u8; TAG]) -> bool {
        check(body);
        // SAFETY: as in `seal`.
        unsafe { single::open(&self.words, counter, body, tag) }
    }

    /// Seals up to [`GROUP`] packets at once.
    pub(super) fn seal_burst(&self, packets: &mut [Packet]) {
        check_all(packets);
        // SAFETY: as in `seal`.
        unsafe { burst::seal(&self.words, packets) }
    }

    /// Opens up to [`GROUP`] packets at once. Returns one bit for each packet: whether it is
    /// authentic. Refused bodies do not change.
    pub(super) fn open_burst(&self, packets: &mut [Packet]) -> u16 {
        check_all(packets);
        // SAFETY: as in `seal`.
        unsafe { burst::open(&self.words, packets) }
    }

    /// Whether a burst is faster than single packets: with few packets, a single one fills more
    /// lanes.
    pub(super) fn prefers_burst(packets: &[Packet]) -> bool {
        match packets {
            [] => false,
            [first, ..] if first.body.len() <= 128 => packets.len() >= 4,
            _ => packets.len() >= 6,
        }
    }
}

/// Block numbers have 32 bits. The type of the packets guarantees that they do not overlap.
fn check(body: &[u8]) {
    assert!(body.len() < 64 * (u32::MAX as usize - GROUP), "too long");
}

fn check_all(packets: &[Packet]) {
    assert!(packets.len() <= GROUP, "too many at once");
    packets.iter().for_each(|packet| check(packet.body));
}
