//! Cryptokey routing: which peer owns an address (whitepaper section 2).
//!
//! Owners are in an array, and a network has the index of its owner. So a network that is given to
//! another owner changes one word, and no references are counted.

mod shortcuts;
mod trie;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use trie::{Bits, FORK, Spot, Trie};

/// The networks of both families and their owners. Each network has exactly one owner.
#[derive(Clone)]
pub struct AllowedIps<T> {
    v4: Trie<u32>,
    v6: Trie<u128>,
    owners: Vec<Option<T>>,
}

/// The greatest number of owners.
pub const MAX_OWNERS: u32 = FORK;

/// Where a network is in a table, or where it would be. This is also right in another table that has
/// had the same changes.
#[derive(Clone, Copy)]
pub struct NetworkPosition {
    addr: IpAddr,
    cidr: u8,
    /// In the trie of the address's family.
    spot: Spot,
}

impl NetworkPosition {
    /// The index of the network's owner.
    pub fn owner(&self) -> Option<u32> {
        (self.spot.owner != FORK).then_some(self.spot.owner)
    }

    /// The number of a network that has an owner. It is the same for as long as the network has one,
    /// and less than four times the greatest number of networks.
    pub fn number(&self) -> u32 {
        number(&self.addr, self.spot.node)
    }
}

/// The number of the network with this node.
fn number(addr: &IpAddr, node: u32) -> u32 {
    node << 1 | u32::from(addr.is_ipv6())
}

impl<T> AllowedIps<T> {
    /// An empty table.
    pub const fn new() -> Self {
        AllowedIps {
            v4: Trie::new(),
            v6: Trie::new(),
            owners: Vec::new(),
        }
    }

    /// Sets the owner that has this index, which is less than [`MAX_OWNERS`].
    pub fn set_owner(&mut self, index: u32, owner: T) {
        let index = index as usize;
        if index >= self.owners.len() {
            self.owners.resize_with(index + 1, || None);
        }
        self.owners[index] = Some(owner);
    }

    /// Whether there is an owner.
    pub fn has_owners(&self) -> bool {
        !self.owners.is_empty()
    }

    /// Removes the owner that has this index. It must own no network.
    pub fn remove_owner(&mut self, index: u32) {
        self.owners[index as usize] = None;
        while self.owners.pop_if(|last| last.is_none()).is_some() {}
        if self.owners.is_empty() {
            // Frees the memory of what may have been many owners.
            self.owners = Vec::new();
        }
    }

    /// The position of `addr/cidr`; host bits are ignored. A `cidr` above the address's length means the
    /// whole address.
    pub fn position(&self, addr: IpAddr, cidr: u8) -> NetworkPosition {
        fn find<A: Bits>(trie: &Trie<A>, addr: A, cidr: u8) -> (A, u8, Spot) {
            let cidr = cidr.min(A::WIDTH);
            let bits = addr.masked(cidr);
            (bits, cidr, trie.find(bits, cidr))
        }
        let (addr, cidr, spot) = match addr {
            IpAddr::V4(addr) => {
                let (bits, cidr, spot) = find(&self.v4, addr.to_bits(), cidr);
                (Ipv4Addr::from_bits(bits).into(), cidr, spot)
            }
            IpAddr::V6(addr) => {
                let (bits, cidr, spot) = find(&self.v6, addr.to_bits(), cidr);
                (Ipv6Addr::from_bits(bits).into(), cidr, spot)
            }
        };
        NetworkPosition { addr, cidr, spot }
    }

    /// Reads the nodes that a change at this position concerns.
    pub fn read_ahead(&self, position: &NetworkPosition) {
        match position.addr {
            IpAddr::V4(_) => self.v4.read_ahead(position.spot),
            IpAddr::V6(_) => self.v6.read_ahead(position.spot),
        }
    }

    /// Gives the network at this position to the owner that has this index. Returns the network's number.
    /// Positions that were found before are no longer right.
    pub fn give(&mut self, position: &NetworkPosition, owner: u32) -> u32 {
        let NetworkPosition { addr, cidr, spot } = position;
        let node = match addr {
            IpAddr::V4(addr) => self.v4.give(*spot, addr.to_bits(), *cidr, owner),
            IpAddr::V6(addr) => self.v6.give(*spot, addr.to_bits(), *cidr, owner),
        };
        number(addr, node)
    }

    /// Removes the network at this position, if it has an owner. Positions that were found before are no
    /// longer right.
    pub fn take(&mut self, position: &NetworkPosition) {
        if position.owner().is_none() {
            return;
        }
        match position.addr {
            IpAddr::V4(_) => self.v4.remove(position.spot.node),
            IpAddr::V6(_) => self.v6.remove(position.spot.node),
        }
    }

    /// The network with this number: its address without host bits, and its length.
    pub fn network(&self, number: u32) -> (IpAddr, u8) {
        let (node, is_v6) = (number >> 1, number & 1 == 1);
        if is_v6 {
            let (bits, cidr) = self.v6.prefix(node);
            (Ipv6Addr::from_bits(bits).into(), cidr)
        } else {
            let (bits, cidr) = self.v4.prefix(node);
            (Ipv4Addr::from_bits(bits).into(), cidr)
        }
    }

    /// The owner of the longest prefix that contains `addr`.
    pub fn lookup(&self, addr: IpAddr) -> Option<&T> {
        match addr {
            IpAddr::V4(addr) => self.lookup_v4(addr),
            IpAddr::V6(addr) => self.lookup_v6(addr),
        }
    }

    /// The owner of the longest prefix that contains `addr`.
    pub fn lookup_v4(&self, addr: Ipv4Addr) -> Option<&T> {
        let owner = self.v4.lookup(addr.to_bits());
        self.owners.get(owner as usize)?.as_ref()
    }

    /// The owner of the longest prefix that contains `addr`.
    pub fn lookup_v6(&self, addr: Ipv6Addr) -> Option<&T> {
        let owner = self.v6.lookup(addr.to_bits());
        self.owners.get(owner as usize)?.as_ref()
    }

    /// The number of networks of both families.
    pub fn len(&self) -> usize {
        self.v4.len + self.v6.len
    }

    /// Whether no network has an owner.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for AllowedIps<T> {
    fn default() -> Self {
        AllowedIps::new()
    }
}

#[cfg(test)]
mod tests;
