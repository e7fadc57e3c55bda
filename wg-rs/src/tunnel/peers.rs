//! The peers of a device: each is in a slot, and found by its id or its key.
//!
//! A peer's id has its slot in the lower bits, and in the higher bits how many peers were ever added. So
//! peers are found without a search, ids are not used again, and their order is that in which the peers
//! were added.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use wg_crypto::PublicKey;

use super::entry::Entry;
use super::messages::MAX_PEERS;
use super::peer::Peer;

/// The peers of a device.
#[derive(Default)]
pub(super) struct Peers {
    slots: Vec<Option<Slot>>,
    /// Slots without a peer.
    free: Vec<u32>,
    /// The slots by their peers' keys. It does not contain the keys, so it is small.
    by_key: HashTable<u32>,
    hasher: RandomState,
    /// How many peers were ever added.
    added: u64,
}

/// The id and the key are here so that they are compared without access to the peer.
struct Slot {
    id: u64,
    key: PublicKey,
    entry: Entry,
}

/// The slot of the peer with this id. Slots are less than [`MAX_PEERS`].
pub(super) fn slot(id: u64) -> usize {
    id as usize % MAX_PEERS
}

impl Peers {
    /// Adds a peer with a new key. There must be fewer than [`MAX_PEERS`].
    pub(super) fn add(&mut self, key: PublicKey) -> &Arc<Peer> {
        let at = self.free.pop().unwrap_or(self.slots.len() as u32);
        self.added += 1;
        let id = self.added * MAX_PEERS as u64 + u64::from(at);
        let entry = Entry::new(Arc::new(Peer::new(id, key)));
        if at as usize == self.slots.len() {
            self.slots.push(None);
        }
        let hash = self.hasher.hash_one(key);
        let key_of = |at: &u32| self.slots[*at as usize].as_ref().map(|slot| slot.key);
        let hash_of = |at: &u32| key_of(at).map_or(0, |key| self.hasher.hash_one(key));
        self.by_key.insert_unique(hash, at, hash_of);
        let slot = &mut self.slots[at as usize];
        &slot.insert(Slot { id, key, entry }).entry.shared
    }

    /// Removes a peer.
    pub(super) fn remove(&mut self, id: u64) -> Option<Entry> {
        let at = slot(id);
        let taken = self.slots.get_mut(at)?.take_if(|slot| slot.id == id)?;
        let Slot { key, entry, .. } = taken;
        let at = at as u32;
        let hash = self.hasher.hash_one(key);
        if let Ok(found) = self.by_key.find_entry(hash, |other| *other == at) {
            found.remove();
        }
        self.free.push(at);
        if self.is_empty() {
            // Frees the memory of what may have been many peers.
            (self.slots, self.free) = (Vec::new(), Vec::new());
            self.by_key = HashTable::new();
        }
        Some(entry)
    }

    /// The id of the peer with this key.
    pub(super) fn by_key(&self, key: &PublicKey) -> Option<u64> {
        let slot = |at: &u32| self.slots[*at as usize].as_ref();
        let is_it = |at: &u32| slot(at).is_some_and(|slot| slot.key == *key);
        let hash = self.hasher.hash_one(key);
        slot(self.by_key.find(hash, is_it)?).map(|slot| slot.id)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Entry> {
        let slot = self.slots.get(slot(id))?.as_ref();
        Some(&slot.filter(|slot| slot.id == id)?.entry)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(slot(id))?.as_mut();
        Some(&mut slot.filter(|slot| slot.id == id)?.entry)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All peers, in the order in which they were added.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let mut all: Vec<_> = self.slots.iter().flatten().collect();
        all.sort_unstable_by_key(|slot| slot.id);
        all.into_iter().map(|slot| &slot.entry)
    }

    /// All peers, in any order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.slots.iter_mut().flatten().map(|slot| &mut slot.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_in_order_and_former_ones_are_not_found() {
        let key = |n: u8| PublicKey::from_bytes([n; 32]);
        let mut peers = Peers::default();
        let ids: Vec<_> = (0..5).map(|n| peers.add(key(n)).id).collect();
        assert!(ids.is_sorted() && ids.iter().map(|id| slot(*id)).eq(0..5));
        assert!(peers.remove(ids[1]).is_some() && peers.remove(ids[1]).is_none());
        let again = peers.add(key(1)).id;
        assert!(slot(again) == slot(ids[1]) && again > ids[4]);
        assert!(peers.get(ids[1]).is_none() && peers.get_mut(ids[1]).is_none());
        assert_eq!(peers.by_key(&key(1)), Some(again));
        let order = [0, 2, 3, 4, 1].map(key);
        assert!(
            peers
                .iter()
                .map(|entry| *entry.shared.public_key())
                .eq(order)
        );
        assert_eq!(peers.iter_mut().count(), 5);
        for n in 0..5 {
            let id = peers.by_key(&key(n)).unwrap();
            assert_eq!(*peers.remove(id).unwrap().shared.public_key(), key(n));
        }
        assert!(peers.is_empty() && peers.slots.capacity() == 0 && peers.free.capacity() == 0);
        assert!(peers.add(key(9)).id > again, "ids are not used again");
    }
}
