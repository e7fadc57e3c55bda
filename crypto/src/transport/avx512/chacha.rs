//! ChaCha20 (RFC 8439, section 2.3), many blocks at once, in two layouts.
//!
//! ```text
//! by words, 16 blocks:  x[w] = | word w of block 0 | of block 1 | … | of block 15 |
//! by rows, 4 blocks:    x[r] = | words 4r..4r+4 of block 0 | of block 1 | of block 2 | of 3 |
//! ```
//!
//! By words, both halves of a double round are the same instructions on other registers, and 16
//! independent quarter rounds hide all latency, but the blocks have to be transposed at the end. By
//! rows, rows 1 to 3 are rotated to reach the diagonals, and all blocks are finished early: this is
//! for few blocks.
//!
//! WireGuard's nonce is four zero bytes and the packet's counter, so word 13 of the state is 0,
//! and words 14 and 15 are the halves of that counter. Word 12 is the number of the block: block 0
//! gives the key of Poly1305, and block 1 and the following ones the keystream.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::vector::{V, transpose_parts, transpose_words};

/// A key, as words 4 to 11 of the state.
pub(super) type Words = [u32; 8];

/// "expand 32-byte k": words 0 to 3.
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Quarter rounds on the given words. Each step is done for all of them before the next step.
macro_rules! quarter_rounds {
    ($x:ident, $([$a:expr, $b:expr, $c:expr, $d:expr]),+) => {
        quarter_rounds!(@ $x, 16, $([$a, $b, $d]),+);
        quarter_rounds!(@ $x, 12, $([$c, $d, $b]),+);
        quarter_rounds!(@ $x, 8, $([$a, $b, $d]),+);
        quarter_rounds!(@ $x, 7, $([$c, $d, $b]),+);
    };
    (@ $x:ident, $bits:literal, $([$sum:expr, $by:expr, $turn:expr]),+) => {
        $( $x[$sum] = _mm512_add_epi32($x[$sum], $x[$by]); )+
        $( $x[$turn] = _mm512_xor_si512($x[$turn], $x[$sum]); )+
        $( $x[$turn] = _mm512_rol_epi32::<$bits>($x[$turn]); )+
    };
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn columns(x: &mut [V; 16]) {
    quarter_rounds!(
        x,
        [0, 4, 8, 12],
        [1, 5, 9, 13],
        [2, 6, 10, 14],
        [3, 7, 11, 15]
    );
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn diagonals(x: &mut [V; 16]) {
    quarter_rounds!(
        x,
        [0, 5, 10, 15],
        [1, 6, 11, 12],
        [2, 7, 8, 13],
        [3, 4, 9, 14]
    );
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn double_round(x: &mut [V; 16]) {
    columns(x);
    diagonals(x);
}

/// Sixteen states by words, for the given block numbers and halves of the packets' counters.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn state_by_words(key: &Words, blocks: V, counters: [V; 2]) -> [V; 16] {
    let mut x = [_mm512_setzero_si512(); 16];
    for (x, &word) in x.iter_mut().zip(CONSTANTS.iter().chain(key)) {
        *x = _mm512_set1_epi32(word.cast_signed());
    }
    (x[12], x[14], x[15]) = (blocks, counters[0], counters[1]);
    x
}

/// The first column round of `state`. Column 0 differs between the blocks. The columns from 1 on
/// whose last words are given are the same in all blocks, and are computed once.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn first_column_round<const SAME: usize>(
    key: &Words,
    state: &[V; 16],
    last_words: &[u32; SAME],
) -> [V; 16] {
    let mut x = *state;
    quarter_rounds!(x, [0, 4, 8, 12]);
    if SAME < 3 {
        quarter_rounds!(x, [2, 6, 10, 14], [3, 7, 11, 15]);
    }
    for (column, &last) in (1..).zip(last_words) {
        let words = [CONSTANTS[column], key[column], key[4 + column], last];
        for (row, word) in quarter_round(words).into_iter().enumerate() {
            x[4 * row + column] = _mm512_set1_epi32(word.cast_signed());
        }
    }
    x
}

/// RFC 8439, section 2.1.
fn quarter_round([mut a, mut b, mut c, mut d]: [u32; 4]) -> [u32; 4] {
    a = a.wrapping_add(b);
    d = (d ^ a).rotate_left(16);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_left(12);
    a = a.wrapping_add(b);
    d = (d ^ a).rotate_left(8);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_left(7);
    [a, b, c, d]
}

/// Both halves of a packet's counter, copied to all lanes.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn in_all_lanes(counter: u64) -> [V; 2] {
    [counter, counter >> 32].map(|half| _mm512_set1_epi32(half as i32))
}

/// The numbers of 16 consecutive blocks.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn from_block(first: u32) -> V {
    let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    _mm512_add_epi32(_mm512_set1_epi32(first.cast_signed()), lanes)
}

/// Sixteen blocks, by words.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn blocks_by_words(key: &Words, blocks: V, counters: [V; 2]) -> [V; 16] {
    let state = state_by_words(key, blocks, counters);
    let mut x = state;
    for _ in 0..10 {
        double_round(&mut x);
    }
    add(&mut x, &state);
    x
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn add<const N: usize>(x: &mut [V; N], state: &[V; N]) {
    for (x, &state) in x.iter_mut().zip(state) {
        *x = _mm512_add_epi32(*x, state);
    }
}

