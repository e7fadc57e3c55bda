//! What the attacks share: addresses, the pace, the hosts and their keys.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use netns_tests::{Host, Keys};

/// The server's address as the attacker sees it.
pub const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 2), 51820);
/// The server's address inside.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The address inside that the attacker has if it is a peer.
pub const INSIDER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);
/// Where the server counts datagrams from inside: at this port those that an honest peer may send, and
/// at the next one those that must not arrive.
pub const HONEST_PORT: u16 = 7777;
/// See [`HONEST_PORT`].
pub const FORBIDDEN_PORT: u16 = 7778;

/// How fast and how long.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Datagrams a second.
    pub rate: u32,
    /// Length of a measurement.
    pub window: Duration,
}

/// What an attacker needs.
pub struct Arena {
    /// The host of the attacker.
    pub attacker: Host,
    /// The host under attack.
    pub server: Host,
    /// The server's keys; the attacker uses only the public one.
    pub server_keys: Keys,
    /// The attacker's keys, if it is a peer.
    pub insider_keys: Keys,
    /// What went over the wire between the client and the server.
    pub captured: Vec<Vec<u8>>,
    /// How fast to attack.
    pub pace: Pace,
    /// Datagrams or requests sent.
    pub sent: AtomicU64,
    /// CPU time of a flood's thread in nanoseconds.
    pub cpu: AtomicU64,
    /// Set when the attack must end.
    pub stop: AtomicBool,
}
