//! A path-compressed binary trie over the bits of an address.
//!
//! A node stands for a prefix. It either has an owner or is a fork with two children, so a trie of
//! n prefixes has fewer than 2n nodes. Nodes are in an array and refer to each other by index. They
//! are small, and a change touches only the nodes that it concerns.
//!
//! A way down a large trie causes one cache miss after another. So a large trie also has shortcuts
//! past its upper levels ([`Shortcuts`]), and most ways see only one or two nodes.
//!
//! Invariants:
//! - Tries that have had the same changes have the same nodes at the same indices. So a spot that was
//!   found in one is also right in the other.
//! - A prefix keeps its node for as long as it has an owner.

use std::hint::black_box;

use super::shortcuts::{NONE, Shortcuts};

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

/// The owner of a node that is only a fork. Owners are less than this.
pub(super) const FORK: u32 = u32::MAX >> 8;

/// The length of a prefix, and its owner. They share a word so that two nodes of IPv6 are as large as a
/// cache line.
#[derive(Clone, Copy)]
struct Tag(u32);

impl Tag {
    fn new(cidr: u8, owner: u32) -> Self {
        debug_assert!(owner <= FORK);
        Tag(owner << 8 | u32::from(cidr))
    }

    fn cidr(self) -> u8 {
        self.0 as u8
    }

    fn owner(self) -> u32 {
        self.0 >> 8
    }
}

#[derive(Clone, Copy)]
struct Node<A> {
    /// The prefix; its host bits are zero.
    bits: A,
    /// The subtries whose next bit is 0 and 1. In a freed node, the first is the next node in the
    /// free list.
    children: [u32; 2],
    /// NONE for the root.
    parent: u32,
    tag: Tag,
}

impl<A: Bits> Node<A> {
    fn cidr(&self) -> u8 {
        self.tag.cidr()
    }

    fn has_owner(&self) -> bool {
        self.tag.owner() != FORK
    }

    /// Whether the prefix contains `addr`.
    fn contains(&self, addr: A) -> bool {
        self.bits.common(addr) >= self.cidr()
    }

    /// Whether this is the topmost node at this depth. `above` is the length of its parent's prefix.
    fn is_topmost(&self, depth: u8, above: Option<u8>) -> bool {
        self.cidr() >= depth && above.is_none_or(|above| above < depth)
    }

    /// The child on the way to `addr`.
    fn towards(&self, addr: A) -> u32 {
        self.children[addr.bit(self.cidr())]
    }
}

/// Where a prefix is in a trie, or where it would be.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    /// The prefix's node or, if it has none, that of the longest prefix that contains it. NONE if none
    /// does.
    pub(super) node: u32,
    /// The node that is where the prefix would be. NONE if there is none.
    below: u32,
    /// FORK if the prefix has no owner.
    pub(super) owner: u32,
}

/// The prefixes and their owners.
#[derive(Clone)]
pub(super) struct Trie<A> {
    nodes: Vec<Node<A>>,
    pub(super) root: u32,
    /// First node of the free list.
    free: u32,
    /// Number of prefixes that have an owner.
    pub(super) len: usize,
    shortcuts: Option<Shortcuts>,
    /// Shortcuts past fewer levels. They serve the search for the position of a new prefix, for which
    /// `shortcuts` rarely has one.
    upper: Option<Shortcuts>,
    /// The `len` at which shortcuts are created, or created again for the trie's current shape.
    pub(super) large: usize,
}

/// A trie with fewer prefixes than this fits in the nearest caches.
const LARGE: usize = 4096;

/// By how many bits the upper shortcuts are shorter.
const UPPER: u8 = 3;

/// Mixes all bits: multiplies, and combines both halves of the product.
fn fold(word: u64) -> u64 {
    let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}

impl<A: Bits> Trie<A> {
    pub(super) const fn new() -> Self {
        Trie {
            nodes: Vec::new(),
            root: NONE,
            free: NONE,
            len: 0,
            shortcuts: None,
            upper: None,
            large: LARGE,
        }
    }

