//! The keystream of a burst, in passes of sixteen blocks of any packets.
//!
//! ```text
//! a packet of 1424 bytes:  | block 1 … block 16 | 17 … 23 |
//!                            own pass             left over, in passes with blocks of other packets
//! pass n:                  rounds      rounds      …
//! pass n - 1:              transpose   combine with the text
//! ```
//!
//! Rotations and shuffles use different execution ports. So a pass leaves its keystream in the
//! layout by words, and the next pass transposes and uses that keystream between its own rounds.

use std::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Packet;
use super::chacha::{
    Words, add, blocks_by_rows, blocks_by_words, diagonals, double_round, first_column_round,
    from_block, in_all_lanes, state_by_words, transpose,
};
use super::vector::{V, load, transpose_parts, transpose_words, xor_block};

/// Number of blocks in a pass.
pub(super) const BLOCKS: usize = 16;
const BLOCK: usize = 64;

/// A block of a packet. Block 0 gives the Poly1305 key; block 1 is for the first 64 bytes of text.
#[derive(Clone, Copy, Default)]
pub(super) struct BlockPosition {
    packet: usize,
    block: u32,
}

impl BlockPosition {
    /// Combines the block's text with `keystream` (XOR). Does nothing for block 0, and beyond the
    /// packet's end.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn combine(self, packets: &mut [Packet], keystream: V) {
        let Some(before) = self.block.checked_sub(1) else {
            return;
        };
        if let Some(text) = packets[self.packet].body.get_mut(BLOCK * before as usize..) {
            xor_block(text, keystream);
        }
    }
}

/// Bytes of a packet that are handled in its own passes. The last may end within its 16th block.
fn in_own_passes(len: usize) -> usize {
    ((len + BLOCK - 1) & !(BLOCKS * BLOCK - 1)).min(len)
}

/// Iterates over the blocks that are not in a pass of their own packet.
#[derive(Default)]
pub(super) struct Leftovers {
    packet: usize,
    offset: usize,
}

impl Leftovers {
    fn next(&mut self, packets: &[Packet]) -> Option<BlockPosition> {
        while let Some(packet) = packets.get(self.packet) {
            let len = packet.body.len();
            let offset = self.offset.max(in_own_passes(len));
            if offset < len {
                self.offset = offset + BLOCK;
                let block = (1 + offset / BLOCK) as u32;
                return Some(BlockPosition {
                    packet: self.packet,
                    block,
                });
            }
            (self.packet, self.offset) = (self.packet + 1, 0);
        }
        None
    }
}

/// Up to sixteen blocks of any packets.
#[derive(Default)]
pub(super) struct Batch {
    positions: [BlockPosition; BLOCKS],
    len: usize,
    blocks: [u32; BLOCKS],
    counters: [[u32; BLOCKS]; 2],
}

impl Batch {
    /// The blocks of the Poly1305 keys, in the order of the packets, followed by leftovers.
    pub(super) fn with_keys(packets: &[Packet], leftovers: &mut Leftovers) -> Self {
        let mut batch = Self::default();
        for packet in 0..packets.len() {
            batch.push(packets, BlockPosition { packet, block: 0 });
        }
        batch.fill(packets, leftovers);
        batch
    }

    fn of(packets: &[Packet], leftovers: &mut Leftovers) -> Self {
        let mut batch = Self::default();
        batch.fill(packets, leftovers);
        batch
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn fill(&mut self, packets: &[Packet], leftovers: &mut Leftovers) {
        while self.len < BLOCKS
            && let Some(position) = leftovers.next(packets)
        {
            self.push(packets, position);
        }
    }

    fn push(&mut self, packets: &[Packet], position: BlockPosition) {
        let counter = packets[position.packet].counter;
        self.positions[self.len] = position;
        self.blocks[self.len] = position.block;
        self.counters[0][self.len] = counter as u32;
        self.counters[1][self.len] = (counter >> 32) as u32;
        self.len += 1;
    }

    /// The block numbers and the halves of the counters, with one block in each lane.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn lanes(&self) -> (V, [V; 2]) {
        let [low, high] = &self.counters;
        (load(&self.blocks), [load(low), load(high)])
    }

    /// The blocks, by words.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn by_words(&self, key: &Words) -> [V; BLOCKS] {
        let (blocks, counters) = self.lanes();
        blocks_by_words(key, blocks, counters)
    }

    /// Row 3 of four blocks, starting at block `first` of the batch.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn last_row(&self, first: usize) -> V {
        let mut row = [0; 16];
        for (words, i) in row.chunks_exact_mut(4).zip(first..) {
            words[0] = self.blocks[i];
            words[2] = self.counters[0][i];
            words[3] = self.counters[1][i];
        }
        load(&row)
    }

    /// Combines the text of each block with its keystream.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn combine(&self, packets: &mut [Packet], keystream: &[V]) {
        for (position, &keystream) in self.positions[..self.len].iter().zip(keystream) {
            position.combine(packets, keystream);
        }
    }
}

