//! Seals and opens a single packet.
//!
//! ```text
//! up to 192 bytes:    4 blocks by rows                            scalar Poly1305
//! up to 448:          8 blocks by rows                            scalar Poly1305 up to 384
//! up to 704:          12 blocks by rows
//! up to 832:          16 blocks by rows
//! 833 to 1472 bytes:  8 blocks by rows and 16 by words, together
//! others:             8 blocks by rows, then 16 by words at a time, the last 4 or 8 by rows
//! block 0 is the key of Poly1305, block 1 is for the first 64 bytes
//! ```

use std::arch::x86_64::*;

use zeroize::Zeroizing;

use super::chacha::{
    Words, blocks_by_rows, blocks_by_words, first_24_blocks, from_block, in_all_lanes, last_row,
    transpose,
};
use super::vector::{V, store, xor_block};
use super::{poly1305_blocks, poly1305_scalar};

/// Up to this length, computing the powers of r for all lanes costs more than the lanes save.
const SCALAR: usize = 384;

/// Seals `body`, and returns its tag.
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn seal(key: &Words, counter: u64, body: &mut [u8]) -> [u8; 16] {
    with_first_blocks(key, counter, body.len(), |first| {
        combine(key, counter, body, first);
        tag(first[0], body)
    })
}

/// Opens `body` if `expected` is its tag; otherwise `body` does not change.
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
pub(super) fn open(key: &Words, counter: u64, body: &mut [u8], expected: &[u8; 16]) -> bool {
    with_first_blocks(key, counter, body.len(), |first| {
        let found = tag(first[0], body);
        let right = u128::from_le_bytes(found) ^ u128::from_le_bytes(*expected) == 0;
        if right {
            combine(key, counter, body, first);
        }
        right
    })
}

/// The tag under the key in block 0.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn tag(block_0: V, body: &[u8]) -> [u8; 16] {
    let mut words = Zeroizing::new([0; 8]);
    store(&mut words, block_0);
    let key = words.first_chunk().expect("eight words hold a key of four");
    match body.len() {
        0..=SCALAR => poly1305_scalar::tag(key, body),
        _ => poly1305_blocks::tag(key, body),
    }
}

/// Calls `then` with the first blocks: as many as are fastest to compute together.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn with_first_blocks<T>(key: &Words, counter: u64, len: usize, then: impl FnOnce(&[V]) -> T) -> T {
    let row = |first| last_row(counter, first);
    match len {
        0..=192 => then(Zeroizing::new(blocks_by_rows(key, [row(0)])).as_flattened()),
        449..=704 => {
            let rows = [row(0), row(4), row(8)];
            then(Zeroizing::new(blocks_by_rows(key, rows)).as_flattened())
        }
        705..=832 => {
            let rows = [row(0), row(4), row(8), row(12)];
            then(Zeroizing::new(blocks_by_rows(key, rows)).as_flattened())
        }
        833..=1472 => {
            let mut blocks = Zeroizing::new([_mm512_setzero_si512(); 24]);
            first_24_blocks(key, counter, &mut blocks);
            then(&*blocks)
        }
        _ => then(Zeroizing::new(blocks_by_rows(key, [row(0), row(4)])).as_flattened()),
    }
}

/// Combines `body` with its keystream. `first` is the beginning of the keystream, including block
/// 0.
#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn combine(key: &Words, counter: u64, body: &mut [u8], first: &[V]) {
    let (start, rest) = body.split_at_mut(body.len().min(64 * (first.len() - 1)));
    xor_blocks(start, &first[1..]);
    let mut block = first.len() as u32;
    for text in rest.chunks_mut(16 * 64) {
        match text.len() {
            0..=256 => {
                let rows = [last_row(counter, block)];
                xor_blocks(
                    text,
                    Zeroizing::new(blocks_by_rows(key, rows)).as_flattened(),
                );
            }
            257..=512 => {
                let rows = [last_row(counter, block), last_row(counter, block + 4)];
                xor_blocks(
                    text,
                    Zeroizing::new(blocks_by_rows(key, rows)).as_flattened(),
                );
            }
            _ => {
                let words = blocks_by_words(key, from_block(block), in_all_lanes(counter));
                xor_blocks(text, &*Zeroizing::new(transpose(&words)));
            }
        }
        block += 16;
    }
}

#[inline]
#[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
fn xor_blocks(text: &mut [u8], keystream: &[V]) {
    for (text, &keystream) in text.chunks_mut(64).zip(keystream) {
        xor_block(text, keystream);
    }
}