    /// The owner of the longest prefix that contains `addr`. FORK if none does.
    pub(super) fn lookup(&self, addr: A) -> u32 {
        if let Some(shortcuts) = &self.shortcuts {
            let start = shortcuts.get(addr.hash(shortcuts.depth));
            let owner = self.descend(start, addr);
            if owner != FORK {
                return owner;
            }
        }
        self.descend(self.root, addr)
    }

    /// The owner of the longest prefix that contains `addr`, among the node `start` and those below.
    fn descend(&self, start: u32, addr: A) -> u32 {
        let (mut at, mut best) = (start, FORK);
        while let Some(node) = self.nodes.get(at as usize) {
            if !node.contains(addr) {
                break;
            }
            if node.has_owner() {
                best = node.tag.owner();
            }
            at = node.towards(addr);
        }
        best
    }

    /// The prefix of a node, and its length.
    pub(super) fn prefix(&self, at: u32) -> (A, u8) {
        let node = &self.nodes[at as usize];
        (node.bits, node.cidr())
    }

    /// Finds a prefix, or where it would be. The host bits must be zero.
    pub(super) fn find(&self, bits: A, cidr: u8) -> Spot {
        let mut at = self.root;
        for shortcuts in [&self.shortcuts, &self.upper].into_iter().flatten() {
            if cidr >= shortcuts.depth
                && let start = shortcuts.get(bits.hash(shortcuts.depth))
                && let Some(node) = self.nodes.get(start as usize)
                && node.bits.common(bits) >= shortcuts.depth
            {
                at = start;
                break;
            }
        }
        let mut last = self.nodes.get(at as usize).map_or(NONE, |node| node.parent);
        while let Some(node) = self.nodes.get(at as usize)
            && node.cidr() <= cidr
            && node.contains(bits)
        {
            if node.cidr() == cidr {
                return Spot {
                    node: at,
                    below: NONE,
                    owner: node.tag.owner(),
                };
            }
            last = at;
            at = node.towards(bits);
        }
        Spot {
            node: last,
            below: at,
            owner: FORK,
        }
    }

    /// Reads the nodes that a change at this spot concerns.
    pub(super) fn read_ahead(&self, spot: Spot) {
        for at in [spot.node, spot.below] {
            black_box(self.nodes.get(at as usize).map(|node| node.tag.0));
        }
    }

    /// Gives a prefix to `owner`, at the spot that `find` returned. Returns its node.
    pub(super) fn give(&mut self, spot: Spot, bits: A, cidr: u8, owner: u32) -> u32 {
        if spot.owner == FORK {
            if self.len >= self.large {
                self.make_shortcuts();
            }
            self.len += 1;
        }
        if let Some(node) = self.nodes.get_mut(spot.node as usize)
            && node.cidr() == cidr
        {
            node.tag = Tag::new(cidr, owner);
            return spot.node;
        }
        let new = self.allocate(bits, Tag::new(cidr, owner));
        let mut top = new;
        if let Some(below) = self.nodes.get(spot.below as usize) {
            let below = below.bits;
            let common = below.common(bits).min(cidr);
            if common < cidr {
                top = self.allocate(bits.masked(common), Tag::new(common, FORK));
                self.hang(top, bits, new);
            }
            self.hang(top, below, spot.below);
        }
        self.hang(spot.node, bits, top);
        self.note(top);
        if new != top {
            self.note(new);
        }
        new
    }

    /// Removes the prefix of this node, which must have an owner.
    pub(super) fn remove(&mut self, at: u32) {
        self.len -= 1;
        if self.len == 0 {
            // Frees the memory of what may have been many nodes. Tests use shortcuts for fewer prefixes.
            let large = self.large.min(LARGE);
            *self = Trie {
                large,
                ..Trie::new()
            };
            return;
        }
        let node = &mut self.nodes[at as usize];
        node.tag = Tag::new(node.cidr(), FORK);
        let parent = node.parent;
        self.prune(at);
        // Only a fork can become unnecessary by losing a child.
        self.prune(parent);
    }

