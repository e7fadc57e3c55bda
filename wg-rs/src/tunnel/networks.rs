//! The configuration of cryptokey routing: the owner of each network, and the order of a peer's
//! networks.
//!
//! The networks of a peer are a linked list, in the order in which they were given. Its members are the
//! networks' numbers in the routes, so a network that is moved changes only its neighbours, and a peer
//! needs eight bytes.

use std::hint::black_box;
use std::sync::Arc;

use super::allowed_ips::MAX_OWNERS;
use super::messages::MAX_PEERS;
use super::peer::Peer;
use super::peers::slot;
use super::plane::Plane;
use super::routes::RoutingTable;
use crate::model::AllowedIp;

const _: () = assert!(MAX_PEERS <= MAX_OWNERS as usize);

/// Cryptokey routing, and each network's place in its owner's list.
#[derive(Default)]
pub(super) struct Networks {
    routes: RoutingTable,
    /// The lists, by the peers' slots.
    lists: Vec<List>,
    /// By the networks' numbers.
    neighbours: Vec<Neighbours>,
}

/// The first and the last network of a peer. NONE if the peer has none.
#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

/// The networks before and after another in its list. NONE at the end of the list.
#[derive(Clone, Copy)]
struct Neighbours {
    before: u32,
    after: u32,
}

/// No network.
const NONE: u32 = u32::MAX;

const EMPTY: List = List {
    first: NONE,
    last: NONE,
};

impl Networks {
    /// Must be called for a new peer.
    pub(super) fn enter(&mut self, peer: &Arc<Peer>) {
        let slot = slot(peer.id);
        if slot >= self.lists.len() {
            self.lists.resize(slot + 1, EMPTY);
        }
        self.routes.enter(slot as u32, peer);
    }

    /// Must be called for a peer that is removed. Removes its networks.
    pub(super) fn leave(&mut self, id: u64) {
        self.take_all(id);
        self.routes.leave(slot(id) as u32);
    }

    /// Reads what a change of this network will need.
    pub(super) fn read_ahead(&self, ip: &AllowedIp) {
        let position = self.routes.read_ahead(ip);
        // The compiler must not leave out a read whose result is not used.
        black_box(self.neighbours.get(position.number() as usize).copied());
        if let Some(owner) = position.owner() {
            black_box(self.lists.get(owner as usize).copied());
        }
    }

    /// Reads what a change of this peer's networks will need.
    pub(super) fn read_ahead_of(&self, id: u64) {
        let list = self.lists.get(slot(id)).unwrap_or(&EMPTY);
        black_box(self.neighbours.get(list.last as usize).copied());
    }

    /// Gives a network to the peer with this id, and so takes it from its former owner.
    pub(super) fn give(&mut self, id: u64, ip: &AllowedIp) {
        let position = self.routes.position(ip);
        if let Some(former) = position.owner() {
            self.unlink(former as usize, position.number());
        }
        let number = self.routes.give(position, slot(id) as u32);
        self.link(slot(id), number);
    }

    /// Removes a network from the peer with this id, if it owns it.
    pub(super) fn take(&mut self, id: u64, ip: &AllowedIp) {
        let position = self.routes.position(ip);
        if position.owner() == Some(slot(id) as u32) {
            self.unlink(slot(id), position.number());
            self.routes.take(position);
        }
    }

    /// Adds a network to the list of the peer in this slot.
    fn link(&mut self, slot: usize, number: u32) {
        let list = &mut self.lists[slot];
        let before = std::mem::replace(&mut list.last, number);
        match self.neighbours.get_mut(before as usize) {
            Some(before) => before.after = number,
            None => list.first = number,
        }
        let ends = Neighbours {
            before,
            after: NONE,
        };
        match self.neighbours.get_mut(number as usize) {
            Some(free) => *free = ends,
            None => self.neighbours.resize(number as usize + 1, ends),
        }
    }

    /// Takes a network out of the list of the peer in this slot.
    fn unlink(&mut self, slot: usize, number: u32) {
        let list = &mut self.lists[slot];
        let Neighbours { before, after } = self.neighbours[number as usize];
        match self.neighbours.get_mut(before as usize) {
            Some(before) => before.after = after,
            None => list.first = after,
        }
        match self.neighbours.get_mut(after as usize) {
            Some(after) => after.before = before,
            None => list.last = before,
        }
    }

    /// Removes all networks of the peer with this id.
    pub(super) fn take_all(&mut self, id: u64) {
        for ip in self.of(id).collect::<Vec<_>>() {
            self.take(id, &ip);
        }
    }

    /// The networks of the peer with this id, in the order in which they were given.
    pub(super) fn of(&self, id: u64) -> impl Iterator<Item = AllowedIp> {
        let network = |number: u32| (number != NONE).then_some(number);
        let first = network(self.lists[slot(id)].first);
        let after = move |number: &u32| network(self.neighbours[*number as usize].after);
        std::iter::successors(first, after).map(|number| self.routes.network(number))
    }

    /// Makes all changes visible to the data path.
    pub(super) fn publish(&mut self, plane: &Plane) {
        self.routes.publish(plane);
        // Frees the memory of what may have been many networks and peers.
        if self.routes.is_empty() {
            self.neighbours = Vec::new();
        }
        if !self.routes.has_peers() {
            self.lists = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use wg_crypto::PublicKey;

    #[test]
    fn the_order_agrees_with_lists() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let plane = Plane::new();
        let mut networks = Networks::default();
        let enter = |networks: &mut Networks, id: u64| {
            networks.enter(&Arc::new(Peer::new(id, PublicKey::from_bytes([1; 32]))));
        };
        // Peers in the slots 0, 1 and 2.
        let mut ids = [0, 1, 2];
        ids.iter().for_each(|id| enter(&mut networks, *id));
        let mut lists: [Vec<AllowedIp>; 3] = Default::default();
        for step in 0..20_000 {
            let (at, octet) = (rng.random_range(0..3), rng.random_range(0..6));
            let ip = match rng.random() {
                true => AllowedIp::host([10, 0, 0, octet].into()),
                false => AllowedIp::host([0xfd00, 0, 0, 0, 0, 0, 0, octet.into()].into()),
            };
            match rng.random_range(0..20) {
                0..13 => {
                    networks.give(ids[at], &ip);
                    lists
                        .iter_mut()
                        .for_each(|list| list.retain(|other| *other != ip));
                    lists[at].push(ip);
                }
                13..19 => {
                    networks.take(ids[at], &ip);
                    lists[at].retain(|other| *other != ip);
                }
                _ => {
                    // Another peer in the same slot, with or without a `set` in between.
                    if rng.random() {
                        networks.leave(ids[at]);
                        if rng.random() {
                            networks.publish(&plane);
                        }
                        ids[at] += MAX_PEERS as u64;
                        enter(&mut networks, ids[at]);
                    } else {
                        networks.take_all(ids[at]);
                    }
                    lists[at].clear();
                }
            }
            if step % 3 == 0 {
                networks.publish(&plane);
                for (id, ip) in ids
                    .iter()
                    .zip(&lists)
                    .flat_map(|(id, list)| list.iter().map(move |ip| (id, ip)))
                {
                    assert_eq!(
                        plane.routes().lookup(ip.addr).map(|peer| peer.id),
                        Some(*id)
                    );
                }
            }
            for (id, list) in ids.iter().zip(&lists) {
                assert!(networks.of(*id).eq(list.iter().copied()));
            }
        }
        ids.iter().for_each(|id| networks.leave(*id));
        networks.publish(&plane);
        assert_eq!(
            networks.neighbours.capacity() + networks.lists.capacity(),
            0
        );
    }
}
