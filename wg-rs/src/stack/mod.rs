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
//! use wg_rs::stack::Tunnel;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let tunnel = Tunnel::from_file("wg0.conf")?;
//! let stream = tunnel.connect_to("intranet.example", 80).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # An HTTP GET through a tunnel
//! Both ends of this tunnel are in the same process; the server may as well be any other WireGuard.
//! The tunnel has threads of its own. Of the program's tokio runtime only the timer is used.
//!
//! ```
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use wg_rs::stack::{Config, Peer, PrivateKey, Tunnel};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let here = PrivateKey::from_bytes(rand::random());
//!     let there = PrivateKey::from_bytes(rand::random());
//!
//!     // The server listens on a UDP port, and has a web page inside the tunnel.
//!     let client = Peer::new(here.public_key()).allowed_ips("10.9.0.2/32")?;
//!     let server = Config::new(there.clone())
//!         .address("10.9.0.1".parse()?)
//!         .peer(client);
//!     let server = Tunnel::start(server)?;
//!     let listener = server.listen(80)?;
//!     tokio::spawn(async move {
//!         let (mut stream, _) = listener.accept().await?;
//!         let mut request = [0; 18];
//!         stream.read_exact(&mut request).await?;
//!         stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").await?;
//!         stream.shutdown().await
//!     });
//!
//!     // The client knows where the server is.
//!     let server = Peer::new(there.public_key())
//!         .endpoint(&format!("127.0.0.1:{}", server.listen_port()))?
//!         .allowed_ips("10.9.0.0/24")?;
//!     let tunnel = Tunnel::start(Config::new(here).address("10.9.0.2".parse()?).peer(server))?;
//!     let mut stream = tunnel.connect_to("10.9.0.1", 80).await?;
//!     stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
//!     let mut page = String::new();
//!     stream.read_to_string(&mut page).await?;
//!     assert!(page.ends_with("\r\n\r\nhello"));
//!     tunnel.close().await;
//!     Ok(())
//! }
//! ```
//! [`TcpListener`] has an echo server, and [`UdpSocket`] datagrams.
//!
//! # Memory
//! The windows of all connections together take at most 128 MiB: each has 16 KiB for each direction, and a new
//! one gets an eighth of what is not reserved for others besides, up to 1 MiB for each direction. There are at
//! most 2048 connections at a time; further outgoing ones fail, and further incoming ones are ignored. Pages of
//! a window that are never used take no memory.
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
mod link;
mod listener;
mod lookup;
mod mailbox;
mod nudge;
mod outgoing;
mod packet;
mod resolve;
mod stream;
mod tunnel;
mod udp;

#[cfg(test)]
mod tests;

pub use config::{Config, Peer};
pub use error::Error;
pub use listener::TcpListener;
pub use stream::TcpStream;
pub use tunnel::Tunnel;
pub use udp::UdpSocket;
pub use wg_crypto::{PresharedKey, PrivateKey, PublicKey};
