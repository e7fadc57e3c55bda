//! A TCP connection through the tunnel.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::driver::Running;
use super::error::Error;
use super::flow::{Ended, Flow};

/// A TCP connection through the tunnel, to read from and write to.
///
/// After it is dropped, data that was written is still sent; if data that came was not read, the connection
/// is reset, as the kernel does. Small writes are sent at once (`TCP_NODELAY`).
pub struct TcpStream {
    flow: Arc<Flow>,
    running: Arc<Running>,
}

impl TcpStream {
    pub(super) fn new(flow: Arc<Flow>, running: Arc<Running>) -> Self {
        TcpStream { flow, running }
    }

    /// Waits until the connection is established.
    pub(super) async fn established(&self) -> Result<(), Error> {
        let remote = self.flow.tuple.remote;
        let result =
            std::future::poll_fn(
                |context| match self.flow.poll_established(context.waker()) {
                    Some(result) => Poll::Ready(result),
                    None => Poll::Pending,
                },
            );
        result.await.map_err(|ended| match ended {
            Ended::Reset | Ended::Refused => Error::Refused(remote),
            Ended::Silent => match self.running.silent_endpoint(remote.ip()) {
                Some(endpoint) => Error::SilentPeer {
                    to: remote,
                    endpoint,
                },
                None => Error::NoAnswer(remote),
            },
            Ended::Unreachable => Error::Unreachable(remote),
            Ended::Aborted => Error::Closed,
        })
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.flow.tuple.remote
    }

    /// The address of this end.
    pub fn local_addr(&self) -> SocketAddr {
        self.flow.tuple.local
    }

    /// Ends the connection at once, with a reset.
    pub fn reset(self) {
        self.flow.abort();
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("local", &self.local_addr())
            .field("peer", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

fn error(ended: Ended) -> io::Error {
    match ended {
        Ended::Reset | Ended::Refused => io::ErrorKind::ConnectionReset.into(),
        Ended::Silent => io::ErrorKind::TimedOut.into(),
        Ended::Unreachable => io::ErrorKind::HostUnreachable.into(),
        Ended::Aborted => io::ErrorKind::BrokenPipe.into(),
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.initialize_unfilled();
        let (read, tell) = self
            .flow
            .poll_read(room, context.waker(), self.running.host.now());
        if tell {
            self.running.host.drive(&self.flow);
        }
        match read {
            None => Poll::Pending,
            Some(Ok(read)) => {
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
            Some(Err(ended)) => Poll::Ready(Err(error(ended))),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.flow.poll_write(bytes, context.waker()) {
            None => Poll::Pending,
            Some(Ok(written)) => {
                self.running.host.drive(&self.flow);
                Poll::Ready(Ok(written))
            }
            Some(Err(ended)) => Poll::Ready(Err(error(ended))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flow.close();
        self.running.host.drive(&self.flow);
        Poll::Ready(Ok(()))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.flow.orphan(self.running.host.now());
        self.running.host.drive(&self.flow);
    }
}
