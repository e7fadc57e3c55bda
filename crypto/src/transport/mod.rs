//! Data messages: sealed and opened in place, alone or as a burst.
//!
//! ```text
//! datagram: | 4 0 0 0 | receiver u32 | counter u64 | body … | tag 16 |      little-endian
//! burst:    | datagram 0 | datagram 1 | … | the last, may be shorter |      `stride` bytes each
//! ```
//!
//! The nonce is four zero bytes and the counter (paper, section 5.4.6). There is no associated
//! data, so the type and the receiver in the header are not authenticated; the counter is, as part
//! of the nonce. Keys are shared by reference, so any thread may work on a burst. Nothing here
//! allocates, except for `accepted` when it has to grow.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;

pub use backend::AeadBackend;

use crate::aead;
use backend::Key;

/// Length of the header in bytes: type, receiver, counter.
pub const HEADER: usize = 16;
/// Length of the tag in bytes.
pub const TAG: usize = aead::TAG;

/// Type field of a data message.
const MESSAGE_DATA: u32 = 4;

/// Packets of a burst that are processed at once.
const GROUP: usize = 16;

/// The key for packets that this side sends.
pub struct SealingKey(Key);

/// The key for packets that this side receives.
pub struct OpeningKey(Key);

/// One packet to seal or open. The borrows guarantee that packets do not overlap.
#[derive(Default)]
struct Packet<'a> {
    counter: u64,
    body: &'a mut [u8],
    /// [`TAG`] bytes; empty in an unused entry.
    tag: &'a mut [u8],
}

impl SealingKey {
    /// A key from the 32 bytes that a handshake derived. A test may use any bytes.
    pub fn new(backend: AeadBackend, key: &[u8; 32]) -> Self {
        Self(Key::new(backend, key))
    }

    /// Seals `datagram`: [`HEADER`] bytes, the body, and [`TAG`] bytes. Writes the header and the
    /// tag. A counter must never be used twice with one key.
    ///
    /// # Panics
    /// If `datagram` is too short for header and tag.
    #[inline]
    pub fn seal(&self, receiver: u32, counter: u64, datagram: &mut [u8]) {
        let (body, tag) = to_seal(receiver, counter, datagram);
        self.0.seal(counter, body, tag);
    }

    /// Seals datagrams of `stride` bytes each, of which the last may be shorter, with the counters
    /// `first`, `first + 1`, ….
    ///
    /// # Panics
    /// If a datagram, including the last, is too short for header and tag, or if the counters
    /// overflow.
    pub fn seal_burst(&self, receiver: u32, first: u64, burst: &mut [u8], stride: usize) {
        if burst.is_empty() {
            return;
        }
        let count = burst.len().div_ceil(stride) as u64;
        assert!(first.checked_add(count).is_some(), "counters overflow");
        // A lone packet often finds the caches cold, so it takes the way with the least code.
        if count == 1 {
            return self.seal(receiver, first, burst);
        }
        let mut counters = first..;
        for group in burst.chunks_mut(stride.saturating_mul(GROUP)) {
            let mut packets = <[Packet; GROUP]>::default();
            let mut len = 0;
            for (datagram, counter) in group.chunks_mut(stride).zip(&mut counters) {
                let (body, tag) = to_seal(receiver, counter, datagram);
                packets[len] = Packet { counter, body, tag };
                len += 1;
            }
            self.0.seal_group(&mut packets[..len]);
        }
    }
}

impl OpeningKey {
    /// A key from the 32 bytes that a handshake derived. A test may use any bytes.
    pub fn new(backend: AeadBackend, key: &[u8; 32]) -> Self {
        Self(Key::new(backend, key))
    }

    /// Opens `datagram` with the counter in its header. The plaintext replaces the ciphertext, at
    /// `HEADER..len - TAG`; header and tag do not change. Returns false if the datagram is too
    /// short or not authentic.
    ///
    /// The body of a refused datagram is lost: it may have been overwritten (never with plaintext),
    /// so it cannot be opened with another key.
    #[inline]
    #[must_use]
    pub fn open(&self, datagram: &mut [u8]) -> bool {
        to_open(datagram).is_some_and(|(counter, body, tag)| self.0.open(counter, body, tag))
    }