/// A sequence of passes. Each combines the keystream of the pass before with its text.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Passes<'key> {
    #[zeroize(skip)]
    key: &'key Words,
    /// Of the current pass: the state, and the state after the first column round.
    state: [V; 16],
    started: [V; 16],
    /// Of the pass before, if there is one: its keystream by words.
    keystream: [V; 16],
    #[zeroize(skip)]
    pending: Option<[BlockPosition; BLOCKS]>,
}

impl<'key> Passes<'key> {
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn new(key: &'key Words) -> Self {
        let none = [_mm512_setzero_si512(); 16];
        Self {
            key,
            state: none,
            started: none,
            keystream: none,
            pending: None,
        }
    }

    /// Combines all text with its keystream, except for the blocks that `leftovers` has already
    /// returned.
    #[inline(never)]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    pub(super) fn run(&mut self, packets: &mut [Packet], mut leftovers: Leftovers) {
        for packet in 0..packets.len() {
            let own = in_own_passes(packets[packet].body.len());
            for offset in (0..own).step_by(BLOCKS * BLOCK) {
                self.pass_of_one(packets, packet, (1 + offset / BLOCK) as u32);
            }
        }
        let last = loop {
            let batch = Batch::of(packets, &mut leftovers);
            if batch.len <= BLOCKS / 2 {
                break batch;
            }
            self.pass_of_any(packets, &batch);
        };
        if let Some(positions) = self.pending {
            let blocks = Zeroizing::new(transpose(&self.keystream));
            for (position, &block) in positions.iter().zip(&*blocks) {
                position.combine(packets, block);
            }
        }
        // For half a pass or less, the layout by rows is faster.
        if last.len > 4 {
            let rows = [last.last_row(0), last.last_row(4)];
            let blocks = Zeroizing::new(blocks_by_rows(self.key, rows));
            last.combine(packets, blocks.as_flattened());
        } else if last.len > 0 {
            let rows = [last.last_row(0)];
            let blocks = Zeroizing::new(blocks_by_rows(self.key, rows));
            last.combine(packets, blocks.as_flattened());
        }
    }

    /// Sixteen blocks of one packet. Their states differ only in the block number, so the first
    /// round of columns 1 to 3 is computed once for all of them.
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn pass_of_one(&mut self, packets: &mut [Packet], packet: usize, first: u32) {
        let counter = packets[packet].counter;
        self.state = state_by_words(self.key, from_block(first), in_all_lanes(counter));
        let words_13_on = [0, counter as u32, (counter >> 32) as u32];
        self.started = first_column_round(self.key, &self.state, &words_13_on);
        let mut positions = [BlockPosition {
            packet,
            block: first,
        }; BLOCKS];
        (0..)
            .zip(&mut positions)
            .for_each(|(i, position)| position.block += i);
        self.rounds(packets, positions);
    }

    /// Sixteen blocks of any packets. Only column 1 is the same in all of them.
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn pass_of_any(&mut self, packets: &mut [Packet], batch: &Batch) {
        let (blocks, counters) = batch.lanes();
        self.state = state_by_words(self.key, blocks, counters);
        self.started = first_column_round(self.key, &self.state, &[0]);
        self.rounds(packets, batch.positions);
    }

    /// The remaining rounds. Between them, the keystream of the pass before is transposed and used.
    #[inline(never)]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn rounds(&mut self, packets: &mut [Packet], positions: [BlockPosition; BLOCKS]) {
        let mut x = self.started;
        diagonals(&mut x);
        if self.pending.is_some() {
            for quad in 0..4 {
                double_round(&mut x);
                self.transpose_words(quad);
            }
            for column in 0..4 {
                double_round(&mut x);
                self.combine(packets, column);
            }
        } else {
            for _ in 0..8 {
                double_round(&mut x);
            }
        }
        double_round(&mut x);
        add(&mut x, &self.state);
        (self.keystream, self.pending) = (x, Some(positions));
    }

    /// The first half of the transpose, for four words, in place.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn transpose_words(&mut self, quad: usize) {
        let words = &mut self.keystream.as_chunks_mut().0[quad];
        let [a, b, c, d] = *words;
        *words = transpose_words(a, b, c, d);
    }

    /// The second half, for every fourth block from `column` on; combines these blocks with their
    /// text.
    #[inline]
    #[target_feature(enable = "avx512ifma,avx512vbmi2,avx512dq,avx512vl,bmi2")]
    fn combine(&mut self, packets: &mut [Packet], column: usize) {
        let Some(positions) = &self.pending else {
            return;
        };
        let of = |quad: usize| self.keystream[4 * quad + column];
        let blocks = transpose_parts(of(0), of(1), of(2), of(3));
        for (part, block) in blocks.into_iter().enumerate() {
            positions[4 * part + column].combine(packets, block);
        }
    }
}