/// Transposes (16 × 16) the words of 16 blocks to the 16 blocks.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn transpose(x: &[V; 16]) -> [V; 16] {
    // Part p of quads[i][j] is words 4i..4i+4 of block 4p + j.
    let quads = [
        transpose_words(x[0], x[1], x[2], x[3]),
        transpose_words(x[4], x[5], x[6], x[7]),
        transpose_words(x[8], x[9], x[10], x[11]),
        transpose_words(x[12], x[13], x[14], x[15]),
    ];
    let mut blocks = *x;
    for j in 0..4 {
        let of = transpose_parts(quads[0][j], quads[1][j], quads[2][j], quads[3][j]);
        for (p, block) in of.into_iter().enumerate() {
            blocks[4 * p + j] = block;
        }
    }
    blocks
}

/// Rows 0 to 2, which are the same for all blocks.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn key_rows(key: &Words) -> [V; 3] {
    let [k0, k1, k2, k3, k4, k5, k6, k7] = key.map(u32::cast_signed);
    let [c0, c1, c2, c3] = CONSTANTS.map(u32::cast_signed);
    [
        _mm512_broadcast_i32x4(_mm_set_epi32(c3, c2, c1, c0)),
        _mm512_broadcast_i32x4(_mm_set_epi32(k3, k2, k1, k0)),
        _mm512_broadcast_i32x4(_mm_set_epi32(k7, k6, k5, k4)),
    ]
}

/// Row 3 of four consecutive blocks of one packet.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn last_row(counter: u64, first: u32) -> V {
    let row = _mm_set_epi32(
        (counter >> 32) as i32,
        counter as i32,
        0,
        first.cast_signed(),
    );
    let blocks = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
    _mm512_add_epi32(_mm512_broadcast_i32x4(row), blocks)
}

/// Rows 0 to 3 of four blocks, for each group of four.
type Rows<const GROUPS: usize> = [[V; 4]; GROUPS];

/// Quarter rounds on the columns of all groups, step by step. Then rotates the rows so that diagonals
/// become columns; `BACK` rotates them back.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn half_round<const GROUPS: usize, const BACK: bool>(x: &mut Rows<GROUPS>) {
    macro_rules! step {
        ($bits:literal, $sum:literal, $by:literal, $turn:literal) => {
            for x in x.iter_mut() {
                x[$sum] = _mm512_add_epi32(x[$sum], x[$by]);
            }
            for x in x.iter_mut() {
                x[$turn] = _mm512_xor_si512(x[$turn], x[$sum]);
            }
            for x in x.iter_mut() {
                x[$turn] = _mm512_rol_epi32::<$bits>(x[$turn]);
            }
        };
    }
    step!(16, 0, 1, 3);
    step!(12, 2, 3, 1);
    step!(8, 0, 1, 3);
    step!(7, 2, 3, 1);
    let once = |row| _mm512_shuffle_epi32::<0x39>(row);
    let thrice = |row| _mm512_shuffle_epi32::<0x93>(row);
    for [_, b, c, d] in x {
        *b = if BACK { thrice(*b) } else { once(*b) };
        *c = _mm512_shuffle_epi32::<0x4e>(*c);
        *d = if BACK { once(*d) } else { thrice(*d) };
    }
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn state_by_rows<const GROUPS: usize>(key: &Words, last_rows: [V; GROUPS]) -> Rows<GROUPS> {
    let [a, b, c] = key_rows(key);
    last_rows.map(|d| [a, b, c, d])
}

/// From the rows of each group to its blocks.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn finish_rows<const GROUPS: usize>(x: &mut Rows<GROUPS>, state: &Rows<GROUPS>) {
    for (x, state) in x.iter_mut().zip(state) {
        add(x, state);
        *x = transpose_parts(x[0], x[1], x[2], x[3]);
    }
}

/// Four blocks, one vector each, for each of the given last rows. A single group mostly waits for its
/// own results, so a few groups take hardly longer than one.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn blocks_by_rows<const GROUPS: usize>(
    key: &Words,
    last_rows: [V; GROUPS],
) -> Rows<GROUPS> {
    let state = state_by_rows(key, last_rows);
    let mut x = state;
    // The compiler must not unroll this. A lone packet often finds the caches cold, and would have to
    // fetch 2 KiB of code. In return, a packet of 64 bytes takes about 20 ns longer when they are hot.
    for _ in 0..black_box(10) {
        half_round::<GROUPS, false>(&mut x);
        half_round::<GROUPS, true>(&mut x);
    }
    finish_rows(&mut x, &state);
    x
}

/// Blocks 0 to 7 by rows and 8 to 23 by words, of one packet, in one loop: the eight blocks alone
/// would wait for their own results. The state uses 24 of the 32 registers.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn first_24_blocks(key: &Words, counter: u64, blocks: &mut [V; 24]) {
    let rows_state = state_by_rows(key, [last_row(counter, 0), last_row(counter, 4)]);
    let words_state = state_by_words(key, from_block(8), in_all_lanes(counter));
    let (mut rows, mut words) = (rows_state, words_state);
    for _ in 0..10 {
        columns(&mut words);
        half_round::<2, false>(&mut rows);
        diagonals(&mut words);
        half_round::<2, true>(&mut rows);
    }
    finish_rows(&mut rows, &rows_state);
    add(&mut words, &words_state);
    blocks[..8].copy_from_slice(rows.as_flattened());
    // Without an array in between, which would have to be wiped.
    *blocks.last_chunk_mut().expect("16 of 24 blocks") = transpose(&words);
}
