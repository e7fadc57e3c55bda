//! The owner's configuration: `set`, `get`, link up and link down.
//!
//! Changes are applied one by one, without a transaction, in the kernel's order, because `wg`
//! relies on that. A live peer keeps its session, counters, replay window and timestamp whatever is
//! changed about it. Only a new private key ends sessions, and then only for sending.
//!
//! Cryptokey routing is changed in `networks`; the data path sees the changes at the end of a `set`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wg_crypto::{Identity, PrivateKey, PublicKey};

use super::device::Device;
use super::entry::{DeviceContext, Entry};
use super::hub::TooManyGroups;
use super::messages::MAX_PEERS;
use super::networks::Networks;
use super::peer::{Endpoint, Peer};
use super::time::Time;
use super::way::Heard;
use crate::model::{
    self, Change, Extension, Extensions, Groups, Interface, MAX_GROUPS_IN_ALL, Wall,
};

/// The operations of the configuration on the sockets.
pub trait Links {
    /// Opens sockets on `port` (0: any port) that replace the current ones, which remain if this
    /// fails. Returns the port.
    fn bind(&mut self, port: u16) -> io::Result<u16>;

    /// Opens sockets on `port` for a later `bind` to this port. They are not read before that, and
    /// replace the ones that were reserved before, which remain if this fails.
    fn reserve(&mut self, port: u16) -> io::Result<()>;

    /// Closes the sockets, also reserved ones.
    fn close(&mut self);

    /// Sets the mark of packets that are sent from now on, also on sockets that are opened later
    /// (0: no mark).
    fn set_fwmark(&mut self, mark: u32) -> io::Result<()>;
}

/// No sockets at all, for benchmarks and fuzz targets. All operations succeed.
#[derive(Debug)]
pub struct NoLinks;

impl Links for NoLinks {
    fn bind(&mut self, port: u16) -> io::Result<u16> {
        Ok(port)
    }

    fn reserve(&mut self, _: u16) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self) {}

    fn set_fwmark(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }
}

/// Why a change was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The sockets could not be opened on this port. The old ones remain.
    #[error("cannot listen on port {port}: {source}")]
    Bind {
        /// The requested port.
        port: u16,
        /// The system's error.
        source: io::Error,
    },
    /// The mark could not be set.
    #[error("cannot set fwmark {mark:#x}: {source}")]
    FwMark {
        /// The requested mark.
        mark: u32,
        /// The system's error.
        source: io::Error,
    },
    /// There are already `MAX_PEERS` peers.
    #[error("more than {MAX_PEERS} peers")]
    TooManyPeers,
    /// A change of a peer came before any peer was named.
    #[error("a setting of a peer came before any peer")]
    NoPeer,
    /// The interface already has the greatest number of relay groups.
    #[error("more than {MAX_GROUPS_IN_ALL} relay groups")]
    TooManyGroups,
}

/// The peer that the next changes are about.
#[derive(Clone, Copy)]
enum Subject {
    Device,
    Peer {
        id: u64,
        created: bool,
        /// A persistent keepalive is due, because it or the endpoint was not set before.
        keepalive: bool,
        /// Nothing but its networks was changed.
        only_networks: bool,
    },
    /// No peer: the changes are ignored.
    Nobody,
}

/// How many changes are read ahead of the first that is applied.
const READ_AHEAD: usize = 32;

impl Device {
    /// Applies a `set`. Stops at the first change that fails; the changes before it remain. A port
    /// that is in use is refused before anything is changed.
    pub fn set(
        &mut self,
        changes: &[Change],
        links: &mut dyn Links,
        now: Time,
    ) -> Result<(), ConfigError> {
        match Change::listen_port(changes) {
            Some(port) => self.set_listen_port(port, links)?,
            // The program that used the port may have ended. If not, the link reports it; this
            // `set` does not fail for it.
            None if self.config.link_up => drop(self.up(links)),
            None => {}
        }
        let mut subject = Subject::Device;
        let result = changes.chunks(READ_AHEAD).try_for_each(|changes| {
            self.read_ahead(changes);
            changes
                .iter()
                .try_for_each(|change| self.apply(&mut subject, change, links, now))
        });
        if std::mem::take(&mut self.config.hubs_changed) || !self.context.hubs.is_empty() {
            self.review();
        }
        self.finish(subject);
        self.config.removed = HashMap::new();
        self.networks.publish(&self.context.plane);
        result
    }

