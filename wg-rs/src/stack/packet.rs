//! Packets inside the tunnel, as the stack reads and writes them. As in the data path, each follows its
//! virtio header.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr, UdpPacket, UdpRepr};

use crate::datapath::checksum::Sum;
use crate::datapath::ip::{self, Header, ICMP, ICMPV6, TCP, UDP, be16, be32};
use crate::datapath::virtio::{self, VirtioNetHdr};

const HOP_LIMIT: u8 = 64;

/// The two ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// A received packet that is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// A TCP segment. `syn`: it asks for a connection.
    Tcp {
        tuple: Tuple,
        syn: bool,
    },
    Udp {
        tuple: Tuple,
        payload: &'a [u8],
    },
    /// An ICMP error about a packet that we sent.
    Unreachable {
        tcp: bool,
        tuple: Tuple,
        what: Unreachable,
    },
    /// Any other packet, which may be answered.
    Other,
}

/// The meaning of an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// Nothing listens on the port.
    Port,
    /// The host, or its network, cannot be reached.
    Host,
    /// The packet is longer than the MTU of the next link, which is this.
    TooBig(usize),
}

/// An IP packet: its transport protocol, and where that begins.
struct Ip<'a> {
    v6: bool,
    protocol: u8,
    addresses: &'a [u8],
    source: IpAddr,
    destination: IpAddr,
    transport: &'a [u8],
}

impl<'a> Ip<'a> {
    /// Reads the headers only; the packet may be truncated after them. `None` for fragments, which are not
    /// reassembled.
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let header = Header::parse(packet).filter(|header| header.fragment.is_none())?;
        let addresses = header.addresses(packet);
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        let address = |bytes: &[u8]| match header.v6 {
            true => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
            false => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        };
        Some(Ip {
            v6: header.v6,
            protocol: header.protocol,
            addresses,
            source: address(source)?,
            destination: address(destination)?,
            transport: &packet[header.transport..],
        })
    }

    fn ports(&self) -> Option<(u16, u16)> {
        let ports = self.transport.get(..4)?;
        Some((be16(ports, 0), be16(ports, 2)))
    }

    fn has_good_checksum(&self) -> bool {
        let pseudo = Sum::pseudo_header(self.addresses, self.protocol, self.transport.len());
        (pseudo + Sum::of(self.transport)).is_valid()
    }
}

impl<'a> Packet<'a> {
    /// Reads a packet. `verified`: the data path has verified the checksum, and the field may be incomplete.
    pub fn read(packet: &'a [u8], verified: bool) -> Option<(IpAddr, Self)> {
        let ip = Ip::parse(packet)?;
        let destination = ip.destination;
        let came = |(theirs, ours): (u16, u16)| Tuple {
            local: SocketAddr::new(ip.destination, ours),
            remote: SocketAddr::new(ip.source, theirs),
        };
        let what = match ip.protocol {
            TCP => {
                if ip.transport.len() < ip::TCP_LEN || !(verified || ip.has_good_checksum()) {
                    return None;
                }
                const SYN_ACK_RST: u8 = 0x16;
                const SYN: u8 = 0x02;
                Packet::Tcp {
                    tuple: came(ip.ports()?),
                    syn: ip.transport[ip::tcp::FLAGS] & SYN_ACK_RST == SYN,
                }
            }
            UDP => {
                let header = ip.transport.get(..ip::UDP_LEN)?;
                let len = usize::from(be16(header, 4));
                let unsummed = !ip.v6 && be16(header, ip::UDP_CHECKSUM) == 0;
                if len < ip::UDP_LEN
                    || len != ip.transport.len()
                    || !(verified || unsummed || ip.has_good_checksum())
                {
                    return None;
                }
                Packet::Udp {
                    tuple: came(ip.ports()?),
                    payload: &ip.transport[ip::UDP_LEN..],
                }
            }
            ICMP | ICMPV6 => ip.icmp_error().unwrap_or(Packet::Other),
            _ => Packet::Other,
        };
        Some((destination, what))
    }
}

impl<'a> Ip<'a> {
    /// Reads an ICMP error and the beginning of the packet that it quotes (RFC 792; RFC 4443, section 3).
    fn icmp_error(&self) -> Option<Packet<'a>> {
        let sum = match self.protocol {
            ICMP if !self.v6 => Sum::of(self.transport),
            ICMPV6 if self.v6 => {
                Sum::pseudo_header(self.addresses, ICMPV6, self.transport.len())
                    + Sum::of(self.transport)
            }
            _ => return None,
        };
        let (header, inner) = self.transport.split_at_checked(8)?;
        if !sum.is_valid() {
            return None;
        }
        let what = match (self.v6, header[0], header[1]) {
            (false, 3, 4) => Unreachable::TooBig(be16(header, 6).into()),
            (true, 2, _) => Unreachable::TooBig(be32(header, 4) as usize),
            (false, 3, 2 | 3) | (true, 1, 4) => Unreachable::Port,
            (false, 3, _) | (true, 1, _) => Unreachable::Host,
            _ => return None,
        };
        let inner = Ip::parse(inner)?;
        let (ours, theirs) = inner.ports()?;
        let tcp = match inner.protocol {
            TCP => true,
            UDP => false,
            _ => return None,
        };
        // An error is valid only if its receiver is the sender of the quoted packet.
        (inner.source == self.destination).then_some(Packet::Unreachable {
            tcp,
            tuple: Tuple {
                local: SocketAddr::new(inner.source, ours),
                remote: SocketAddr::new(inner.destination, theirs),
            },
            what,
        })
    }
}

