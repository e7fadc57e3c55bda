//! The settings in a file or in the arguments of `wg set`.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

use super::Position;
use crate::model::{AllowedIp, Extension, Extensions, Groups, Label};

/// Settings of an interface. None means that a setting is not mentioned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The name of the file, for errors; None for a command line.
    pub file: Option<Arc<str>>,
    /// The private key; zero removes it.
    pub private_key: Option<Box<PrivateKey>>,
    /// The listen port; 0 for a port that the system chooses.
    pub listen_port: Option<u16>,
    /// The fwmark; 0 for none.
    pub fwmark: Option<u32>,
    /// Where others reach the interface (`#@ Endpoint`): for their files, not for the interface.
    pub own_endpoint: Option<ConfigEndpoint>,
    /// The peers in their order. A peer may appear twice.
    pub peers: Vec<PeerSettings>,
}

/// Settings of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// The peer's public key.
    pub public_key: PublicKey,
    /// Whether the peer is removed; the other settings are ignored then.
    pub remove: bool,
    /// The preshared key; zero removes it.
    pub preshared_key: Option<Box<PresharedKey>>,
    /// The peer's endpoint.
    pub endpoint: Option<ConfigEndpoint>,
    /// The keepalive interval in seconds; 0 turns keepalives off.
    pub persistent_keepalive: Option<u16>,
    /// Whether the existing allowed IPs are removed first.
    pub replace_allowed_ips: bool,
    /// Allowed IPs to add and to remove.
    pub allowed_ips: Vec<AllowedIpSetting>,
    /// Extensions of our daemon; at most one of each kind.
    pub extensions: Vec<Extension>,
    /// The line of the `[Peer]` header; 0 without a file.
    pub line: usize,
    /// The line of `PublicKey`; 0 without a file.
    pub public_key_line: usize,
}

impl PeerSettings {
    /// A peer without further settings.
    pub fn new(public_key: PublicKey) -> Self {
        PeerSettings {
            public_key,
            remove: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
            extensions: Vec::new(),
            line: 0,
            public_key_line: 0,
        }
    }

    /// Sets an extension, and replaces one of the same kind.
    pub(super) fn extend(&mut self, extension: Extension) {
        self.extensions.retain(|said| said.key() != extension.key());
        self.extensions.push(extension);
    }

    /// The peer's name, if it has one.
    pub fn name(&self) -> Option<&Label> {
        self.extensions
            .iter()
            .find_map(|extension| match extension {
                Extension::Name(name) => name.as_ref(),
                _ => None,
            })
    }

    /// The groups within which a hub relays for the peer, if they are set.
    pub fn relay(&self) -> Option<&Groups> {
        self.extensions
            .iter()
            .find_map(|extension| match extension {
                Extension::Relay(groups) => Some(groups),
                _ => None,
            })
    }

    /// Whether the peer is set to be a hub.
    pub fn is_hub(&self) -> bool {
        self.extensions.contains(&Extension::Hub(true))
    }

    /// Adds allowed IPs. The last ones to be added decide whether the existing ones are replaced.
    pub(super) fn allow(&mut self, (replace, ips): (bool, Vec<AllowedIpSetting>), line: usize) {
        self.replace_allowed_ips = replace;
        let ips = ips.into_iter().map(|ip| AllowedIpSetting { line, ..ip });
        self.allowed_ips.extend(ips);
    }
}

/// A network to add to a peer or to remove from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedIpSetting {
    /// The network.
    pub ip: AllowedIp,
    /// The address as written; its host bits may be set.
    pub written: IpAddr,
    /// Whether the network is removed.
    pub remove: bool,
    /// The line; 0 without a file.
    pub line: usize,
}

/// An address of an interface, with the length of its prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address, including host bits.
    pub ip: IpAddr,
    /// The length: at most 32 for IPv4 and 128 for IPv6.
    pub prefix: u8,
}

impl Address {
    /// The network of the address. None if the prefix is longer than the address.
    pub fn network(&self) -> Option<AllowedIp> {
        AllowedIp::new(self.ip, self.prefix)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// A peer's endpoint, by address or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEndpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// The line; 0 without a file.
    pub line: usize,
}

impl fmt::Display for ConfigEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigEndpoint { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            ConfigEndpoint { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

impl Settings {
    /// Turns off the extensions that the peers have `now` and that these settings do not mention.
    pub fn switch_off(&mut self, now: &HashMap<PublicKey, Extensions>) {
        for peer in &mut self.peers {
            let now = now.get(&peer.public_key).map(Extensions::all);
            for off in Extension::OFF {
                let is_on = |now: &Extension| now.key() == off.key() && !now.is_off();
                let is_said = peer.extensions.iter().any(|said| said.key() == off.key());
                if !is_said && now.iter().flatten().any(is_on) {
                    peer.extend(off);
                }
            }
        }
    }

    /// The position of a line in this file.
    pub(super) fn position(&self, line: usize) -> Position {
        match &self.file {
            Some(file) => Position::Line {
                file: Arc::clone(file),
                line,
            },
            None => Position::CommandLine,
        }
    }

    /// Warnings about settings that are valid but probably not intended, one line each.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let ips = self.peers.iter().flat_map(|peer| &peer.allowed_ips);
        ips.filter(|ip| ip.written != ip.ip.addr).map(|ip| {
            format!(
                "{}Warning: AllowedIP has nonzero host part: {}/{}",
                self.position(ip.line),
                ip.written,
                ip.ip.cidr
            )
        })
    }
}
