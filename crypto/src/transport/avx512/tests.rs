//! Compares this implementation with AWS-LC, byte for byte, and with a very simple Poly1305.
//!
//! A CPU without AVX-512 skips these tests and says so; `.ci/avx512` then runs them in an emulator.
//! `WG_AEAD_TEST=required` makes skipping a failure. `WG_AEAD_BURSTS` sets how many bursts are
//! tried.
//!
//! None of the AEAD vectors in RFC 8439 and in Wycheproof's set can be used: all of them have
//! associated data, or a nonce that does not begin with four zeros. Two other vectors of the RFC
//! can.

use std::array::from_fn;
use std::io::Write;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::vector::store;
use super::{Avx512, GROUP, Key, Packet, TAG, poly1305_blocks, poly1305_packets, poly1305_scalar};
use crate::transport::{AeadBackend, HEADER, OpeningKey, SealingKey, backend};

fn cpu(test: &str) -> Option<Avx512> {
    let cpu = Avx512::detect();
    if cpu.is_none() {
        assert!(
            std::env::var_os("WG_AEAD_TEST").is_none_or(|test| test != "required"),
            "this CPU has no AVX-512"
        );
        // Written directly, because the test harness captures the usual output.
        let _ = writeln!(
            std::io::stderr().lock(),
            "NOT RUN: {test}: this CPU has no AVX-512. Run .ci/avx512, which emulates one."
        );
    }
    cpu
}

fn bytes(rng: &mut ChaCha20Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// A small or a large counter, or any, in which the high half is also used.
fn counter(rng: &mut ChaCha20Rng) -> u64 {
    rng.random::<u64>() >> rng.random_range(0..64)
}

/// A key of each implementation.
fn keys(cpu: Avx512, rng: &mut ChaCha20Rng) -> (Key, backend::Key) {
    let key = rng.random();
    (
        Key::new(cpu, &key),
        backend::Key::new(AeadBackend::Library, &key),
    )
}

#[test]
fn every_length_agrees_with_the_library() {
    let Some(cpu) = cpu("every length") else {
        return;
    };
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    // The bytes around the text must not change.
    const MARGIN: usize = 80;
    for len in 0..=9000 {
        let (ours, library) = keys(cpu, &mut rng);
        let counter = counter(&mut rng);
        let plain = bytes(&mut rng, len + 2 * MARGIN);
        let text = MARGIN..MARGIN + len;
        let (mut sealed, mut expected) = (plain.clone(), plain.clone());
        let (mut tag, mut expected_tag) = ([0; TAG], [0; TAG]);
        ours.seal(counter, &mut sealed[text.clone()], &mut tag);
        library.seal(counter, &mut expected[text.clone()], &mut expected_tag);
        assert_eq!((&sealed, tag), (&expected, expected_tag), "{len} bytes");

        let mut opened = sealed.clone();
        assert!(
            ours.open(counter, &mut opened[text.clone()], &tag),
            "{len} bytes"
        );
        assert_eq!(opened, plain);

        // One wrong bit in the tag or in the text: the packet is refused and does not change.
        let mut wrong = sealed;
        let bit = rng.random_range(0..8 * (TAG + len));
        match (bit / 8).checked_sub(TAG) {
            None => tag[bit / 8] ^= 1 << (bit % 8),
            Some(at) => wrong[MARGIN + at] ^= 1 << (bit % 8),
        }
        let before = wrong.clone();
        assert!(!ours.open(counter, &mut wrong[text], &tag), "{len} bytes");
        assert_eq!(wrong, before);
    }
}

/// The lengths of the packets of a burst.
fn lens(rng: &mut ChaCha20Rng) -> Vec<usize> {
    let count = rng.random_range(1..=GROUP);
    let most = [16, 130, 600, 1500, 4000][rng.random_range(0..5)];
    let one = rng.random_range(0..=most);
    let mixed = rng.random_bool(0.3);
    let mut lens: Vec<_> = (0..count)
        .map(|_| {
            if mixed {
                rng.random_range(0..=most)
            } else {
                one
            }
        })
        .collect();
    if rng.random() {
        lens[count - 1] = rng.random_range(0..=one);
    }
    lens
}

/// The packets in `buffer`, of the given lengths, each followed by a gap and the space for a tag.
fn packets<'a>(mut buffer: &'a mut [u8], lens: &[usize], counters: &[u64]) -> Vec<Packet<'a>> {
    let mut packets = Vec::new();
    for (&len, &counter) in lens.iter().zip(counters) {
        let (_gap, rest) = buffer.split_at_mut(GAP);
        let (body, rest) = rest.split_at_mut(len);
        let (tag, rest) = rest.split_at_mut(TAG);
        packets.push(Packet { counter, body, tag });
        buffer = rest;
    }
    packets
}

