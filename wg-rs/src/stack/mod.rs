//! WireGuard without root: a tunnel in the process itself, with a TCP/IP stack of its own. There is no
//! network interface, no `/dev/net/tun` and no privilege. A user of this library connects, listens and
//! resolves names *inside* the tunnel; the rest of the machine is not affected.
//!
//! ```text
//! Tunnel ── connect, listen, bind_udp ─► TcpStream, TcpListener, UdpSocket
//!    │                                        │ AsyncRead, AsyncWrite
//!    └─ driver: one thread ─ Host ─ Flow: smoltcp │ Backlog │ Mailbox
//!          └─ the daemon's data path, and its protocol thread
//! ```
//!
//! A tunnel is configured like any other peer, by a file of `wg` or `wg-quick`, or by a [`Config`] that the
//! program builds.
//!
//! ```no_run
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use wg_rs::stack::Tunnel;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let tunnel = Tunnel::from_file("wg0.conf")?;
//! let mut stream = tunnel.connect_to("intranet.example", 80).await?;
//! stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
//! let mut page = String::new();
//! stream.read_to_string(&mut page).await?;
//! tunnel.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Memory
//! The windows of all connections come from a budget of 128 MiB: a new one gets an eighth of what is left,
//! at most 1 MiB for each direction and at least 16 KiB, which it gets even if nothing is left. There are
//! at most 2048 connections at a time; further outgoing ones fail, and further incoming ones are ignored.
//! Pages of a window that are never used take no memory.
//!
//! # Limits
//! smoltcp repairs losses without selective acknowledgements: on a path that is both long and lossy it is
//! slower than the kernel. Packets in the tunnel are neither fragmented nor reassembled.

mod backlog;
mod budget;
mod config;
mod driver;
mod error;
mod flow;
mod host;
mod listener;
mod mailbox;
mod nudge;
mod packet;
mod resolve;
mod stream;
mod tunnel;
mod udp;

pub use config::{Config, Peer};
pub use error::Error;
pub use listener::TcpListener;
pub use stream::TcpStream;
pub use tunnel::Tunnel;
pub use udp::UdpSocket;
