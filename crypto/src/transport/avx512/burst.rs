//! Up to sixteen packets at once, each under its own counter.
//!
//! ```text
//! key pass:   | block 0 of packet 0 | of packet 1 | … | of packet n | blocks of leftovers … |
//!               by words: the lanes already hold r and s of eight packets
//! seal:       key pass, data passes, tags of 8 packets, tags of the other 8
//! open:       key pass, tags, comparison; data passes for authentic packets only
//! ```

use std::arch::x86_64::*;

use zeroize::Zeroizing;

use super::chacha::{Words, transpose};
use super::passes::{Batch, Leftovers, Passes};
use super::poly1305_packets::{Keys, LANES};
use super::vector::{V, load, store};
use super::{GROUP, Packet};

/// The result of the key pass: the Poly1305 keys, and keystream in the lanes that remain. It is
/// written in its final place, because a moved value leaves a copy that is not wiped.
struct KeyPass {
    keys: [Keys; 2],
    batch: Batch,
    words: Zeroizing<[V; 16]>,
}

impl KeyPass {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn empty() -> Self {
        Self {
            keys: [Keys::empty(), Keys::empty()],
            batch: Batch::default(),
            words: Zeroizing::new([_mm512_setzero_si512(); 16]),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn run(&mut self, key: &Words, packets: &[Packet], leftovers: &mut Leftovers) {
        self.batch = Batch::with_keys(packets, leftovers);
        *self.words = self.batch.by_words(key);
        let mut halves = Zeroizing::new([[_mm256_setzero_si256(); 8]; 2]);
        for (i, word) in self.words[..8].iter().enumerate() {
            halves[0][i] = _mm512_castsi512_si256(*word);
            halves[1][i] = _mm512_extracti64x4_epi64::<1>(*word);
        }
        let eights = packets.chunks(LANES);
        for ((keys, words), _) in self.keys.iter_mut().zip(halves.iter()).zip(eights) {
            keys.set(words);
        }
    }

    /// The tags of all packets, in halves, eight at a time.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn tags(&self, packets: &[Packet]) -> [[V; 2]; 2] {
        let mut tags = [[_mm512_setzero_si512(); 2]; 2];
        for ((tags, keys), packets) in tags.iter_mut().zip(&self.keys).zip(packets.chunks(LANES)) {
            *tags = keys.tags(packets);
        }
        tags
    }

    /// Combines all text with its keystream (XOR).
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn combine(&self, key: &Words, packets: &mut [Packet], leftovers: Leftovers) {
        if self.batch.len() > packets.len() {
            self.batch
                .combine(packets, &*Zeroizing::new(transpose(&self.words)));
        }
        Passes::new(key).run(packets, leftovers);
    }
}

/// Seals the packets and writes their tags.
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn seal(key: &Words, packets: &mut [Packet]) {
    let mut leftovers = Leftovers::default();
    let mut first = KeyPass::empty();
    first.run(key, packets, &mut leftovers);
    first.combine(key, packets, leftovers);
    let tags = first.tags(packets);
    for (packets, tags) in packets.chunks_mut(LANES).zip(tags) {
        let mut halves = [[0; LANES]; 2];
        store(&mut halves[0], tags[0]);
        store(&mut halves[1], tags[1]);
        for (i, packet) in packets.iter_mut().enumerate() {
            packet.tag[..8].copy_from_slice(&u64::to_le_bytes(halves[0][i]));
            packet.tag[8..].copy_from_slice(&u64::to_le_bytes(halves[1][i]));
        }
    }
}

/// Opens the packets. Returns one bit for each packet: whether it is authentic. Refused packets do
/// not change.
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn open(key: &Words, packets: &mut [Packet]) -> u16 {
    let mut leftovers = Leftovers::default();
    let mut first = KeyPass::empty();
    first.run(key, packets, &mut leftovers);
    let mut authentic = 0;
    let tags = first.tags(packets);
    for (eight, (packets, tags)) in packets.chunks_mut(LANES).zip(tags).enumerate() {
        let mut halves = [[0; LANES]; 2];
        for (i, packet) in packets.iter_mut().enumerate() {
            let (words, _) = packet.tag.as_chunks();
            [halves[0][i], halves[1][i]] = [words[0], words[1]].map(u64::from_le_bytes);
        }
        let low = _mm512_xor_si512(tags[0], load(&halves[0]));
        let high = _mm512_xor_si512(tags[1], load(&halves[1]));
        let wrong = _mm512_or_si512(low, high);
        let right = u16::from(_mm512_testn_epi64_mask(wrong, wrong)) & ((1 << packets.len()) - 1);
        authentic |= right << (LANES * eight);
        for (i, packet) in packets.iter_mut().enumerate() {
            if right >> i & 1 == 0 {
                // The later passes skip the text of a refused packet.
                packet.body = &mut [];
            }
        }
    }
    first.combine(key, packets, leftovers);
    authentic
}

const _: () = assert!(GROUP == 2 * LANES);
