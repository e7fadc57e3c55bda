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
        let shape = if hdr.gso_type != virtio::GSO_NONE {
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
            Shape::Super(s) => s.count,
            _ => 1,
        }
    }

    /// The length of packet `i`: the same for all packets, except that the last may be shorter.
    pub fn segment_len(&self, i: usize) -> usize {
        match &self.shape {
            Shape::Super(s) => s.headers + s.payload(self.packet, i).len(),
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
        }
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
        if self.v6 {
            put16(ip, 4, (len - ip::V6_LEN) as u16);
        } else {
            put16(ip, 2, len as u16);
            put16(ip, 4, be16(ip, 4).wrapping_add(i as u16));
            put16(ip, 10, 0);
            let checksum = Sum::of(ip).checksum();
            ip[10..12].copy_from_slice(&checksum);
        }

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
