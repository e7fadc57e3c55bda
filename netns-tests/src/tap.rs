//! The UDP datagrams on the links of a host, both those of a tunnel and those in it, with their TOS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::Host;

/// What the kernel keeps until it is read.
const BUFFER: usize = 32 << 20;
const UDP: u8 = 17;

/// A datagram that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// Whether it is a message of WireGuard of this type.
    pub fn is_message(&self, kind: u8) -> bool {
        self.payload.first_chunk() == Some(&[kind, 0, 0, 0])
    }
}

/// Records datagrams, also those that the host itself sends, until it is dropped.
#[derive(Debug)]
pub struct Tap(OwnedFd);

impl Tap {
    /// Starts to record on all links of the host.
    pub fn start(host: &Host) -> io::Result<Tap> {
        // Such a socket removes the header of the link, which a tunnel does not have.
        let socket = host.run(|| {
            socket(
                AddressFamily::Packet,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
        })?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        Ok(Tap(socket))
    }

    /// Waits for the first datagram for which `wanted` returns a value. `None` if there is none in time.
    pub fn wait<T>(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&Datagram) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let start = Instant::now();
        let mut packet = [0; 65536];
        loop {
            match recv(self.0.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Ok(len) => {
                    if let Some(found) = datagram(&packet[..len]).and_then(|seen| wanted(&seen)) {
                        return Ok(Some(found));
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if start.elapsed() >= limit {
                return Ok(None);
            }
        }
    }

    /// The datagrams that were seen and not yet read.
    pub fn take(&self) -> io::Result<Vec<Datagram>> {
        let mut all = Vec::new();
        let mut packet = [0; 65536];
        loop {
            match recv(self.0.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => all.extend(datagram(&packet[..len])),
                Err(Errno::EAGAIN) => return Ok(all),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Parses an IP packet; `None` if it is not a whole UDP datagram.
fn datagram(packet: &[u8]) -> Option<Datagram> {
    let address = |at: usize, len: usize| -> Option<IpAddr> {
        let bytes = packet.get(at..at + len)?;
        match len {
            4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
            _ => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        }
    };
    let [first, second, ..] = *packet else {
        return None;
    };
    let (from, to, protocol, tos, header) = match first >> 4 {
        4 => {
            // A fragment has an offset, or says that more of them follow.
            let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
            if fragment != 0 {
                return None;
            }
            let header = usize::from(first & 15) * 4;
            (
                address(12, 4)?,
                address(16, 4)?,
                *packet.get(9)?,
                second,
                header,
            )
        }
        6 => {
            let class = first << 4 | second >> 4;
            (
                address(8, 16)?,
                address(24, 16)?,
                *packet.get(6)?,
                class,
                40,
            )
        }
        _ => return None,
    };
    let udp = packet.get(header..).filter(|_| protocol == UDP)?;
    let field = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    Some(Datagram {
        from: (from, field(0)?).into(),
        to: (to, field(2)?).into(),
        tos,
        payload: udp.get(8..usize::from(field(4)?))?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Hosts, PATIENCE};
    use std::net::UdpSocket;

    #[test]
    fn datagrams_are_seen_with_their_tos() -> io::Result<()> {
        let hosts = Hosts::new(1500)?;
        let [a, b] = &hosts.hosts;
        for family in Family::ALL {
            let tap = Tap::start(b)?;
            let target = SocketAddr::new(hosts.address(1, family), 9);
            let from = a.run(|| -> io::Result<_> {
                let socket = UdpSocket::bind((hosts.address(0, family), 0))?;
                match family {
                    Family::V4 => setsockopt(&socket, sockopt::Ipv4Tos, &0xb9)?,
                    Family::V6 => setsockopt(&socket, sockopt::Ipv6TClass, &0xb9)?,
                }
                socket.send_to(&[4, 0, 0, 0, 7], target)?;
                socket.local_addr()
            })?;
            let seen = tap.wait(PATIENCE, |seen| (seen.to == target).then(|| seen.clone()))?;
            let expected = Datagram {
                from,
                to: target,
                tos: 0xb9,
                payload: vec![4, 0, 0, 0, 7],
            };
            assert!(expected.is_message(4) && !expected.is_message(1));
            assert_eq!(seen, Some(expected));
        }
        Ok(())
    }
}
