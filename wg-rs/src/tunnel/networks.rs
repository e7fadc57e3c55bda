//! Cryptokey routing, as it is configured: whose each network is, and in which order a peer was given
//! its networks.

use std::collections::HashMap;

use super::entry::Entry;
use super::plane::Routes;
use crate::model::AllowedIp;

/// Cryptokey routing, and the place of each network in its owner's list.
#[derive(Default)]
pub(super) struct Networks {
    /// What `plane` has a copy of, unless it changed since.
    routes: Routes,
    changed: bool,
    /// When each network was last given to its owner, on a count of such events.
    places: HashMap<AllowedIp, u64>,
    last_place: u64,
}

impl Networks {
    /// Gives a network to a peer. Returns the peer that had it, and its place there.
    pub(super) fn give(&mut self, entry: &mut Entry, ip: &AllowedIp) -> Option<(u64, u64)> {
        self.last_place += 1;
        entry.config.allowed_ips.insert(self.last_place, *ip);
        let former_place = self.places.insert(*ip, self.last_place);
        let owner = entry.shared.clone();
        let former = self.routes.insert(ip.addr, ip.cidr, owner);
        self.changed = true;
        Some((former?.id, former_place?))
    }

    /// Takes a network away from a peer, if it has it.
    pub(super) fn take(&mut self, entry: &mut Entry, ip: &AllowedIp) {
        if self.routes.remove(ip.addr, ip.cidr, &entry.shared) {
            let place = self.places.remove(ip);
            place.and_then(|place| entry.config.allowed_ips.remove(&place));
            self.changed = true;
        }
    }

    /// Takes all networks of a peer away.
    pub(super) fn take_all(&mut self, entry: &mut Entry) {
        for ip in std::mem::take(&mut entry.config.allowed_ips).into_values() {
            self.routes.remove(ip.addr, ip.cidr, &entry.shared);
            self.places.remove(&ip);
            self.changed = true;
        }
    }

    /// The routes, if they changed since the last call.
    pub(super) fn take_changed(&mut self) -> Option<Routes> {
        std::mem::take(&mut self.changed).then(|| self.routes.clone())
    }
}
