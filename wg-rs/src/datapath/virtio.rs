//! The virtio-net header that precedes each packet of a TUN opened with `IFF_VNET_HDR`: the legacy
//! form of ten bytes, in native byte order (`linux/virtio_net.h`; Virtio 1.2, 5.1.6).

/// Length of the header in bytes.
pub const LEN: usize = 10;

/// `flags`: the checksum of the packet must be completed, starting at `csum_start`.
pub const NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum of the packet has been verified.
pub const DATA_VALID: u8 = 2;

/// `gso_type`: one packet.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: many TCP segments over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: many TCP segments over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: many UDP datagrams, over IPv4 or IPv6 (Linux 6.2).
pub const GSO_UDP_L4: u8 = 5;
/// `gso_type`: bit added to a TCP type when the segments carry ECN signals.
pub const GSO_ECN: u8 = 0x80;

/// Describes a packet to or from the kernel. All zero means one finished packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioNetHdr {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_*`.
    pub gso_type: u8,
    /// Length of all headers, only as a hint: the kernel reports the size of its linear area.
    pub hdr_len: u16,
    /// Length of each segment's payload in bytes; the last may be shorter.
    pub gso_size: u16,
    /// The first byte that the checksum covers: the offset of the transport header.
    pub csum_start: u16,
    /// The position of the checksum, relative to `csum_start`.
    pub csum_offset: u16,
}

impl VirtioNetHdr {
    /// Splits the header from a packet of the TUN. None if the packet is too short.
    pub fn parse(bytes: &[u8]) -> Option<(VirtioNetHdr, &[u8])> {
        let (hdr, packet) = bytes.split_first_chunk::<LEN>()?;
        let [flags, gso_type, a, b, c, d, e, f, g, h] = *hdr;
        let hdr = VirtioNetHdr {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        };
        Some((hdr, packet))
    }

    /// The header in the kernel's format.
    pub fn emit(&self) -> [u8; LEN] {
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn layout() {
        let bytes = [1, 0x81, 0x36, 0, 0x58, 0x05, 0x14, 0, 0x10, 0, 0x45];
        let (hdr, packet) = VirtioNetHdr::parse(&bytes).unwrap();
        let expected = VirtioNetHdr {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            hdr_len: 54,
            gso_size: 1368,
            csum_start: 20,
            csum_offset: 16,
        };
        assert_eq!(hdr, expected);
        assert_eq!(packet, [0x45]);
        assert_eq!(hdr.emit(), bytes[..LEN]);
        assert_eq!(VirtioNetHdr::parse(&bytes[..9]), None);
        assert_eq!(VirtioNetHdr::default().emit(), [0; LEN]);
    }
}
