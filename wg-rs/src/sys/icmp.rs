//! Receives ICMP errors about UDP datagrams that did not arrive.
//!
//! This uses raw sockets, and not the error queues of the sending sockets (IP_RECVERR): such an error would
//! fail the next send, also to another peer, and share the receive buffer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recvfrom, setsockopt,
    socket, sockopt,
};

use super::set_option;
use super::udp::Family;

/// The receive buffer in bytes. It may be small, as messages are read at once.
const RECEIVE_BUFFER: usize = 64 << 10;
/// Room for the part of a message that is examined.
const MESSAGE: usize = 256;

/// `ICMP_FILTER` and `ICMPV6_FILTER` of the kernel's headers: each set bit blocks a type.
const ICMP_FILTER: libc::c_int = 1;
const ICMPV6_FILTER: libc::c_int = 1;
const SOL_RAW: libc::c_int = 255;

const ICMP_DEST_UNREACH: u8 = 3;
const ICMPV6_DEST_UNREACH: u8 = 1;
const ICMP_HEADER: usize = 8;
const UDP: u8 = 17;

/// The reason that an ICMP message gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nothing listens on the port.
    Port,
    /// The host does not answer in its network.
    Host,
    /// There is no route to the network.
    Network,
    /// A firewall forbids it.
    Prohibited,
}

/// A datagram of this host that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The port that it was sent from.
    pub port: u16,
    /// Its destination.
    pub to: SocketAddr,
    /// Why it did not arrive.
    pub what: Unreachable,
    /// The sender of the ICMP message.
    pub by: IpAddr,
}

/// A raw socket that receives the "destination unreachable" messages of one address family.
#[derive(Debug)]
pub struct IcmpSocket {
    fd: OwnedFd,
    family: Family,
}

impl IcmpSocket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; EAFNOSUPPORT if the host does not have this address family.
    pub fn open(family: Family) -> io::Result<Self> {
        let (domain, protocol) = match family {
            Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp),
            Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(domain, SockType::Raw, flags, protocol)?;
        match family {
            Family::V4 => {
                let blocked: u32 = !(1 << ICMP_DEST_UNREACH);
                set_option(fd.as_fd(), SOL_RAW, ICMP_FILTER, &blocked.to_ne_bytes())?;
            }
            Family::V6 => {
                let mut blocked = [0xff; 32];
                blocked[..4].copy_from_slice(&(!(1u32 << ICMPV6_DEST_UNREACH)).to_ne_bytes());
                set_option(fd.as_fd(), libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &blocked)?;
            }
        }
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        Ok(IcmpSocket { fd, family })
    }

    /// Receives the next message. `None` if it is not about a datagram.
    ///
    /// # Errors
    /// WouldBlock if there is no message.
    pub fn recv(&self) -> io::Result<Option<Undelivered>> {
        let mut message = [0; MESSAGE];
        Ok(match self.family {
            Family::V4 => {
                let (len, from) = recvfrom::<SockaddrIn>(self.fd.as_raw_fd(), &mut message)?;
                from.and_then(|from| of_icmp(&message[..len], from.ip()))
            }
            Family::V6 => {
                let (len, from) = recvfrom::<SockaddrIn6>(self.fd.as_raw_fd(), &mut message)?;
                from.and_then(|from| of_icmpv6(&message[..len], from.ip()))
            }
        })
    }
}

impl AsFd for IcmpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Parses an IPv4 packet with an ICMP message, which quotes the packet that did not arrive (RFC 792).
fn of_icmp(packet: &[u8], by: Ipv4Addr) -> Option<Undelivered> {
    let icmp = packet.get(header_len(packet)?..)?;
    let what = match (*icmp.first()?, *icmp.get(1)?) {
        (ICMP_DEST_UNREACH, 3) => Unreachable::Port,
        (ICMP_DEST_UNREACH, 0 | 6 | 11) => Unreachable::Network,
        (ICMP_DEST_UNREACH, 1 | 7 | 12) => Unreachable::Host,
        (ICMP_DEST_UNREACH, 9 | 10 | 13) => Unreachable::Prohibited,
        _ => return None,
    };
    let inner = icmp.get(ICMP_HEADER..)?;
    let udp = inner.get(header_len(inner)?..)?;
    if *inner.get(9)? != UDP {
        return None;
    }
    let to: [u8; 4] = inner.get(16..20)?.try_into().ok()?;
    Some(Undelivered {
        port: port(udp, 0)?,
        to: (to, port(udp, 2)?).into(),
        what,
        by: by.into(),
    })
}

