//! Datagrams through the tunnel.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::driver::Running;
use super::error::Error;
use super::mailbox::Mailbox;

/// A UDP port of this end of the tunnel, at all its addresses.
///
/// Here `server` and `client` are two ends of a tunnel.
///
/// ```
/// # use wg_rs::stack::{Config, Peer, PrivateKey, Tunnel};
/// # fn pair() -> Result<(Tunnel, Tunnel), Box<dyn std::error::Error>> {
/// #     let here = PrivateKey::from_bytes(rand::random());
/// #     let there = PrivateKey::from_bytes(rand::random());
/// #     let client = Peer::new(here.public_key()).allowed_ips("10.9.0.2/32")?;
/// #     let server = Config::new(there.clone()).address("10.9.0.1".parse()?).peer(client);
/// #     let server = Tunnel::start(server)?;
/// #     let peer = Peer::new(there.public_key())
/// #         .endpoint(&format!("127.0.0.1:{}", server.listen_port()))?
/// #         .allowed_ips("10.9.0.0/24")?;
/// #     let client = Config::new(here).address("10.9.0.2".parse()?).peer(peer);
/// #     Ok((server, Tunnel::start(client)?))
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (server, client) = pair()?;
/// let service = server.bind_udp(53)?;
/// let socket = client.bind_udp(0)?;
/// socket.send_to(b"question", "10.9.0.1:53".parse()?).await?;
/// let (question, from) = service.recv_from().await?;
/// assert_eq!(question, b"question");
/// service.send_to(b"answer", from).await?;
/// assert_eq!(socket.recv_from().await?.0, b"answer");
/// # Ok(())
/// # }
/// ```
pub struct UdpSocket {
    port: u16,
    mailbox: Arc<Mailbox>,
    running: Arc<Running>,
}

impl UdpSocket {
    pub(super) fn new(port: u16, mailbox: Arc<Mailbox>, running: Arc<Running>) -> Self {
        UdpSocket {
            port,
            mailbox,
            running,
        }
    }

    /// The number of the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends a datagram. As with all UDP, it may be lost on its way.
    ///
    /// # Errors
    /// [`Error::TooLong`], and those of a destination that cannot be reached through the tunnel.
    pub async fn send_to(&self, payload: &[u8], to: SocketAddr) -> Result<(), Error> {
        self.running
            .host
            .send_datagram(self.port, to, payload)
            .await
    }

    /// Waits for the next datagram. Returns its whole payload and its sender. When too many datagrams wait,
    /// further ones are dropped.
    ///
    /// # Errors
    /// [`Error::Closed`]: the tunnel was closed.
    pub async fn recv_from(&self) -> Result<(Vec<u8>, SocketAddr), Error> {
        let (from, payload) = self.mailbox.take().await.ok_or(Error::Closed)?;
        Ok((payload, from))
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.running.host.unbind(self.port);
    }
}