    /// Reads the memory that these changes will need. A large configuration is not in the caches, and
    /// the CPU waits for several reads at the same time, but for one change after the other.
    fn read_ahead(&self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Peer(key) => {
                    if let Some(id) = self.peers.by_key(key) {
                        self.networks.read_ahead_of(id);
                    }
                }
                Change::AllowedIp { ip, .. } => self.networks.read_ahead(ip),
                _ => {}
            }
        }
    }

    fn apply(
        &mut self,
        subject: &mut Subject,
        change: &Change,
        links: &mut dyn Links,
        now: Time,
    ) -> Result<(), ConfigError> {
        match change {
            Change::PrivateKey(key) => self.set_private_key(key.as_deref(), now),
            // Applied first.
            Change::ListenPort(_) => {}
            Change::FwMark(mark) => self.set_fwmark(*mark, links)?,
            Change::ReplacePeers => {
                let ids: Vec<_> = self.peers().map(|peer| peer.id).collect();
                for id in ids {
                    self.remove_peer(id);
                }
            }
            Change::Peer(key) => {
                self.finish(*subject);
                *subject = self.name_peer(key)?;
            }
            _ => match subject {
                Subject::Device => return Err(ConfigError::NoPeer),
                Subject::Nobody => {}
                // A change of the device has removed it.
                Subject::Peer { id, .. } if self.peers.get(*id).is_none() => {}
                Subject::Peer {
                    id,
                    created,
                    keepalive,
                    only_networks,
                } => match change {
                    Change::ReplaceAllowedIps => self.networks.take_all(*id),
                    Change::AllowedIp { ip, remove: true } => self.networks.take(*id, ip),
                    Change::AllowedIp { ip, remove: false } => self.networks.give(*id, ip),
                    Change::Remove => {
                        self.remove_peer(*id);
                        *subject = Subject::Nobody;
                    }
                    Change::UpdateOnly if *created => {
                        self.remove_peer(*id);
                        *subject = Subject::Nobody;
                    }
                    Change::Extension(extension) => {
                        *only_networks = false;
                        self.extend(*id, extension)?;
                    }
                    _ => {
                        *only_networks = false;
                        *keepalive |= self.apply_to_peer(*id, change, now);
                    }
                },
            },
        }
        Ok(())
    }

    /// Returns whether a persistent keepalive is due.
    fn apply_to_peer(&mut self, id: u64, change: &Change, now: Time) -> bool {
        let Some(entry) = self.peers.get_mut(id) else {
            return false;
        };
        let peer = &entry.shared;
        match change {
            // Used from the next handshake on.
            Change::PresharedKey(key) => {
                entry.config.preshared_key = (!key.is_zero()).then(|| key.clone());
            }
            Change::Endpoint(addr) => {
                let starts = !peer.has_endpoint();
                let at = Endpoint::from(*addr);
                self.context.plane.heard(peer, at, Heard::Order, now);
                entry.has_own_endpoint = true;
                return starts;
            }
            Change::PersistentKeepalive(seconds) => {
                let starts = peer.timers.set_persistent_interval(*seconds) == 0 && *seconds != 0;
                entry.reschedule(&mut self.context);
                return starts;
            }
            _ => {}
        }
        false
    }

    fn extend(&mut self, id: u64, extension: &Extension) -> Result<(), ConfigError> {
        if let Extension::Relay(groups) = extension {
            self.set_groups(id, groups)?;
        }
        if let Extension::Hub(is_hub) = extension {
            self.set_hub(id, *is_hub);
        }
        if let Some(entry) = self.peers.get_mut(id) {
            let mut extensions = entry.config.extensions.take().unwrap_or_default();
            extensions.set(extension);
            let is_any = *extensions != Extensions::default();
            entry.config.extensions = is_any.then_some(extensions);
            entry.review(&mut self.context);
        }
        Ok(())
    }

    /// Sets the groups within which the device relays for a peer.
    fn set_groups(&mut self, id: u64, groups: &Groups) -> Result<(), ConfigError> {
        let Some(entry) = self.peers.get(id) else {
            return Ok(());
        };
        if self.hub.is_none() && groups.is_empty() {
            return Ok(());
        }
        let hub = self.hub.get_or_insert_default();
        let result = hub.set_groups(&entry.shared, groups, &self.context.plane);
        self.hub.take_if(|_| self.context.plane.relay().is_none());
        if entry.is_hub {
            entry.shared.is_followed.store(true, Ordering::Release);
        }
        result.map_err(|TooManyGroups| ConfigError::TooManyGroups)
    }

    /// Sets whether a peer is a hub that we use.
    fn set_hub(&mut self, id: u64, is_hub: bool) {
        let Some(entry) = self
            .peers
            .get_mut(id)
            .filter(|entry| entry.is_hub != is_hub)
        else {
            return;
        };
        entry.is_hub = is_hub;
        match is_hub {
            true => self.context.hubs.add(&entry.shared),
            false => self.context.hubs.remove(id),
        }
        let relays = entry
            .config
            .extensions
            .as_ref()
            .is_some_and(|it| !it.relay.is_empty());
        let is_followed = is_hub || relays;
        entry
            .shared
            .is_followed
            .store(is_followed, Ordering::Release);
        self.config.hubs_changed = true;
    }

    fn name_peer(&mut self, key: &PublicKey) -> Result<Subject, ConfigError> {
        let identity = self.context.identity.as_ref();
        if identity.is_some_and(|identity| identity.public_key() == *key) {
            return Ok(Subject::Nobody);
        }
        if let Some(id) = self.peers.by_key(key) {
            return Ok(Subject::Peer {
                id,
                created: false,
                keepalive: false,
                only_networks: true,
            });
        }
        if self.peers.len() >= self.config.max_peers {
            return Err(ConfigError::TooManyPeers);
        }
        let peer = self.peers.add(*key);
        self.networks.enter(peer);
        let id = peer.id;
        if let Some(extensions) = self.config.removed.remove(key) {
            for extension in extensions.all() {
                self.extend(id, &extension)?;
            }
        }
        Ok(Subject::Peer {
            id,
            created: true,
            keepalive: false,
            only_networks: false,
        })
    }

    /// Called after the last change of a peer: if the device is up, sends what can be sent. Networks alone
    /// do not change what can be sent.
    fn finish(&mut self, subject: Subject) {
        let Subject::Peer {
            id,
            keepalive,
            only_networks: false,
            ..
        } = subject
        else {
            return;
        };
        let Some(entry) = self.peers.get_mut(id) else {
            return;
        };
        let former = self.config.former.get(entry.shared.public_key());
        let former = former.filter(|_| entry.is_client() && entry.shared.endpoint().is_none());
        if let Some(addr) = former {
            entry.shared.lead_to(Endpoint::from(*addr));
            if let Some(hub) = &mut self.hub {
                hub.roamed(id, &self.context.hubs, &self.context.plane);
            }
        }
        let keepalive = keepalive || former.is_some();
        let context = &mut self.context;
        if keepalive && context.plane.is_up() {
            entry.start(context);
        }
        entry.send_staged(context);
    }

    fn set_private_key(&mut self, key: Option<&PrivateKey>, now: Time) {
        let key = key.filter(|key| !key.is_zero());
        if self.config.private_key.as_ref() == key {
            return;
        }
        self.config.private_key = key.cloned();
        self.context.identity = key.map(Identity::new);
        let public = self.context.identity.as_ref().map(Identity::public_key);
        self.ingress.set_public_key(public.as_ref());
        if let Some(id) = public.and_then(|public| self.peers.by_key(&public)) {
            self.remove_peer(id);
        }
        self.each(|entry, context| entry.change_identity(context, now));
    }

    fn set_listen_port(&mut self, port: u16, links: &mut dyn Links) -> Result<(), ConfigError> {
        let is_new = port != self.config.listen_port;
        if self.config.link_up {
            if is_new || !self.plane().is_up() {
                self.open(port, links)?;
            }
        } else if is_new {
            links
                .reserve(port)
                .map_err(|source| ConfigError::Bind { port, source })?;
            self.config.listen_port = port;
        }
        if is_new {
            self.clear_sources();
        }
        Ok(())
    }

    fn set_fwmark(&mut self, mark: u32, links: &mut dyn Links) -> Result<(), ConfigError> {
        links
            .set_fwmark(mark)
            .map_err(|source| ConfigError::FwMark { mark, source })?;
        self.config.fwmark = mark;
        self.clear_sources();
        Ok(())
    }

    fn clear_sources(&self) {
        for entry in self.peers.iter() {
            entry.shared.clear_source();
        }
    }

    fn remove_peer(&mut self, id: u64) {
        // A peer without groups is always allowed.
        let _ = self.set_groups(id, &Groups::NONE);
        self.set_hub(id, false);
        if let Some(mut entry) = self.peers.remove(id) {
            let key = entry.shared.public_key();
            if let Some(extensions) = entry.config.extensions.take() {
                self.config.removed.insert(*key, extensions);
            }
            self.networks.leave(id);
            entry.remove(&mut self.context);
        }
    }

    /// Must be called when the link is up: opens the sockets, sends what can be sent and starts
    /// persistent keepalives. Does nothing if the device is up. If the sockets cannot be opened,
    /// each later `set` tries again.
    pub fn up(&mut self, links: &mut dyn Links) -> Result<(), ConfigError> {
        self.config.link_up = true;
        if self.plane().is_up() {
            return Ok(());
        }
        self.open(self.config.listen_port, links)
    }

    /// Opens sockets that replace the current ones. The device is up once it has sockets.
    fn open(&mut self, port: u16, links: &mut dyn Links) -> Result<(), ConfigError> {
        let was_up = self.plane().is_up();
        // Before the sockets, because with them the data path begins to read.
        self.plane().set_up(true);
        // A random port is kept for later.
        self.config.listen_port = match links.bind(port) {
            Ok(port) => port,
            Err(source) => {
                self.plane().set_up(was_up);
                if !was_up {
                    self.config.bind_error = source.raw_os_error();
                }
                return Err(ConfigError::Bind { port, source });
            }
        };
        self.config.bind_error = None;
        if was_up {
            return Ok(());
        }
        self.each(Entry::start);
        Ok(())
    }

    /// Must be called when the link is down: closes the sockets, ends sessions and timers, and
    /// drops packets that wait. Endpoints, configuration and replay protection are kept.
    pub fn down(&mut self, links: &mut dyn Links) {
        self.config.link_up = false;
        self.plane().set_up(false);
        links.close();
        self.context.outgoing.clear();
        self.context.calls.clear();
        self.each(Entry::stop);
    }

    /// The current or future port of the sockets; 0 if none is chosen yet.
    pub fn listen_port(&self) -> u16 {
        self.config.listen_port
    }

    /// The mark of outgoing packets.
    pub fn fwmark(&self) -> u32 {
        self.config.fwmark
    }

    #[cfg(test)]
    pub(super) fn set_max_peers(&mut self, max: usize) {
        self.config.max_peers = max;
    }

    /// The number of peers.
    #[cfg(test)]
    pub(super) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// The peers, in the order in which they were added.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.iter().map(|entry| &entry.shared)
    }

    /// The configuration and state for the configuration protocol.
    pub fn get(&self) -> Interface {
        Interface {
            private_key: self.config.private_key.clone(),
            listen_port: self.config.listen_port,
            fwmark: self.config.fwmark,
            peers: (self.peers.iter())
                .map(|entry| entry.describe(&self.networks))
                .collect(),
        }
    }
}

