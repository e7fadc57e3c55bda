//! Cryptokey routing, which the owner changes while the data path reads it, without a lock and
//! without copying the table.
//!
//! ```text
//! change  ─► the owner's table, and a list of the changes
//! publish ─► the owner's table and the data path's table are exchanged
//!         ─► the changes are repeated in the table that the owner has now
//! ```
//! There are two tables with the same content. Only the owner accesses its own. The two are
//! exchanged at the end of a `set`, and the table that comes back is updated as soon as no earlier
//! burst uses it. So a change costs twice a constant amount, whatever the size of the table. The
//! position of a network is searched once, because both tables have it at the same position.
//!
//! Invariants:
//! - A reader sees the table before a `set` or after it, and nothing in between.
//! - A reader never frees a table: the owner has a reference for as long as a reader may have one.

use super::peer::Peer;
use super::plane::{NetworkPosition, Plane, Routes};
use crate::model::AllowedIp;
use crate::sync::{Arc, thread};

/// How often the owner yields while a burst uses the table that it needs: bursts are short, but the
/// thread of a burst may not be running.
const YIELDS: usize = 100;

/// The owner's side of cryptokey routing.
#[derive(Default)]
pub(super) struct RoutingTable {
    /// The owner's table: up to date except for `missing`, and shared only with bursts that began
    /// before it came back.
    own: Arc<Routes>,
    /// The data path's table.
    published: Arc<Routes>,
    /// Changes in the data path's table that `own` lacks.
    missing: Vec<RouteChange>,
    /// Changes in `own` that the data path's table lacks. It is empty if `missing` is not.
    unpublished: Vec<RouteChange>,
    /// Former tables that slow bursts still use.
    retired: Vec<Arc<Routes>>,
}

/// A change of a table.
enum RouteChange {
    /// The peer with this index can own networks.
    Enter(u32, Arc<Peer>),
    /// The peer with this index, which owns no network, is removed.
    Leave(u32),
    /// The network at this position is given to the peer with this index.
    Give(NetworkPosition, u32),
    /// The network at this position is removed.
    Take(NetworkPosition),
}

impl RouteChange {
    fn apply(&self, routes: &mut Routes) {
        match self {
            Self::Enter(index, peer) => routes.set_owner(*index, peer.clone()),
            Self::Leave(index) => routes.remove_owner(*index),
            Self::Give(position, index) => _ = routes.give(position, *index),
            Self::Take(position) => routes.take(position),
        }
    }
}

impl RoutingTable {
    /// Lets a peer own networks, by this index.
    pub(super) fn enter(&mut self, index: u32, peer: &Arc<Peer>) {
        self.change(RouteChange::Enter(index, peer.clone()));
    }

    /// Removes a peer that owns no network.
    pub(super) fn leave(&mut self, index: u32) {
        self.change(RouteChange::Leave(index));
    }

    /// Where a network is, or where it would be. This is right until the next change.
    pub(super) fn position(&self, ip: &AllowedIp) -> NetworkPosition {
        self.current().position(ip.addr, ip.cidr)
    }

    /// Reads what a change of this network will need in both tables.
    pub(super) fn read_ahead(&self, ip: &AllowedIp) -> NetworkPosition {
        let position = self.own.position(ip.addr, ip.cidr);
        self.published.read_ahead(&position);
        position
    }

    /// Gives the network at this position to the peer with this index. Returns the network's number.
    pub(super) fn give(&mut self, position: NetworkPosition, index: u32) -> u32 {
        let number = self.up_to_date().give(&position, index);
        self.unpublished.push(RouteChange::Give(position, index));
        number
    }

    /// Removes the network at this position.
    pub(super) fn take(&mut self, position: NetworkPosition) {
        self.change(RouteChange::Take(position));
    }

    fn change(&mut self, change: RouteChange) {
        change.apply(self.up_to_date());
        self.unpublished.push(change);
    }

    /// The network with this number, which has an owner.
    pub(super) fn network(&self, number: u32) -> AllowedIp {
        let (addr, cidr) = self.current().network(number);
        AllowedIp { addr, cidr }
    }

    /// Whether no network has an owner.
    pub(super) fn is_empty(&self) -> bool {
        self.current().is_empty()
    }

    /// Whether a peer can own networks.
    pub(super) fn has_peers(&self) -> bool {
        self.current().has_owners()
    }

    /// The table with all changes.
    fn current(&self) -> &Routes {
        match self.missing.is_empty() {
            true => &self.own,
            false => &self.published,
        }
    }

    /// Makes all changes visible to the data path.
    pub(super) fn publish(&mut self, plane: &Plane) {
        if self.unpublished.is_empty() {
            return;
        }
        self.up_to_date();
        let former = plane.exchange_routes(self.own.clone());
        self.published = std::mem::replace(&mut self.own, former);
        self.missing = std::mem::take(&mut self.unpublished);
        self.catch_up();
        self.retired.retain(|table| Arc::strong_count(table) > 1);
    }

    /// The owner's table. If a burst still uses it after a while, the burst keeps it, and a copy
    /// replaces it.
    fn up_to_date(&mut self) -> &mut Routes {
        if !self.catch_up() {
            let copy = Arc::new(Routes::clone(&self.own));
            self.retired.push(std::mem::replace(&mut self.own, copy));
            self.catch_up();
        }
        Arc::get_mut(&mut self.own).expect("nobody else has it")
    }

    /// Updates the owner's table, unless a burst uses it. Returns whether it was updated.
    fn catch_up(&mut self) -> bool {
        for _ in 0..YIELDS {
            if let Some(own) = Arc::get_mut(&mut self.own) {
                for change in self.missing.drain(..) {
                    change.apply(own);
                }
                // After a large `set` the list would occupy much memory without need.
                self.missing.shrink_to(64);
                return true;
            }
            thread::yield_now();
        }
        false
    }

