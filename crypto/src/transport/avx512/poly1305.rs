//! Poly1305 (RFC 8439, section 2.5) in eight lanes: the arithmetic for both ways to fill the lanes.
//!
//! ```text
//! a number modulo p = 2^130 - 5:  | limb 0: 44 bits | limb 1: 44 bits | limb 2: 42 bits |
//! eight of them:                  limbs[i] = | limb i of lane 0 | … | limb i of lane 7 |
//! ```
//!
//! A multiplication is nine products of limbs. `vpmadd52` multiplies the low 52 bits of two lanes,
//! and adds the low or the high 52 bits of the product to a third:
//!
//! ```text
//! limb 0:  a0 r0       + a1 · 20 r2  + a2 · 20 r1
//! limb 1:  a0 r1       + a1 r0       + a2 · 20 r2          times 2^44
//! limb 2:  a0 r2       + a1 r1       + a2 r0               times 2^88
//! ```
//!
//! because the part beyond limb 2 has a weight of 2^132 = 4 · 2^130, which is 20 modulo p.
//!
//! Bounds. A number is called *reduced* if limb 0 < 2^44, limb 1 < 2^44 + 2^13 and limb 2 < 2^42.
//! [`Products::carry`] returns such numbers. A block of a message has limbs below 2^44, 2^44 and
//! 2^41.
//!
//! - Factors. In `a` is a reduced number, a block, or their sum: limbs < 2^45 + 2^13, 2^43 at the
//!   top. In `r` is a reduced power of the key: limbs as above, and 20 times one is < 2^49. All
//!   are below 2^52, so no bit is lost to `vpmadd52`.
//! - Sums. Each low half is < 2^52. One accumulator takes three products for each number multiplied,
//!   four numbers at most, and starts with a block at most: < 13 · 2^52 < 2^56. The high half of a
//!   product is < 2^(46 + 49 - 52) = 2^43, and twelve of them are < 2^47. The last one, of weight
//!   2^140, has no factor of 20: its products are < 2^(46 + 45), so it is < 12 · 2^39 < 2^43.
//! - Carry. High halves weigh 2^52 = 2^8 · 2^44 of their limb. Limb 1 becomes
//!   < 2^56 + 2^55 + 2^12 < 2^57, limb 2 likewise; what leaves at the top, k, is
//!   < 2^(57 - 42) + 2^(43 + 10) < 2^54, and 5 k + 2^44 < 2^57 at the bottom: all fit in 64 bits.
//!   What the bottom then gives to limb 1 is < 2^(57 - 44) = 2^13: the result is reduced.

use std::arch::x86_64::*;

use zeroize::Zeroize;

use super::vector::V;

const BITS_44: i64 = (1 << 44) - 1;
const BITS_42: i64 = (1 << 42) - 1;
/// 2^128 in limb 2: the bit behind a whole block.
const HIGH_BIT: i64 = 1 << 40;
/// The mask for both halves of a key's r (clamping).
const CLAMP: [i64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

/// A number in each lane.
#[derive(Clone, Copy, Zeroize)]
pub(super) struct Limbs(pub(super) [V; 3]);

/// A reduced number in each lane that others are multiplied by, with 20 times its upper limbs.
#[derive(Clone, Copy, Zeroize)]
pub(super) struct Factor {
    limbs: Limbs,
    times_20: [V; 2],
}

/// A sum of products before carries, by limb: the low halves and the high halves.
pub(super) struct Products {
    low: [V; 3],
    high: [V; 3],
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn high_bit() -> V {
    _mm512_set1_epi64(HIGH_BIT)
}

impl Limbs {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn zero() -> Self {
        Self([_mm512_setzero_si512(); 3])
    }

    /// Numbers from the low and high halves of 128 bits, and [`high_bit`] or zero.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn from_halves(low: V, high: V, high_bit: V) -> Self {
        let mask = _mm512_set1_epi64(BITS_44);
        Self([
            _mm512_and_si512(low, mask),
            _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), mask),
            _mm512_or_si512(_mm512_srli_epi64::<24>(high), high_bit),
        ])
    }

    /// The clamped r of the keys, from their halves.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn clamped(low: V, high: V) -> Self {
        Self::from_halves(
            _mm512_and_si512(low, _mm512_set1_epi64(CLAMP[0])),
            _mm512_and_si512(high, _mm512_set1_epi64(CLAMP[1])),
            _mm512_setzero_si512(),
        )
    }

    /// Adds without carries: the sum may be used as a factor `a`, but is not reduced.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn plus(self, other: Self) -> Self {
        let ([a0, a1, a2], [b0, b1, b2]) = (self.0, other.0);
        Self([
            _mm512_add_epi64(a0, b0),
            _mm512_add_epi64(a1, b1),
            _mm512_add_epi64(a2, b2),
        ])
    }

    /// The product, reduced.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn times(self, factor: &Factor) -> Self {
        let mut products = Products::new(Limbs::zero());
        products.add(self, factor);
        products.carry()
    }

    /// The tags, in halves: the number modulo p, plus the second half of the key, modulo 2^128.
    /// `self` is reduced, or is a sum of eight reduced numbers.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn finish(self, s: [V; 2]) -> [V; 2] {
        let (bits_44, bits_42) = (_mm512_set1_epi64(BITS_44), _mm512_set1_epi64(BITS_42));
        let Self([mut h0, mut h1, mut h2]) = self;
        // At first k < 2^4, so the number is then < 2^130 + 2^7. After the second time it is <
        // 2^130, and it is small if anything was carried around: the last step carries no further
        // than limb 1.
        for _ in 0..2 {
            h1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0));
            h0 = _mm512_and_si512(h0, bits_44);
            h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
            h1 = _mm512_and_si512(h1, bits_44);
            let k = _mm512_srli_epi64::<42>(h2);
            h2 = _mm512_and_si512(h2, bits_42);
            h0 = _mm512_add_epi64(h0, times_5(k));
        }
        h1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0));
        h0 = _mm512_and_si512(h0, bits_44);

        // The number is p or more where adding 5 reaches 2^130. The result is then what is left of
        // the sum.
        let g0 = _mm512_add_epi64(h0, _mm512_set1_epi64(5));
        let g1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(g0));
        let g2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(g1));
        let reached = _mm512_cmpgt_epu64_mask(g2, bits_42);
        h0 = _mm512_mask_and_epi64(h0, reached, g0, bits_44);
        h1 = _mm512_mask_and_epi64(h1, reached, g1, bits_44);
        h2 = _mm512_mask_and_epi64(h2, reached, g2, bits_42);

        let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
        let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
        let low = _mm512_add_epi64(low, s[0]);
        let high = _mm512_add_epi64(high, s[1]);
        let carry = _mm512_cmplt_epu64_mask(low, s[0]);
        let one = _mm512_set1_epi64(1);
        [low, _mm512_mask_add_epi64(high, carry, high, one)]
    }
}

