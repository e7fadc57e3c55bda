//! Forwards datagrams between a listening port and a destination, on either side of the tunnel. Each sender
//! gets a port of its own towards the destination, until it has been silent for a while.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::session::{text, warn};
use super::specification::Specification;
use crate::stack::{self, Tunnel};

/// A sender is forgotten after this time without a datagram in either direction.
const SILENCE: Duration = Duration::from_secs(120);
/// Maximum number of senders of one forwarded port.
const MOST_SENDERS: usize = 1024;
/// Maximum number of datagrams of one sender that wait while the destination is resolved.
const MOST_WAITING: usize = 64;
/// Room for the longest datagram, in bytes.
pub(super) const LONGEST_DATAGRAM: usize = 1 << 16;

/// A UDP port inside or outside the tunnel.
pub(super) enum Port {
    Inside(stack::UdpSocket),
    Outside(tokio::net::UdpSocket),
}

impl Port {
    async fn outside(destination: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        Ok(Port::Outside(tokio::net::UdpSocket::bind((any, 0)).await?))
    }

    async fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Port::Inside(socket) => Ok(socket.send_to(datagram, to).await?),
            Port::Outside(socket) => socket.send_to(datagram, to).await.map(drop),
        }
    }

    async fn receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        match self {
            Port::Inside(socket) => Ok(socket.recv_from().await?),
            Port::Outside(socket) => {
                let mut datagram = vec![0; LONGEST_DATAGRAM];
                loop {
                    match socket.recv_from(&mut datagram).await {
                        Ok((len, from)) => {
                            datagram.truncate(len);
                            datagram.shrink_to_fit();
                            return Ok((datagram, from));
                        }
                        // An ICMP error about an earlier datagram.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }
}

/// Forwards the datagrams that come to `front` as `specification` says. Ends when `front` can no longer be
/// read.
pub(super) async fn pass_on(front: Port, tunnel: Tunnel, specification: Specification) {
    let (front, specification) = (Arc::new(front), Arc::new(specification));
    let mut senders: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    loop {
        let (mut datagram, from) = match front.receive().await {
            Ok(received) => received,
            Err(error) => return warn(format_args!("{specification}: {error}")),
        };
        if let Some(sender) = senders.get(&from) {
            match sender.try_send(datagram) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => continue,
                Err(mpsc::error::TrySendError::Closed(returned)) => datagram = returned,
            }
        }
        if senders.len() >= MOST_SENDERS {
            senders.retain(|_, sender| !sender.is_closed());
            if senders.len() >= MOST_SENDERS {
                continue;
            }
        }
        let (sender, waiting) = mpsc::channel(MOST_WAITING);
        let _ = sender.try_send(datagram);
        senders.insert(from, sender);
        let (front, tunnel) = (front.clone(), tunnel.clone());
        let specification = specification.clone();
        tokio::spawn(async move {
            if let Err(message) = converse(front, from, waiting, tunnel, &specification).await {
                warn(format_args!("{specification}: {message}"));
            }
        });
    }
}

/// Forwards the datagrams of one sender, and the answers to them.
async fn converse(
    front: Arc<Port>,
    from: SocketAddr,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    tunnel: Tunnel,
    specification: &Specification,
) -> Result<(), String> {
    let Specification {
        host, host_port, ..
    } = specification;
    let (back, destination) = match &*front {
        Port::Outside(_) => {
            let addresses = tunnel.resolve(host).await.map_err(|error| text(&error))?;
            let socket = tunnel.bind_udp(0).map_err(|error| text(&error))?;
            (Port::Inside(socket), (addresses[0], *host_port).into())
        }
        Port::Inside(_) => {
            let found = tokio::net::lookup_host((host.as_str(), *host_port)).await;
            let mut found = found.map_err(|error| format!("{host}: {error}"))?;
            let found = found.next().ok_or_else(|| format!("{host}: no address"))?;
            (
                Port::outside(found).await.map_err(|error| text(&error))?,
                found,
            )
        }
    };
    loop {
        let result = tokio::select! {
            datagram = waiting.recv() => match datagram {
                Some(datagram) => back.send(&datagram, destination).await,
                None => return Ok(()),
            },
            answer = back.receive() => match answer {
                Ok((answer, who)) if who == destination => front.send(&answer, from).await,
                Ok(_) => Ok(()),
                Err(error) => return Err(error.to_string()),
            },
            () = tokio::time::sleep(SILENCE) => return Ok(()),
        };
        // A datagram that cannot be sent is lost; sending the next one may succeed.
        if let Err(error) = result {
            warn(format_args!("{specification}: {error}"));
        }
    }
}
