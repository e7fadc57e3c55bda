//! The peers at each address.
//!
//! Several peers may have the same address, or claim it. All are kept, so that a peer that claims
//! another's address does not hide the other. The latest come first.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

/// Most peers that are kept for one address.
const AT_ADDRESS: usize = 4;
/// Most peers that are kept for one network of 64 bits and one port.
const IN_NETWORK: usize = 16;

/// Most possible senders of a message.
#[cfg(test)]
pub(super) const MOST_AT_ONCE: usize = AT_ADDRESS + IN_NETWORK;

/// The IDs of the peers, by address.
#[derive(Default)]
pub(super) struct Places {
    exact: HashMap<SocketAddr, Vec<u64>>,
    networks: HashMap<(u64, u16), Vec<u64>>,
}

impl Places {
    /// Records that a peer is at an address.
    pub(super) fn enter(&mut self, id: u64, addr: SocketAddr) {
        enter(&mut self.exact, addr, id, AT_ADDRESS);
        if let Some(network) = network(addr) {
            enter(&mut self.networks, network, id, IN_NETWORK);
        }
    }

    /// Records that a peer has left an address.
    pub(super) fn leave(&mut self, id: u64, addr: SocketAddr) {
        leave(&mut self.exact, addr, id);
        if let Some(network) = network(addr) {
            leave(&mut self.networks, network, id);
        }
    }

    /// The peers at this address.
    pub(super) fn at(&self, addr: SocketAddr) -> &[u64] {
        self.exact.get(&addr).map_or(&[], Vec::as_slice)
    }

    /// The peers with the same port in the same IPv6 network of 64 bits: a host may use a different
    /// address of that network for each destination (RFC 8981).
    pub(super) fn near(&self, addr: SocketAddr) -> &[u64] {
        let network = network(addr).and_then(|network| self.networks.get(&network));
        network.map_or(&[], Vec::as_slice)
    }
}

fn network(addr: SocketAddr) -> Option<(u64, u16)> {
    match addr.ip() {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(((ip.to_bits() >> 64) as u64, addr.port())),
    }
}

fn enter<K: Eq + Hash>(table: &mut HashMap<K, Vec<u64>>, place: K, id: u64, most: usize) {
    let ids = table.entry(place).or_default();
    ids.retain(|there| *there != id);
    ids.insert(0, id);
    ids.truncate(most);
}

fn leave<K: Eq + Hash>(table: &mut HashMap<K, Vec<u64>>, place: K, id: u64) {
    if let Some(ids) = table.get_mut(&place) {
        ids.retain(|there| *there != id);
        if ids.is_empty() {
            table.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_at_one_address_do_not_hide_each_other() {
        let mut places = Places::default();
        let addr: SocketAddr = "192.0.2.1:1".parse().unwrap();
        for id in 1..=6 {
            places.enter(id, addr);
        }
        assert_eq!(places.at(addr), [6, 5, 4, 3]);
        places.enter(4, addr);
        assert_eq!(places.at(addr), [4, 6, 5, 3]);
        places.leave(6, addr);
        assert_eq!(places.at(addr), [4, 5, 3]);
        assert!(places.at("192.0.2.1:2".parse().unwrap()).is_empty());
        assert!(places.near(addr).is_empty(), "IPv4 has no such networks");
        for id in 1..=6 {
            places.leave(id, addr);
        }
        assert!(places.exact.is_empty() && places.networks.is_empty());
    }

    #[test]
    fn near_is_the_same_network_and_port() {
        let mut places = Places::default();
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        places.enter(1, parse("[2001:db8::1]:5"));
        places.enter(2, parse("[2001:db8::2]:5"));
        places.enter(3, parse("[2001:db8:0:1::1]:5"));
        places.enter(4, parse("[2001:db8::1]:6"));
        let addr = parse("[2001:db8::ffff]:5");
        assert!(places.at(addr).is_empty());
        assert_eq!(places.near(addr), [2, 1]);
        places.leave(2, parse("[2001:db8::2]:5"));
        assert_eq!(places.near(addr), [1]);
    }
}