    /// Opens datagrams of `stride` bytes each, of which the last may be shorter. `accepted` is
    /// replaced by one entry for each datagram, in order. A refused datagram does not affect the
    /// others.
    pub fn open_burst(&self, burst: &mut [u8], stride: usize, accepted: &mut Vec<bool>) {
        accepted.clear();
        if burst.is_empty() {
            return;
        }
        // As in `seal_burst`.
        if burst.len() <= stride {
            return accepted.push(self.open(burst));
        }
        for group in burst.chunks_mut(stride.saturating_mul(GROUP)) {
            let mut packets = <[Packet; GROUP]>::default();
            let (mut len, start) = (0, accepted.len());
            for datagram in group.chunks_mut(stride) {
                let parts = to_open(datagram);
                accepted.push(parts.is_some());
                if let Some((counter, body, tag)) = parts {
                    packets[len] = Packet { counter, body, tag };
                    len += 1;
                }
            }
            let mut authentic = self.0.open_group(&mut packets[..len]);
            for accepted in accepted[start..].iter_mut().filter(|has_room| **has_room) {
                *accepted = authentic & 1 == 1;
                authentic >>= 1;
            }
        }
    }
}

redacted!(SealingKey, OpeningKey);

/// Writes the header; returns the body and the space for the tag.
#[inline]
fn to_seal(receiver: u32, counter: u64, datagram: &mut [u8]) -> (&mut [u8], &mut [u8; TAG]) {
    let (header, body, tag) = parts(datagram).expect("datagram too short for header and tag");
    header[..4].copy_from_slice(&MESSAGE_DATA.to_le_bytes());
    header[4..8].copy_from_slice(&receiver.to_le_bytes());
    header[8..].copy_from_slice(&counter.to_le_bytes());
    (body, tag)
}

/// The counter in the header, the body and the tag. None if the datagram is too short.
#[inline]
fn to_open(datagram: &mut [u8]) -> Option<(u64, &mut [u8], &mut [u8; TAG])> {
    let (header, body, tag) = parts(datagram)?;
    let counter = u64::from_le_bytes(*header.last_chunk()?);
    Some((counter, body, tag))
}

