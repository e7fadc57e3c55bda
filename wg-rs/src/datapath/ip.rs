//! IP headers for the byte-level parts: the offsets of fields, and the beginning of the transport
//! header.

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const V4_LEN: usize = 20;
pub(crate) const V6_LEN: usize = 40;
pub(crate) const TCP_LEN: usize = 20;
pub(crate) const UDP_LEN: usize = 8;

/// The longest IPv4 packet; also the longest payload of an IPv6 header.
pub(crate) const MAX_LEN: usize = 65535;

pub(crate) mod tcp {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
    pub(crate) const CWR: u8 = 0x80;
    /// Offset of the flags in the TCP header.
    pub(crate) const FLAGS: usize = 13;
    /// Offset of the checksum in the TCP header.
    pub(crate) const CHECKSUM: usize = 16;
}

/// Offset of the checksum in the UDP header.
pub(crate) const UDP_CHECKSUM: usize = 6;

/// An IP header, including IPv4 options and IPv6 extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub v6: bool,
    /// The transport protocol. In later fragments it is the protocol of the whole packet.
    pub protocol: u8,
    /// Offset of the transport header, at most the length of the packet.
    pub transport: usize,
    /// For a fragment, its offset in the whole packet, in units of 8 bytes.
    pub fragment: Option<u16>,
}

impl Header {
    /// Parses headers only, and ignores the packet's length field. None if a header is truncated,
    /// or this is not IP. The work is bounded by the packet's length, because each extension header
    /// has at least 8 bytes.
    pub fn parse(packet: &[u8]) -> Option<Header> {
        match packet.first()? >> 4 {
            4 => Header::parse_v4(packet),
            6 => Header::parse_v6(packet),
            _ => None,
        }
    }

    /// Source and destination address as in the packet.
    pub fn addresses<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        if self.v6 {
            &packet[8..40]
        } else {
            &packet[12..20]
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Header> {
        let transport = usize::from(packet[0] & 0x0f) * 4;
        if transport < V4_LEN || packet.len() < transport {
            return None;
        }
        let fragment = be16(packet, 6) & 0x3fff; // offset and "more fragments"
        Some(Header {
            v6: false,
            protocol: packet[9],
            transport,
            fragment: (fragment != 0).then_some(fragment & 0x1fff),
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Header> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;

        if packet.len() < V6_LEN {
            return None;
        }
        let mut protocol = packet[6];
        let mut transport = V6_LEN;
        let mut fragment = None;
        loop {
            let extension = &packet[transport..];
            let len = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => (usize::from(*extension.get(1)?) + 1) * 8,
                FRAGMENT => {
                    fragment = Some(be16(extension.get(..8)?, 2) >> 3);
                    8
                }
                _ => break,
            };
            if extension.len() < len {
                return None;
            }
            protocol = extension[0];
            transport += len;
            if fragment.is_some_and(|offset| offset != 0) {
                break; // the middle of a packet follows, not a header
            }
        }
        Some(Header {
            v6: true,
            protocol,
            transport,
            fragment,
        })
    }
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
