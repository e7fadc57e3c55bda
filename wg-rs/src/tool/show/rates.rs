//! The transfer rates of peers between two refreshes.

use std::collections::HashMap;
use std::time::Duration;

use wg_crypto::PublicKey;

use crate::model::{Interface, Peer};

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub rx: u64,
    pub tx: u64,
}

/// The counters at the previous refresh, and the time since then.
#[derive(Default)]
pub(super) struct Rates {
    last: HashMap<String, HashMap<PublicKey, (u64, u64)>>,
    elapsed: Duration,
}

impl Rates {
    /// `all` is the state at the previous refresh, and `elapsed` the time since then.
    pub fn since(all: &[(String, Interface)], elapsed: Duration) -> Self {
        let counters = |peer: &Peer| (peer.public_key, (peer.rx_bytes, peer.tx_bytes));
        let last = all.iter().map(|(name, interface)| {
            (name.clone(), interface.peers.iter().map(counters).collect())
        });
        Rates {
            last: last.collect(),
            elapsed,
        }
    }

    /// The rate of a peer with this current state. None if the peer is new or its counters were
    /// reset.
    pub fn of(&self, interface: &str, peer: &Peer) -> Option<Rate> {
        let (rx, tx) = *self.last.get(interface)?.get(&peer.public_key)?;
        let per_second = |now: u64, before: u64| {
            let grown = now.checked_sub(before)? as f64;
            let seconds = self.elapsed.as_secs_f64();
            (seconds > 0.0).then_some((grown / seconds).round() as u64)
        };
        Some(Rate {
            rx: per_second(peer.rx_bytes, rx)?,
            tx: per_second(peer.tx_bytes, tx)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_known_for_peers_whose_counters_grew() {
        let peer = |n: u8, rx_bytes, tx_bytes| Peer {
            rx_bytes,
            tx_bytes,
            ..Peer::new(PublicKey::from_bytes([n; 32]))
        };
        let before = Interface {
            peers: vec![peer(1, 100, 200), peer(2, 5, 5)],
            ..Interface::default()
        };
        let rates = Rates::since(&[("wg0".into(), before)], Duration::from_millis(500));
        let now = peer(1, 1124, 200);
        assert_eq!(rates.of("wg0", &now), Some(Rate { rx: 2048, tx: 0 }));
        assert_eq!(rates.of("wg1", &now), None);
        assert_eq!(rates.of("wg0", &peer(2, 0, 9)), None);
        assert_eq!(rates.of("wg0", &peer(3, 9, 9)), None);
        assert_eq!(Rates::default().of("wg0", &now), None);
    }
}
