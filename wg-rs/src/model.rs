//! The data model: an interface, its peers and their networks, and the changes that can be
//! requested. The tunnel, the configuration protocol, the tools and the kernel's netlink all use
//! these types.

mod extension;
mod groups;
mod label;
pub mod status;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wg_crypto::key::{PresharedKey, PrivateKey, PublicKey};

use crate::sys::numeric::NumericIp;
use crate::sys::process::clock;

pub use extension::{Extension, Extensions};
pub use groups::{Groups, GroupsError, MAX_GROUPS, MAX_GROUPS_IN_ALL, is_switch};
pub use label::{Label, NotALabel};

/// The configuration and the state of an interface: the result of a `get`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The private key; None until one is set.
    pub private_key: Option<PrivateKey>,
    /// The listen port; 0 if no socket is open yet.
    pub listen_port: u16,
    /// The fwmark; 0 for none.
    pub fwmark: u32,
    /// The peers in the order in which they were added.
    pub peers: Vec<Peer>,
}

/// A peer of an interface, as it is configured and shown. The data path has a `tunnel::peer::Peer` for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's public key.
    pub public_key: PublicKey,
    /// The preshared key; zero for none.
    pub preshared_key: PresharedKey,
    /// The configured endpoint, or the address that the peer last sent from.
    pub endpoint: Option<SocketAddr>,
    /// The time of the last handshake; None if there was none.
    pub last_handshake: Option<Wall>,
    /// Bytes sent to the peer.
    pub tx_bytes: u64,
    /// Bytes received from the peer.
    pub rx_bytes: u64,
    /// The keepalive interval in seconds; 0 means off.
    pub persistent_keepalive: u16,
    /// The allowed IPs in the order in which they were added.
    pub allowed_ips: Vec<AllowedIp>,
    /// Settings that a `get` does not contain; known in our daemon and in its status.
    pub extensions: Extensions,
}

impl Peer {
    /// A peer with defaults.
    pub fn new(public_key: PublicKey) -> Self {
        Peer {
            public_key,
            preshared_key: PresharedKey::default(),
            endpoint: None,
            last_handshake: None,
            tx_bytes: 0,
            rx_bytes: 0,
            persistent_keepalive: 0,
            allowed_ips: Vec::new(),
            extensions: Extensions::default(),
        }
    }
}

/// A network that belongs to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllowedIp {
    /// The first address: the host bits are zero.
    pub addr: IpAddr,
    /// Length of the prefix in bits.
    pub cidr: u8,
}

impl AllowedIp {
    /// The network of the first `cidr` bits of `addr`. None if `cidr` exceeds the address's length.
    pub fn new(addr: IpAddr, cidr: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(addr) => {
                let host = 32u32.checked_sub(cidr.into())?;
                let mask = u32::MAX.checked_shl(host).unwrap_or(0);
                Ipv4Addr::from_bits(addr.to_bits() & mask).into()
            }
            IpAddr::V6(addr) => {
                let host = 128u32.checked_sub(cidr.into())?;
                let mask = u128::MAX.checked_shl(host).unwrap_or(0);
                Ipv6Addr::from_bits(addr.to_bits() & mask).into()
            }
        };
        Some(AllowedIp { addr, cidr })
    }

    /// The network of this address alone.
    pub fn host(addr: IpAddr) -> Self {
        let cidr = if addr.is_ipv4() { 32 } else { 128 };
        AllowedIp { addr, cidr }
    }
}

impl fmt::Display for AllowedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", NumericIp(self.addr), self.cidr)
    }
}

/// A time of day, for timestamps of handshakes and for "latest handshake".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Wall {
    /// Seconds since 1970-01-01 UTC.
    pub secs: u64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl Wall {
    /// The current time.
    pub fn now() -> Self {
        let now = clock::wall();
        Wall {
            secs: now.as_secs(),
            nanos: now.subsec_nanos(),
        }
    }
}

/// One line of a `set`. Those from [`Change::UpdateOnly`] on are about the last [`Change::Peer`],
/// and never come before the first one.
///
/// Secrets are boxed, so that a growing list of changes leaves no copies of them behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Set or remove the private key.
    PrivateKey(Option<Box<PrivateKey>>),
    /// Set the listen port; 0 lets the system choose.
    ListenPort(u16),
    /// Set the mark of outgoing packets; 0 for none.
    FwMark(u32),
    /// Remove all peers that exist at this point.
    ReplacePeers,
    /// The changes that follow are about this peer, which is created if it does not exist.
    Peer(PublicKey),
    /// Do not create the peer: if it did not exist, the changes of it that follow are ignored.
    UpdateOnly,
    /// Remove the peer; the changes of it that follow are ignored.
    Remove,
    /// Set the preshared key; zero removes it.
    PresharedKey(Box<PresharedKey>),
    /// Set the endpoint.
    Endpoint(SocketAddr),
    /// Set the keepalive interval in seconds; 0 turns keepalives off.
    PersistentKeepalive(u16),
    /// Remove all networks of the peer.
    ReplaceAllowedIps,
    /// Add a network to the peer, or remove it if it belongs to the peer.
    AllowedIp {
        /// The network.
        ip: AllowedIp,
        /// Whether to remove the network.
        remove: bool,
    },
    /// The peer's protocol version is 1, the only one.
    ProtocolVersion,
    /// Set an extension of our daemon.
    Extension(Extension),
}

impl Change {
    /// The port that these changes set; the last one counts. None if they set none.
    pub(crate) fn listen_port(changes: &[Change]) -> Option<u16> {
        changes.iter().rev().find_map(|change| match change {
            Change::ListenPort(port) => Some(*port),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_no_host_bits() {
        for (addr, cidr, network) in [
            ("10.1.2.3", 8, "10.0.0.0/8"),
            ("255.255.255.255", 0, "0.0.0.0/0"),
            ("10.1.2.3", 32, "10.1.2.3/32"),
            ("fe80::1", 0, "::/0"),
            ("fe80::ffff:1", 113, "fe80::ffff:0/113"),
            ("::ffff:1.2.3.4", 120, "::ffff:1.2.3.0/120"),
            ("::1", 128, "::1/128"),
        ] {
            let ip = AllowedIp::new(addr.parse().unwrap(), cidr).unwrap();
            assert_eq!(ip.to_string(), network);
        }
        for host in ["10.1.2.3", "fe80::1"].map(|addr| addr.parse::<IpAddr>().unwrap()) {
            let bits = if host.is_ipv4() { 32 } else { 128 };
            assert_eq!(AllowedIp::new(host, bits), Some(AllowedIp::host(host)));
        }
        assert_eq!(AllowedIp::new("10.0.0.0".parse().unwrap(), 33), None);
        assert_eq!(AllowedIp::new("::".parse().unwrap(), 129), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let interface = Interface {
            private_key: Some(PrivateKey::from_bytes([0x41; 32])),
            peers: vec![Peer {
                preshared_key: PresharedKey::from_bytes([0x42; 32]),
                ..Peer::new(PublicKey::from_bytes([3; 32]))
            }],
            ..Interface::default()
        };
        let text = format!("{interface:?}");
        for secret in ["41", "0x41", "65", "42", "66", "QUFB", "QkJC"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
