//! A path-compressed binary trie over the bits of an address.
//!
//! A node stands for a prefix. It either has an owner or is a fork with two children, so a trie of
//! n prefixes has fewer than 2n nodes. Nodes are in an array and refer to each other by index;
//! values are in a second array at the same index. So a look-up touches only small nodes, and a
//! change touches only the nodes that it concerns.
//!
//! A look-up in a large trie causes one cache miss after another. So a large trie also has
//! shortcuts past its upper levels ([`Shortcuts`]), and most look-ups see only one or two nodes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// An address as a sequence of bits, of which the first is the most significant.
pub(super) trait Bits: Copy + Eq {
    const WIDTH: u8;
    /// The first `cidr` bits; the others are zero.
    fn masked(self, cidr: u8) -> Self;
    /// The number of equal leading bits.
    fn common(self, other: Self) -> u8;
    /// The bit after the first `at` bits; meaningless if `at == WIDTH`.
    fn bit(self, at: u8) -> usize;
    /// A hash of the first `cidr` bits.
    fn hash(self, cidr: u8) -> u32;
}

macro_rules! bits {
    ($word:ty) => {
        impl Bits for $word {
            const WIDTH: u8 = <$word>::BITS as u8;

            fn masked(self, cidr: u8) -> Self {
                self & <$word>::MAX
                    .checked_shl((Self::WIDTH - cidr).into())
                    .unwrap_or(0)
            }

            fn common(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            fn bit(self, at: u8) -> usize {
                (self.wrapping_shl(at.into()) >> (Self::WIDTH - 1)) as usize
            }

            fn hash(self, cidr: u8) -> u32 {
                let bits = u128::from(self.masked(cidr));
                fold(fold((bits >> 64) as u64) ^ bits as u64) as u32
            }
        }
    };
}

bits!(u32);
bits!(u128);

/// The index that stands for no node.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node<A> {
    /// The prefix; its host bits are zero.
    bits: A,
    /// The subtries whose next bit is 0 and 1. In a freed node, the first is the next node in the
    /// free list.
    children: [u32; 2],
    cidr: u8,
    owned: bool,
}

#[derive(Clone)]
pub(super) struct Trie<A, T> {
    nodes: Vec<Node<A>>,
    /// `Some` if the node with the same index has an owner.
    values: Vec<Option<T>>,
    pub(super) root: u32,
    /// First node of the free list.
    free: u32,
    /// Number of owned prefixes.
    pub(super) len: usize,
    shortcuts: Option<Shortcuts>,
    /// The `len` at which shortcuts are created, or created again for the trie's current shape.
    pub(super) large: usize,
}

/// A trie with fewer prefixes than this fits in the nearest caches.
const LARGE: usize = 4096;

/// Shortcuts past the upper levels of a trie. For the first `depth` bits of an address they give
/// the topmost node with at least `depth` bits that begins with these bits. An owned node there or
/// below has a longer prefix than all nodes above. If none matches, the look-up starts again at the
/// root. Prefixes are distinguished only by their hash: if two have the same, the node does not
/// match the address, and one of them has no shortcut.
#[derive(Clone)]
struct Shortcuts {
    depth: u8,
    nodes: HashMap<u32, u32, BuildHasherDefault<Spread>>,
}

/// The keys are already hashes; this spreads them over the 64 bits that the map expects.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write_u32(&mut self, word: u32) {
        self.0 = u64::from(word) << 32 | u64::from(word);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u32");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Mixes all bits: multiplies, and combines both halves of the product.
fn fold(word: u64) -> u64 {
    let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}

/// The position of a node: below a parent, or at the root.
#[derive(Clone, Copy)]
enum NodePosition {
    Root,
    Child(u32, usize),
}

impl<A: Bits, T: Clone + PartialEq> Trie<A, T> {
    pub(super) const fn new() -> Self {
        Trie {
            nodes: Vec::new(),
            values: Vec::new(),
            root: NONE,
            free: NONE,
            len: 0,
            shortcuts: None,
            large: LARGE,
        }
    }

