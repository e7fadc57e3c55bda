//! Divides a super-packet of the TUN into packets.
//!
//! ```text
//! virtio header + packet -> Segmenter::new -> count, segment_len(i) -> write(i, slot)
//! ```
//!
//! This does the same as the kernel's segmentation (TSO: RFC 9293, with RFC 3168, 6.1 for CWR; USO:
//! RFC 768): each packet consists of the super-packet's headers and a piece of the payload, which
//! is copied once and summed in the same pass. The kernel has left the sum of the pseudo header in
//! the checksum field. With another length in it, that sum applies to each packet, and it is right
//! even if the addresses of the IP header would not be (a routing header, a source route).
//!
//! A super-packet inside a UDP tunnel (VXLAN, Geneve) consists of an envelope and the inner
//! super-packet. The envelope is everything before the inner IP header. In it, only the lengths,
//! identification and checksums of the outer IP and UDP headers differ from packet to packet.

use super::checksum::Sum;
use super::ip::{self, Header, be16, be32, put16, put32, tcp};
use super::virtio::{self, VirtioNetHdr};

/// The most segments in a super-packet of the kernel: TCP uses at least 8 bytes of payload in a
/// segment.
pub const MAX_SEGMENTS: usize = 8192;

/// Why a packet from the TUN was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// There is no packet after the virtio header.
    #[error("empty packet")]
    Empty,
    /// `gso_type` was not requested, or does not match the packet.
    #[error("gso_type does not fit the packet")]
    GsoType,
    /// `gso_size` is zero.
    #[error("gso_size is zero")]
    GsoSize,
    /// `csum_start` or `csum_offset` is beyond the packet, or does not match its transport header.
    #[error("csum_start or csum_offset is wrong")]
    Checksum,
    /// A header is truncated or invalid.
    #[error("truncated or invalid header")]
    Header,
    /// A fragment cannot be segmented.
    #[error("super-packet is a fragment")]
    Fragment,
    /// The length in the UDP header is wrong.
    #[error("wrong UDP length")]
    UdpLength,
    /// A segment would exceed the maximum length of IP.
    #[error("segment too long")]
    TooLong,
    /// More than [`MAX_SEGMENTS`].
    #[error("too many segments")]
    TooMany,
}

/// A packet from the TUN that was checked, and can be written as one or several packets.
#[derive(Clone, Copy, Debug)]
pub struct Segmenter<'a> {
    packet: &'a [u8],
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Finished,
    /// One packet whose checksum must be completed.
    Unsummed {
        start: usize,
        field: usize,
    },
    Super(Super),
    Tunnelled(OuterHeaders, Super),
}

/// The headers before the inner packet of a UDP tunnel.
#[derive(Clone, Copy, Debug)]
struct OuterHeaders {
    v6: bool,
    /// Offset of the outer UDP header.
    transport: usize,
    /// Length of everything before the inner IP header.
    len: usize,
    /// The sum of the outer pseudo header without the length; `None` if the outer UDP header has no
    /// checksum.
    pseudo: Option<Sum>,
}

#[derive(Clone, Copy, Debug)]
struct Super {
    v6: bool,
    tcp: bool,
    /// Offset of the transport header.
    transport: usize,
    /// Length of all headers.
    headers: usize,
    /// Length of each segment's payload, except the last.
    size: usize,
    count: usize,
    /// The sum of the pseudo header without the length.
    pseudo: Sum,
}

