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
//! threads that take these turns. A [`lane`] passes bursts to workers while more of them follow, if there
//! are enough cores, and finishes those of each peer in order. `network` opens the sockets, and `protocol`
//! is the thread of handshakes and timers.
//!
//! # Where packets wait beside a bulk stream
//!
//! A ping beside a TCP stream waits in the same queues as the stream: the queue of the TUN at the sender,
//! and the socket's buffer at the receiver, whichever end is slower. Both are first in, first out, and
//! neither is short, because the stream fills them up to its congestion window. TCP's own limit for queued
//! packets does not apply, since the kernel counts a packet as sent when it is in the queue of a TUN.
//! With BBR the window is twice what the path holds, and in addition all that was ever acknowledged at once
//! within its last rounds. On two busy cores that addition is nearly everything: 36 kB are on the path at
//! 3.4 Gbit/s and 43 µs, yet the window was 2 to 3 MB, completely used, and the stream itself measured
//! 4 to 40 ms. Acknowledgements come in large bursts when a thread on their way waits for a core. So our
//! threads ask for a short slice of time (`sys::process::slice`).
//!
//! A turn of a socket ends after one super-packet. When it ended after 128 kB, a round trip beside a stream
//! took three times as long (2.9 instead of 0.9 ms). The TUN and the sockets have a thread each while there
//! is much traffic in both directions. A queue for each flow, as the kernel's fq has, would have to be in
//! front of the encryption, where only the sender sees the flows; behind it the receiver cannot tell them
//! apart until it has opened the packets, which is most of the work.

pub mod checksum;
pub mod coalesce;
pub mod egress;
mod forward;
pub(crate) mod icmp;
pub(crate) mod inbound;
pub(crate) mod inbox;
pub(crate) mod ip;
pub mod lane;
pub(crate) mod loops;
pub(crate) mod network;
pub(crate) mod outbound;
pub(crate) mod protocol;
pub(crate) mod readers;
pub(crate) mod refusals;
pub mod segment;
mod senders;
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
