//! Poly1305 of one packet, with one block in each lane.
//!
//! ```text
//! two rows of 64 bytes:  | lo0 hi0 lo1 hi1 lo2 hi2 lo3 hi3 | lo4 hi4 … lo7 hi7 |
//! low and high halves:   | lo0 | lo1 | … | lo7 |    | hi0 | hi1 | … | hi7 |
//! a group of 8 blocks:   h = h r^8 + group
//! two groups:            h = h r^16 + group r^8 + group
//! the last n ≤ 8:        h = | h0 r^n | h1 r^(n-1) … | + | b0 r^n | b1 r^(n-1) | … | b(n-1) r |
//!                            summed over the lanes
//! ```
//!
//! Lane i of h holds the blocks i, i + 8, i + 16, … as a polynomial in r^8 whose last coefficient
//! is not yet multiplied. When n blocks remain, lane i of h must be multiplied by r^(8 + n - i) and
//! the last block in lane i by r^(n - i). Both take their powers from one row of exponents, at
//! different offsets:
//!
//! ```text
//! exponents   16 15 … 9 | 8 7 … 1 | 0 0 … 0        (r^16 … r^1, then the number zero)
//! last blocks             ^ at 16 - n: n, n - 1, … 1, then zeros
//! h             ^ at 8 - n: n + 8, n + 7, … n + 1
//! ```

use std::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::poly1305::{Factor, Limbs, Products, high_bit};
use super::vector::{V, load, load_partial, store};

/// Bytes in a group of eight blocks.
const GROUP: usize = 128;

/// A key: the powers of r that a message needs, and the number that is added at the end.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Key {
    r8: Factor,
    r16: Factor,
    /// r^16 to r^9, and r^8 to r^1, one in each lane.
    falling: [Limbs; 2],
    s: [u64; 2],
}

/// The tag of `body` under the one-time key `key`.
#[inline(never)]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn tag(key: &[u64; 4], body: &[u8]) -> [u8; 16] {
    let key = Key::new(key);
    // At least one block remains for the end: the block of the lengths.
    let groups = body.len().div_ceil(16) / 8;
    let (whole, _) = body.as_chunks::<64>();
    let mut h = Limbs::zero();
    let mut group = 0;
    while group + 2 <= groups && 2 * group + 4 <= whole.len() {
        let rows = &whole[2 * group..2 * group + 4];
        let mut sum = Products::new(blocks(load(&rows[2]), load(&rows[3])));
        sum.add(blocks(load(&rows[0]), load(&rows[1])), &key.r8);
        sum.add(h, &key.r16);
        h = sum.carry();
        group += 2;
    }
    while group < groups {
        // 113 to 127 bytes are also eight blocks.
        let [a, b] = rows(&body[GROUP * group..]);
        let mut sum = Products::new(blocks(a, b));
        sum.add(h, &key.r8);
        h = sum.carry();
        group += 1;
    }
    key.finish(h, body, groups)
}

impl Key {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn new(key: &[u64; 4]) -> Self {
        let [low, high] = [key[0], key[1]].map(|half| _mm512_set1_epi64(half.cast_signed()));
        let r = Limbs::clamped(low, high);
        let r2 = r.times(&Factor::new(r));
        // The exponents, from the first lane: 2 1 2 1 …, then 4 3 4 3 …, 4 3 2 1 …, 8 7 6 5 ….
        let by_2 = blend(0b0101_0101, r, r2);
        let upper_2 = by_2.times(&Factor::new(r2));
        let by_4 = blend(0b0011_0011, by_2, upper_2);
        let upper_4 = by_4.times(&Factor::new(first_lane(upper_2)));
        let to_1 = blend(0b0000_1111, by_4, upper_4);
        let r8 = Factor::new(first_lane(to_1));
        let to_9 = to_1.times(&r8);
        let r16 = Factor::new(first_lane(to_9));
        Self {
            r8,
            r16,
            falling: [to_9, to_1],
            s: [key[2], key[3]],
        }
    }

