//! Poly1305 without vectors, for small packets: computing the powers of r for all lanes
//! would cost more than the lanes save.
//!
//! A number is two halves of 64 bits and a few more bits. The clamped halves of r are below 2^60
//! and the second is a multiple of four. So a product with the part beyond 2^128 is exact: its
//! weight is 5/4 of the second half of r.

/// The tag of `body` under the one-time key `key`.
pub(super) fn tag(key: &[u64; 4], body: &[u8]) -> [u8; 16] {
    let r = [
        key[0] & 0x0fff_fffc_0fff_ffff,
        key[1] & 0x0fff_fffc_0fff_fffc,
    ];
    let mut h = [0; 3];
    let (blocks, rest) = body.as_chunks::<16>();
    for block in blocks {
        h = step(h, r, u128::from_le_bytes(*block));
    }
    if !rest.is_empty() {
        let mut block = [0; 16];
        block[..rest.len()].copy_from_slice(rest);
        h = step(h, r, u128::from_le_bytes(block));
    }
    // The lengths of the associated data (zero) and of the text.
    h = step(h, r, (body.len() as u128) << 64);
    finish(h, u128::from(key[2]) | u128::from(key[3]) << 64)
}

/// h = (h + block + 2^128) r. The top of h is at most 4, before and after.
#[inline]
fn step(h: [u64; 3], r: [u64; 2], block: u128) -> [u64; 3] {
    let low = u128::from(h[0]) + u128::from(block as u64);
    let high = u128::from(h[1]) + (block >> 64) + (low >> 64);
    let top = h[2] + 1 + (high >> 64) as u64;
    let [a, b] = [low as u64, high as u64].map(u128::from);
    let [r0, r1] = r.map(u128::from);
    let around = r1 + (r1 >> 2);

    // a and b are below 2^64, the factors below 2^61, and top is below 8: the sums of products fit.
    let low = a * r0 + b * around;
    let high = a * r1 + b * r0 + u128::from(top) * around + (low >> 64);
    let top = top * r[0] + (high >> 64) as u64;
    // The part beyond 2^130 is added back five times: as a multiple of four, and as a quarter of
    // that.
    let back = (top & !3) + (top >> 2);
    let low = u128::from(low as u64) + u128::from(back);
    let high = u128::from(high as u64) + (low >> 64);
    [low as u64, high as u64, (top & 3) + (high >> 64) as u64]
}

/// The number modulo p, plus `s`, modulo 2^128.
fn finish(h: [u64; 3], s: u128) -> [u8; 16] {
    let number = u128::from(h[0]) | u128::from(h[1]) << 64;
    // The number is p or more if adding 5 reaches 2^130. The result is then what is left of the
    // sum. The top is at most 4, so the number is below 2 p: one subtraction is enough.
    let (less_p, carry) = number.overflowing_add(5);
    let reached = (h[2] + u64::from(carry)) >> 2;
    let mask = u128::from(reached).wrapping_neg();
    ((less_p & mask) | (number & !mask))
        .wrapping_add(s)
        .to_le_bytes()
}
