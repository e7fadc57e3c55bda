//! The interface's sockets: there while the link is up.
//!
//! They are opened in the namespace in which the daemon was born, wherever the link is moved to.
//! IPv4 first, IPv6 on the same port; a host without one of the two does with the other.

use std::io;
use std::sync::Arc;

use super::inbound::{Delivery, SocketReader};
use super::inbox::Inbox;
use super::sockets::Sockets;
use crate::sys::udp::{Family, UdpOptions, UdpSocket};
use crate::tunnel::config::Links;
use crate::tunnel::plane::Plane;

/// How often a random IPv4 port may turn out to be taken for IPv6 (the kernel's number).
const PORT_RETRIES: usize = 100;

/// The threads that read the sockets.
pub trait ReadsSockets: Send {
    /// Reads these sockets, in place of those read until now, which are closed when this returns.
    fn set_sockets(&self, sockets: Vec<SocketReader>);
}

/// What every reader of a socket needs.
pub struct Parts {
    /// The data path's view of the tunnel.
    pub plane: Arc<Plane>,
    /// Where senders find the sockets.
    pub sockets: Arc<Sockets>,
    /// The threads that read them.
    pub readers: Box<dyn ReadsSockets>,
    /// Where handshake messages go.
    pub inbox: Arc<Inbox>,
    /// Where packets go.
    pub delivery: Arc<Delivery>,
    /// Whether the sockets send with UDP_SEGMENT.
    pub gso: bool,
    /// Whether they receive with UDP_GRO.
    pub gro: bool,
    /// Workers per socket.
    pub workers: usize,
}

/// The sockets, open or not. See the head of the file.
pub struct Network {
    parts: Parts,
    fwmark: u32,
}

impl Network {
    /// No sockets yet, and no mark.
    pub fn new(parts: Parts) -> Self {
        Network { parts, fwmark: 0 }
    }

    fn reader(&self, socket: &Arc<UdpSocket>) -> io::Result<SocketReader> {
        let Parts {
            plane,
            sockets,
            inbox,
            delivery,
            workers,
            ..
        } = &self.parts;
        SocketReader::new(
            plane.clone(),
            socket.clone(),
            sockets.clone(),
            inbox.clone(),
            delivery.clone(),
            *workers,
        )
    }
}

/// A socket of each family that the host has.
type Pair = (Option<Arc<UdpSocket>>, Option<Arc<UdpSocket>>);

impl Network {
    fn open(&self, port: u16) -> io::Result<(u16, Pair)> {
        let options = UdpOptions {
            gso: self.parts.gso,
            gro: self.parts.gro,
            fwmark: self.fwmark,
        };
        let bind = |family, port| match UdpSocket::bind(family, port, &options) {
            Ok(socket) => Ok(Some(Arc::new(socket))),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(None),
            Err(error) => Err(error),
        };
        let mut retries = if port == 0 { PORT_RETRIES } else { 0 };
        let (v4, v6) = loop {
            let v4 = bind(Family::V4, port)?;
            let same = v4.as_ref().map_or(port, |socket| socket.port());
            match bind(Family::V6, same) {
                Ok(v6) => break (v4, v6),
                Err(error) if retries > 0 && error.kind() == io::ErrorKind::AddrInUse => {
                    retries -= 1
                }
                Err(error) => return Err(error),
            }
        };
        let Some(bound) = v4.as_ref().or(v6.as_ref()).map(|socket| socket.port()) else {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        };
        Ok((bound, (v4, v6)))
    }
}

impl Links for Network {
    fn bind(&mut self, port: u16) -> io::Result<u16> {
        let (bound, (v4, v6)) = self.open(port)?;
        let readers: io::Result<Vec<_>> = [&v4, &v6]
            .into_iter()
            .flatten()
            .map(|socket| self.reader(socket))
            .collect();
        let readers = readers?;
        self.parts.sockets.replace(v4, v6);
        self.parts.readers.set_sockets(readers);
        Ok(bound)
    }

    fn check(&mut self, port: u16) -> io::Result<()> {
        self.open(port).map(drop)
    }

    fn close(&mut self) {
        self.parts.sockets.replace(None, None);
        self.parts.readers.set_sockets(Vec::new());
        self.parts.inbox.clear();
    }

    fn set_fwmark(&mut self, mark: u32) -> io::Result<()> {
        for socket in self.parts.sockets.each() {
            socket.set_fwmark(mark)?;
        }
        self.parts.sockets.sources.set_mark(mark);
        self.fwmark = mark;
        Ok(())
    }
}