impl<'a> Segmenter<'a> {
    /// Checks `packet` against its header. An accepted packet can always be written.
    ///
    /// # Errors
    /// [`Malformed`]: the packet or its header is invalid.
    pub fn new(hdr: VirtioNetHdr, packet: &'a [u8]) -> Result<Self, Malformed> {
        if packet.is_empty() {
            return Err(Malformed::Empty);
        }
        let unsummed = hdr.flags & virtio::NEEDS_CSUM != 0;
        let start = usize::from(hdr.csum_start);
        let field = start + usize::from(hdr.csum_offset);
        if unsummed && field + 2 > packet.len() {
            return Err(Malformed::Checksum);
        }
        let shape = if hdr.gso_type & (virtio::GSO_TUNNEL_V4 | virtio::GSO_TUNNEL_V6) != 0 {
            let envelope = OuterHeaders::new(hdr, packet)?;
            let inner = Super::new(envelope.inner(hdr)?, &packet[envelope.len..])?;
            let first = inner.payload(&packet[envelope.len..], 0).len();
            if envelope.len + inner.headers + first > ip::MAX_LEN {
                return Err(Malformed::TooLong);
            }
            Shape::Tunnelled(envelope, inner)
        } else if hdr.gso_type != virtio::GSO_NONE {
            Shape::Super(Super::new(hdr, packet)?)
        } else if unsummed {
            Shape::Unsummed { start, field }
        } else {
            Shape::Finished
        };
        Ok(Segmenter { packet, shape })
    }

    /// The number of packets, at least 1.
    pub fn count(&self) -> usize {
        match &self.shape {
            Shape::Super(s) | Shape::Tunnelled(_, s) => s.count,
            _ => 1,
        }
    }

    /// The length of packet `i`: the same for all packets, except that the last may be shorter.
    pub fn segment_len(&self, i: usize) -> usize {
        match &self.shape {
            Shape::Super(s) => s.headers + s.payload(self.packet, i).len(),
            Shape::Tunnelled(envelope, s) => {
                let inner = &self.packet[envelope.len..];
                envelope.len + s.headers + s.payload(inner, i).len()
            }
            _ => self.packet.len(),
        }
    }

    /// Writes the complete packet `i` to `out`.
    ///
    /// # Panics
    /// If `i` is not below [`Segmenter::count`], or the length of `out` is not
    /// [`Segmenter::segment_len`].
    pub fn write(&self, i: usize, out: &mut [u8]) {
        assert!(i < self.count(), "segment {i} of {}", self.count());
        match self.shape {
            Shape::Finished => out.copy_from_slice(self.packet),
            Shape::Unsummed { start, field } => {
                out[..start].copy_from_slice(&self.packet[..start]);
                let sum = Sum::copy(&mut out[start..], &self.packet[start..]);
                out[field..field + 2].copy_from_slice(&sum.nonzero_checksum());
            }
            Shape::Super(ref s) => s.write(self.packet, i, out),
            Shape::Tunnelled(ref envelope, ref s) => {
                let (around, inner) = self.packet.split_at(envelope.len);
                out[..envelope.len].copy_from_slice(around);
                s.write(inner, i, &mut out[envelope.len..]);
                envelope.finish(i, out);
            }
        }
    }
}

impl OuterHeaders {
    fn new(hdr: VirtioNetHdr, packet: &[u8]) -> Result<OuterHeaders, Malformed> {
        let header = Header::parse(packet).ok_or(Malformed::Header)?;
        let kind = match header.v6 {
            true => virtio::GSO_TUNNEL_V6,
            false => virtio::GSO_TUNNEL_V4,
        };
        let tunnel = hdr.gso_type & (virtio::GSO_TUNNEL_V4 | virtio::GSO_TUNNEL_V6);
        if tunnel != kind || header.protocol != ip::UDP {
            return Err(Malformed::GsoType);
        }
        if header.fragment.is_some() {
            return Err(Malformed::Fragment);
        }
        let (transport, len) = (header.transport, usize::from(hdr.inner_network));
        if usize::from(hdr.outer_transport) != transport
            || len < transport + ip::UDP_LEN
            || len >= packet.len()
        {
            return Err(Malformed::Header);
        }
        let has_checksum = hdr.flags & virtio::TUNNEL_CSUM != 0;
        Ok(OuterHeaders {
            v6: header.v6,
            transport,
            len,
            pseudo: has_checksum.then(|| Sum::pseudo_header(header.addresses(packet), ip::UDP, 0)),
        })
    }

