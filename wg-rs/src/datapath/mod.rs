//! The hot path between the TUN device and the UDP sockets.
//!
//! ```text
//! TUN ─► [outbound] segment ─► burst ─► seal ─► [sockets] one sendmsg
//! TUN ◄─ [inbound]  coalesce ◄─ burst ◄─ open ◄─ one recvmsg
//!                       ├─► [inbox] handshake messages, for the protocol thread
//!                       └─► [forward] what is relayed between peers: one sendmsg
//! ```
//!
//! What works on bytes alone, without socket, clock or thread: [`segment`] cuts a super-packet of the
//! TUN into packets, straight into their datagrams; [`coalesce`] gathers opened packets into
//! super-packets without a copy; [`icmp`] answers a packet that has nowhere to go.
//!
//! What leaves and what to do when the kernel refuses is decided in [`egress`], of the sockets that
//! [`sockets`] holds.
//!
//! What runs: [`outbound`] reads the TUN and [`inbound`] a socket, a turn at a time; [`readers`] are the
//! two threads that take these turns; a [`lane`] carries bursts through workers, where there are cores
//! to spare, and finishes them in order. [`network`] opens the sockets, and [`protocol`] is the thread of
//! handshakes and timers.

pub mod checksum;
pub mod coalesce;
pub mod egress;
mod forward;
pub mod icmp;
pub mod inbound;
pub mod inbox;
mod ip;
pub mod lane;
pub mod loops;
pub mod network;
pub mod outbound;
pub mod protocol;
pub mod readers;
pub mod refusals;
pub mod segment;
pub mod sockets;
pub mod sources;
pub mod tun_io;
pub mod turn;
pub mod virtio;

use crate::sys::process::clock;
use crate::tunnel::time::Time;

/// Now, in the time of the tunnel core: `CLOCK_BOOTTIME`, so that sessions age while the machine sleeps.
pub fn now() -> Time {
    Time::from_nanos(clock::boottime())
}
