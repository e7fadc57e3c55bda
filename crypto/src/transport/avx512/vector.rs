//! A 512-bit vector, and all its loads from memory and stores to memory.
//!
//! The `unsafe` code in this file is four instructions that copy between a vector and a slice or
//! array that is passed to the function. They read and write nothing outside of it.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

/// 64 bytes, in lanes of 32 or 64 bits or in four parts of 128.
pub(super) type V = __m512i;

/// An integer: every value is valid, and there is no padding.
pub(super) trait Word: Copy {}
impl Word for u8 {}
impl Word for u32 {}
impl Word for u64 {}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn load<T: Word, const N: usize>(from: &[T; N]) -> V {
    const { assert!(size_of::<[T; N]>() == size_of::<V>()) };
    // SAFETY: `from` is 64 initialised bytes, and the instruction needs no alignment.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn store<T: Word, const N: usize>(to: &mut [T; N], value: V) {
    const { assert!(size_of::<[T; N]>() == size_of::<V>()) };
    // SAFETY: `to` is 64 bytes that may have any value, and the instruction needs no alignment.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
}

/// The first 64 bytes of `from`, padded with zeros.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn load_partial(from: &[u8]) -> V {
    // An empty slice may have a dangling pointer. The CPU suppresses the fault of such a load, which
    // takes hundreds of cycles.
    if from.is_empty() {
        return _mm512_setzero_si512();
    }
    // SAFETY: only the bytes in the mask are read, and all of them are within the slice.
    unsafe { _mm512_maskz_loadu_epi8(first_bytes(from.len()), from.as_ptr().cast()) }
}

/// Stores as many of the first bytes of `value` as fit in `to`.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn store_partial(to: &mut [u8], value: V) {
    let mask = first_bytes(to.len());
    // SAFETY: only the bytes in the mask are written, and all of them are within the slice.
    unsafe { _mm512_mask_storeu_epi8(to.as_mut_ptr().cast(), mask, value) }
}

/// A mask with one bit for each of the first `len` of 64 bytes.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn first_bytes(len: usize) -> u64 {
    _bzhi_u64(!0, len.min(64) as u32)
}

/// Combines (XOR) a block of keystream with the first 64 bytes of `text`, or with all of a shorter
/// `text`.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn xor_block(text: &mut [u8], keystream: V) {
    match text.first_chunk_mut::<64>() {
        Some(block) => store(block, _mm512_xor_si512(load(block), keystream)),
        None => xor_partial(text, keystream),
    }
}

/// Combines less than a block. Most packets are padded to 16 bytes, and a masked store is slow on some
/// CPUs (Zen 4).
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn xor_partial(text: &mut [u8], mut keystream: V) {
    let (parts, rest) = text.as_chunks_mut::<16>();
    for part in parts {
        let mixed = u128::from_ne_bytes(*part) ^ first_part(keystream);
        *part = mixed.to_ne_bytes();
        keystream = _mm512_alignr_epi64::<2>(keystream, keystream);
    }
    if !rest.is_empty() {
        store_partial(rest, _mm512_xor_si512(load_partial(rest), keystream));
    }
}

/// The first 16 bytes.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn first_part(value: V) -> u128 {
    let part = _mm512_castsi512_si128(value);
    let [low, high] = [_mm_cvtsi128_si64(part), _mm_extract_epi64::<1>(part)];
    u128::from(low.cast_unsigned()) | u128::from(high.cast_unsigned()) << 64
}

/// A 4 × 4 transpose of 128-bit parts: result `i` is part `i` of `a`, `b`, `c` and `d`.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn transpose_parts(a: V, b: V, c: V, d: V) -> [V; 4] {
    let (ab_low, ab_high) = (
        _mm512_shuffle_i32x4::<0x44>(a, b),
        _mm512_shuffle_i32x4::<0xee>(a, b),
    );
    let (cd_low, cd_high) = (
        _mm512_shuffle_i32x4::<0x44>(c, d),
        _mm512_shuffle_i32x4::<0xee>(c, d),
    );
    [
        _mm512_shuffle_i32x4::<0x88>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0xdd>(ab_low, cd_low),
        _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
    ]
}

/// In each 128-bit part a 4 × 4 transpose of 32-bit words: part `p` of result `i` is word `i` of
/// part `p` of `a`, `b`, `c` and `d`.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn transpose_words(a: V, b: V, c: V, d: V) -> [V; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}
