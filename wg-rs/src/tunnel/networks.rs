//! The configuration of cryptokey routing: the owner of each network, and the order of a peer's
//! networks. The lists of all peers are in one map: a map for each peer takes 300 bytes, also for the
//! one network that most peers have.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::peer::Peer;
use super::plane::Plane;
use super::routes::RoutingTable;
use crate::model::AllowedIp;

/// Cryptokey routing, and each network's place in its owner's list.
#[derive(Default)]
pub(super) struct Networks {
    routes: RoutingTable,
    /// When each network was last given to its owner, as a number that counts such events.
    places: HashMap<AllowedIp, u64>,
    /// The networks of each peer, in the order of their places.
    lists: BTreeMap<(u64, u64), AllowedIp>,
    last_place: u64,
}

impl Networks {
    /// Gives a network to a peer, and so takes it from its former owner.
    pub(super) fn give(&mut self, peer: &Arc<Peer>, ip: &AllowedIp) {
        self.last_place += 1;
        let former_place = self.places.insert(*ip, self.last_place);
        let former = self.routes.insert(ip, peer);
        if let (Some(former), Some(place)) = (former, former_place) {
            self.lists.remove(&(former.id, place));
        }
        self.lists.insert((peer.id, self.last_place), *ip);
    }

    /// Removes a network from a peer, if the peer owns it.
    pub(super) fn take(&mut self, peer: &Arc<Peer>, ip: &AllowedIp) {
        if self.routes.remove(ip, peer)
            && let Some(place) = self.places.remove(ip)
        {
            self.lists.remove(&(peer.id, place));
        }
    }

    /// Removes all networks of a peer.
    pub(super) fn take_all(&mut self, peer: &Arc<Peer>) {
        for ip in self.of(peer).copied().collect::<Vec<_>>() {
            self.take(peer, &ip);
        }
    }

    /// The networks of a peer, in the order in which they were given.
    pub(super) fn of(&self, peer: &Peer) -> impl Iterator<Item = &AllowedIp> {
        let list = self.lists.range((peer.id, 0)..=(peer.id, u64::MAX));
        list.map(|(_, ip)| ip)
    }

    /// Makes all changes visible to the data path.
    pub(super) fn publish(&mut self, plane: &Plane) {
        self.routes.publish(plane);
    }
}
