//! The interface's sockets, which exist while the link is up.
//!
//! They are opened in the namespace in which the daemon was started, wherever the link is moved.
//! The IPv4 socket is opened first, and the IPv6 socket on the same port. A host without one of the
//! families has only the other socket.
//!
//! The kernel module opens its sockets while its link is set up. This process hears of that only
//! afterwards, and a peer whose initiation is refused meanwhile waits five seconds. So the sockets
//! for a port that is set while the link is down are opened at once, and not read until it is up.

use std::io;
use std::sync::Arc;

use super::inbound::{Delivery, SocketReader};
use super::inbox::Inbox;
use super::sockets::Sockets;
use crate::sys::udp::{Family, UdpOptions, UdpSocket};
use crate::tunnel::config::Links;
use crate::tunnel::plane::Plane;

/// How often a random IPv4 port may turn out to be in use for IPv6 (the kernel's number).
const PORT_RETRIES: usize = 100;

/// The threads that read sockets.
pub trait ReadsSockets: Send {
    /// Reads these sockets instead of the previous ones, which are closed when this returns.
    fn set_sockets(&self, sockets: Vec<SocketReader>);
}

/// The parts that every reader of a socket needs.
pub struct Parts {
    /// The part of the tunnel that the data path shares.
    pub plane: Arc<Plane>,
    /// The sockets for senders.
    pub sockets: Arc<Sockets>,
    /// The threads that read the sockets.
    pub readers: Box<dyn ReadsSockets>,
    /// The queue for handshake messages.
    pub inbox: Arc<Inbox>,
    /// The delivery of packets to the TUN.
    pub delivery: Arc<Delivery>,
    /// Whether the sockets send with UDP_SEGMENT.
    pub gso: bool,
    /// Whether the sockets receive with UDP_GRO.
    pub gro: bool,
    /// Number of workers for each socket.
    pub workers: usize,
}

/// The sockets, open or closed.
pub struct Network {
    parts: Parts,
    fwmark: u32,
    reserved: Option<(u16, Pair)>,
}

impl Network {
    /// Closed sockets, without a mark.
    pub fn new(parts: Parts) -> Self {
        Network {
            parts,
            fwmark: 0,
            reserved: None,
        }
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

/// Logs the offloads that are wanted but not used. Each has its name, whether it is wanted, and whether it is
/// used. `family`: that of the socket, if they are a socket's.
pub fn log_refused(offloads: &[(&str, bool, bool)], family: Option<Family>) {
    for (name, wanted, used) in offloads {
        if *wanted && !used {
            let family = family.map(tracing::field::debug);
            tracing::info!(
                family,
                "the kernel refuses the offload {name}, so it is not used"
            );
        }
    }
}

/// A socket for each family that the host has.
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
        for socket in [&v4, &v6].into_iter().flatten() {
            let used = socket.features();
            let offloads = [
                ("gso", options.gso, used.gso),
                ("gro", options.gro, used.gro),
            ];
            log_refused(&offloads, Some(socket.family()));
        }
        Ok((bound, (v4, v6)))
    }
}

impl Links for Network {
    fn bind(&mut self, port: u16) -> io::Result<u16> {
        let reserved = self.reserved.take_if(|(reserved, _)| *reserved == port);
        let (bound, (v4, v6)) = match reserved {
            Some(sockets) => sockets,
            None => self.open(port)?,
        };
        self.reserved = None;
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

    fn reserve(&mut self, port: u16) -> io::Result<()> {
        let sockets = self.open(port)?;
        // A random port is chosen when the link is up.
        self.reserved = Some(sockets).filter(|_| port != 0);
        Ok(())
    }

    fn close(&mut self) {
        self.parts.sockets.replace(None, None);
        self.parts.readers.set_sockets(Vec::new());
        self.parts.inbox.clear();
        self.reserved = None;
    }

    fn set_fwmark(&mut self, mark: u32) -> io::Result<()> {
        let reserved = self.reserved.iter().flat_map(|(_, (v4, v6))| [v4, v6]);
        let reserved = reserved.flatten().cloned();
        for socket in self.parts.sockets.each().chain(reserved) {
            socket.set_fwmark(mark)?;
        }
        self.parts.sockets.sources.set_mark(mark);
        self.fwmark = mark;
        Ok(())
    }
}
