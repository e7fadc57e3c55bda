//! Settings to changes, in the order in which `wg` sends them.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use wg_crypto::PublicKey;

use crate::uapi::types::{Change, Interface, Peer};

use super::{Endpoint, Error, PeerSettings, Reason, Settings};

/// What becomes of that which the settings do not speak of.
#[derive(Clone, Copy, Debug)]
pub enum Apply<'a> {
    /// It stays. For `addconf`, and for `set`.
    AddConf,
    /// It is as if it had never been set.
    SetConf,
    /// So it is, but peers that stay keep their sessions, and their endpoints if none is given. With
    /// the interface as it is now.
    SyncConf(&'a Interface),
}

impl Settings {
    /// What to ask of an interface. `resolve` finds the addresses of endpoints: if one has none, there
    /// are no changes at all.
    pub fn changes(
        &self,
        how: Apply<'_>,
        mut resolve: impl FnMut(&Endpoint) -> Result<SocketAddr, Reason>,
    ) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        let all = !matches!(how, Apply::AddConf);
        if all || self.private_key.is_some() {
            let key = self.private_key.clone();
            changes.push(Change::PrivateKey(key.filter(|key| !key.is_zero())));
        }
        if all || self.listen_port.is_some() {
            changes.push(Change::ListenPort(self.listen_port.unwrap_or_default()));
        }
        if all || self.fwmark.is_some() {
            changes.push(Change::FwMark(self.fwmark.unwrap_or_default()));
        }
        let present = match how {
            Apply::SyncConf(interface) if !self.peers.is_empty() => &*interface.peers,
            _ => &[],
        };
        if present.is_empty() {
            changes.extend(all.then_some(Change::ReplacePeers));
        } else {
            self.remove_others(present, &mut changes);
        }
        // Of a peer that comes twice, the first takes away what is not said.
        let mut present: HashMap<PublicKey, &Peer> =
            present.iter().map(|peer| (peer.public_key, peer)).collect();
        for peer in &self.peers {
            let endpoint = match &peer.endpoint {
                Some(endpoint) if !peer.remove => {
                    Some(resolve(endpoint).map_err(|reason| Error {
                        place: self.place(endpoint.line),
                        key: None,
                        reason,
                        hint: None,
                    })?)
                }
                _ => None,
            };
            peer.change(endpoint, present.remove(&peer.public_key), &mut changes);
        }
        Ok(changes)
    }

    fn remove_others(&self, present: &[Peer], changes: &mut Vec<Change>) {
        let named: HashSet<_> = self.peers.iter().map(|peer| peer.public_key).collect();
        let present = present.iter().map(|peer| peer.public_key);
        let mut others: Vec<_> = present.filter(|key| !named.contains(key)).collect();
        others.sort_unstable();
        // The largest key first, as `wg` has it.
        for key in others.into_iter().rev() {
            changes.extend([Change::Peer(key), Change::Remove]);
        }
    }
}

impl PeerSettings {
    /// `synced` is the peer as it is now, to lose what is not said here.
    fn change(
        &self,
        endpoint: Option<SocketAddr>,
        synced: Option<&Peer>,
        changes: &mut Vec<Change>,
    ) {
        changes.push(Change::Peer(self.public_key));
        if self.remove {
            changes.push(Change::Remove);
            return;
        }
        let had_key = synced.is_some_and(|peer| !peer.preshared_key.is_zero());
        let preshared_key = self.preshared_key.clone();
        let preshared_key = preshared_key.or_else(|| had_key.then(Box::default));
        changes.extend(preshared_key.map(Change::PresharedKey));
        changes.extend(endpoint.map(Change::Endpoint));
        let had_keepalive = synced.is_some_and(|peer| peer.persistent_keepalive != 0);
        let keepalive = self.persistent_keepalive.or(had_keepalive.then_some(0));
        changes.extend(keepalive.map(Change::PersistentKeepalive));
        if self.replace_allowed_ips {
            changes.push(Change::ReplaceAllowedIps);
        }
        for setting in &self.allowed_ips {
            changes.push(Change::AllowedIp {
                ip: setting.ip,
                remove: setting.remove,
            });
        }
    }
}
