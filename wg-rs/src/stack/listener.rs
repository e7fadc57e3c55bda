//! Incoming connections through the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;

use super::backlog::Backlog;
use super::driver::Running;
use super::error::Error;
use super::stream::TcpStream;

/// Accepts incoming connections through the tunnel. When it is dropped, connections that were not accepted
/// are reset.
pub struct TcpListener {
    port: u16,
    backlog: Arc<Backlog>,
    running: Arc<Running>,
}

impl TcpListener {
    pub(super) fn new(port: u16, backlog: Arc<Backlog>, running: Arc<Running>) -> Self {
        TcpListener {
            port,
            backlog,
            running,
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the next connection. Returns it and the address of its other end.
    ///
    /// # Errors
    /// [`Error::Closed`]: the tunnel was closed.
    pub async fn accept(&self) -> Result<(TcpStream, SocketAddr), Error> {
        let flow = self.backlog.next().await.ok_or(Error::Closed)?;
        let remote = flow.tuple.remote;
        Ok((TcpStream::new(flow, self.running.clone()), remote))
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.running.host.unlisten(self.port, &self.backlog);
    }
}
