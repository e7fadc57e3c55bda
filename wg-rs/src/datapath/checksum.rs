//! The Internet checksum (RFC 1071), at memory speed.
//!
//! A one's complement sum does not care for the byte order of its words nor for their width, as
//! long as the carries come round in the end: so the bytes are read as native 64-bit words, both
//! halves of each are added to a sum too wide to overflow, and only [`Sum::fold`] brings the carries
//! round. Results are in wire order, as `[u8; 2]`. LLVM makes vectors of the loops, which are kept as
//! plain as they are for its sake.

use std::ops::Add;

/// Copied, then summed, at a time: small enough to stay in the nearest cache between the two.
const BLOCK: usize = 512;

/// An unfinished checksum: a one's complement sum whose carries are still to be brought round.
///
/// Sums of consecutive pieces may be added if each piece but the last has an even length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Sums `bytes`; an odd last byte counts as if a zero followed it.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        let (words, rest) = bytes.as_chunks();
        let (pairs, last) = rest.as_chunks();
        let mut sum = words.iter().map(halves).sum();
        for pair in pairs {
            sum += u64::from(u16::from_ne_bytes(*pair));
        }
        if let [last] = last {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Sum(sum)
    }

    /// Copies `src` to `dst` and sums it on the way.
    ///
    /// # Panics
    /// If the lengths differ.
    #[inline]
    pub fn copy(dst: &mut [u8], src: &[u8]) -> Sum {
        assert_eq!(dst.len(), src.len(), "copy between different lengths");
        let (to, to_rest) = dst.as_chunks_mut::<BLOCK>();
        let (from, from_rest) = src.as_chunks::<BLOCK>();
        let mut sum = 0;
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
            sum += from.as_chunks().0.iter().map(halves).sum::<u64>();
        }
        to_rest.copy_from_slice(from_rest);
        Sum(sum) + Sum::of(from_rest)
    }

    /// The pseudo header of TCP and UDP: over IPv4 (RFC 9293, 3.1) and IPv6 (RFC 8200, 8.1) alike,
    /// since the two differ in zeros only. `addresses` is source and destination as they lie in the
    /// IP header (8 or 32 bytes), `len` the length of transport header and payload.
    pub fn pseudo_header(addresses: &[u8], protocol: u8, len: usize) -> Sum {
        Sum::of(addresses) + Sum::of(&[0, protocol]) + Sum::length(len)
    }

    /// A length as it counts in a pseudo header.
    pub fn length(len: usize) -> Sum {
        Sum::of(&(len as u32).to_be_bytes())
    }

    /// What takes a [`Sum::length`] out of a sum again.
    pub fn minus_length(len: usize) -> Sum {
        Sum::of(&(!(len as u32)).to_be_bytes())
    }

    /// The sum with its carries brought round, in wire order: what the kernel expects in the
    /// checksum field of a packet whose checksum is still to be completed.
    pub fn fold(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (sum as u16).to_ne_bytes()
    }

    /// The checksum: the complement of [`Sum::fold`].
    pub fn checksum(self) -> [u8; 2] {
        self.fold().map(|byte| !byte)
    }

    /// The checksum where zero means "none" (UDP; RFC 768): zero becomes its equal, all ones.
    pub fn nonzero_checksum(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        }
    }

    /// Whether a sum that includes the checksum field says that nothing was changed.
    pub fn is_valid(self) -> bool {
        self.fold() == [0xff, 0xff]
    }
}

impl Add for Sum {
    type Output = Sum;

    fn add(self, other: Sum) -> Sum {
        Sum(self.0 + other.0)
    }
}

/// The two halves of a word, added. 2^31 words of them do not overflow.
#[inline(always)]
fn halves(word: &[u8; 8]) -> u64 {
    let word = u64::from_ne_bytes(*word);
    (word & 0xffff_ffff) + (word >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, 4.1, with the words in wire order.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn checksum(sum: Sum) -> u16 {
        u16::from_be_bytes(sum.checksum())
    }

    /// RFC 1071, 3: the worked example.
    #[test]
    fn rfc_1071_example() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), [0xdd, 0xf2]);
        assert_eq!(sum.checksum(), [0x22, 0x0d]);
    }

    #[test]
    fn every_length_at_every_alignment() {
        let bytes: Vec<u8> = (0..1500u32).map(|i| (i * 167 + 13) as u8 | 0x80).collect();
        for start in 0..65 {
            for len in (0..300).chain(500..530).chain([1023, 1024, 1025, 1420]) {
                let src = &bytes[start..start + len];
                let mut dst = [0u8; 1500];
                let copied = Sum::copy(&mut dst[64 - start..][..len], src);
                assert_eq!(
                    checksum(Sum::of(src)),
                    naive(src),
                    "at {start}, {len} bytes"
                );
                assert_eq!(checksum(copied), naive(src), "copy at {start}, {len} bytes");
                assert_eq!(&dst[64 - start..][..len], src);
                assert_eq!(dst.iter().filter(|b| **b != 0).count(), len);
            }
        }
    }

    #[test]
    fn carries_come_round_from_the_largest_input() {
        let ones = vec![0xff; 1 << 16];
        assert_eq!(Sum::of(&ones).fold(), [0xff, 0xff]);
        assert_eq!(Sum::of(&[]).fold(), [0, 0]);
        assert_eq!(Sum::of(&ones).nonzero_checksum(), [0xff, 0xff]);
    }

    #[test]
    fn pseudo_headers_as_the_rfcs_draw_them() {
        let addresses: Vec<u8> = (1..=32).collect();
        let v4 = [&addresses[..8], &[0, 17, 0x12, 0x34]].concat();
        assert_eq!(
            checksum(Sum::pseudo_header(&addresses[..8], 17, 0x1234)),
            naive(&v4)
        );
        let v6 = [&addresses[..], &[0, 1, 0x12, 0x34, 0, 0, 0, 6]].concat();
        assert_eq!(
            checksum(Sum::pseudo_header(&addresses, 6, 0x11234)),
            naive(&v6)
        );
    }

    proptest! {
        #[test]
        fn equals_the_naive_loop(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cut in 0usize..1500,
        ) {
            prop_assert_eq!(checksum(Sum::of(&bytes)), naive(&bytes));
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len()));
            prop_assert_eq!(checksum(Sum::of(head) + Sum::of(tail)), naive(&bytes));
        }

        #[test]
        fn a_length_put_in_and_taken_out_changes_nothing(len in 0usize..200_000, other: u16) {
            let other = Sum::of(&other.max(1).to_be_bytes());
            let there_and_back = other + Sum::length(len) + Sum::minus_length(len);
            prop_assert_eq!(there_and_back.fold(), other.fold());
        }
    }
}