    pub(super) fn lookup(&self, addr: A) -> Option<&T> {
        if let Some(shortcuts) = &self.shortcuts
            && let Some(&start) = shortcuts.nodes.get(&addr.hash(shortcuts.depth))
            && let Some(owner) = self.descend(start, addr)
        {
            return Some(owner);
        }
        self.descend(self.root, addr)
    }

    /// The owner of the longest prefix that contains `addr`, among the node `start` and those
    /// below.
    fn descend(&self, start: u32, addr: A) -> Option<&T> {
        let (mut at, mut best) = (start, NONE);
        while let Some(node) = self.nodes.get(at as usize) {
            if node.bits.common(addr) < node.cidr {
                break;
            }
            if node.owned {
                best = at;
            }
            at = node.children[addr.bit(node.cidr)];
        }
        self.values.get(best as usize)?.as_ref()
    }

    pub(super) fn insert(&mut self, addr: A, cidr: u8, value: T) -> Option<T> {
        if self.len >= self.large {
            self.make_shortcuts();
        }
        let cidr = cidr.min(A::WIDTH);
        let bits = addr.masked(cidr);
        let mut link = NodePosition::Root;
        loop {
            let at = self.get(link);
            let Some(node) = self.nodes.get(at as usize).copied() else {
                let leaf = self.allocate(bits, cidr, Some(value));
                self.set(link, leaf);
                return None;
            };
            let common = node.bits.common(bits).min(node.cidr).min(cidr);
            if common < node.cidr {
                // The node is below the new prefix or beside it.
                let leaf = self.allocate(bits, cidr, Some(value));
                let mut above = leaf;
                if common < cidr {
                    above = self.allocate(bits.masked(common), common, None);
                    self.set(NodePosition::Child(above, bits.bit(common)), leaf);
                }
                self.set(NodePosition::Child(above, node.bits.bit(common)), at);
                self.set(link, above);
                return None;
            }
            if node.cidr == cidr {
                self.nodes[at as usize].owned = true;
                let former = self.values[at as usize].replace(value);
                self.len += usize::from(former.is_none());
                return former;
            }
            link = NodePosition::Child(at, bits.bit(node.cidr));
        }
    }

    pub(super) fn remove(&mut self, addr: A, cidr: u8, owner: &T) -> bool {
        let cidr = cidr.min(A::WIDTH);
        let bits = addr.masked(cidr);
        let (mut above, mut link) = (NodePosition::Root, NodePosition::Root);
        loop {
            let at = self.get(link);
            let Some(node) = self.nodes.get(at as usize) else {
                return false;
            };
            if node.bits.common(bits) < node.cidr || node.cidr > cidr {
                return false;
            }
            if node.cidr == cidr {
                break;
            }
            (above, link) = (link, NodePosition::Child(at, bits.bit(node.cidr)));
        }
        let at = self.get(link);
        if self.values[at as usize].as_ref() != Some(owner) {
            return false;
        }
        self.values[at as usize] = None;
        self.nodes[at as usize].owned = false;
        self.len -= 1;
        if self.len == 0 {
            // Frees the memory of what may have been many nodes.
            *self = Trie::new();
            return true;
        }
        self.prune(link);
        // Only a fork can become unnecessary by losing a child.
        if let NodePosition::Child(..) = link {
            self.prune(above);
        }
        true
    }

    /// Removes the node at `link`, unless it has an owner or two children.
    fn prune(&mut self, link: NodePosition) {
        let at = self.get(link);
        let Some(node) = self.nodes.get(at as usize) else {
            return;
        };
        let [zero, one] = node.children;
        if node.owned || (zero != NONE && one != NONE) {
            return;
        }
        self.set(link, if zero != NONE { zero } else { one });
        self.nodes[at as usize].children = [self.free, NONE];
        self.free = at;
    }

    fn allocate(&mut self, bits: A, cidr: u8, value: Option<T>) -> u32 {
        let owned = value.is_some();
        self.len += usize::from(owned);
        let node = Node {
            bits,
            children: [NONE; 2],
            cidr,
            owned,
        };
        if self.free != NONE {
            let at = self.free;
            self.free = self.nodes[at as usize].children[0];
            self.nodes[at as usize] = node;
            self.values[at as usize] = value;
            return at;
        }
        self.nodes.push(node);
        self.values.push(value);
        (self.nodes.len() - 1) as u32
    }

