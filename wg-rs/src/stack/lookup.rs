//! Looks up the names of endpoints again while their peers do not answer, as they may have moved (dynamic DNS).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use wg_crypto::PublicKey;

use crate::config::ConfigEndpoint;
use crate::datapath::network::Network;
use crate::datapath::now;
use crate::datapath::protocol::{Owner, Protocol};
use crate::model::Change;

/// How often it is checked which peers do not answer.
const LOOK: Duration = Duration::from_secs(5);
/// A name is looked up again after this time at the earliest.
const AGAIN: Duration = Duration::from_secs(30);

/// The thread that looks up names. It ends after this is dropped.
pub(super) struct Lookup {
    _stop: mpsc::Sender<()>,
}

impl Lookup {
    /// Starts the thread for peers whose endpoints are names.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn start(
        protocol: Arc<Protocol<Network>>,
        names: Vec<(PublicKey, ConfigEndpoint)>,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("wg-lookup".into());
        thread.spawn(move || {
            let mut last: HashMap<PublicKey, Instant> = HashMap::new();
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                for (key, name) in silent(&protocol, &names) {
                    let is_due = last.get(&key).is_none_or(|last| last.elapsed() >= AGAIN);
                    if is_due && let Ok(addresses) = name.addresses() {
                        set(&protocol, key, &addresses);
                        last.insert(key, Instant::now());
                    }
                }
            }
        })?;
        Ok(Lookup { _stop: stop })
    }
}

/// The peers of `names` that do not answer.
fn silent(
    protocol: &Protocol<Network>,
    names: &[(PublicKey, ConfigEndpoint)],
) -> Vec<(PublicKey, ConfigEndpoint)> {
    let owner = protocol.owner();
    let silent = owner.device.answers(now()).filter(|(_, answers)| !answers);
    let silent: Vec<PublicKey> = silent.map(|(key, _)| key).collect();
    let is_silent = |(key, _): &&(PublicKey, ConfigEndpoint)| silent.contains(key);
    names.iter().filter(is_silent).cloned().collect()
}

/// Sets the endpoint of a peer whose name has these addresses.
fn set(protocol: &Protocol<Network>, key: PublicKey, addresses: &[SocketAddr]) {
    let mut owner = protocol.owner();
    let Owner { device, network } = &mut *owner;
    let peer = device.peers().find(|peer| *peer.public_key() == key);
    let current = peer.and_then(|peer| peer.endpoint());
    let Some(address) = choose(addresses, current.map(|current| current.addr)) else {
        return;
    };
    let changes = [
        Change::Peer(key),
        Change::UpdateOnly,
        Change::Endpoint(address),
    ];
    if let Err(error) = device.set(&changes, network, now()) {
        tracing::debug!(%error, "the endpoint cannot be changed");
    }
    drop(owner);
    protocol.inbox.notify();
}

/// The next address to try: the first one if the current one is no longer the name's, else the one after it.
/// `None` if that is the current one.
fn choose(addresses: &[SocketAddr], current: Option<SocketAddr>) -> Option<SocketAddr> {
    let at = addresses
        .iter()
        .position(|address| Some(*address) == current);
    let next = at.map_or(0, |at| (at + 1) % addresses.len());
    let address = addresses.get(next).copied();
    address.filter(|address| Some(*address) != current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_tried_one_after_the_other() {
        let [a, b, c] = [1, 2, 3].map(|n| SocketAddr::from(([192, 0, 2, n], 1)));
        assert_eq!(choose(&[a, b], None), Some(a));
        assert_eq!(choose(&[a, b], Some(c)), Some(a));
        assert_eq!(choose(&[a, b], Some(a)), Some(b));
        assert_eq!(choose(&[a, b], Some(b)), Some(a));
        assert_eq!(choose(&[a], Some(a)), None);
        assert_eq!(choose(&[], Some(a)), None);
    }
}
