//! The interface's UDP sockets for senders: one for each family, open while the link is up.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use arc_swap::ArcSwapOption;

use super::egress::{Egress, Sent};
use super::sources::Sources;
use crate::sys::udp::{OuterHeader, UdpSocket};
use crate::tunnel::peer::{Endpoint, Peer};
use crate::tunnel::time::Time;

/// The open sockets. All are replaced when the port changes; there are none while the link is down.
#[derive(Default)]
pub struct Sockets {
    v4: ArcSwapOption<Egress>,
    v6: ArcSwapOption<Egress>,
    /// Chooses the source addresses.
    pub sources: Sources,
    port: AtomicU16,
}

impl Sockets {
    /// Replaces the sockets.
    pub fn replace(&self, v4: Option<Arc<UdpSocket>>, v6: Option<Arc<UdpSocket>>) {
        let port = v4
            .as_ref()
            .or(v6.as_ref())
            .map_or(0, |socket| socket.port());
        self.port.store(port, Ordering::Relaxed);
        let egress = |socket: Arc<UdpSocket>| {
            let gso = socket.features().gso;
            Arc::new(Egress::new(socket, gso))
        };
        self.v4.store(v4.map(egress));
        self.v6.store(v6.map(egress));
    }

    /// Without sockets, but with this port.
    #[cfg(test)]
    pub(super) fn on_port(port: u16) -> Self {
        Sockets {
            port: port.into(),
            ..Sockets::default()
        }
    }

    /// The common port; 0 if no socket is open.
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// The open sockets.
    pub fn each(&self) -> impl Iterator<Item = Arc<UdpSocket>> {
        [self.v4.load_full(), self.v6.load_full()]
            .into_iter()
            .flatten()
            .map(|egress| egress.wire().clone())
    }

    /// Sends datagrams that are `stride` bytes apart in `datagrams` (the last may be shorter) to an
    /// endpoint, with this outer header. If the kernel refuses the source address, it is left out, and
    /// `peer`, to which the endpoint belongs, forgets it. Without a socket of that family all
    /// datagrams are refused with EAFNOSUPPORT.
    pub fn send(
        &self,
        datagrams: &[u8],
        stride: usize,
        to: &Endpoint,
        header: OuterHeader,
        peer: Option<&Peer>,
        now: Time,
    ) -> Sent {
        let egress = match to.addr {
            SocketAddr::V4(_) => self.v4.load(),
            SocketAddr::V6(_) => self.v6.load(),
        };
        let Some(egress) = egress.as_deref() else {
            return Sent {
                refused: datagrams.len().div_ceil(stride),
                error: Some(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
                ..Sent::default()
            };
        };
        let to = Endpoint {
            src: self.sources.choose(to, peer, now),
            ..*to
        };
        let sent = egress.send(datagrams, stride, &to, header, now);
        if sent.bad_source
            && let (Some(peer), Some(stale)) = (peer, to.src)
        {
            peer.clear_source_if(stale);
        }
        sent
    }
}