    fn get(&self, link: NodePosition) -> u32 {
        match link {
            NodePosition::Root => self.root,
            NodePosition::Child(parent, side) => self.nodes[parent as usize].children[side],
        }
    }

    fn set(&mut self, link: NodePosition, at: u32) {
        let former = self.get(link);
        let above = match link {
            NodePosition::Root => {
                self.root = at;
                None
            }
            NodePosition::Child(parent, side) => {
                self.nodes[parent as usize].children[side] = at;
                Some(self.nodes[parent as usize].cidr)
            }
        };
        let Some(Shortcuts { depth, nodes }) = &mut self.shortcuts else {
            return;
        };
        if above.is_some_and(|cidr| cidr >= *depth) {
            return;
        }
        if let Some(node) = self.nodes.get(at as usize) {
            if node.cidr >= *depth {
                nodes.insert(node.bits.hash(*depth), at);
            }
        } else if let Some(node) = self.nodes.get(former as usize)
            && node.cidr >= *depth
        {
            nodes.remove(&node.bits.hash(*depth));
        }
    }

    /// Chooses the depth of the shortcuts and creates them. The best depth is where the trie is
    /// widest, because as many look-ups can start there. Among depths of about that width the
    /// smallest is chosen, because shortcuts do not help prefixes above them.
    fn make_shortcuts(&mut self) {
        self.large = 2 * self.len;
        // Each node with the range of depths at which it is the topmost one.
        let mut topmost = Vec::with_capacity(2 * self.len);
        let mut pending = vec![(0, self.root)];
        while let Some((least, at)) = pending.pop() {
            let Some(node) = self.nodes.get(at as usize) else {
                continue;
            };
            topmost.push((least..=node.cidr, at));
            pending.extend(node.children.map(|child| (node.cidr + 1, child)));
        }
        // The width at each depth, from the differences between successive depths.
        let mut width = [0i32; u128::BITS as usize + 2];
        for (depths, _) in &topmost {
            width[*depths.start() as usize] += 1;
            width[*depths.end() as usize + 1] -= 1;
        }
        for depth in 1..width.len() {
            width[depth] += width[depth - 1];
        }
        let widest = width.iter().max().copied().unwrap_or(0);
        let depth = width.iter().position(|w| *w >= widest / 4 * 3).unwrap_or(0) as u8;
        let here = topmost.iter().filter(|(depths, _)| depths.contains(&depth));
        let nodes = here
            .map(|(_, at)| (self.nodes[*at as usize].bits.hash(depth), *at))
            .collect();
        self.shortcuts = Some(Shortcuts { depth, nodes });
    }
}

#[cfg(test)]
impl<A: Bits, T> Trie<A, T> {
    /// Number of nodes in use, including forks.
    pub(super) fn in_use(&self) -> usize {
        let (mut freed, mut at) = (0, self.free);
        while at != NONE {
            freed += 1;
            at = self.nodes[at as usize].children[0];
        }
        self.nodes.len() - freed
    }

    /// The greatest number of nodes that were in use.
    pub(super) fn ever_used(&self) -> usize {
        assert_eq!(self.nodes.len(), self.values.len());
        self.nodes.len()
    }

    pub(super) fn has_shortcuts(&self) -> bool {
        self.shortcuts.is_some()
    }

    /// Checks that exactly the topmost nodes at the depth of the shortcuts have one.
    pub(super) fn check_shortcuts(&self) {
        let Some(shortcuts) = &self.shortcuts else {
            return;
        };
        let (mut pending, mut count) = (vec![(0, self.root)], 0);
        while let Some((least, at)) = pending.pop() {
            let Some(node) = self.nodes.get(at as usize) else {
                continue;
            };
            if (least..=node.cidr).contains(&shortcuts.depth) {
                let key = node.bits.hash(shortcuts.depth);
                assert_eq!(shortcuts.nodes.get(&key), Some(&at));
                count += 1;
            }
            pending.extend(node.children.map(|child| (node.cidr + 1, child)));
        }
        assert_eq!(shortcuts.nodes.len(), count);
    }
}
