//! The status of the device and its peers.

use wg_crypto::PublicKey;

use super::device::Device;
use super::entry::Entry;
use super::networks::Networks;
use super::relay::Pair;
use super::time::Time;
use crate::model::status::{PairStatus, PeerStatus, Refusal, Status};
use crate::sys::icmp::Undelivered;

impl Device {
    /// The part of the status that the tunnel knows.
    pub fn status(&self, now: Time) -> Status {
        let drops = self.plane().drops();
        let reasons = super::drops::DropReason::ALL.iter();
        Status {
            up: Some(self.plane().is_up()),
            bind_error: self.config.bind_error,
            listen_port: self.config.listen_port,
            fwmark: self.config.fwmark,
            under_load: Some(self.ingress.is_under_load(now)),
            drops: reasons
                .map(|reason| (reason.name(), drops.get(*reason)))
                .collect(),
            nat: self.context.hubs.nat(self.config.listen_port, now),
            refusals: self.strangers.list(now),
            pairs: (self.hub.iter().flat_map(|hub| hub.pairs()))
                .filter_map(|pair| pair.status(now))
                .collect(),
            peers: (self.peers.iter())
                .map(|entry| self.status_of(entry, now))
                .collect(),
            ..Status::default()
        }
    }

    /// The peers that answer and those that do not, without the peers of which nothing is known.
    pub(crate) fn answers(&self, now: Time) -> impl Iterator<Item = (PublicKey, bool)> {
        self.peers.iter().filter_map(move |entry| {
            let handshake = entry.handshake.as_ref();
            let unanswered = handshake.and_then(|handshake| handshake.unanswered(now));
            let answers = match unanswered {
                Some(unanswered) if unanswered.is_given_up() => false,
                _ if entry.has_session(now) => true,
                _ => return None,
            };
            Some((*entry.shared.public_key(), answers))
        })
    }

    fn status_of(&self, entry: &Entry, now: Time) -> PeerStatus {
        let mut status = entry.status(&self.networks, now);
        status.hub = (self.context.hubs.get(entry.shared.id)).map(|hub| hub.status(now));
        status.path = entry.path_status(&self.context, now);
        let endpoint = status.peer.endpoint;
        let unreachable = endpoint.and_then(|to| self.unreachable.at(to, now));
        status.refusals.extend(unreachable);
        status
    }

    /// Records an ICMP report about a datagram that did not arrive, if it was sent from our port.
    pub fn undelivered(&mut self, datagram: &Undelivered, now: Time) {
        let Undelivered { port, to, what, by } = *datagram;
        if port == self.config.listen_port {
            let refusal = Refusal::Unreachable { what, by };
            self.unreachable.note(to, refusal, now);
        }
    }
}

impl Pair {
    /// None if it has had no session.
    fn status(&self, now: Time) -> Option<PairStatus> {
        let last = self.last()?;
        let [tx_bytes, rx_bytes] = self.bytes();
        Some(PairStatus {
            keys: self.ends.each_ref().map(|peer| *peer.public_key()),
            tx_bytes,
            rx_bytes,
            age: now.saturating_since(last),
        })
    }
}

impl Entry {
    /// Whether there is a session in which data can be sent.
    fn has_session(&self, now: Time) -> bool {
        matches!(&*self.shared.keypairs.current(), Some(current) if current.can_send(now))
    }

    fn status(&self, networks: &Networks, now: Time) -> PeerStatus {
        let peer = &self.shared;
        let session = self.has_session(now);
        let handshake = self.handshake.as_ref();
        PeerStatus {
            session: Some(session),
            handshakes: Some(handshake.map_or(0, |handshake| handshake.count())),
            unanswered: handshake.and_then(|handshake| handshake.unanswered(now)),
            unconfirmed: handshake.map_or(0, |handshake| handshake.unconfirmed()),
            refusals: peer.refusals(now),
            ..PeerStatus::new(self.describe(networks))
        }
    }
}
