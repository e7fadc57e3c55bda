//! Connections from the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;

use super::backlog::Backlog;
use super::driver::Running;
use super::error::Error;
use super::stream::TcpStream;

/// Takes connections that others make through the tunnel. When it is dropped, those that wait are reset.
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

    /// The next connection, and whose it is.
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