    /// Returns the header of the inner super-packet.
    fn inner(&self, hdr: VirtioNetHdr) -> Result<VirtioNetHdr, Malformed> {
        let csum_start = match hdr.flags & virtio::NEEDS_CSUM {
            0 => 0,
            _ => usize::from(hdr.csum_start)
                .checked_sub(self.len)
                .ok_or(Malformed::Checksum)?,
        };
        Ok(VirtioNetHdr {
            gso_type: hdr.gso_type & !(virtio::GSO_TUNNEL_V4 | virtio::GSO_TUNNEL_V6),
            csum_start: csum_start as u16,
            ..hdr
        })
    }

    /// Completes the outer headers of packet `i`. Its inner packet must be complete.
    fn finish(&self, i: usize, out: &mut [u8]) {
        let len = out.len();
        let (ip, udp) = out.split_at_mut(self.transport);
        finish_ip(self.v6, ip, len, i);
        put16(udp, 4, udp.len() as u16);
        put16(udp, ip::UDP_CHECKSUM, 0);
        if let Some(pseudo) = self.pseudo {
            let checksum = (pseudo + Sum::length(udp.len()) + Sum::of(udp)).nonzero_checksum();
            udp[ip::UDP_CHECKSUM..][..2].copy_from_slice(&checksum);
        }
    }
}

/// Completes the IP header at the beginning of `ip` for packet `i`, which has `len` bytes from there:
/// its length, and for IPv4 its identification and checksum.
fn finish_ip(v6: bool, ip: &mut [u8], len: usize, i: usize) {
    if v6 {
        put16(ip, 4, (len - ip::V6_LEN) as u16);
    } else {
        put16(ip, 2, len as u16);
        put16(ip, 4, be16(ip, 4).wrapping_add(i as u16));
        put16(ip, 10, 0);
        let checksum = Sum::of(ip).checksum();
        ip[10..12].copy_from_slice(&checksum);
    }
}

impl Super {
    fn new(hdr: VirtioNetHdr, packet: &[u8]) -> Result<Super, Malformed> {
        let header = Header::parse(packet).ok_or(Malformed::Header)?;
        let Header {
            v6,
            protocol,
            transport,
            fragment,
        } = header;
        let tcp = match (hdr.gso_type, v6, protocol) {
            (virtio::GSO_UDP_L4, _, ip::UDP) => false,
            (gso, v6, ip::TCP) => match (gso & !virtio::GSO_ECN, v6) {
                (virtio::GSO_TCPV4, false) | (virtio::GSO_TCPV6, true) => true,
                _ => return Err(Malformed::GsoType),
            },
            _ => return Err(Malformed::GsoType),
        };
        if fragment.is_some() {
            return Err(Malformed::Fragment);
        }

        // `hdr_len` may be longer than the headers, so the headers themselves are parsed.
        let datagram = &packet[transport..];
        let len = if tcp {
            usize::from(*datagram.get(12).ok_or(Malformed::Header)? >> 4) * 4
        } else {
            ip::UDP_LEN
        };
        let least = if tcp { ip::TCP_LEN } else { ip::UDP_LEN };
        if len < least || datagram.len() < len {
            return Err(Malformed::Header);
        }
        if !tcp && usize::from(be16(datagram, 4)) != datagram.len() {
            return Err(Malformed::UdpLength);
        }

        let field = if tcp { tcp::CHECKSUM } else { ip::UDP_CHECKSUM };
        let pseudo = if hdr.flags & virtio::NEEDS_CSUM != 0 {
            if usize::from(hdr.csum_start) != transport || usize::from(hdr.csum_offset) != field {
                return Err(Malformed::Checksum);
            }
            Sum::of(&datagram[field..field + 2]) + Sum::minus_length(datagram.len())
        } else {
            Sum::pseudo_header(header.addresses(packet), protocol, 0)
        };

        let headers = transport + len;
        let size = usize::from(hdr.gso_size);
        if size == 0 {
            return Err(Malformed::GsoSize);
        }
        let payload = packet.len() - headers;
        let count = payload.div_ceil(size).max(1);
        let longest = headers + payload.min(size) - if v6 { ip::V6_LEN } else { 0 };
        if longest > ip::MAX_LEN {
            return Err(Malformed::TooLong);
        }
        if count > MAX_SEGMENTS {
            return Err(Malformed::TooMany);
        }
        Ok(Super {
            v6,
            tcp,
            transport,
            headers,
            size,
            count,
            pseudo,
        })
    }

