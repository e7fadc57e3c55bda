//! The configuration of cryptokey routing: the owner of each network, and the order of a peer's
//! networks.

use std::collections::HashMap;

use super::entry::Entry;
use super::plane::Plane;
use super::routes::RoutingTable;
use crate::model::AllowedIp;

/// Cryptokey routing, and each network's place in its owner's list.
#[derive(Default)]
pub(super) struct Networks {
    routes: RoutingTable,
    /// When each network was last given to its owner, as a number that counts such events.
    places: HashMap<AllowedIp, u64>,
    last_place: u64,
}

impl Networks {
    /// Gives a network to a peer. Returns the former owner and the network's place there.
    pub(super) fn give(&mut self, entry: &mut Entry, ip: &AllowedIp) -> Option<(u64, u64)> {
        self.last_place += 1;
        entry.config.allowed_ips.insert(self.last_place, *ip);
        let former_place = self.places.insert(*ip, self.last_place);
        let former = self.routes.insert(ip, &entry.shared);
        Some((former?.id, former_place?))
    }

    /// Removes a network from a peer that owns it.
    pub(super) fn take(&mut self, entry: &mut Entry, ip: &AllowedIp) {
        if self.routes.remove(ip, &entry.shared) {
            let place = self.places.remove(ip);
            place.and_then(|place| entry.config.allowed_ips.remove(&place));
        }
    }

    /// Removes all networks of a peer.
    pub(super) fn take_all(&mut self, entry: &mut Entry) {
        for ip in std::mem::take(&mut entry.config.allowed_ips).into_values() {
            self.routes.remove(&ip, &entry.shared);
            self.places.remove(&ip);
        }
    }

    /// Makes all changes visible to the data path.
    pub(super) fn publish(&mut self, plane: &Plane) {
        self.routes.publish(plane);
    }
}
