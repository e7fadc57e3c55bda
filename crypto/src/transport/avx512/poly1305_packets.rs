//! Poly1305 of up to eight packets, with one packet in each lane.
//!
//! ```text
//! four blocks of each:  row i    = | lo0 hi0 | lo1 hi1 | lo2 hi2 | lo3 hi3 |     of packet i
//! transposed (8 × 8):   half j   = | packet 0 | packet 1 | … | packet 7 |        lo0, hi0, lo1, …
//! a step:               h = (h + block 0) r^4 + block 1 r^3 + block 2 r^2 + block 3 r
//! ```
//!
//! A packet needs only the powers r to r^4 of its own key, which are computed for all lanes at
//! once, and no sum across lanes. All packets end in the same step, so a shorter packet starts with
//! empty blocks: zeros without a high bit leave h at 0.
//!
//! ```text
//! packet 0  |..:..:..:..|##:##:##:##| … |##:##:##:# |      . empty, no high bit
//! packet 1  |##:##:##:##|##:##:##:##| … |##:##:##:##|      # data, padded with zeros
//!            uneven       even steps      uneven
//! ```

use std::arch::x86_64::*;
use std::ops::Range;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Packet;
use super::poly1305::{Factor, Limbs, Products, high_bit};
use super::vector::{V, load, load_partial, transpose_parts};

/// Number of lanes in a vector.
pub(super) const LANES: usize = 8;
/// Bytes in a step of four blocks.
const STEP: usize = 64;

/// The keys of eight packets: the powers r to r^4, and the number that is added at the end.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Keys {
    powers: [Factor; 4],
    s: [V; 2],
}

impl Keys {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn empty() -> Self {
        let zero = _mm512_setzero_si512();
        Self {
            powers: [Factor::new(Limbs::zero()); 4],
            s: [zero; 2],
        }
    }

    /// From words 0 to 7 of the first ChaCha20 block of eight packets.
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn set(&mut self, words: &[__m256i; 8]) {
        let half = |i: usize| {
            let high = _mm512_cvtepu32_epi64(words[i + 1]);
            _mm512_or_si512(
                _mm512_cvtepu32_epi64(words[i]),
                _mm512_slli_epi64::<32>(high),
            )
        };
        let r = Limbs::clamped(half(0), half(2));
        let r1 = Factor::new(r);
        let square = r.times(&r1);
        let r2 = Factor::new(square);
        let r3 = Factor::new(square.times(&r1));
        let r4 = Factor::new(square.times(&r2));
        self.powers = [r1, r2, r3, r4];
        self.s = [half(4), half(6)];
    }