    /// Adds the last blocks, including the lengths, and sums the lanes.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn finish(&self, h: Limbs, body: &[u8], groups: usize) -> [u8; 16] {
        let left = body.get(GROUP * groups..).unwrap_or(&[]);
        let count = left.len().div_ceil(16) + 1;
        let [a, b] = rows(left);
        // The high half of the last block is the length of the text. The low half, the length of
        // the associated data, is zero.
        let place = 1_u16 << (2 * count - 1);
        let len = _mm512_set1_epi64(body.len() as i64);
        let a = _mm512_mask_mov_epi64(a, place as u8, len);
        let b = _mm512_mask_mov_epi64(b, (place >> 8) as u8, len);
        let [to_9, to_1] = self.falling;
        let mut sum = Products::new(Limbs::zero());
        sum.add(
            blocks(a, b),
            &Factor::new(window(to_1, Limbs::zero(), 8 - count)),
        );
        sum.add(h, &Factor::new(window(to_9, to_1, 8 - count)));
        let Limbs(lanes) = sum.carry();
        let s = self.s.map(|half| _mm512_set1_epi64(half.cast_signed()));
        let [low, high] = Limbs(lanes.map(|limb| sum_of_lanes(limb))).finish(s);
        let mut halves = [0_u64; 8];
        store(&mut halves, _mm512_unpacklo_epi64(low, high));
        (u128::from(halves[0]) | u128::from(halves[1]) << 64).to_le_bytes()
    }
}

/// The first 128 bytes of `left`, padded with zeros.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn rows(left: &[u8]) -> [V; 2] {
    [
        load_partial(left),
        load_partial(left.get(64..).unwrap_or(&[])),
    ]
}

/// Eight whole blocks.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn blocks(a: V, b: V) -> Limbs {
    let (even, odd) = (
        _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0),
        _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1),
    );
    let low = _mm512_permutex2var_epi64(a, even, b);
    let high = _mm512_permutex2var_epi64(a, odd, b);
    Limbs::from_halves(low, high, high_bit())
}

/// Takes lanes from `b` where the mask has a bit, and from `a` elsewhere.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn blend(mask: u8, a: Limbs, b: Limbs) -> Limbs {
    let (Limbs([a0, a1, a2]), Limbs([b0, b1, b2])) = (a, b);
    Limbs([
        _mm512_mask_blend_epi64(mask, a0, b0),
        _mm512_mask_blend_epi64(mask, a1, b1),
        _mm512_mask_blend_epi64(mask, a2, b2),
    ])
}

/// Copies lane 0 to all lanes.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn first_lane(limbs: Limbs) -> Limbs {
    let [a, b, c] = limbs.0;
    Limbs([
        _mm512_broadcastq_epi64(_mm512_castsi512_si128(a)),
        _mm512_broadcastq_epi64(_mm512_castsi512_si128(b)),
        _mm512_broadcastq_epi64(_mm512_castsi512_si128(c)),
    ])
}

/// Eight of the sixteen lanes of `a` and `b`, starting at lane `at`.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn window(a: Limbs, b: Limbs, at: usize) -> Limbs {
    let lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    let lanes = _mm512_add_epi64(lanes, _mm512_set1_epi64(at as i64));
    let (Limbs([a0, a1, a2]), Limbs([b0, b1, b2])) = (a, b);
    Limbs([
        _mm512_permutex2var_epi64(a0, lanes, b0),
        _mm512_permutex2var_epi64(a1, lanes, b1),
        _mm512_permutex2var_epi64(a2, lanes, b2),
    ])
}

/// The sum of all lanes, in every lane.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn sum_of_lanes(v: V) -> V {
    let v = _mm512_add_epi64(v, _mm512_shuffle_i32x4::<0x4e>(v, v));
    let v = _mm512_add_epi64(v, _mm512_shuffle_i32x4::<0xb1>(v, v));
    _mm512_add_epi64(v, _mm512_shuffle_epi32::<0x4e>(v))
}
