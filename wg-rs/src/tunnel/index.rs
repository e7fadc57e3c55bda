//! Finds the session for the index in a data packet.
//!
//! We choose the indices, so no hash is needed. An index is random, so that it reveals nothing
//! about the peer or earlier sessions. Its low bits select a slot in a table, which doubles when it
//! is 7/8 full, so that a small table stays in the caches. An index whose slot is taken is not
//! chosen. After doubling, each index still has a slot of its own, because the lower bits already
//! differ.
//!
//! Invariants:
//! - Receiving threads read slots without a lock. Slots are written while `taken` is locked: by the
//!   owner, and by the data path when a confirmed session pushes out an old one.
//! - A slot is taken from the moment its index is chosen for a handshake. Later it holds the
//!   session, as long as this is one of its peer's three.
//! - A reader that finds a slot during a change gets the session before or after it; the packet
//!   then cannot be opened.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use rand_core::RngCore;

use super::keypair::{Discarded, Keypair};
use super::peer::Peer;

const MIN_SLOTS: usize = 64;

/// The sessions of a device by local index.
pub struct Index {
    slots: ArcSwap<Box<[Slot]>>,
    taken: Mutex<usize>,
}

#[derive(Default)]
struct Slot {
    /// The index that has taken this slot. If the index belongs to another slot, this one is free.
    index: AtomicU32,
    session: ArcSwapOption<Keypair<Peer>>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            slots: ArcSwap::from_pointee(free_slots(MIN_SLOTS)),
            taken: Mutex::new(0),
        }
    }
}

impl Index {
    /// The session with this index. It is guarded and not counted: the count is in the session
    /// itself, which is not in a cache if there are many sessions, and a look-up need not access
    /// it.
    pub fn lookup(&self, index: u32) -> Guard<Option<Arc<Keypair<Peer>>>> {
        let slots = self.slots.load();
        let slot = &slots[place(index, slots.len())];
        if slot.index.load(Ordering::Acquire) != index {
            return Guard::from_inner(None);
        }
        slot.session.load()
    }

    /// Whether the index is taken, by a session or a handshake.
    pub(crate) fn is_reserved(&self, index: u32) -> bool {
        let slots = self.slots.load();
        slots[place(index, slots.len())]
            .index
            .load(Ordering::Acquire)
            == index
    }

