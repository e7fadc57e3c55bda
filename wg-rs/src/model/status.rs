//! How an interface and its peers are doing: the answer to a `status`. It holds no private and no
//! preshared key. What `None` stands for is not known: the kernel and other daemons tell less.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wg_crypto::key::{PresharedKey, PublicKey};

use super::{Interface, Label, Peer, Wall};

/// The state of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The version of the daemon.
    pub version: Option<String>,
    /// When the daemon started.
    pub started: Option<Wall>,
    /// Whether its link is up and its sockets are open.
    pub up: Option<bool>,
    /// The errno with which its sockets could not be opened, if they are closed for that.
    pub bind_error: Option<i32>,
    /// 0 where no socket is open yet.
    pub listen_port: u16,
    /// 0 for none.
    pub fwmark: u32,
    /// The inode of the network namespace in which its link is.
    pub link_netns: Option<u64>,
    /// That of the namespace in which its sockets are.
    pub socket_netns: Option<u64>,
    /// The offloads in use: some of `tso`, `uso`, `gso` and `gro`, with commas between them.
    pub offloads: Option<String>,
    /// What encrypts data.
    pub aead: Option<String>,
    /// Threads per direction that encrypt and decrypt large bursts.
    pub workers: Option<u32>,
    /// Whether so many handshakes come in that they are answered with cookies.
    pub under_load: Option<bool>,
    /// Packets dropped since the daemon started, by reason: `no_peer_for_the_destination`.
    pub drops: Vec<(String, u64)>,
    /// What was refused lately of senders that are no peer's.
    pub refusals: Vec<Refused>,
    /// In the order in which they were added.
    pub peers: Vec<PeerStatus>,
}

/// The state of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its configuration and counters. Its preshared key is left out.
    pub peer: Peer,
    /// Whether it has a preshared key.
    pub has_preshared_key: bool,
    /// Whether there is a session that data can be sent under.
    pub session: Option<bool>,
    /// How many handshakes were completed.
    pub handshakes: Option<u64>,
    /// The handshakes that were sent since the last one that was completed.
    pub unanswered: Option<Unanswered>,
    /// The handshakes of the peer that were answered since the last one that was completed.
    pub unconfirmed: u32,
    /// The last thing of each kind that was refused, by either side.
    pub refusals: Vec<Refused>,
}

/// Handshakes without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// How many, at least one.
    pub count: u32,
    /// How long ago the first was sent.
    pub age: Duration,
}

/// Something that was refused, and how long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What, and why.
    pub refusal: Refusal,
    /// In whole milliseconds.
    pub age: Duration,
}

/// Why something between us and a peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A handshake message was made for another public key than ours.
    OtherKey {
        /// Who sent it.
        from: SocketAddr,
    },
    /// A handshake came of a key that is no peer's.
    UnknownKey {
        /// Who sent it.
        from: SocketAddr,
        /// The key.
        key: PublicKey,
    },
    /// The answer to our handshake was made with another preshared key.
    PresharedKey,
    /// The timestamp in the peer's handshake was not newer than that of its last one.
    Timestamp,
    /// The peer sent a packet of an address that is not among its allowed IPs.
    NotAllowed {
        /// The address.
        source: IpAddr,
    },
    /// The peer is under load, and answered our handshake with a cookie.
    UnderLoad,
    /// What we sent to the peer was refused by our own host.
    SendFailed {
        /// Why.
        errno: i32,
    },
    /// What we sent to the peer's endpoint was refused there, or on the way.
    Unreachable {
        /// What was said of it.
        what: Unreachable,
        /// Who said it.
        by: IpAddr,
    },
}

/// What an ICMP message says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens on the port.
    Port,
    /// The host does not answer on its network.
    Host,
    /// There is no route to its network.
    Network,
    /// A firewall forbids it.
    Prohibited,
}

impl PeerStatus {
    /// What people call it.
    pub fn name(&self) -> Option<&str> {
        self.peer.extensions.name.as_ref().map(Label::as_str)
    }

    /// As far as configuration tells.
    pub fn new(peer: Peer) -> Self {
        PeerStatus {
            has_preshared_key: peer.preshared_key != PresharedKey::default(),
            peer: Peer {
                preshared_key: PresharedKey::default(),
                ..peer
            },
            session: None,
            handshakes: None,
            unanswered: None,
            unconfirmed: 0,
            refusals: Vec::new(),
        }
    }
}

impl From<Interface> for Status {
    /// As far as configuration tells.
    fn from(interface: Interface) -> Self {
        Status {
            listen_port: interface.listen_port,
            fwmark: interface.fwmark,
            peers: interface.peers.into_iter().map(PeerStatus::new).collect(),
            ..Status::default()
        }
    }
}