impl Entry {
    fn has_persistent_keepalive(&self) -> bool {
        self.shared.timers.persistent_interval().is_some()
    }

    /// The device came up, or the peer got an endpoint or a persistent keepalive.
    fn start(&mut self, context: &mut DeviceContext) {
        if let Some(hub) = context.hubs.get_mut(self.shared.id) {
            hub.start();
            self.reschedule(context);
        }
        if self.has_persistent_keepalive() {
            self.send_keepalive(context);
        } else if self.is_hub {
            // The HELLO asks for a handshake.
        } else if self.shared.is_followed.load(Ordering::Relaxed) {
            // The peer may have used a hub that ran here before, and must learn about this one.
            context.calls.add(self.shared.id);
        }
    }

    /// Called when our private key changed. Nothing more is sent in the peer's sessions, but
    /// packets in them are still received, and the next packet to send may start a handshake at
    /// once. The change itself sends nothing, because the peer may not know the new key yet.
    fn change_identity(&mut self, context: &mut DeviceContext, now: Time) {
        self.end_sending(context);
        if let Some(handshake) = &mut self.handshake {
            handshake.forget_static_static();
        }
        // A peer that was configured before there was a key has not started yet.
        if context.identity.is_some() && context.plane.is_up() {
            self.shared.timers.start_persistent_keepalive(now);
        }
        self.reschedule(context);
    }

    pub(super) fn describe(&self, networks: &Networks) -> model::Peer {
        let peer = &self.shared;
        let last_handshake: Option<Wall> = self.last_handshake;
        model::Peer {
            public_key: *peer.public_key(),
            preshared_key: self.config.preshared_key(),
            endpoint: peer.endpoint().map(|endpoint| endpoint.addr),
            last_handshake,
            tx_bytes: peer.tx_bytes(),
            rx_bytes: peer.rx_bytes(),
            persistent_keepalive: peer
                .timers
                .persistent_interval()
                .map_or(0, |interval| interval.as_secs() as u16),
            allowed_ips: networks.of(peer.id).collect(),
            extensions: self
                .config
                .extensions
                .as_deref()
                .cloned()
                .unwrap_or_default(),
        }
    }
}
