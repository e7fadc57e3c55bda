//! The files of `wg-rs/src/tunnel`, and what `routes.rs` needs besides.

#[path = "../../wg-rs/src/tunnel/keypair.rs"]
pub mod keypair;
#[path = "../../wg-rs/src/tunnel/messages.rs"]
pub mod messages;
#[path = "../../wg-rs/src/tunnel/routes.rs"]
mod routes;
#[path = "../../wg-rs/src/tunnel/staged.rs"]
pub mod staged;
#[path = "../../wg-rs/src/tunnel/time.rs"]
pub mod time;
#[path = "../../wg-rs/src/tunnel/timers.rs"]
pub mod timers;

use crate::model::AllowedIp;
use crate::sync::{Arc, thread};
use peer::Peer;
use plane::Plane;
use routes::RoutingTable;

/// A peer that only owns networks.
pub mod peer {
    #[derive(PartialEq)]
    pub struct Peer {
        pub id: u64,
    }
}

/// The part of the plane that holds the routes, as in `plane.rs`, with a step before each access; and a
/// simple table.
pub mod plane {
    use std::net::IpAddr;

    use arc_swap::{ArcSwap, Guard};

    use super::peer::Peer;
    use crate::sync::{Arc, thread};

    /// Owners by index, and the networks in the order in which they were given.
    #[derive(Clone, Default)]
    pub struct Routes {
        owners: Vec<Option<Arc<Peer>>>,
        networks: Vec<(NetworkPosition, u32)>,
    }

    #[derive(Clone, Copy, PartialEq)]
    pub struct NetworkPosition {
        addr: IpAddr,
        cidr: u8,
    }

    impl Routes {
        pub fn set_owner(&mut self, index: u32, owner: Arc<Peer>) {
            let index = index as usize;
            if index >= self.owners.len() {
                self.owners.resize(index + 1, None);
            }
            self.owners[index] = Some(owner);
        }

        pub fn has_owners(&self) -> bool {
            self.owners.iter().any(Option::is_some)
        }

        pub fn remove_owner(&mut self, index: u32) {
            self.owners[index as usize] = None;
        }

        pub fn position(&self, addr: IpAddr, cidr: u8) -> NetworkPosition {
            NetworkPosition { addr, cidr }
        }

        pub fn read_ahead(&self, _: &NetworkPosition) {}

        /// The number is right until the next change, because nothing here asks for it later.
        pub fn give(&mut self, position: &NetworkPosition, owner: u32) -> u32 {
            self.take(position);
            self.networks.push((*position, owner));
            self.networks.len() as u32 - 1
        }

        pub fn take(&mut self, position: &NetworkPosition) {
            self.networks.retain(|network| network.0 != *position);
        }

        pub fn network(&self, number: u32) -> (IpAddr, u8) {
            let (position, _) = self.networks[number as usize];
            (position.addr, position.cidr)
        }

        pub fn is_empty(&self) -> bool {
            self.networks.is_empty()
        }

        /// The number of the peer that owns the network of exactly this address.
        pub fn owner(&self, addr: IpAddr) -> Option<u64> {
            let mut networks = self.networks.iter();
            let (_, owner) = networks.find(|(position, _)| position.addr == addr)?;
            Some(self.owners[*owner as usize].as_ref()?.id)
        }
    }

    #[derive(Default)]
    pub struct Plane {
        routes: ArcSwap<Routes>,
    }

    impl Plane {
        pub fn routes(&self) -> Guard<Arc<Routes>> {
            thread::yield_now();
            self.routes.load()
        }

        pub fn exchange_routes(&self, routes: Arc<Routes>) -> Arc<Routes> {
            thread::yield_now();
            self.routes.swap(routes)
        }
    }
}

/// Readers see the routes before a set or after it, and the owner never changes a table that a reader
/// has.
pub fn routes_are_seen_whole() {
    let plane = Arc::new(Plane::default());
    let mut table = RoutingTable::default();
    for index in 0..2 {
        table.enter(index, &Arc::new(Peer { id: index.into() }));
    }
    let networks = [1, 2].map(|n| AllowedIp {
        addr: [10, n, 0, 0].into(),
        cidr: 16,
    });
    let mut all_to = |turn: usize| {
        for network in &networks {
            table.give(table.position(network), turn as u32 % 2);
        }
        table.publish(&plane);
    };
    all_to(0);
    let readers = [0, 1].map(|_| {
        let plane = plane.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                let routes = plane.routes();
                let first = routes.owner(networks[0].addr);
                thread::yield_now();
                assert!(first.is_some(), "the table is empty");
                assert_eq!(routes.owner(networks[1].addr), first, "half of a set");
            }
        })
    });
    for turn in 1..4 {
        all_to(turn);
    }
    for reader in readers {
        reader.join().expect("whole sets");
    }
}
