//! The hot path between the TUN device and the UDP sockets.
//!
//! ```text
//! TUN ─► [outbound] segment ─► burst ─► seal ─► [sockets] one sendmsg
//! TUN ◄─ [inbound]  coalesce ◄─ burst ◄─ open ◄─ one recvmsg
//!                       ├─► [inbox] handshake messages, for the protocol thread
//!                       └─► [forward] packets relayed between peers: one sendmsg
//! ```
//!
//! Parts that work on bytes only, without sockets, clocks and threads: [`segment`] divides a
//! super-packet of the TUN into packets, directly into their datagrams; [`coalesce`] merges opened
//! packets into super-packets without copying; `icmp` answers a packet that has no destination.
//!
//! [`egress`] sends bursts through the sockets of `sockets`, and handles refusals of the kernel.
//!
//! `outbound` reads the TUN and `inbound` reads a socket, in turns; `readers` has the two
//! threads that take these turns. A `lane` passes bursts to workers, if there are enough cores,
//! and finishes them in order. `network` opens the sockets, and `protocol` is the thread of
//! handshakes and timers.

pub mod checksum;
pub mod coalesce;
pub mod egress;
mod forward;
pub(crate) mod icmp;
pub(crate) mod inbound;
pub(crate) mod inbox;
mod ip;
pub(crate) mod lane;
pub(crate) mod loops;
pub(crate) mod network;
pub(crate) mod outbound;
pub(crate) mod protocol;
pub(crate) mod readers;
pub(crate) mod refusals;
pub mod segment;
pub(crate) mod sockets;
pub(crate) mod sources;
pub(crate) mod tun_io;
pub(crate) mod turn;
pub mod virtio;

use crate::sys::process::clock;
use crate::tunnel::time::Time;

/// The tunnel's current time: `CLOCK_BOOTTIME`, so sessions also age while the machine sleeps.
pub fn now() -> Time {
    Time::from_nanos(clock::boottime())
}
