//! The status of an interface and its peers. It contains no private key and no preshared key.
//! `None` means unknown: the kernel and other daemons report less.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wg_crypto::key::{PresharedKey, PublicKey};

pub use crate::sys::icmp::Unreachable;

use super::{Interface, Label, Peer, Wall};

/// The status of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The version of the daemon.
    pub version: Option<String>,
    /// When the daemon started.
    pub started: Option<Wall>,
    /// Whether the link is up and the sockets are open.
    pub up: Option<bool>,
    /// If the sockets are closed because they could not be opened: the errno.
    pub bind_error: Option<i32>,
    /// The listen port; 0 if no socket is open yet.
    pub listen_port: u16,
    /// The fwmark; 0 for none.
    pub fwmark: u32,
    /// The inode of the link's network namespace.
    pub link_netns: Option<u64>,
    /// The inode of the sockets' network namespace.
    pub socket_netns: Option<u64>,
    /// The offloads in use: some of `tso`, `uso`, `tunnels`, `gso` and `gro`, separated by commas.
    pub offloads: Option<String>,
    /// The implementation that encrypts data.
    pub aead: Option<String>,
    /// Threads per direction that help while packets are waiting.
    pub workers: Option<u32>,
    /// Whether so many handshakes arrive that they are answered with cookies.
    pub under_load: Option<bool>,
    /// Packets dropped since the daemon started, by reason: `no_peer_for_the_destination`.
    pub drops: Vec<(String, u64)>,
    /// The NAT between us and the hubs that we use. None if we use no hub.
    pub nat: Option<Nat>,
    /// Recent refusals of senders that are not peers.
    pub refusals: Vec<Refused>,
    /// The pairs of peers that the interface has relayed between, as a hub.
    pub pairs: Vec<PairStatus>,
    /// The peers in the order in which they were added.
    pub peers: Vec<PeerStatus>,
}

/// What the hubs that we use see of the NAT before us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nat {
    /// They see our own address.
    None,
    /// It gives all destinations the same port, or keeps ours.
    Easy,
    /// It is not known: no hub has answered yet, or only one has, which sees a port other than ours.
    Unknown,
    /// It gives each destination its own port.
    Hard,
}

impl Nat {
    /// All kinds with their words in protocols.
    pub const WORDS: [(Nat, &str); 4] = [
        (Nat::None, "none"),
        (Nat::Easy, "easy"),
        (Nat::Unknown, "unknown"),
        (Nat::Hard, "hard"),
    ];

    /// The word in protocols.
    pub fn as_str(self) -> &'static str {
        let word = Nat::WORDS.iter().find(|(nat, _)| *nat == self);
        word.map_or("", |(_, word)| word)
    }
}

/// Two peers that a hub has relayed between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairStatus {
    /// The first one sent the first handshake.
    pub keys: [PublicKey; 2],
    /// Bytes of data packets relayed from the first to the second.
    pub tx_bytes: u64,
    /// Bytes of data packets relayed from the second to the first.
    pub rx_bytes: u64,
    /// How long ago the last packet was relayed, in whole milliseconds.
    pub age: Duration,
}

/// The status of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer's configuration and counters, without its preshared key.
    pub peer: Peer,
    /// Whether the peer has a preshared key.
    pub has_preshared_key: bool,
    /// Whether there is a session in which data can be sent.
    pub session: Option<bool>,
    /// The number of completed handshakes.
    pub handshakes: Option<u64>,
    /// The handshakes sent since the last completed one.
    pub unanswered: Option<Unanswered>,
    /// The handshakes of the peer that were answered since the last completed one.
    pub unconfirmed: u32,
    /// The last refusal of each kind, by either side.
    pub refusals: Vec<Refused>,
    /// None unless the peer is a hub that we use.
    pub hub: Option<HubStatus>,
    /// How the peer is reached. None unless it may be reached through a hub.
    pub path: Option<PathStatus>,
}

/// What is known of a hub that we use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStatus {
    /// The time since it last answered our question whether it relays for us, in whole
    /// milliseconds. None if it never did.
    pub heard: Option<Duration>,
    /// The time that the last answer took, in whole microseconds.
    pub rtt: Option<Duration>,
    /// The address from which our packets reach it.
    pub sees: Option<SocketAddr>,
    /// Whether it does not answer although there is a session.
    pub is_mute: bool,
}

/// How a peer is reached that may be reached through a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStatus {
    /// The hub that is used now. None if there is no session, or if the peer is reached directly.
    pub hub: Option<PublicKey>,
    /// The hub that is used as well if the first one is in doubt.
    pub other: Option<PublicKey>,
    /// The round trip through the hub, in whole microseconds.
    pub rtt: Option<Duration>,
    /// Whether the peer understands the frames of wg-rs.
    pub speaks: bool,
    /// How long nothing has come back through the hub although packets are sent, in whole
    /// milliseconds.
    pub doubt: Option<Duration>,
}

/// Handshakes that were not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Their number, at least one.
    pub count: u32,
    /// The time since the first was sent.
    pub age: Duration,
}

impl Unanswered {
    /// From this number on, an existing session counts as dead. Handshakes are sent every five seconds.
    const DEAD: u32 = 2;

    /// Whether so many handshakes were not answered that the peer counts as silent.
    pub fn is_given_up(&self) -> bool {
        self.count >= Self::DEAD
    }
}

/// A refusal and its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was refused, and why.
    pub refusal: Refusal,
    /// The age in whole milliseconds.
    pub age: Duration,
}

/// Why a message between us and a peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A handshake message is for another public key than ours.
    OtherKey {
        /// The sender.
        from: SocketAddr,
    },
    /// The key in a handshake belongs to no peer.
    UnknownKey {
        /// The sender.
        from: SocketAddr,
        /// The key.
        key: PublicKey,
    },
    /// The response to our handshake was made with another preshared key.
    PresharedKey,
    /// The timestamp in the peer's handshake was not newer than the last one.
    Timestamp,
    /// The peer sent a packet from an address that is not among its allowed IPs.
    NotAllowed {
        /// The address.
        source: IpAddr,
    },
    /// The peer is under load, and answered our handshake with a cookie.
    UnderLoad,
    /// Our own host refused to send to the peer.
    SendFailed {
        /// The error.
        errno: i32,
    },
    /// A message to the peer's endpoint was refused there, or on the way.
    Unreachable {
        /// The reason that was given.
        what: Unreachable,
        /// The host that reported it.
        by: IpAddr,
    },
}

impl PeerStatus {
    /// The peer's name.
    pub fn name(&self) -> Option<&str> {
        self.peer.extensions.name.as_ref().map(Label::as_str)
    }

    /// A status that contains only the configuration.
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
            hub: None,
            path: None,
        }
    }
}

impl From<Interface> for Status {
    /// A status that contains only the configuration.
    fn from(interface: Interface) -> Self {
        Status {
            listen_port: interface.listen_port,
            fwmark: interface.fwmark,
            peers: interface.peers.into_iter().map(PeerStatus::new).collect(),
            ..Status::default()
        }
    }
}