    /// The tags of up to eight packets, in halves.
    #[inline(never)]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn tags(&self, packets: &[Packet]) -> [V; 2] {
        let plan = Plan::new(packets);
        let mut h = Limbs::zero();
        h = self.uneven(h, packets, &plan, 0..plan.even.start);
        h = self.even(h, packets, &plan);
        h = self.uneven(h, packets, &plan, plan.even.end..plan.steps);
        // The last block: the lengths of the associated data (zero) and of the text.
        let lengths = Limbs::from_halves(_mm512_setzero_si512(), load(&plan.lens), high_bit());
        h.plus(lengths).times(&self.powers[0]).finish(self.s)
    }

    /// The steps in which every packet has four whole blocks.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn even(&self, mut h: Limbs, packets: &[Packet], plan: &Plan) -> Limbs {
        if plan.even.is_empty() {
            return h;
        }
        // Unused lanes hash the first packet again; the result is ignored.
        let mut lanes: [&[[u8; STEP]]; LANES] = [&[]; LANES];
        for (lane, steps) in lanes.iter_mut().enumerate() {
            let lane = if lane < packets.len() { lane } else { 0 };
            let start = STEP * plan.even.start - plan.nothing[lane];
            *steps = packets[lane].body[start..][..STEP * plan.even.len()]
                .as_chunks()
                .0;
        }
        let rows_of = |step: usize| -> [V; LANES] {
            let row = |lane: usize| load(&lanes[lane][step]);
            [
                row(0),
                row(1),
                row(2),
                row(3),
                row(4),
                row(5),
                row(6),
                row(7),
            ]
        };
        for step in 0..plan.even.len() {
            h = self.step(h, &rows_of(step), [high_bit(); 4]);
        }
        h
    }

    /// The steps in which a packet has not begun, or ends.
    #[inline(never)]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn uneven(&self, mut h: Limbs, packets: &[Packet], plan: &Plan, steps: Range<usize>) -> Limbs {
        let nothing = load(&plan.nothing.map(|bytes| bytes as u64));
        for step in steps {
            let at = STEP * step;
            let mut rows = [_mm512_setzero_si512(); LANES];
            for ((row, packet), &nothing) in rows.iter_mut().zip(packets).zip(&plan.nothing) {
                let missing = nothing.saturating_sub(at);
                if missing < STEP {
                    let start = at + missing - nothing;
                    let end = packet.body.len().min(start + STEP - missing);
                    let bytes = load_partial(&packet.body[start..end]);
                    *row = _mm512_maskz_expand_epi8(!0 << missing, bytes);
                }
            }
            let mut high_bits = [_mm512_setzero_si512(); 4];
            for (block, high) in high_bits.iter_mut().enumerate() {
                let start = _mm512_set1_epi64((at + 16 * block) as i64);
                let begun = _mm512_cmple_epu64_mask(nothing, start);
                *high = _mm512_maskz_mov_epi64(begun, high_bit());
            }
            h = self.step(h, &rows, high_bits);
        }
        h
    }

    /// Four blocks of each packet.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn step(&self, h: Limbs, rows: &[V; LANES], high_bits: [V; 4]) -> Limbs {
        let [l0, h0, l1, h1, l2, h2, l3, h3] = transpose(rows);
        let [r1, r2, r3, r4] = &self.powers;
        let mut sum = Products::new(Limbs::zero());
        sum.add(Limbs::from_halves(l1, h1, high_bits[1]), r3);
        sum.add(Limbs::from_halves(l2, h2, high_bits[2]), r2);
        sum.add(Limbs::from_halves(l3, h3, high_bits[3]), r1);
        // The product that depends on the previous step comes last.
        sum.add(Limbs::from_halves(l0, h0, high_bits[0]).plus(h), r4);
        sum.carry()
    }
}

/// The steps, and where each packet is in them.
struct Plan {
    steps: usize,
    /// The steps in which every packet has four whole blocks.
    even: Range<usize>,
    /// Empty bytes before each packet.
    nothing: [usize; LANES],
    lens: [u64; LANES],
}

impl Plan {
    fn new(packets: &[Packet]) -> Self {
        let padded = |packet: &Packet| packet.body.len().next_multiple_of(16);
        let longest = packets.iter().map(padded).max().unwrap_or(0);
        let total = longest.next_multiple_of(STEP);
        let (mut nothing, mut lens) = ([0; LANES], [0; LANES]);
        let (mut begun, mut ended) = (0, total);
        for (i, packet) in packets.iter().enumerate() {
            nothing[i] = total - padded(packet);
            lens[i] = packet.body.len() as u64;
            begun = begun.max(nothing[i]);
            ended = ended.min(nothing[i] + packet.body.len());
        }
        let (steps, start) = (total / STEP, begun.div_ceil(STEP));
        let even = start..(ended / STEP).max(start);
        Self {
            steps,
            even,
            nothing,
            lens,
        }
    }
}

/// An 8 × 8 transpose of 64-bit words.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn transpose(rows: &[V; LANES]) -> [V; LANES] {
    let low = |i: usize| _mm512_unpacklo_epi64(rows[i], rows[i + 1]);
    let high = |i: usize| _mm512_unpackhi_epi64(rows[i], rows[i + 1]);
    let [a, c, e, g] = transpose_parts(low(0), low(2), low(4), low(6));
    let [b, d, f, h] = transpose_parts(high(0), high(2), high(4), high(6));
    [a, b, c, d, e, f, g, h]
}
