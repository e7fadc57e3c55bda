//! Turns settings into changes, in the order in which `wg` sends them.
//!
//! Extensions are sent only if the settings mention some, because other daemons refuse them.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use wg_crypto::PublicKey;

use crate::model::{Change, Extension, Interface, Peer};

use super::{ConfigEndpoint, Error, PeerSettings, Position, Reason, Settings};

/// How to treat settings that are not mentioned.
#[derive(Clone, Copy, Debug)]
pub enum Apply<'a> {
    /// Keep them. For `addconf` and `set`.
    AddConf,
    /// Reset them to their defaults.
    SetConf,
    /// Reset them too, but remaining peers keep their sessions, and their endpoints if none is
    /// given. Contains the interface's current state.
    SyncConf(&'a Interface),
}

impl Settings {
    /// The changes to request of an interface. `resolve` resolves endpoints.
    ///
    /// # Errors
    /// An endpoint cannot be resolved; then there are no changes at all.
    pub fn changes(
        &self,
        how: Apply<'_>,
        resolve: impl FnMut(&ConfigEndpoint) -> Result<SocketAddr, Reason>,
    ) -> Result<Vec<Change>, Error> {
        Ok(self.changes_to(how, &self.addresses(resolve)?))
    }

    /// The addresses of the peers' endpoints, in the order of the peers. None for a peer that has
    /// no endpoint or is removed.
    pub fn addresses(
        &self,
        mut resolve: impl FnMut(&ConfigEndpoint) -> Result<SocketAddr, Reason>,
    ) -> Result<Vec<Option<SocketAddr>>, Error> {
        let mut address = |peer: &PeerSettings| match &peer.endpoint {
            Some(endpoint) if !peer.remove => match resolve(endpoint) {
                Ok(address) => Ok(Some(address)),
                Err(reason) => Err(self.unresolved(endpoint, reason)),
            },
            _ => Ok(None),
        };
        self.peers.iter().map(&mut address).collect()
    }

    /// Like [`Settings::changes`], with [`Settings::addresses`] that are already known.
    pub fn changes_to(&self, how: Apply<'_>, addresses: &[Option<SocketAddr>]) -> Vec<Change> {
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
        // If a peer appears twice, its first entry resets what is not mentioned.
        let mut present: HashMap<PublicKey, &Peer> =
            present.iter().map(|peer| (peer.public_key, peer)).collect();
        // A file without extensions may be for any daemon.
        let extended = all && self.peers.iter().any(|peer| !peer.extensions.is_empty());
        for (peer, address) in self.peers.iter().zip(addresses) {
            let synced = present.remove(&peer.public_key);
            peer.change(*address, synced, &mut changes);
            if !peer.remove {
                peer.change_extensions(extended, synced, &mut changes);
            }
        }
        changes
    }

    fn unresolved(&self, endpoint: &ConfigEndpoint, reason: Reason) -> Error {
        let position = match reason {
            Reason::Retries(_) => Position::CommandLine,
            _ => self.position(endpoint.line),
        };
        Error {
            position,
            key: None,
            reason,
            hint: None,
        }
    }

    fn remove_others(&self, present: &[Peer], changes: &mut Vec<Change>) {
        let named: HashSet<_> = self.peers.iter().map(|peer| peer.public_key).collect();
        let present = present.iter().map(|peer| peer.public_key);
        let mut others: Vec<_> = present.filter(|key| !named.contains(key)).collect();
        others.sort_unstable();
        // In descending order of the keys, like `wg`.
        for key in others.into_iter().rev() {
            changes.extend([Change::Peer(key), Change::Remove]);
        }
    }
}

impl PeerSettings {
    /// Extensions that are not mentioned are turned off if `all`, or if the peer has them now.
    fn change_extensions(&self, all: bool, synced: Option<&Peer>, changes: &mut Vec<Change>) {
        let now = synced.map(|peer| peer.extensions.all());
        for off in Extension::OFF {
            let said = self.extensions.iter().find(|said| said.key() == off.key());
            let is_on = now
                .iter()
                .flatten()
                .any(|now| now.key() == off.key() && !now.is_off());
            let change = said.cloned().or((all || is_on).then_some(off));
            changes.extend(change.map(Change::Extension));
        }
    }

    /// `synced` is the peer's current state, from which settings that are not mentioned are
    /// removed.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse_args, parse_file};
    use crate::uapi::text::print_change;
    use wg_crypto::{PresharedKey, PrivateKey};
    use zeroize::Zeroizing;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn no_names(endpoint: &ConfigEndpoint) -> Result<SocketAddr, Reason> {
        let unknown = || Reason::Unresolved("Unknown".into(), endpoint.to_string(), None);
        endpoint.to_string().parse().map_err(|_| unknown())
    }

