//! The interface's UDP sockets, as senders see them: one per family, there while the link is up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::sources::Sources;
use crate::sys::udp::{SendError, UdpSocket};
use crate::tunnel::peer::{Endpoint, Peer, Source};

/// The open sockets. Replaced as a whole when the port changes; empty while the link is down.
#[derive(Default)]
pub struct Sockets {
    v4: ArcSwapOption<UdpSocket>,
    v6: ArcSwapOption<UdpSocket>,
    /// From which of our addresses peers are answered.
    pub sources: Sources,
}

impl Sockets {
    /// Takes these sockets from now on.
    pub fn replace(&self, v4: Option<Arc<UdpSocket>>, v6: Option<Arc<UdpSocket>>) {
        self.v4.store(v4);
        self.v6.store(v6);
    }

    /// Each open socket.
    pub fn each(&self) -> impl Iterator<Item = Arc<UdpSocket>> {
        [self.v4.load_full(), self.v6.load_full()]
            .into_iter()
            .flatten()
    }

    /// Sends datagrams that stand at `stride` in `datagrams` (the last may be shorter) to an endpoint,
    /// with an outer TOS. A source address that the kernel no longer takes is left out, and `peer`,
    /// whose endpoint it is, forgets it.
    ///
    /// # Errors
    /// The kernel refused; EAFNOSUPPORT: there is no socket of that family.
    pub fn send(
        &self,
        datagrams: &[u8],
        stride: usize,
        to: &Endpoint,
        tos: u8,
        peer: Option<&Peer>,
    ) -> io::Result<()> {
        let socket = match to.addr {
            SocketAddr::V4(_) => self.v4.load(),
            SocketAddr::V6(_) => self.v6.load(),
        };
        let Some(socket) = socket.as_deref() else {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        };
        let send = |source: Option<Source>| {
            let source = source.map(|source| (source.ip, source.ifindex));
            socket.send(datagrams, stride, to.addr, source, tos)
        };
        let source = self.sources.choose(to, peer);
        match (send(source), source) {
            (Err(SendError::BadSource), Some(stale)) => {
                send(None)?;
                if let Some(peer) = peer {
                    peer.clear_source_if(stale);
                }
                Ok(())
            }
            (result, _) => Ok(result?),
        }
    }
}