    fn payload<'p>(&self, packet: &'p [u8], i: usize) -> &'p [u8] {
        let start = self.headers + i * self.size;
        &packet[start..packet.len().min(start + self.size)]
    }

    fn write(&self, packet: &[u8], i: usize, out: &mut [u8]) {
        let len = out.len();
        let (headers, payload) = out.split_at_mut(self.headers);
        headers.copy_from_slice(&packet[..self.headers]);
        let payload = Sum::copy(payload, self.payload(packet, i));

        let (ip, transport) = headers.split_at_mut(self.transport);
        finish_ip(self.v6, ip, len, i);

        let len = len - self.transport;
        let pseudo = self.pseudo + Sum::length(len);
        if self.tcp {
            put32(
                transport,
                4,
                be32(transport, 4).wrapping_add((i * self.size) as u32),
            );
            if i + 1 < self.count {
                transport[tcp::FLAGS] &= !(tcp::FIN | tcp::PSH);
            }
            if i > 0 {
                transport[tcp::FLAGS] &= !tcp::CWR;
            }
            put16(transport, tcp::CHECKSUM, 0);
            let checksum = (pseudo + Sum::of(transport) + payload).checksum();
            transport[tcp::CHECKSUM..][..2].copy_from_slice(&checksum);
        } else {
            put16(transport, 4, len as u16);
            put16(transport, ip::UDP_CHECKSUM, 0);
            let checksum = (pseudo + Sum::of(transport) + payload).nonzero_checksum();
            transport[ip::UDP_CHECKSUM..][..2].copy_from_slice(&checksum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An inner TCP super-packet over IPv4 without a checksum, with 2.5 segments of 100 bytes.
    fn inner() -> (VirtioNetHdr, Vec<u8>) {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&290_u16.to_be_bytes());
        packet[4..6].copy_from_slice(&[0, 7]);
        packet[8..10].copy_from_slice(&[64, ip::TCP]);
        packet[12..20].copy_from_slice(&[10, 1, 0, 1, 10, 1, 0, 2]);
        packet[20..24].copy_from_slice(&[0, 1, 0, 2]);
        packet[32] = 0x50;
        packet[33] = tcp::ACK | tcp::PSH;
        packet.extend((0..250).map(|n| n as u8));
        let pseudo = Sum::pseudo_header(&packet[12..20], ip::TCP, 0) + Sum::length(270);
        let field = pseudo.checksum().map(|byte| !byte);
        packet[36..38].copy_from_slice(&field);
        let hdr = VirtioNetHdr {
            flags: virtio::NEEDS_CSUM,
            gso_type: virtio::GSO_TCPV4,
            hdr_len: 40,
            gso_size: 100,
            csum_start: 20,
            csum_offset: 16,
            ..VirtioNetHdr::default()
        };
        (hdr, packet)
    }

    /// The same inside VXLAN.
    fn tunnelled(v6: bool, summed: bool) -> (VirtioNetHdr, Vec<u8>) {
        let (mut hdr, inner) = inner();
        let around = if v6 { 40 } else { 20 } + 8 + 8 + 14;
        let mut packet = vec![0; around];
        let transport = around - 30;
        if v6 {
            packet[0] = 0x60;
            packet[6..8].copy_from_slice(&[ip::UDP, 64]);
            packet[8] = 0xfd;
            packet[24] = 0xfd;
            packet[39] = 2;
        } else {
            packet[0] = 0x45;
            packet[4..6].copy_from_slice(&[0xff, 0xff]);
            packet[8..10].copy_from_slice(&[64, ip::UDP]);
            packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        }
        packet[transport..][..4].copy_from_slice(&[0xc0, 1, 0x12, 0xb5]);
        packet[transport + 8] = 8;
        packet[around - 2..].copy_from_slice(&[8, 0]);
        packet.extend(inner);
        hdr.gso_type |= if v6 {
            virtio::GSO_TUNNEL_V6
        } else {
            virtio::GSO_TUNNEL_V4
        };
        hdr.flags |= if summed { virtio::TUNNEL_CSUM } else { 0 };
        hdr.csum_start += around as u16;
        hdr.outer_transport = transport as u16;
        hdr.inner_network = around as u16;
        (hdr, packet)
    }

    fn segments(hdr: VirtioNetHdr, packet: &[u8]) -> Vec<Vec<u8>> {
        let segmenter = Segmenter::new(hdr, packet).unwrap();
        let segment = |i| {
            let mut out = vec![0xaa; segmenter.segment_len(i)];
            segmenter.write(i, &mut out);
            out
        };
        (0..segmenter.count()).map(segment).collect()
    }

    #[test]
    fn a_tunnel_carries_the_segments_of_its_inner_packet() {
        let (hdr, packet) = inner();
        let expected = segments(hdr, &packet);
        assert_eq!(expected.len(), 3);
        for (v6, summed) in [(false, false), (false, true), (true, true), (true, false)] {
            let (hdr, packet) = tunnelled(v6, summed);
            let around = usize::from(hdr.inner_network);
            let transport = usize::from(hdr.outer_transport);
            let found = segments(hdr, &packet);
            assert_eq!(found.len(), 3);
            for (i, (found, inner)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(found[around..], **inner, "segment {i}");
                let (ip, udp) = found.split_at(transport);
                assert_eq!(usize::from(be16(udp, 4)), udp.len());
                if v6 {
                    assert_eq!(usize::from(be16(ip, 4)), udp.len());
                } else {
                    assert_eq!(usize::from(be16(ip, 2)), found.len());
                    assert_eq!(be16(ip, 4), 0xffff_u16.wrapping_add(i as u16));
                    assert_eq!(Sum::of(ip).checksum(), [0; 2]);
                }
                let addresses = if v6 { &ip[8..40] } else { &ip[12..20] };
                let pseudo = Sum::pseudo_header(addresses, ip::UDP, 0) + Sum::length(udp.len());
                match summed {
                    true => assert_eq!((pseudo + Sum::of(udp)).checksum(), [0; 2]),
                    false => assert_eq!(be16(udp, ip::UDP_CHECKSUM), 0),
                }
                assert_eq!(udp[8..around - transport], packet[transport + 8..around]);
            }
        }
    }

    #[test]
    fn a_tunnel_that_does_not_fit_its_packet_is_refused() {
        let refused = |change: &dyn Fn(&mut VirtioNetHdr, &mut Vec<u8>)| {
            let (mut hdr, mut packet) = tunnelled(false, false);
            change(&mut hdr, &mut packet);
            Segmenter::new(hdr, &packet).unwrap_err()
        };
        let around = |hdr: &mut VirtioNetHdr, inner| hdr.inner_network = inner;
        assert_eq!(refused(&|h, _| h.gso_type ^= 0x60), Malformed::GsoType);
        assert_eq!(refused(&|h, _| h.gso_type |= 0x60), Malformed::GsoType);
        assert_eq!(refused(&|_, p| p[9] = ip::TCP), Malformed::GsoType);
        assert_eq!(refused(&|_, p| p[7] = 1), Malformed::Fragment);
        assert_eq!(refused(&|h, _| h.outer_transport = 24), Malformed::Header);
        assert_eq!(refused(&|h, _| around(h, 27)), Malformed::Header);
        assert_eq!(refused(&|h, _| around(h, 9999)), Malformed::Header);
        assert_eq!(refused(&|h, _| h.csum_start = 20), Malformed::Checksum);
        assert_eq!(refused(&|h, _| h.gso_size = 0), Malformed::GsoSize);
        assert_eq!(refused(&|_, p| p.truncate(60)), Malformed::Checksum);
    }
}