    /// The changes as lines. A key that repeats one byte is written as `A` for 1, `B` for 2, …
    fn lines(changes: &[Change]) -> String {
        let mut out = Vec::new();
        for change in changes {
            print_change(change, &mut out);
        }
        let mut text = String::from_utf8(out).unwrap().replace('\n', " ");
        for n in 0..9u8 {
            let name = char::from(b'@' + n).to_string();
            let public = key(n).to_hex();
            let private = PrivateKey::from_bytes([n; 32]).to_hex();
            text = text.replace(&public, &name).replace(&*private, &name);
        }
        text.trim_end().to_owned()
    }

    fn of_file(text: &str, how: Apply<'_>) -> String {
        let text = (0..9).fold(text.to_owned(), |text, n| {
            text.replace(&format!("<{n}>"), &key(n).to_base64())
        });
        let settings = parse_file("wg0.conf", text.as_bytes()).unwrap();
        lines(&settings.changes(how, no_names).unwrap())
    }

    fn of_args(args: &[&str]) -> String {
        let args: Vec<_> = args.iter().map(Into::into).collect();
        let read = |_: &std::ffi::OsStr| Ok(Zeroizing::new(key(9).to_base64().into_bytes()));
        let settings = parse_args(&args, read).unwrap();
        lines(&settings.changes(Apply::AddConf, no_names).unwrap())
    }

    /// An interface with the peers 1, 2 and 4. Peer 2 has a preshared key and keepalives.
    fn interface() -> Interface {
        Interface {
            peers: vec![
                Peer::new(key(1)),
                Peer {
                    preshared_key: PresharedKey::from_bytes([8; 32]),
                    persistent_keepalive: 25,
                    ..Peer::new(key(2))
                },
                Peer::new(key(4)),
            ],
            ..Interface::default()
        }
    }

    const FULL: &str = "[Interface]\nFwMark=0x10\nPrivateKey=<3>\nListenPort=7\n\
        [Peer]\nPersistentKeepalive=5\nAllowedIPs=10.0.0.1,fd00::/8\nEndpoint=[::1]:9\n\
        PresharedKey=<4>\nPublicKey=<2>\n[Peer]\nPublicKey=<5>\n";
    const FULL_PEERS: &str = "public_key=B preshared_key=D endpoint=[::1]:9 \
        persistent_keepalive_interval=5 replace_allowed_ips=true allowed_ip=10.0.0.1/32 \
        allowed_ip=fd00::/8 public_key=E replace_allowed_ips=true";

    #[test]
    fn a_file_with_extensions_turns_off_those_that_are_not_mentioned() {
        let text = "[Peer]\n#@ Name = b\nPublicKey=<2>\n[Peer]\nPublicKey=<5>\n";
        let b = "public_key=B replace_allowed_ips=true";
        let e = "public_key=E replace_allowed_ips=true";
        let reset = "private_key=@ listen_port=0 fwmark=0";
        assert_eq!(of_file(text, Apply::AddConf), format!("{b} name=b {e}"));
        assert_eq!(
            of_file(text, Apply::SetConf),
            format!(
                "{reset} replace_peers=true {b} name=b relay= hub=false {e} name= relay= hub=false"
            )
        );
        // For a file without extensions, only those that the daemon reports are turned off.
        let text = text.replace("#@", "#");
        assert!(!of_file(&text, Apply::SetConf).contains("name"));
        let mut now = interface();
        now.peers[1].extensions.name = "b".parse().ok();
        let synced = of_file(&text, Apply::SyncConf(&now));
        assert_eq!(synced.matches("name=").count(), 1, "{synced}");
        assert!(!of_file(&text, Apply::AddConf).contains("name"));
    }

    #[test]
    fn setconf_resets_settings_that_are_not_mentioned() {
        assert_eq!(
            of_file("", Apply::SetConf),
            "private_key=@ listen_port=0 fwmark=0 replace_peers=true"
        );
        assert_eq!(
            of_file(FULL, Apply::SetConf),
            format!("private_key=C listen_port=7 fwmark=16 replace_peers=true {FULL_PEERS}")
        );
    }

