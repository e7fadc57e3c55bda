//! An interface, its peers and their networks, as configuration shows them, and the changes that one may
//! ask for. The tunnel applies them and is described in them; the configuration protocol, the tools and
//! the kernel's netlink speak of the same.

mod extension;
pub mod status;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wg_crypto::key::{PresharedKey, PrivateKey, PublicKey};

use crate::sys::numeric::Ip;

pub use extension::{Extension, Extensions, Label, NotALabel};

/// The configuration and the state of an interface: the answer to a `get`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `None` until one is set.
    pub private_key: Option<PrivateKey>,
    /// 0 where no socket is open yet.
    pub listen_port: u16,
    /// 0 for none.
    pub fwmark: u32,
    /// In the order in which they were added.
    pub peers: Vec<Peer>,
}

/// A peer of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub public_key: PublicKey,
    /// Zero for none.
    pub preshared_key: PresharedKey,
    /// Where it was last heard, or configured to be.
    pub endpoint: Option<SocketAddr>,
    /// `None` if there never was one.
    pub last_handshake: Option<Wall>,
    /// Bytes sent to it.
    pub tx_bytes: u64,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Seconds; 0 for off.
    pub persistent_keepalive: u16,
    /// In the order in which they were added.
    pub allowed_ips: Vec<AllowedIp>,
    /// What a `get` does not tell: known inside of our daemon, and to whoever asks it for its status.
    pub extensions: Extensions,
}

impl Peer {
    /// A peer of which nothing else is known.
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

/// A network whose addresses belong to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllowedIp {
    /// Its first address: host bits are zero.
    pub addr: IpAddr,
    /// How many leading bits all its addresses share.
    pub cidr: u8,
}

impl AllowedIp {
    /// The network of the first `cidr` bits of `addr`. `None` if an address has fewer.
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
}

impl fmt::Display for AllowedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ip(self.addr), self.cidr)
    }
}

/// Time of day, for handshake timestamps and for "latest handshake".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Wall {
    /// Seconds since 1970-01-01 UTC.
    pub secs: u64,
    /// And nanoseconds.
    pub nanos: u32,
}

/// One line of a `set`. Those from [`Change::UpdateOnly`] on speak of the last [`Change::Peer`],
/// and none of them comes before the first one.
///
/// Secrets are boxed: a list of changes leaves no copies of them behind as it grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new private key, or none.
    PrivateKey(Option<Box<PrivateKey>>),
    /// Listen here; 0 for a port of the system's choice.
    ListenPort(u16),
    /// Mark outgoing packets; 0 for not.
    FwMark(u32),
    /// Remove all peers there are by now.
    ReplacePeers,
    /// What follows is about this peer, which is made if it does not exist.
    Peer(PublicKey),
    /// Do not make it after all: if it did not exist, what follows about it is void.
    UpdateOnly,
    /// Remove it; what follows about it is void.
    Remove,
    /// Its preshared key; zero for none.
    PresharedKey(Box<PresharedKey>),
    /// Send to it here.
    Endpoint(SocketAddr),
    /// Seconds between keepalives; 0 for off.
    PersistentKeepalive(u16),
    /// Take away all its networks.
    ReplaceAllowedIps,
    /// Give it a network, or take it away if it is its own.
    AllowedIp {
        /// The network.
        ip: AllowedIp,
        /// Whether to take it away.
        remove: bool,
    },
    /// It speaks version 1, the only one.
    ProtocolVersion,
    /// What only our daemon knows.
    Extension(Extension),
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
        assert_eq!(AllowedIp::new("10.0.0.0".parse().unwrap(), 33), None);
        assert_eq!(AllowedIp::new("::".parse().unwrap(), 129), None);
    }

    #[test]
    fn debug_tells_no_secret() {
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