    /// Removes a node, unless it has an owner or two children.
    fn prune(&mut self, at: u32) {
        let Some(&node) = self.nodes.get(at as usize) else {
            return;
        };
        let [zero, one] = node.children;
        if node.has_owner() || (zero != NONE && one != NONE) {
            return;
        }
        let child = if zero != NONE { zero } else { one };
        let above = self.nodes.get(node.parent as usize).map(Node::cidr);
        for shortcuts in [&mut self.shortcuts, &mut self.upper].into_iter().flatten() {
            let depth = shortcuts.depth;
            if node.is_topmost(depth, above) {
                match child {
                    NONE => shortcuts.remove(node.bits.hash(depth)),
                    _ => shortcuts.insert(node.bits.hash(depth), child),
                }
            }
        }
        *self.link(node.parent, node.bits) = child;
        if let Some(child) = self.nodes.get_mut(child as usize) {
            child.parent = node.parent;
        }
        self.nodes[at as usize].children = [self.free, NONE];
        self.free = at;
    }

    fn allocate(&mut self, bits: A, tag: Tag) -> u32 {
        let node = Node {
            bits,
            children: [NONE; 2],
            parent: NONE,
            tag,
        };
        if self.free != NONE {
            let at = self.free;
            self.free = self.nodes[at as usize].children[0];
            self.nodes[at as usize] = node;
            return at;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Where `parent` refers to its child that begins with `bits`. Without a parent this is the root.
    fn link(&mut self, parent: u32, bits: A) -> &mut u32 {
        match self.nodes.get_mut(parent as usize) {
            Some(node) => &mut node.children[bits.bit(node.cidr())],
            None => &mut self.root,
        }
    }

    /// Makes the node `child`, which begins with `bits`, the child of `parent`.
    fn hang(&mut self, parent: u32, bits: A, child: u32) {
        *self.link(parent, bits) = child;
        self.nodes[child as usize].parent = parent;
    }

    /// Creates the shortcuts to a new node, if it has some.
    fn note(&mut self, at: u32) {
        let node = self.nodes[at as usize];
        let above = self.nodes.get(node.parent as usize).map(Node::cidr);
        for shortcuts in [&mut self.shortcuts, &mut self.upper].into_iter().flatten() {
            let depth = shortcuts.depth;
            if node.is_topmost(depth, above) {
                shortcuts.insert(node.bits.hash(depth), at);
            }
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
            topmost.push((least..=node.cidr(), at));
            pending.extend(node.children.map(|child| (node.cidr() + 1, child)));
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
        let shortcuts = |depth: u8| {
            let mut shortcuts = Shortcuts::new(depth);
            for (depths, at) in &topmost {
                if depths.contains(&depth) {
                    shortcuts.insert(self.nodes[*at as usize].bits.hash(depth), *at);
                }
            }
            Some(shortcuts)
        };
        let upper = depth.saturating_sub(UPPER);
        (self.shortcuts, self.upper) = (shortcuts(depth), shortcuts(upper));
    }
}

#[cfg(test)]
impl<A: Bits> Trie<A> {
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
        self.nodes.len()
    }

    /// The depth of the shortcuts, if there are some.
    pub(super) fn depth(&self) -> Option<u8> {
        self.shortcuts.as_ref().map(|shortcuts| shortcuts.depth)
    }

    /// Checks the parents, and that exactly the topmost nodes at a depth of shortcuts have one.
    pub(super) fn check(&self) {
        let mut pending = vec![(NONE, self.root)];
        while let Some((parent, at)) = pending.pop() {
            if let Some(node) = self.nodes.get(at as usize) {
                assert_eq!(node.parent, parent);
                pending.extend(node.children.map(|child| (at, child)));
            }
        }
        for shortcuts in [&self.shortcuts, &self.upper].into_iter().flatten() {
            let (mut pending, mut count) = (vec![(0, self.root)], 0);
            while let Some((least, at)) = pending.pop() {
                let Some(node) = self.nodes.get(at as usize) else {
                    continue;
                };
                if (least..=node.cidr()).contains(&shortcuts.depth) {
                    assert_eq!(shortcuts.get(node.bits.hash(shortcuts.depth)), at);
                    count += 1;
                }
                pending.extend(node.children.map(|child| (node.cidr() + 1, child)));
            }
            assert_eq!(shortcuts.len(), count);
        }
    }
}