/// Header, body and tag. None if the datagram is too short for header and tag.
#[inline]
fn parts(datagram: &mut [u8]) -> Option<(&mut [u8; HEADER], &mut [u8], &mut [u8; TAG])> {
    let (header, rest) = datagram.split_first_chunk_mut()?;
    let (body, tag) = rest.split_last_chunk_mut()?;
    Some((header, body, tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit, aead::AeadInOut};
    use rand::{Rng, RngCore, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    /// The backend that a program uses by default.
    fn backend() -> AeadBackend {
        AeadBackend::fastest()
    }

    fn pair(rng: &mut ChaCha20Rng) -> ([u8; 32], SealingKey, OpeningKey) {
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        (
            key,
            SealingKey::new(backend(), &key),
            OpeningKey::new(backend(), &key),
        )
    }

    fn filled(rng: &mut ChaCha20Rng, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rng.fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn keys_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<SealingKey>();
        shared::<OpeningKey>();
    }

    #[test]
    fn agrees_with_another_implementation() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let lens: Vec<usize> = (0..300).chain((0..40).map(|i| 300 + i * 229)).collect();
        for len in lens {
            let (key, sealing, opening) = pair(&mut rng);
            let (receiver, counter) =
                (rng.random(), rng.random::<u64>() >> rng.random_range(0..64));
            let mut ours = filled(&mut rng, HEADER + len + TAG);

            let mut expected = vec![4, 0, 0, 0];
            expected.extend(u32::to_le_bytes(receiver));
            expected.extend(u64::to_le_bytes(counter));
            let plain = ours[HEADER..HEADER + len].to_vec();
            let mut body = plain.clone();
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&counter.to_le_bytes());
            let tag = ChaCha20Poly1305::new(&key.into())
                .encrypt_inout_detached(&nonce.into(), &[], body.as_mut_slice().into())
                .unwrap();
            expected.extend(body);
            expected.extend(tag);

            sealing.seal(receiver, counter, &mut ours);
            assert_eq!(ours, expected, "{len} bytes");
            assert!(opening.open(&mut ours));
            assert_eq!(ours[HEADER..HEADER + len], plain);
            assert_eq!(ours[..HEADER], expected[..HEADER]);
            assert_eq!(ours[HEADER + len..], expected[HEADER + len..]);
        }
    }

    #[test]
    fn a_burst_gives_the_same_bytes_as_single_packets() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for round in 0..300 {
            let (_, sealing, opening) = pair(&mut rng);
            let stride = rng.random_range(HEADER + TAG..if round % 10 == 0 { 1500 } else { 200 });
            let last = rng.random_range(HEADER + TAG..=stride);
            let count = rng.random_range(1..50);
            let plain = filled(&mut rng, stride * (count - 1) + last);
            let first = if rng.random() {
                rng.random::<u64>() >> 1
            } else {
                u64::MAX - 60
            };
            let mut burst = plain.clone();
            let mut singles = plain.clone();
            sealing.seal_burst(7, first, &mut burst, stride);
            for (i, datagram) in singles.chunks_mut(stride).enumerate() {
                sealing.seal(7, first + i as u64, datagram);
            }
            assert_eq!(burst, singles);

            let mut accepted = vec![false; 3];
            opening.open_burst(&mut burst, stride, &mut accepted);
            assert_eq!(accepted, vec![true; count]);
            assert!(
                singles
                    .chunks_mut(stride)
                    .all(|datagram| opening.open(datagram))
            );
            assert_eq!(burst, singles);
            for (opened, plain) in burst.chunks(stride).zip(plain.chunks(stride)) {
                let body = HEADER..plain.len() - TAG;
                assert_eq!(opened[body.clone()], plain[body]);
            }
        }
    }

    #[test]
    fn only_tampered_packets_of_a_burst_are_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        let mut accepted = Vec::new();
        for _ in 0..300 {
            let (_, sealing, opening) = pair(&mut rng);
            let stride = rng.random_range(HEADER + TAG + 1..300);
            let count = rng.random_range(1..50);
            let plain = filled(&mut rng, stride * count);
            let mut burst = plain.clone();
            sealing.seal_burst(7, 1000, &mut burst, stride);
            let intact: Vec<bool> = (0..count).map(|_| rng.random_bool(0.7)).collect();
            for (datagram, intact) in burst.chunks_mut(stride).zip(&intact) {
                if !intact {
                    // Any byte from the counter on: type and receiver are not authenticated.
                    let at = rng.random_range(8..stride);
                    datagram[at] ^= 1 << rng.random_range(0..8);
                }
            }
            opening.open_burst(&mut burst, stride, &mut accepted);
            assert_eq!(accepted, intact);
            for ((opened, plain), intact) in
                burst.chunks(stride).zip(plain.chunks(stride)).zip(&intact)
            {
                let body = HEADER..stride - TAG;
                // A single byte may match by chance.
                if *intact || body.len() > 8 {
                    assert_eq!(opened[body.clone()] == plain[body], *intact);
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        let (_, sealing, opening) = pair(&mut rng);
        for len in [0, 1, 16, 33] {
            let mut sealed = vec![0; HEADER + len + TAG];
            sealing.seal(1, 2, &mut sealed);
            for bit in 0..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let authenticated = bit >= 64;
                assert_eq!(
                    opening.open(&mut changed),
                    !authenticated,
                    "bit {bit} of {len}"
                );
            }
        }
    }

    #[test]
    fn truncated_and_extended_datagrams_are_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(6);
        let (_, sealing, opening) = pair(&mut rng);
        let mut sealed = vec![0; HEADER + 40 + TAG];
        sealing.seal(1, 2, &mut sealed);
        for len in 0..sealed.len() {
            assert!(!opening.open(&mut sealed[..len].to_vec()), "{len} bytes");
        }
        assert!(!opening.open(&mut [sealed.as_slice(), &[0]].concat()));
        assert!(opening.open(&mut sealed));
    }

    #[test]
    fn only_a_too_short_last_packet_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let (_, sealing, opening) = pair(&mut rng);
        let mut burst = vec![0; 100 * 3];
        sealing.seal_burst(1, 0, &mut burst, 100);
        let mut accepted = Vec::new();
        opening.open_burst(&mut burst[..231], 100, &mut accepted);
        assert_eq!(accepted, [true, true, false]);
        opening.open_burst(&mut [], 100, &mut accepted);
        assert!(accepted.is_empty());
    }

    #[test]
    fn another_key_or_counter_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        let (_, sealing, opening) = pair(&mut rng);
        let (_, _, other) = pair(&mut rng);
        let mut sealed = vec![0; 64];
        sealing.seal(1, 2, &mut sealed);
        assert!(!other.open(&mut sealed.clone()));
        sealed[8] = 3;
        assert!(!opening.open(&mut sealed));
    }

    #[test]
    #[should_panic = "datagram too short for header and tag"]
    fn sealing_a_too_short_datagram_panics() {
        SealingKey::new(backend(), &[0; 32]).seal(0, 0, &mut [0; HEADER + TAG - 1]);
    }

    #[test]
    #[should_panic = "counters overflow"]
    fn sealing_panics_before_the_counter_overflows() {
        SealingKey::new(backend(), &[0; 32]).seal_burst(0, u64::MAX - 1, &mut [0; 96], 32);
    }

    #[test]
    fn debug_shows_no_key() {
        let (sealing, opening) = (
            SealingKey::new(backend(), &[65; 32]),
            OpeningKey::new(backend(), &[65; 32]),
        );
        assert_eq!(
            format!("{sealing:?} {opening:?}"),
            "SealingKey(..) OpeningKey(..)"
        );
    }
}
