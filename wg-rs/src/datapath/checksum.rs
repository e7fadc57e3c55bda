//! The Internet checksum (RFC 1071), at the speed of memory.
//!
//! A one's complement sum does not depend on the byte order or the width of its words, as long as
//! the carries are added at the end. So the bytes are read as native 64-bit words, both halves of
//! each word are summed without overflow, and only [`Sum::fold`] adds the carries.
//! Results are in wire order, as `[u8; 2]`. The loops are simple so that LLVM vectorises them.

use std::ops::Add;

/// Bytes that are copied and then summed: few enough to stay in the nearest cache.
const BLOCK: usize = 512;

/// An unfinished checksum: a one's complement sum whose carries have not been added yet.
///
/// Sums of consecutive pieces may be added if each piece except the last has an even length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Sums `bytes`. If their number is odd, a zero byte is appended.
    #[inline]
    pub fn of(bytes: &[u8]) -> Sum {
        let (words, rest) = bytes.as_chunks();
        let (pairs, last) = rest.as_chunks();
        let mut sum = halves(words);
        for pair in pairs {
            sum += u64::from(u16::from_ne_bytes(*pair));
        }
        if let [last] = last {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Sum(sum)
    }

    /// Copies `src` to `dst`, and sums it.
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
            sum += halves(from.as_chunks().0);
        }
        to_rest.copy_from_slice(from_rest);
        Sum(sum) + Sum::of(from_rest)
    }

    /// The pseudo header of TCP and UDP. For IPv4 (RFC 9293, 3.1) and IPv6 (RFC 8200, 8.1) the sum
    /// is the same, because the two differ only in zeros. `addresses` is source and destination as
    /// in the IP header (8 or 32 bytes), and `len` is the length of transport header and payload.
    pub fn pseudo_header(addresses: &[u8], protocol: u8, len: usize) -> Sum {
        Sum::of(addresses) + Sum::of(&[0, protocol]) + Sum::length(len)
    }

    /// The part of a pseudo header that a length contributes.
    pub fn length(len: usize) -> Sum {
        Sum::of(&(len as u32).to_be_bytes())
    }

    /// The value that removes a [`Sum::length`] from a sum.
    pub fn minus_length(len: usize) -> Sum {
        Sum::of(&(!(len as u32)).to_be_bytes())
    }

    /// The folded sum in wire order: the kernel expects it in the checksum field of a packet whose
    /// checksum is not complete.
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

    /// The checksum if zero means "none" (UDP; RFC 768): zero is replaced by the equivalent of all
    /// ones.
    pub fn nonzero_checksum(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        }
    }

    /// Whether the sum of data that includes the checksum field is right.
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

/// The sum of both halves of each word. A sum of 2^31 words does not overflow.
///
/// The upper halves leave that of the lower ones of the sum of the words. So no word has to be masked, which
/// takes a quarter less time.
#[inline(always)]
fn halves(words: &[[u8; 8]]) -> u64 {
    let (mut all, mut upper) = (0u64, 0);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        all = all.wrapping_add(word);
        upper += word >> 32;
    }
    let lower = all.wrapping_sub(upper << 32);
    lower + upper
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
    fn carries_of_the_largest_input_are_added() {
        let ones = vec![0xff; 1 << 16];
        assert_eq!(Sum::of(&ones).fold(), [0xff, 0xff]);
        assert_eq!(Sum::of(&[]).fold(), [0, 0]);
        assert_eq!(Sum::of(&ones).nonzero_checksum(), [0xff, 0xff]);
    }

    #[test]
    fn pseudo_headers_agree_with_the_rfcs() {
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
        fn adding_and_removing_a_length_changes_nothing(len in 0usize..200_000, other: u16) {
            let other = Sum::of(&other.max(1).to_be_bytes());
            let there_and_back = other + Sum::length(len) + Sum::minus_length(len);
            prop_assert_eq!(there_and_back.fold(), other.fold());
        }
    }
}