    #[test]
    fn addconf_keeps_settings_that_are_not_mentioned() {
        assert_eq!(of_file("", Apply::AddConf), "");
        assert_eq!(
            of_file(FULL, Apply::AddConf),
            format!("private_key=C listen_port=7 fwmark=16 {FULL_PEERS}")
        );
        assert_eq!(
            of_file("[Interface]\nPrivateKey=<0>\n", Apply::AddConf),
            "private_key=@"
        );
        assert_eq!(
            of_file(
                "[Peer]\nPublicKey=<1>\nAllowedIPs=+10.0.0.0/8,-11.0.0.0/8",
                Apply::AddConf
            ),
            "public_key=A allowed_ip=10.0.0.0/8 allowed_ip=-11.0.0.0/8"
        );
    }

    #[test]
    fn syncconf_without_peers_equals_setconf() {
        let now = interface();
        let reset = "private_key=@ listen_port=0 fwmark=0 replace_peers=true";
        assert_eq!(of_file("", Apply::SyncConf(&now)), reset);
        assert_eq!(
            of_file(
                "[Peer]\nPublicKey=<2>\n",
                Apply::SyncConf(&Interface::default())
            ),
            format!("{reset} public_key=B replace_allowed_ips=true")
        );
    }

    #[test]
    fn syncconf_removes_peers_and_settings_that_are_not_mentioned() {
        let now = interface();
        assert_eq!(
            of_file(
                "[Peer]\nPublicKey=<2>\nAllowedIPs=2.0.0.0/8\n[Peer]\nPublicKey=<3>\n",
                Apply::SyncConf(&now)
            ),
            "private_key=@ listen_port=0 fwmark=0 public_key=D remove=true public_key=A remove=true \
             public_key=B preshared_key=@ persistent_keepalive_interval=0 replace_allowed_ips=true \
             allowed_ip=2.0.0.0/8 public_key=C replace_allowed_ips=true"
        );
        // A peer that appears twice is reset only once.
        assert_eq!(
            of_file(
                "[Peer]\nPublicKey=<2>\nPersistentKeepalive=9\n[Peer]\nPublicKey=<2>\n\
                 [Peer]\nPublicKey=<4>\n[Peer]\nPublicKey=<1>\n",
                Apply::SyncConf(&now)
            ),
            "private_key=@ listen_port=0 fwmark=0 \
             public_key=B preshared_key=@ persistent_keepalive_interval=9 replace_allowed_ips=true \
             public_key=B replace_allowed_ips=true public_key=D replace_allowed_ips=true \
             public_key=A replace_allowed_ips=true"
        );
    }

    #[test]
    fn set_changes_only_mentioned_settings() {
        let (a, b) = (&*key(1).to_base64(), &*key(2).to_base64());
        for (args, expected) in [
            (
                &["listen-port", "7", "listen-port", "8"][..],
                "listen_port=8",
            ),
            (&["fwmark", "off"], "fwmark=0"),
            (&["peer", a], "public_key=A"),
            (
                &["peer", a, "endpoint", "192.0.2.1:9", "remove", "peer", b],
                "public_key=A remove=true public_key=B",
            ),
            (
                &["peer", a, "allowed-ips", ""],
                "public_key=A replace_allowed_ips=true",
            ),
            (
                &[
                    "peer",
                    a,
                    "allowed-ips",
                    "10.0.0.0/8",
                    "allowed-ips",
                    "+11.0.0.0/8",
                ],
                "public_key=A allowed_ip=10.0.0.0/8 allowed_ip=11.0.0.0/8",
            ),
            (
                &[
                    "peer",
                    a,
                    "allowed-ips",
                    "+12.0.0.0/8",
                    "allowed-ips",
                    "13.0.0.0/8",
                ],
                "public_key=A replace_allowed_ips=true allowed_ip=12.0.0.0/8 allowed_ip=13.0.0.0/8",
            ),
            (
                &["peer", a, "allowed-ips", " 14.0.0.0/8,\t-15.0.0.0 / 8 "],
                "public_key=A allowed_ip=14.0.0.0/8 allowed_ip=-15.0.0.0/8",
            ),
        ] {
            assert_eq!(of_args(args), expected, "{args:?}");
        }
    }

    #[test]
    fn an_unknown_host_prevents_all_changes() {
        let text = format!("[Peer]\nPublicKey={}\nEndpoint=nowhere:1\n", key(1));
        let settings = parse_file("wg0.conf", text.as_bytes()).unwrap();
        let error = settings.changes(Apply::SetConf, no_names).unwrap_err();
        assert_eq!(error.to_string(), "wg0.conf:3: Unknown: `nowhere:1'");
        let retries = |_: &ConfigEndpoint| Err(Reason::Retries("x".into()));
        let error = settings.changes(Apply::SetConf, retries).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Unable to parse WG_ENDPOINT_RESOLUTION_RETRIES: `x'"
        );
    }
}