    /// The owner of this address in the owner's table.
    #[cfg(test)]
    fn lookup(&mut self, addr: std::net::IpAddr) -> Option<&Arc<Peer>> {
        self.up_to_date().lookup(addr)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Weak;

    use super::*;
    use wg_crypto::PublicKey;

    fn peer(id: u64) -> Arc<Peer> {
        Arc::new(Peer::new(id, PublicKey::from_bytes([id as u8; 32])))
    }

    fn ip(text: &str) -> AllowedIp {
        let (addr, cidr) = text.split_once('/').unwrap();
        AllowedIp::new(addr.parse().unwrap(), cidr.parse().unwrap()).unwrap()
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The index of a peer of these tests.
    fn index(peer: &Peer) -> u32 {
        peer.id as u32
    }

    impl RoutingTable {
        /// A table for these peers.
        fn of(peers: &[Arc<Peer>]) -> Self {
            let mut table = RoutingTable::default();
            for peer in peers {
                table.enter(index(peer), peer);
            }
            table
        }

        /// Gives a network to a peer. Returns whether it had an owner.
        fn insert(&mut self, ip: &AllowedIp, peer: &Peer) -> bool {
            let position = self.position(ip);
            self.give(position, index(peer));
            position.owner().is_some()
        }

        /// Removes a network, which must be the peer's.
        fn remove(&mut self, ip: &AllowedIp, peer: &Peer) {
            let position = self.position(ip);
            assert_eq!(position.owner(), Some(index(peer)));
            self.take(position);
        }
    }

    #[test]
    fn readers_see_published_changes_and_both_tables_are_equal() {
        let plane = Plane::new();
        let peers = [peer(1), peer(2)];
        let mut table = RoutingTable::of(&peers);
        let seen = |at: &str| plane.routes().lookup(addr(at)).map(|peer| peer.id);
        for turn in 0..6 {
            let (new, former) = (&peers[turn % 2], &peers[1 - turn % 2]);
            let had = table.insert(&ip("10.0.0.0/8"), new);
            assert_eq!(had, turn > 0);
            let before = (turn > 0).then_some(former.id);
            assert_eq!(seen("10.1.1.1"), before, "not published yet");
            table.publish(&plane);
            assert_eq!(seen("10.1.1.1"), Some(new.id));
            assert_eq!(table.lookup(addr("10.1.1.1")).unwrap().id, new.id);
        }
        table.remove(&ip("10.0.0.0/8"), &peers[1]);
        table.publish(&plane);
        assert!(plane.routes().is_empty() && table.lookup(addr("10.1.1.1")).is_none());
    }

    #[test]
    fn a_removed_peer_is_freed_at_once() {
        let plane = Plane::new();
        let peer = peer(1);
        let mut table = RoutingTable::of(std::slice::from_ref(&peer));
        table.insert(&ip("fd00::/8"), &peer);
        table.publish(&plane);
        table.remove(&ip("fd00::/8"), &peer);
        table.leave(index(&peer));
        table.publish(&plane);
        assert_eq!(Arc::strong_count(&peer), 1);
    }

    #[test]
    fn a_slow_burst_keeps_its_table_and_frees_nothing() {
        let plane = Plane::new();
        let [one, two] = [peer(1), peer(2)];
        let mut table = RoutingTable::of(&[one.clone(), two.clone()]);
        table.insert(&ip("10.0.0.0/8"), &one);
        table.publish(&plane);
        // Bursts that last longer than three changes.
        let long = plane.routes();
        let longer: Arc<Routes> = plane.routes().clone();
        let held: Weak<Routes> = Arc::downgrade(&longer);
        for (network, peer) in [("10.0.0.0/9", &two), ("10.0.0.0/8", &two)] {
            table.insert(&ip(network), peer);
            table.publish(&plane);
        }
        table.remove(&ip("10.0.0.0/9"), &two);
        table.publish(&plane);
        for routes in [&*long, &longer] {
            assert_eq!(routes.lookup(addr("10.1.1.1")).unwrap().id, 1);
            assert_eq!(routes.len(), 1);
        }
        assert_eq!(plane.routes().lookup(addr("10.1.1.1")).unwrap().id, 2);
        assert_eq!(plane.routes().len(), 1);
        // The owner frees the table, and not the last reader.
        drop((long, longer));
        assert!(held.upgrade().is_some());
        table.insert(&ip("10.0.0.0/8"), &one);
        table.publish(&plane);
        assert!(held.upgrade().is_none() && table.retired.is_empty());
    }

    #[test]
    fn readers_on_other_threads_see_whole_sets() {
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
        let plane = Plane::new();
        let peers = [peer(1), peer(2)];
        let mut table = RoutingTable::of(&peers);
        let networks: Vec<AllowedIp> = (0..64).map(|n| ip(&format!("10.{n}.0.0/16"))).collect();
        let all_to = |table: &mut RoutingTable, peer: &Arc<Peer>| {
            for network in &networks {
                table.insert(network, peer);
            }
            table.publish(&plane);
        };
        all_to(&mut table, &peers[0]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        let routes = plane.routes();
                        let owner = |network: &AllowedIp| routes.lookup(network.addr).unwrap().id;
                        let first = owner(&networks[0]);
                        assert!(networks.iter().all(|network| owner(network) == first));
                    }
                });
            }
            for turn in 0..2000 {
                all_to(&mut table, &peers[turn % 2]);
            }
            stop.store(true, Relaxed);
        });
    }
}
