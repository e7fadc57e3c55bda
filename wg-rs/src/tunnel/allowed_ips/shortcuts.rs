//! A small hash table of nodes. An entry is usually in one cache line with the entries before it, so that
//! most look-ups in a table that is not in the caches cause one miss.
//!
//! Keys are hashes already. An entry is at the slot of its key, or, if that is taken, at the next free
//! one; there is no free slot between.

/// The value that stands for no node.
pub(super) const NONE: u32 = u32::MAX;

/// Shortcuts past the upper levels of a trie. For the first `depth` bits of an address they give
/// the topmost node with at least `depth` bits that begins with these bits. A numbered node there or
/// below has a longer prefix than all nodes above. If none matches, the look-up starts again at the
/// root. Prefixes are distinguished only by their hash: if two have the same, the node does not
/// match the address, and one of them has no shortcut.
#[derive(Clone)]
pub(super) struct Shortcuts {
    pub(super) depth: u8,
    /// Hashes and nodes; NONE in a free slot. Their number is a power of two.
    slots: Box<[(u32, u32)]>,
    len: usize,
}

impl Shortcuts {
    pub(super) fn new(depth: u8) -> Self {
        Shortcuts {
            depth,
            slots: Box::new([(0, NONE); 64]),
            len: 0,
        }
    }

    /// The slot of this hash, or the free one that it would take.
    fn slot(&self, hash: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].1 != NONE && self.slots[at].0 != hash {
            at = (at + 1) & mask;
        }
        at
    }

    /// The node of this hash. NONE if there is none.
    pub(super) fn get(&self, hash: u32) -> u32 {
        self.slots[self.slot(hash)].1
    }

    pub(super) fn insert(&mut self, hash: u32, node: u32) {
        let mut at = self.slot(hash);
        if self.slots[at].1 == NONE {
            self.len += 1;
            if self.len * 4 > self.slots.len() * 3 {
                self.grow();
                at = self.slot(hash);
            }
        }
        self.slots[at] = (hash, node);
    }

    fn grow(&mut self) {
        let doubled = vec![(0, NONE); self.slots.len() * 2].into_boxed_slice();
        for (hash, node) in std::mem::replace(&mut self.slots, doubled) {
            if node != NONE {
                let at = self.slot(hash);
                self.slots[at] = (hash, node);
            }
        }
    }

    pub(super) fn remove(&mut self, hash: u32) {
        let mask = self.slots.len() - 1;
        let mut free = self.slot(hash);
        if self.slots[free].1 == NONE {
            return;
        }
        self.len -= 1;
        // Entries behind the free slot move there, unless it is before the slot of their hash.
        let mut at = free;
        loop {
            at = (at + 1) & mask;
            let (hash, node) = self.slots[at];
            if node == NONE {
                break;
            }
            let distance = |to: usize| to.wrapping_sub(hash as usize) & mask;
            if distance(free) < distance(at) {
                self.slots[free] = (hash, node);
                free = at;
            }
        }
        self.slots[free].1 = NONE;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let taken = self.slots.iter().filter(|(_, node)| *node != NONE);
        assert_eq!(taken.count(), self.len);
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::collections::HashMap;

    #[test]
    fn agrees_with_a_map() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut table, mut map) = (Shortcuts::new(0), HashMap::new());
        for step in 0..40_000u32 {
            // Few slots are the first choice, so entries are often elsewhere, also past the end.
            let hash = rng.random_range(0..100) << 20 | 0xfff0 | rng.random_range(0..16);
            match rng.random() {
                true => {
                    table.insert(hash, step);
                    map.insert(hash, step);
                }
                false => {
                    table.remove(hash);
                    map.remove(&hash);
                }
            }
            assert_eq!(table.get(hash), map.get(&hash).copied().unwrap_or(NONE));
            if step % 100 == 0 {
                assert_eq!(table.len(), map.len());
                for (hash, node) in &map {
                    assert_eq!(table.get(*hash), *node);
                }
            }
        }
        for hash in map.into_keys() {
            table.remove(hash);
        }
        assert_eq!(table.len(), 0);
    }
}