/// The length of an IPv4 header in bytes.
fn header_len(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 15) * 4)
}

/// Parses an ICMPv6 message without its IPv6 header (RFC 4443, section 3.1).
fn of_icmpv6(icmp: &[u8], by: Ipv6Addr) -> Option<Undelivered> {
    let what = match (*icmp.first()?, *icmp.get(1)?) {
        (ICMPV6_DEST_UNREACH, 0) => Unreachable::Network,
        (ICMPV6_DEST_UNREACH, 1 | 5 | 6) => Unreachable::Prohibited,
        (ICMPV6_DEST_UNREACH, 2 | 3) => Unreachable::Host,
        (ICMPV6_DEST_UNREACH, 4) => Unreachable::Port,
        _ => return None,
    };
    let inner = icmp.get(ICMP_HEADER..)?;
    let udp = inner.get(40..)?;
    if *inner.get(6)? != UDP {
        return None;
    }
    let to: [u8; 16] = inner.get(24..40)?.try_into().ok()?;
    Some(Undelivered {
        port: port(udp, 0)?,
        to: (to, port(udp, 2)?).into(),
        what,
        by: by.into(),
    })
}

fn port(udp: &[u8], at: usize) -> Option<u16> {
    let bytes: [u8; 2] = udp.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

    /// An ICMP message as a host sends it, about a datagram from port 51820 to 192.0.2.2 port 7.
    fn message(code: u8, protocol: u8) -> Vec<u8> {
        let mut packet = vec![0; 20 + 8 + 20 + 8];
        packet[0] = 0x45;
        packet[20] = ICMP_DEST_UNREACH;
        packet[21] = code;
        packet[28] = 0x45;
        packet[28 + 9] = protocol;
        packet[28 + 16..28 + 20].copy_from_slice(&[192, 0, 2, 2]);
        packet[48..50].copy_from_slice(&51820u16.to_be_bytes());
        packet[50..52].copy_from_slice(&7u16.to_be_bytes());
        packet
    }

    #[test]
    fn a_closed_port_is_reported_with_its_address() {
        let undelivered = Undelivered {
            port: 51820,
            to: "192.0.2.2:7".parse().unwrap(),
            what: Unreachable::Port,
            by: BY.into(),
        };
        assert_eq!(of_icmp(&message(3, UDP), BY), Some(undelivered));
        let what = |code| of_icmp(&message(code, UDP), BY).map(|told| told.what);
        assert_eq!(what(1), Some(Unreachable::Host));
        assert_eq!(what(13), Some(Unreachable::Prohibited));
        assert_eq!(what(4), None, "too long is no failure");
        assert_eq!(of_icmp(&message(3, 6), BY), None, "TCP");
    }

    #[test]
    fn a_truncated_message_is_ignored() {
        let packet = message(3, UDP);
        for len in 0..packet.len() - 4 {
            assert_eq!(of_icmp(&packet[..len], BY), None, "{len}");
        }
        let mut packet = vec![0; 8 + 40 + 4];
        packet[..2].copy_from_slice(&[ICMPV6_DEST_UNREACH, 4]);
        packet[8 + 6] = UDP;
        let by = Ipv6Addr::LOCALHOST;
        assert!(of_icmpv6(&packet, by).is_some());
        for len in 0..packet.len() {
            assert_eq!(of_icmpv6(&packet[..len], by), None, "{len}");
        }
    }

    #[test]
    fn a_closed_port_of_this_host_is_reported() {
        for (family, local) in [(Family::V4, "127.0.0.1:0"), (Family::V6, "[::1]:0")] {
            let icmp = match IcmpSocket::open(family) {
                Ok(icmp) => icmp,
                Err(error) => {
                    let is_root = nix::unistd::geteuid().is_root();
                    assert!(!is_root || family == Family::V6, "{error}");
                    eprintln!("skipped: {family:?}: {error}");
                    continue;
                }
            };
            let closed = std::net::UdpSocket::bind(local).unwrap();
            let to = closed.local_addr().unwrap();
            drop(closed);
            let sender = std::net::UdpSocket::bind(local).unwrap();
            sender.send_to(b"hello", to).unwrap();
            let port = sender.local_addr().unwrap().port();
            let told = loop {
                match icmp.recv() {
                    Ok(Some(told)) if told.port == port => break told,
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            };
            assert_eq!((told.to, told.what), (to, Unreachable::Port));
            assert_eq!(told.by, to.ip());
        }
    }
}
