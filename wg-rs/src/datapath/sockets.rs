//! The interface's UDP sockets, as senders see them: one per family, there while the link is up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::sys::udp::{SendError, UdpSocket};
use crate::tunnel::peer::{Endpoint, Source};

/// The open sockets. Replaced as a whole when the port changes; empty while the link is down.
#[derive(Default)]
pub struct Sockets {
    v4: ArcSwapOption<UdpSocket>,
    v6: ArcSwapOption<UdpSocket>,
}

/// How a send ended.
#[derive(Debug)]
pub enum Sent {
    /// All of it is on its way.
    Whole,
    /// So it is, but not from this source address, which the kernel takes no more.
    FromOtherSource(Source),
    /// It is not: the kernel refused, or there is no socket of that family.
    Failed(io::Error),
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
    /// with an outer TOS. A source address that the kernel no longer takes is left out.
    pub fn send(&self, datagrams: &[u8], stride: usize, to: &Endpoint, tos: u8) -> Sent {
        let socket = match to.addr {
            SocketAddr::V4(_) => self.v4.load(),
            SocketAddr::V6(_) => self.v6.load(),
        };
        let Some(socket) = socket.as_deref() else {
            return Sent::Failed(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        };
        let send = |source: Option<Source>| {
            let source = source.map(|source| (source.ip, source.ifindex));
            socket.send(datagrams, stride, to.addr, source, tos)
        };
        match (send(to.src), to.src) {
            (Ok(()), _) => Sent::Whole,
            (Err(SendError::BadSource), Some(stale)) => match send(None) {
                Ok(()) => Sent::FromOtherSource(stale),
                Err(error) => Sent::Failed(error.into()),
            },
            (Err(error), _) => Sent::Failed(error.into()),
        }
    }
}
