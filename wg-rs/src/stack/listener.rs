//! Incoming connections through the tunnel.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::backlog::Backlog;
use super::driver::Running;
use super::error::Error;
use super::stream::TcpStream;

/// Accepts incoming connections through the tunnel. When it is dropped, connections that were not accepted
/// are reset.
///
/// This server sends everything back that its clients send; `server` and `client` are two ends of a tunnel.
///
/// ```
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
/// let listener = server.listen(7)?;
/// tokio::spawn(async move {
///     while let Ok((stream, _)) = listener.accept().await {
///         tokio::spawn(async move {
///             let (mut read, mut write) = tokio::io::split(stream);
///             tokio::io::copy(&mut read, &mut write).await?;
///             write.shutdown().await
///         });
///     }
/// });
///
/// let mut stream = client.connect("10.9.0.1:7".parse()?).await?;
/// stream.write_all(b"hello").await?;
/// stream.shutdown().await?;
/// let mut echo = Vec::new();
/// stream.read_to_end(&mut echo).await?;
/// assert_eq!(echo, b"hello");
/// # Ok(())
/// # }
/// ```
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

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.running.host.unlisten(self.port, &self.backlog);
    }
}
