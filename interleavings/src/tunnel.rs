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

    #[derive(Clone, Default)]
    pub struct Routes(Vec<(IpAddr, u8, Arc<Peer>)>);

    impl Routes {
        pub fn insert(&mut self, addr: IpAddr, cidr: u8, peer: Arc<Peer>) -> Option<Arc<Peer>> {
            let former = self
                .0
                .iter()
                .position(|route| (route.0, route.1) == (addr, cidr));
            let former = former.map(|at| self.0.remove(at).2);
            self.0.push((addr, cidr, peer));
            former
        }

        pub fn remove(&mut self, addr: IpAddr, cidr: u8, peer: &Arc<Peer>) -> bool {
            let before = self.0.len();
            self.0
                .retain(|route| (route.0, route.1) != (addr, cidr) || route.2 != *peer);
            self.0.len() < before
        }

        pub fn owner(&self, addr: IpAddr) -> Option<u64> {
            let route = self.0.iter().find(|route| route.0 == addr)?;
            Some(route.2.id)
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
    let peers = [0, 1].map(|id| Arc::new(Peer { id }));
    let networks = [1, 2].map(|n| AllowedIp {
        addr: [10, n, 0, 0].into(),
        cidr: 16,
    });
    let mut all_to = |turn: usize| {
        for network in &networks {
            table.insert(network, &peers[turn % 2]);
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