impl Factor {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn new(limbs: Limbs) -> Self {
        let [_, r1, r2] = limbs.0;
        let times_20 = [
            _mm512_slli_epi64::<2>(times_5(r1)),
            _mm512_slli_epi64::<2>(times_5(r2)),
        ];
        Self { limbs, times_20 }
    }
}

impl Products {
    /// A sum that contains only `start`.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn new(start: Limbs) -> Self {
        Self {
            low: start.0,
            high: Limbs::zero().0,
        }
    }

    /// Adds `a` times `factor`. At most four calls are allowed before [`Self::carry`].
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn add(&mut self, a: Limbs, factor: &Factor) {
        let (Limbs([a0, a1, a2]), Limbs([r0, r1, r2])) = (a, factor.limbs);
        let [r1_20, r2_20] = factor.times_20;
        for (limb, x, y) in [
            (0, a0, r0),
            (1, a0, r1),
            (2, a0, r2),
            (0, a1, r2_20),
            (1, a1, r0),
            (2, a1, r1),
            (0, a2, r1_20),
            (1, a2, r2_20),
            (2, a2, r0),
        ] {
            self.low[limb] = _mm512_madd52lo_epu64(self.low[limb], x, y);
            self.high[limb] = _mm512_madd52hi_epu64(self.high[limb], x, y);
        }
    }

    /// The sum, reduced.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn carry(self) -> Limbs {
        let (bits_44, bits_42) = (_mm512_set1_epi64(BITS_44), _mm512_set1_epi64(BITS_42));
        let ([c0, c1, c2], [d0, d1, d2]) = (self.low, self.high);
        let c1 = _mm512_add_epi64(c1, _mm512_slli_epi64::<8>(d0));
        let c2 = _mm512_add_epi64(c2, _mm512_slli_epi64::<8>(d1));
        let c1 = _mm512_add_epi64(c1, _mm512_srli_epi64::<44>(c0));
        let c2 = _mm512_add_epi64(c2, _mm512_srli_epi64::<44>(c1));
        let k = _mm512_add_epi64(_mm512_srli_epi64::<42>(c2), _mm512_slli_epi64::<10>(d2));
        let c0 = _mm512_add_epi64(_mm512_and_si512(c0, bits_44), times_5(k));
        let c1 = _mm512_and_si512(c1, bits_44);
        Limbs([
            _mm512_and_si512(c0, bits_44),
            _mm512_add_epi64(c1, _mm512_srli_epi64::<44>(c0)),
            _mm512_and_si512(c2, bits_42),
        ])
    }
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn times_5(v: V) -> V {
    _mm512_add_epi64(_mm512_slli_epi64::<2>(v), v)
}