const GAP: usize = 7;

#[test]
fn bursts_agree_with_the_library() {
    let Some(cpu) = cpu("bursts") else { return };
    let bursts = std::env::var("WG_AEAD_BURSTS").map_or(2000, |n| n.parse().unwrap());
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for _ in 0..bursts {
        let (ours, library) = keys(cpu, &mut rng);
        let lens = lens(&mut rng);
        let counters: Vec<u64> = match rng.random() {
            true => (counter(&mut rng) >> 1..).take(lens.len()).collect(),
            false => lens.iter().map(|_| counter(&mut rng)).collect(),
        };
        let size = lens.iter().map(|len| GAP + len + TAG).sum::<usize>() + GAP;
        let plain = bytes(&mut rng, size);
        let (mut sealed, mut expected) = (plain.clone(), plain.clone());
        ours.seal_burst(&mut packets(&mut sealed, &lens, &counters));
        library.seal_group(&mut packets(&mut expected, &lens, &counters));
        assert_eq!(sealed, expected, "{lens:?}");

        // Some packets are changed, or get another counter.
        let mut tampered = sealed.clone();
        let mut counters = counters;
        let mut right = 0;
        let mut at = 0;
        for (i, len) in lens.iter().enumerate() {
            match rng.random_range(0..10) {
                0 => counters[i] ^= 1 << rng.random_range(0..64),
                1 => {
                    let byte = at + GAP + rng.random_range(0..len + TAG);
                    tampered[byte] ^= 1 << rng.random_range(0..8);
                }
                _ => right |= 1 << i,
            }
            at += GAP + len + TAG;
        }
        let mut opened = tampered.clone();
        assert_eq!(
            ours.open_burst(&mut packets(&mut opened, &lens, &counters)),
            right
        );
        // Authentic packets are plaintext again. All other bytes, including gaps and tags, are
        // unchanged.
        let mut expected = tampered;
        let mut at = 0;
        for (i, len) in lens.iter().enumerate() {
            let text = at + GAP..at + GAP + len;
            if right >> i & 1 == 1 {
                expected[text.clone()].copy_from_slice(&plain[text]);
            }
            at += GAP + len + TAG;
        }
        assert_eq!(opened, expected, "{lens:?}");
    }
}

/// Uses the functions of the data path, with several groups and a last packet that is too short.
#[test]
fn data_messages_agree_with_the_library() {
    let Some(cpu) = cpu("data messages") else {
        return;
    };
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for round in 0..300 {
        let key = rng.random();
        let backends = [AeadBackend::Library, AeadBackend::Avx512(cpu)];
        let stride = rng.random_range(HEADER + TAG..if round % 8 == 0 { 1500 } else { 250 });
        let last = rng.random_range(HEADER + TAG..=stride);
        let count = rng.random_range(1..50);
        let plain = bytes(&mut rng, stride * (count - 1) + last);
        let first = rng.random::<u64>() >> 1;
        let [library, ours] = backends.map(|backend| {
            let mut burst = plain.clone();
            SealingKey::new(backend, &key).seal_burst(7, first, &mut burst, stride);
            burst
        });
        assert_eq!(library, ours);

        let mut burst = ours;
        for datagram in burst.chunks_mut(stride) {
            if rng.random_bool(0.2) {
                let at = rng.random_range(8..datagram.len());
                datagram[at] ^= 1;
            }
        }
        if round % 4 == 0 {
            burst.truncate(burst.len() - rng.random_range(0..stride).min(burst.len()));
        }
        let [library, ours] = backends.map(|backend| {
            let (mut opened, mut accepted) = (burst.clone(), vec![true; 3]);
            let key = OpeningKey::new(backend, &key);
            key.open_burst(&mut opened, stride, &mut accepted);
            for (datagram, accepted) in opened.chunks_mut(stride).zip(&accepted) {
                // Each implementation may leave different bytes in a refused packet.
                if !accepted {
                    datagram.fill(0);
                }
            }
            (opened, accepted)
        });
        assert_eq!(library, ours);
    }
}