/// Returns the virtio header of a packet that smoltcp wrote without a checksum: it makes the data path
/// compute the checksum and cut the packet into segments with `size` bytes of payload.
pub(super) fn header_of(packet: &[u8], size: Option<u16>) -> [u8; virtio::LEN] {
    let (v6, protocol) = match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= ip::V4_LEN => (false, packet[9]),
        Some(6) if packet.len() >= ip::V6_LEN => (true, packet[6]),
        _ => return [0; virtio::LEN],
    };
    if protocol != TCP {
        return [0; virtio::LEN];
    }
    VirtioNetHdr {
        gso_type: if v6 {
            virtio::GSO_TCPV6
        } else {
            virtio::GSO_TCPV4
        },
        // Without `size` the packet is a single segment.
        gso_size: size.unwrap_or(u16::MAX),
        ..VirtioNetHdr::default()
    }
    .emit()
}

/// The longest payload of a datagram whose packet fits `mtu`, in bytes.
pub(super) fn most_payload(mtu: usize, v6: bool) -> usize {
    mtu - ip::UDP_LEN - if v6 { ip::V6_LEN } else { ip::V4_LEN }
}

/// Builds a UDP datagram after its virtio header. Both ends must be of the same address family.
pub(super) fn datagram(tuple: &Tuple, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: tuple.local.port(),
        dst_port: tuple.remote.port(),
    };
    let len = ip::UDP_LEN + payload.len();
    let (local, remote) = (tuple.local.ip().into(), tuple.remote.ip().into());
    let ip = IpRepr::new(local, remote, IpProtocol::Udp, len, HOP_LIMIT);
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; virtio::LEN + ip.buffer_len()];
    let packet = &mut bytes[virtio::LEN..];
    ip.emit(&mut *packet, &checksums);
    let mut packet = UdpPacket::new_unchecked(&mut packet[ip.header_len()..]);
    let fill = |room: &mut [u8]| room.copy_from_slice(payload);
    udp.emit(
        &mut packet,
        &local,
        &remote,
        payload.len(),
        fill,
        &checksums,
    );
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(local: &str, remote: &str) -> Tuple {
        Tuple {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    fn pairs() -> [Tuple; 2] {
        [
            tuple("10.0.0.1:7", "10.0.0.2:53"),
            tuple("[fd00::1]:7", "[fd00::2]:53"),
        ]
    }

    #[test]
    fn a_datagram_is_read_as_written_and_a_damaged_one_is_refused() {
        for sent in pairs() {
            let written = datagram(&sent, b"question");
            let packet = &written[virtio::LEN..];
            let (to, read) = Packet::read(packet, false).unwrap();
            assert_eq!(to, sent.remote.ip());
            let tuple = Tuple {
                local: sent.remote,
                remote: sent.local,
            };
            let payload = &b"question"[..];
            assert_eq!(read, Packet::Udp { tuple, payload });
            let transport = packet.len() - payload.len() - ip::UDP_LEN;
            for i in transport..packet.len() {
                let mut damaged = packet.to_vec();
                damaged[i] ^= 1;
                assert_eq!(Packet::read(&damaged, false), None, "byte {i}");
            }
            for len in 0..packet.len() {
                assert_eq!(Packet::read(&packet[..len], false), None, "{len} bytes");
            }
        }
    }

    #[test]
    fn an_error_is_believed_only_if_it_quotes_a_packet_of_its_receiver() {
        let [sent, _] = pairs();
        let about = datagram(&sent, b"");
        let error = |code: u8, to: [u8; 4]| {
            let mut icmp = vec![3, code, 0, 0, 0, 0, 5, 0];
            icmp.extend(&about[virtio::LEN..]);
            let sum = Sum::of(&icmp).checksum();
            icmp[2..4].copy_from_slice(&sum);
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0, 10, 0, 0, 9];
            packet.extend(to);
            packet.extend(icmp);
            packet
        };
        let ours = [10, 0, 0, 1];
        for (code, what) in [
            (3, Unreachable::Port),
            (1, Unreachable::Host),
            (4, Unreachable::TooBig(1280)),
        ] {
            let want = Packet::Unreachable {
                tcp: false,
                tuple: sent,
                what,
            };
            let error = error(code, ours);
            assert_eq!(Packet::read(&error, false).unwrap().1, want);
        }
        let elsewhere = error(3, [10, 0, 0, 7]);
        let (_, read) = Packet::read(&elsewhere, false).unwrap();
        assert_eq!(read, Packet::Other);
    }
}