    fn taken(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses an unused index and takes its slot.
    pub fn reserve(&self, rng: &mut dyn RngCore) -> u32 {
        let mut taken = self.taken();
        let mut slots = self.slots.load_full();
        *taken += 1;
        if *taken * 8 > slots.len() * 7 {
            let doubled = free_slots(slots.len() * 2);
            for (at, slot) in slots.iter().enumerate() {
                let index = slot.index.load(Ordering::Relaxed);
                if place(index, slots.len()) == at {
                    let new = &doubled[place(index, doubled.len())];
                    new.session.store(slot.session.load_full());
                    new.index.store(index, Ordering::Relaxed);
                }
            }
            self.slots.store(Arc::new(doubled));
            slots = self.slots.load_full();
        }
        loop {
            let index = rng.next_u32();
            let at = place(index, slots.len());
            let slot = &slots[at];
            if place(slot.index.load(Ordering::Relaxed), slots.len()) != at {
                slot.index.store(index, Ordering::Release);
                return index;
            }
        }
    }

    /// Stores the session of a reserved index in its slot.
    pub fn insert(&self, session: &Arc<Keypair<Peer>>) {
        let _taken = self.taken();
        let slots = self.slots.load();
        let slot = &slots[place(session.local(), slots.len())];
        debug_assert_eq!(slot.index.load(Ordering::Relaxed), session.local());
        slot.session.store(Some(session.clone()));
    }

    /// Frees the slot of an index.
    pub(crate) fn release(&self, index: u32) {
        let mut taken = self.taken();
        let slots = self.slots.load();
        let at = place(index, slots.len());
        let slot = &slots[at];
        if slot.index.load(Ordering::Relaxed) == index {
            slot.index.store(elsewhere(at), Ordering::Release);
            slot.session.store(None);
            *taken -= 1;
        }
    }

    /// Frees the slots of ended sessions.
    pub(crate) fn remove(&self, discarded: &Discarded<Peer>) {
        for session in discarded.iter().flatten() {
            self.release(session.local());
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let slots = self.slots.load();
        slots
            .iter()
            .filter(|slot| slot.session.load().is_some())
            .count()
    }

    #[cfg(test)]
    pub(crate) fn reserved(&self) -> usize {
        let taken = self.taken();
        let slots = self.slots.load();
        let is_taken = |(at, slot): &(usize, &Slot)| {
            place(slot.index.load(Ordering::Relaxed), slots.len()) == *at
        };
        assert_eq!(slots.iter().enumerate().filter(is_taken).count(), *taken);
        *taken
    }
}

/// The slot of an index, if there are `slots` slots (a power of two).
fn place(index: u32, slots: usize) -> usize {
    index as usize & (slots - 1)
}

/// An index that belongs to another slot.
fn elsewhere(at: usize) -> u32 {
    !(at as u32)
}

fn free_slots(count: usize) -> Box<[Slot]> {
    let free = |at| Slot {
        index: AtomicU32::new(elsewhere(at)),
        session: ArcSwapOption::empty(),
    };
    (0..count).map(free).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use wg_crypto::{AeadBackend, OpeningKey, PublicKey, SealingKey, SessionKeys};

    use super::*;
    use crate::tunnel::keypair::Origin;
    use crate::tunnel::time::Time;

    #[test]
    fn agrees_with_a_map() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let peer = Arc::new(Peer::new(0, PublicKey::from_bytes([1; 32])));
        let (index, mut map) = (Index::default(), HashMap::new());
        let mut reserved = Vec::new();
        for step in 0..20_000 {
            match rng.random_range(0..10) {
                0..4 => reserved.push(index.reserve(&mut rng)),
                4..7 if !reserved.is_empty() => {
                    let at = rng.random_range(0..reserved.len());
                    let local = reserved.swap_remove(at);
                    let keys = SessionKeys {
                        sealing: SealingKey::new(AeadBackend::Library, &[1; 32]),
                        opening: OpeningKey::new(AeadBackend::Library, &[1; 32]),
                    };
                    let origin = Origin {
                        local,
                        receiver: 0,
                        is_initiator: true,
                        jitter: Duration::ZERO,
                        created: Time::ZERO,
                    };
                    let session = Keypair::new(&peer, keys, origin);
                    index.insert(&session);
                    map.insert(local, session);
                }
                7 if !reserved.is_empty() => {
                    index.release(reserved.swap_remove(0));
                }
                8 if !map.is_empty() && step > 10_000 => {
                    let local = *map.keys().next().unwrap();
                    index.remove(&[map.remove(&local), None, None]);
                    assert!(index.lookup(local).is_none());
                }
                _ => {}
            }
            if let Some((local, session)) = map.iter().next() {
                assert!(Arc::ptr_eq(index.lookup(*local).as_ref().unwrap(), session));
            }
            assert!(index.lookup(rng.random()).is_none());
        }
        assert_eq!(index.reserved(), map.len() + reserved.len());
        assert!(
            map.iter().all(|(local, session)| Arc::ptr_eq(
                index.lookup(*local).as_ref().unwrap(),
                session
            ))
        );
        assert!(reserved.iter().all(|local| index.lookup(*local).is_none()));
        assert!(map.len() > 1000 && index.slots.load().len() <= 4 * index.reserved());
    }

    #[test]
    fn a_free_slot_matches_no_index() {
        let index = Index::default();
        for at in 0..1 << 16 {
            assert!(index.lookup(at).is_none() && index.lookup(!at).is_none());
        }
    }
}