/// Poly1305 with digits of eight bits, of a text and the block of its length.
fn simple_tag(key: &[u64; 4], text: &[u8]) -> [u8; 16] {
    let digits = |halves: [u64; 2]| -> [u32; 17] {
        from_fn(|i| {
            halves
                .get(i / 8)
                .map_or(0, |half| u32::from(half.to_le_bytes()[i % 8]))
        })
    };
    let add = |a: [u32; 17], b: [u32; 17]| -> [u32; 17] {
        let mut carry = 0;
        from_fn(|i| {
            carry += a[i] + b[i];
            let digit = carry & 0xff;
            carry >>= 8;
            digit
        })
    };
    let r = digits([
        key[0] & 0x0fff_fffc_0fff_ffff,
        key[1] & 0x0fff_fffc_0fff_fffc,
    ]);
    let mut padded = text.to_vec();
    padded.resize(text.len().next_multiple_of(16), 0);
    padded.extend((text.len() as u128 * (1 << 64)).to_le_bytes());
    let mut h = [0; 17];
    for block in padded.chunks(16) {
        h = add(
            h,
            from_fn(|i| block.get(i).map_or(1, |&byte| u32::from(byte))),
        );
        // Digit 17 has the weight 2^136 = 64 · 2^130, which is 320.
        let mut product: [u32; 17] = from_fn(|i| {
            let digit = |j| {
                if j <= i {
                    h[j] * r[i - j]
                } else {
                    320 * h[j] * r[17 + i - j]
                }
            };
            (0..17).map(digit).sum()
        });
        for _ in 0..2 {
            let mut carry = 0;
            for digit in &mut product {
                carry += *digit;
                *digit = carry & 0xff;
                carry >>= 8;
            }
            let around = 5 * ((product[16] | carry << 8) >> 2);
            product[16] &= 3;
            product[0] += around;
        }
        h = add(product, [0; 17]);
    }
    let five_more = add(h, digits([5, 0]));
    if five_more[16] >= 4 {
        h = five_more;
    }
    let tag = add(h, digits([key[2], key[3]]));
    from_fn(|i| tag[i] as u8)
}

/// The tags of up to eight texts, each under its own key.
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn tags_by_packets(keys: &[[u64; 4]; 8], texts: &mut [Vec<u8>]) -> [[u8; 16]; 8] {
    let words = from_fn(|word| {
        let of = |lane: usize| (keys[lane][word / 2] >> (32 * (word % 2))) as i32;
        std::arch::x86_64::_mm256_setr_epi32(of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7))
    });
    let packets: Vec<_> = texts
        .iter_mut()
        .map(|text| Packet {
            body: text,
            ..Packet::default()
        })
        .collect();
    let mut one_time = poly1305_packets::Keys::empty();
    one_time.set(&words);
    let tags = one_time.tags(&packets);
    let mut halves = [[0_u64; 8]; 2];
    store(&mut halves[0], tags[0]);
    store(&mut halves[1], tags[1]);
    from_fn(|i| (u128::from(halves[0][i]) | u128::from(halves[1][i]) << 64).to_le_bytes())
}

#[allow(unsafe_code)]
fn check_tags(_: Avx512, keys: &[[u64; 4]; 8], mut texts: Vec<Vec<u8>>) {
    // SAFETY: there is an `Avx512`, so the CPU has the features that the functions enable.
    let by_packets = unsafe { tags_by_packets(keys, &mut texts) };
    for ((key, text), by_packets) in keys.iter().zip(&texts).zip(by_packets) {
        let expected = simple_tag(key, text);
        let what = || format!("{key:x?}, {} bytes from {:x?}", text.len(), text.first());
        assert_eq!(by_packets, expected, "by packets: {}", what());
        // SAFETY: as above.
        let by_blocks = unsafe { poly1305_blocks::tag(key, text) };
        assert_eq!(by_blocks, expected, "by blocks: {}", what());
        assert_eq!(
            poly1305_scalar::tag(key, text),
            expected,
            "scalar: {}",
            what()
        );
    }
}

/// Halves of r: 0, 1, the greatest, and single or all bits on either side of a limb's edge.
fn extreme_rs() -> Vec<[u64; 2]> {
    let mut numbers = vec![0, 1, u128::MAX];
    for edge in [26, 32, 44, 52, 64, 88, 104, 124] {
        numbers.extend([
            1 << (edge - 2),
            1 << edge,
            (1 << edge) - 1,
            u128::MAX << edge,
        ]);
    }
    numbers
        .iter()
        .map(|n| [*n as u64, (n >> 64) as u64])
        .collect()
}

