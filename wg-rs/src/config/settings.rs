//! What a file or a `wg set` asks for.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

use super::Position;
use crate::model::{AllowedIp, Extension, Label};

/// What is to become of an interface. `None` where nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The file this comes from, as errors name it; `None` for a command line.
    pub file: Option<Arc<str>>,
    /// Zero to remove it.
    pub private_key: Option<Box<PrivateKey>>,
    /// 0 for a port of the system's choice.
    pub listen_port: Option<u16>,
    /// 0 for none.
    pub fwmark: Option<u32>,
    /// Where others reach the interface (`#@ Endpoint`): for their files, not for the interface.
    pub own_endpoint: Option<Endpoint>,
    /// In their order; the same peer may come twice.
    pub peers: Vec<PeerSettings>,
}

/// What is to become of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// Who it is.
    pub public_key: PublicKey,
    /// Whether it goes; nothing else counts then.
    pub remove: bool,
    /// Zero to remove it.
    pub preshared_key: Option<Box<PresharedKey>>,
    /// Where it is.
    pub endpoint: Option<Endpoint>,
    /// Seconds; 0 for off.
    pub persistent_keepalive: Option<u16>,
    /// Whether the allowed IPs it has go first.
    pub replace_allowed_ips: bool,
    /// Those it gets, and those it loses.
    pub allowed_ips: Vec<AllowedIpSetting>,
    /// What only our daemon knows; at most one of a kind.
    pub extensions: Vec<Extension>,
    /// The line of its `[Peer]`; 0 where there is no file.
    pub line: usize,
    /// The line of its `PublicKey`; 0 where there is no file.
    pub public_key_line: usize,
}

impl PeerSettings {
    /// A peer of which nothing else is asked.
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

    /// Says an extension, in place of what was said of its kind.
    pub(super) fn extend(&mut self, extension: Extension) {
        self.extensions.retain(|said| said.key() != extension.key());
        self.extensions.push(extension);
    }

    /// Its name, if it is given one.
    pub fn name(&self) -> Option<&Label> {
        let mut names = self.extensions.iter().map(|extension| match extension {
            Extension::Name(name) => name.as_ref(),
        });
        names.next().flatten()
    }

    /// Adds allowed IPs. Whether they replace those it has, the last to be added decide.
    pub(super) fn allow(&mut self, (replace, ips): (bool, Vec<AllowedIpSetting>), line: usize) {
        self.replace_allowed_ips = replace;
        let ips = ips.into_iter().map(|ip| AllowedIpSetting { line, ..ip });
        self.allowed_ips.extend(ips);
    }
}

/// A network that a peer gets or loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedIpSetting {
    /// The network.
    pub ip: AllowedIp,
    /// The address as it was written, whose host bits may not have been zero.
    pub written: IpAddr,
    /// Whether it is taken away.
    pub remove: bool,
    /// Its line; 0 where there is no file.
    pub line: usize,
}

/// An address of an interface, and the length of its network's prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address, host bits and all.
    pub ip: IpAddr,
    /// At most 32 for IPv4, 128 for IPv6.
    pub prefix: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// Where a peer is, by address or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// Its line; 0 where there is no file.
    pub line: usize,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

impl Settings {
    /// Where a line of this is.
    pub(super) fn position(&self, line: usize) -> Position {
        match &self.file {
            Some(file) => Position::Line {
                file: Arc::clone(file),
                line,
            },
            None => Position::CommandLine,
        }
    }

    /// What was understood, but is hardly meant so: a line of text each.
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
