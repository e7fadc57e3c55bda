//! Datagrams through the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;

use super::driver::Running;
use super::error::Error;
use super::mailbox::Mailbox;

/// A UDP port of this end of the tunnel, at all its addresses.
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

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.running.host.unbind(self.port);
    }
}