#[test]
fn extreme_tags_are_right() {
    let Some(cpu) = cpu("extreme tags") else {
        return;
    };
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let rs = extreme_rs();
    let ss = [[0, 0], [u64::MAX; 2], [u64::MAX, 0], [1, u64::MAX]];
    // Each r and each s is used in each lane.
    for round in 0..8 * rs.len() {
        let keys = from_fn(|lane| {
            let ([r0, r1], [s0, s1]) = (rs[(round + lane) % rs.len()], ss[(round + lane) % 4]);
            [r0, r1, s0, s1]
        });
        for fill in [0xff, 0xfb, 0xfe, 0x80, 0x00] {
            let len = rng.random_range(0..600);
            let texts =
                |len: &mut dyn FnMut() -> usize| (0..8).map(|_| vec![fill; len()]).collect();
            check_tags(cpu, &keys, texts(&mut || len));
            check_tags(cpu, &keys, texts(&mut || rng.random_range(0..600)));
        }
    }
    // All lengths, with the largest numbers.
    for len in 0..520 {
        check_tags(cpu, &[[u64::MAX; 4]; 8], vec![vec![0xff; len]; 8]);
    }
}

/// With r = 1 the number before the end is the sum of the blocks. The sums are near p, where the
/// last subtraction is decided, and near the edges of every limb.
#[test]
fn sums_at_every_edge_are_right() {
    let Some(cpu) = cpu("sums at edges") else {
        return;
    };
    for blocks in (2..40).step_by(4) {
        // Each block adds 2^128: with the length's block 3 · 2^128, and sometimes 4 · 2^128 = 5.
        let len = (blocks as u128 * 16) << 64;
        for near in [0, 44, 64, 88, 127].map(|bit| u128::MAX << bit) {
            for more in 0..60 {
                let mut text = vec![0; 16 * blocks];
                let first = near.wrapping_sub(len).wrapping_sub(30);
                text[..16].copy_from_slice(&first.to_le_bytes());
                text[16 * (blocks - 1)..].copy_from_slice(&u128::to_le_bytes(more));
                check_tags(cpu, &[[1, 0, 0, 0]; 8], vec![text; 1]);
            }
        }
    }
    for edge in [44, 88, 127] {
        for (a, b) in [(-1, 1), (-1, 2), (0, -1), (-2, 1), (-1, -1)] {
            let text: Vec<u8> = [a, b, a, b, a, b, a, b, a, b]
                .iter()
                .flat_map(|more| {
                    (1_i128 << (edge.min(126)))
                        .wrapping_add(*more)
                        .to_le_bytes()
                })
                .collect();
            check_tags(cpu, &[[1, 0, u64::MAX, u64::MAX]; 8], vec![text; 8]);
        }
    }
}

/// RFC 8439, section 2.4.2. Its nonce begins with zeros, and its text begins with block 1, like
/// ours.
#[test]
fn rfc8439_keystream() {
    let Some(cpu) = cpu("RFC 8439") else { return };
    let key = Key::new(cpu, &from_fn(|i| i as u8));
    let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for \
                  the future, sunscreen would be it.";
    let expected = concat!(
        "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b",
        "f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8",
        "07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736",
        "5af90bbf74a35be6b40b8eedf2785e42874d"
    );
    let mut text = *plain;
    key.seal(0x4a00_0000, &mut text, &mut [0; TAG]);
    assert_eq!(text.map(|byte| format!("{byte:02x}")).concat(), expected);
    let mut texts = [*plain; GROUP];
    let mut tags = [[0; TAG]; GROUP];
    let mut burst: Vec<_> = (texts.iter_mut().zip(&mut tags))
        .map(|(body, tag)| Packet {
            counter: 0x4a00_0000,
            body,
            tag,
        })
        .collect();
    key.seal_burst(&mut burst);
    assert_eq!(texts, [text; GROUP]);
}

/// RFC 8439, section 2.6.2, checked with the tag of an empty text.
#[test]
fn rfc8439_poly1305_key() {
    let Some(cpu) = cpu("RFC 8439") else { return };
    let key = Key::new(cpu, &from_fn(|i| 0x80 + i as u8));
    let one_time = [
        0xcc81_5f90_8ba0_d58a,
        0x7194_b24a_2740_5081,
        0xa50d_fde3_37b6_33a8,
        0x46a6_d1fd_e2b8_db08,
    ];
    let mut tag = [0; TAG];
    key.seal(0x0706_0504_0302_0100, &mut [], &mut tag);
    assert_eq!(tag, simple_tag(&one_time, &[]));
}

#[test]
fn an_empty_burst_does_nothing() {
    let Some(cpu) = cpu("an empty burst") else {
        return;
    };
    let key = Key::new(cpu, &[7; 32]);
    key.seal_burst(&mut []);
    assert_eq!(key.open_burst(&mut []), 0);
}
