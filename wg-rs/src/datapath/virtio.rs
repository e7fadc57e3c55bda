//! The virtio-net header that precedes each packet of a TUN opened with `IFF_VNET_HDR`: ten bytes in
//! native byte order (`linux/virtio_net.h`; Virtio 1.2, 5.1.6), ten that a TUN does not use, and two
//! offsets for super-packets inside a UDP tunnel (`struct virtio_net_hdr_v1_hash_tunnel`), in
//! little-endian order, which are zero otherwise.

/// Length of the header in bytes.
pub const LEN: usize = 24;

/// `flags`: the checksum of the packet must be completed, starting at `csum_start`.
pub const NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum of the packet has been verified.
pub const DATA_VALID: u8 = 2;

/// `flags`: the tunnel's own UDP header has a checksum, too.
pub const TUNNEL_CSUM: u8 = 8;

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
/// `gso_type`: bit added if the packet is inside a UDP tunnel over IPv4 (Linux 6.17).
pub const GSO_TUNNEL_V4: u8 = 0x20;
/// `gso_type`: bit added if the packet is inside a UDP tunnel over IPv6 (Linux 6.17).
pub const GSO_TUNNEL_V6: u8 = 0x40;

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
    /// Inside a tunnel: the offset of the tunnel's UDP header.
    pub outer_transport: u16,
    /// Inside a tunnel: the offset of the inner IP header.
    pub inner_network: u16,
}

impl VirtioNetHdr {
    /// Splits the header from a packet of the TUN. None if the packet is too short.
    pub fn parse(bytes: &[u8]) -> Option<(VirtioNetHdr, &[u8])> {
        let (hdr, packet) = bytes.split_first_chunk::<LEN>()?;
        let [flags, gso_type, a, b, c, d, e, f, g, h, .., i, j, k, l] = *hdr;
        let hdr = VirtioNetHdr {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
            outer_transport: u16::from_le_bytes([i, j]),
            inner_network: u16::from_le_bytes([k, l]),
        };
        Some((hdr, packet))
    }

    /// The header in the kernel's format.
    pub fn emit(&self) -> [u8; LEN] {
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        let [i, j] = self.outer_transport.to_le_bytes();
        let [k, l] = self.inner_network.to_le_bytes();
        let mut hdr = [0; LEN];
        hdr[..10].copy_from_slice(&[self.flags, self.gso_type, a, b, c, d, e, f, g, h]);
        hdr[20..].copy_from_slice(&[i, j, k, l]);
        hdr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn layout() {
        let mut bytes = [0; LEN + 1];
        bytes[..10].copy_from_slice(&[1, 0xa1, 0x36, 0, 0x58, 0x05, 0x14, 0, 0x10, 0]);
        bytes[20..].copy_from_slice(&[20, 0, 50, 0, 0x45]);
        let (hdr, packet) = VirtioNetHdr::parse(&bytes).unwrap();
        let expected = VirtioNetHdr {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN | GSO_TUNNEL_V4,
            hdr_len: 54,
            gso_size: 1368,
            csum_start: 20,
            csum_offset: 16,
            outer_transport: 20,
            inner_network: 50,
        };
        assert_eq!(hdr, expected);
        assert_eq!(packet, [0x45]);
        assert_eq!(hdr.emit(), bytes[..LEN]);
        assert_eq!(VirtioNetHdr::parse(&bytes[..LEN - 1]), None);
        assert_eq!(VirtioNetHdr::default().emit(), [0; LEN]);
    }
}
