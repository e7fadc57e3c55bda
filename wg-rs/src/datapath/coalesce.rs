//! Merges the packets of a received burst into super-packets for the TUN.
//!
//! ```text
//! opened packets -> plan -> writes: [virtio header, first packet, payload, payload, …] -> writev
//!                           restore: the same packets one by one, if the kernel refuses the write
//! ```
//!
//! Payloads are not moved; only the headers of a group's first packet are rewritten. Packets are
//! merged as in the kernel's GRO, and so that segmentation gives the same packets again. Like GRO,
//! this verifies checksums first, because a super-packet has no checksum of its own.
//!
//! The order within a flow never changes. A group is written in the place of its first packet, so a
//! later packet can only overtake packets of other flows. A packet that cannot join its flow's
//! group closes the group. A packet without a known flow (a fragment) closes all groups between the
//! same addresses.

use std::ops::Range;

use super::checksum::Sum;
use super::ip::{self, be16, be32, put16, tcp};
use super::virtio::{self, VirtioNetHdr};

/// Most packets in one write: far below `IOV_MAX`, and as many as one receive call can return.
pub const MAX_PACKETS: usize = 128;

/// Most flows that are followed at the same time; a new one replaces the oldest.
const MAX_FLOWS: usize = 16;

/// The kinds of super-packets that the kernel accepts on this TUN. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// TCP super-packets (TSO), IPv4 and IPv6.
    pub tcp: bool,
    /// UDP super-packets (USO; Linux 6.2), IPv4 and IPv6.
    pub udp: bool,
}

/// One write to the TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// The virtio header, which is written first.
    pub hdr: [u8; virtio::LEN],
    /// The parts that follow: a complete packet, and then payloads.
    pub parts: &'a [Range<usize>],
    /// The number of packets that the write contains.
    pub packets: usize,
}

/// Plans the writes of a burst. Allocates nothing after it has handled the largest burst.
#[derive(Debug, Default)]
pub struct Coalescer {
    /// One for each write, in order.
    groups: Vec<Group>,
    /// One for each packet: its group, and the part of it that is written.
    members: Vec<(usize, Range<usize>)>,
    /// The ranges of `members`, ordered by group.
    parts: Vec<Range<usize>>,
    /// Groups that may still grow: at most one for each flow.
    open: Vec<usize>,
    /// The first headers of the groups before they were rewritten.
    originals: Vec<u8>,
}

#[derive(Debug)]
struct Group {
    /// The first packet.
    first: Range<usize>,
    layout: Layout,
    count: usize,
    /// Length of the super-packet.
    len: usize,
    ids: Ids,
    /// Whether the last packet has PSH; no other packet can have it.
    psh: bool,
    hdr: VirtioNetHdr,
    /// The group's range in `Coalescer::parts`.
    parts: Range<usize>,
    /// The offset of the group's headers in `Coalescer::originals`.
    original: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    v6: bool,
    tcp: bool,
    /// Offset of the transport header.
    transport: usize,
    /// Length of all headers.
    headers: usize,
    payload: usize,
}

/// How the IPv4 identifications of a group change. Segmentation increments them, which may also
/// replace a fixed one if fragments are forbidden (RFC 6864, 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    Any,
    Rising,
    Fixed,
}

/// The role of a packet.
enum Class {
    /// The packet belongs to no flow.
    Other,
    /// The packet may belong to any flow between its addresses.
    Unclear { v6: bool },
    /// The packet has ports. `mergeable`: it may be in a super-packet; `psh`: only as the last
    /// packet.
    Flow {
        v6: bool,
        tcp: bool,
        mergeable: Option<Layout>,
        psh: bool,
    },
}

impl Coalescer {
    /// An empty plan.
    pub fn new() -> Coalescer {
        Coalescer::default()
    }

    /// Plans the writes of `packets`, which are ranges of `bytes` with exactly one IP packet each.
    /// Rewrites the headers of packets that begin a super-packet.
    ///
    /// # Panics
    /// If a range is not within `bytes`.
    pub fn plan(&mut self, bytes: &mut [u8], packets: &[Range<usize>], offer: Offer) {
        self.groups.clear();
        self.members.clear();
        self.open.clear();
        self.originals.clear();
        let offer = if packets.len() > 1 {
            offer
        } else {
            Offer::default()
        };
        for packet in packets {
            self.add(bytes, packet, offer);
        }
        self.finish(bytes);
    }

    /// The writes in their order.
    pub fn writes(&self) -> impl ExactSizeIterator<Item = Write<'_>> {
        self.groups.iter().map(|group| Write {
            hdr: group.hdr.emit(),
            parts: &self.parts[group.parts.clone()],
            packets: group.count,
        })
    }

    /// Undoes write number `write` after the kernel refused it: restores the headers in `bytes`,
    /// and returns the packets, which must each be written alone after a virtio header of zeros.
    ///
    /// # Panics
    /// If there is no such write, or `bytes` is not the buffer of the plan.
    pub fn restore<'a>(
        &'a self,
        bytes: &mut [u8],
        write: usize,
    ) -> impl ExactSizeIterator<Item = Range<usize>> + use<'a> {
        let group = &self.groups[write];
        let headers = group.layout.headers;
        if group.count > 1 {
            let original = &self.originals[group.original..][..headers];
            bytes[group.first.start..][..headers].copy_from_slice(original);
        }
        let parts = &self.parts[group.parts.clone()];
        parts.iter().enumerate().map(move |(i, part)| match i {
            0 => part.clone(),
            _ => part.start - headers..part.end,
        })
    }

    fn add(&mut self, bytes: &[u8], range: &Range<usize>, offer: Offer) {
        let packet = &bytes[range.clone()];
        match classify(packet, offer) {
            Class::Other => self.begin(range, Layout::default()),
            Class::Unclear { v6 } => {
                let addresses = addresses(v6);
                let groups = &self.groups;
                self.open.retain(|&group| {
                    let group = &groups[group];
                    let first = &bytes[group.first.clone()];
                    group.layout.v6 != v6 || first[addresses.clone()] != packet[addresses.clone()]
                });
                self.begin(range, Layout::default());
            }
            Class::Flow {
                v6,
                tcp,
                mergeable,
                psh,
            } => {
                let key = addresses(v6).start..addresses(v6).end + PORTS;
                let open = self.open.iter().position(|&group| {
                    let group = &self.groups[group];
                    let first = &bytes[group.first.clone()];
                    (group.layout.v6, group.layout.tcp) == (v6, tcp)
                        && first[key.clone()] == packet[key.clone()]
                });
                if let (Some(open), Some(layout)) = (open, mergeable)
                    && let Some(full) = self.join(bytes, self.open[open], range, layout, psh)
                {
                    if full {
                        self.open.remove(open);
                    }
                    return;
                }
                if let Some(open) = open {
                    self.open.remove(open);
                }
                if mergeable.is_some() && !psh {
                    if self.open.len() == MAX_FLOWS {
                        self.open.remove(0);
                    }
                    self.open.push(self.groups.len());
                }
                self.begin(range, mergeable.unwrap_or_default());
            }
        }
    }

    fn begin(&mut self, range: &Range<usize>, layout: Layout) {
        self.members.push((self.groups.len(), range.clone()));
        self.groups.push(Group {
            first: range.clone(),
            layout,
            count: 1,
            len: range.len(),
            ids: Ids::Any,
            psh: false,
            hdr: VirtioNetHdr::default(),
            parts: 0..0,
            original: 0,
        });
    }

    /// Adds a packet of the same flow to a group if GRO would. Returns whether it was the last one
    /// of the group.
    fn join(
        &mut self,
        bytes: &[u8],
        index: usize,
        range: &Range<usize>,
        layout: Layout,
        psh: bool,
    ) -> Option<bool> {
        let group = &mut self.groups[index];
        let first = &bytes[group.first.clone()];
        let packet = &bytes[range.clone()];
        if layout.headers != group.layout.headers
            || layout.payload > group.layout.payload
            || group.len + layout.payload > ip::MAX_LEN
            || !same_ip(first, packet, layout.v6)
        {
            return None;
        }
        let ids = if layout.v6 {
            Ids::Any
        } else {
            group.ids(first, packet)?
        };
        let sent = group.len - layout.headers;
        if layout.tcp && !continues(&first[layout.transport..], packet, layout, sent) {
            return None;
        }

        group.ids = ids;
        group.count += 1;
        group.len += layout.payload;
        self.members
            .push((index, range.start + layout.headers..range.end));
        group.psh = psh;
        Some(psh || layout.payload < group.layout.payload || group.count == MAX_PACKETS)
    }

    /// Orders the parts by group, and writes the headers of the super-packets.
    fn finish(&mut self, bytes: &mut [u8]) {
        let mut start = 0;
        for group in &mut self.groups {
            group.parts = start..start; // extended below
            start += group.count;
        }
        self.parts.clear();
        self.parts.resize(start, 0..0);
        for (group, part) in self.members.drain(..) {
            let parts = &mut self.groups[group].parts;
            self.parts[parts.end] = part;
            parts.end += 1;
        }
        for group in self.groups.iter_mut().filter(|group| group.count > 1) {
            let headers = &mut bytes[group.first.start..][..group.layout.headers];
            group.original = self.originals.len();
            self.originals.extend_from_slice(headers);
            group.layout.make_super(headers, group.len, group.psh);
            group.hdr = group.layout.virtio();
        }
    }
}

impl Group {
    /// How the identifications continue with this packet. None if the packet does not fit.
    fn ids(&self, first: &[u8], packet: &[u8]) -> Option<Ids> {
        const DF: u8 = 0x40;
        let (begin, id) = (be16(first, 4), be16(packet, 4));
        if self.ids != Ids::Fixed && id == begin.wrapping_add(self.count as u16) {
            Some(Ids::Rising)
        } else if self.ids != Ids::Rising && id == begin && packet[6] & DF != 0 {
            Some(Ids::Fixed)
        } else {
            None
        }
    }
}

impl Layout {
    fn checksum(&self) -> usize {
        if self.tcp {
            tcp::CHECKSUM
        } else {
            ip::UDP_CHECKSUM
        }
    }

    fn virtio(&self) -> VirtioNetHdr {
        VirtioNetHdr {
            flags: virtio::NEEDS_CSUM,
            gso_type: match (self.tcp, self.v6) {
                (true, false) => virtio::GSO_TCPV4,
                (true, true) => virtio::GSO_TCPV6,
                (false, _) => virtio::GSO_UDP_L4,
            },
            hdr_len: self.headers as u16,
            gso_size: self.payload as u16,
            csum_start: self.transport as u16,
            csum_offset: self.checksum() as u16,
            ..VirtioNetHdr::default()
        }
    }

    /// Turns the headers of one packet into those of a super-packet of `len` bytes.
    fn make_super(&self, headers: &mut [u8], len: usize, psh: bool) {
        let (ip, transport) = headers.split_at_mut(self.transport);
        let (addresses, protocol) = if self.v6 {
            put16(ip, 4, (len - ip::V6_LEN) as u16);
            (addresses(true), ip[6])
        } else {
            put16(ip, 2, len as u16);
            put16(ip, 10, 0);
            let checksum = Sum::of(ip).checksum();
            ip[10..12].copy_from_slice(&checksum);
            (addresses(false), ip[9])
        };
        let len = len - self.transport;
        if self.tcp {
            transport[tcp::FLAGS] |= if psh { tcp::PSH } else { 0 };
        } else {
            put16(transport, 4, len as u16);
        }
        let pseudo = Sum::pseudo_header(&ip[addresses], protocol, len);
        transport[self.checksum()..][..2].copy_from_slice(&pseudo.fold());
    }
}

/// Length of the two ports after the addresses.
const PORTS: usize = 4;

fn addresses(v6: bool) -> Range<usize> {
    if v6 { 8..40 } else { 12..20 }
}

fn classify(packet: &[u8], offer: Offer) -> Class {
    if offer == Offer::default() {
        return Class::Other;
    }
    let (v6, transport, protocol, plain) = match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= ip::V4_LEN => {
            let plain = packet[0] == 0x45
                && usize::from(be16(packet, 2)) == packet.len()
                && be16(packet, 6) & 0x3fff == 0;
            (false, ip::V4_LEN, packet[9], plain)
        }
        Some(6) if packet.len() >= ip::V6_LEN => {
            let plain = usize::from(be16(packet, 4)) == packet.len() - ip::V6_LEN;
            (true, ip::V6_LEN, packet[6], plain)
        }
        _ => return Class::Other,
    };
    let datagram = &packet[transport..];
    let tcp = match protocol {
        ip::TCP if plain && datagram.len() >= ip::TCP_LEN => true,
        ip::UDP if plain && datagram.len() >= ip::UDP_LEN => false,
        _ => return Class::Unclear { v6 },
    };
    if tcp && !offer.tcp || !tcp && !offer.udp {
        return Class::Other;
    }
    let header = if tcp {
        tcp_header(datagram)
    } else {
        udp_header(datagram)
    };
    let mergeable = header.filter(|_| {
        let pseudo = Sum::pseudo_header(&packet[addresses(v6)], protocol, datagram.len());
        (v6 || Sum::of(&packet[..transport]).is_valid()) && (pseudo + Sum::of(datagram)).is_valid()
    });
    let mergeable = mergeable.map(|header| {
        let headers = transport + header;
        Layout {
            v6,
            tcp,
            transport,
            headers,
            payload: packet.len() - headers,
        }
    });
    Class::Flow {
        v6,
        tcp,
        mergeable,
        psh: tcp && datagram[tcp::FLAGS] & tcp::PSH != 0,
    }
}

/// Length of the header of a segment that may be merged: it has data, and only the flags ACK and
/// PSH.
fn tcp_header(datagram: &[u8]) -> Option<usize> {
    let header = usize::from(datagram[12] >> 4) * 4;
    let plain = datagram[12] & 0x0f == 0 && datagram[tcp::FLAGS] & !tcp::PSH == tcp::ACK;
    (plain && header >= ip::TCP_LEN && datagram.len() > header).then_some(header)
}

/// Length of the header of a datagram that may be merged: it has data and a checksum.
fn udp_header(datagram: &[u8]) -> Option<usize> {
    let whole = usize::from(be16(datagram, 4)) == datagram.len();
    let summed = be16(datagram, ip::UDP_CHECKSUM) != 0;
    (whole && summed && datagram.len() > ip::UDP_LEN).then_some(ip::UDP_LEN)
}

/// Compares version, TOS or traffic class and flow label, DF, and TTL or hop limit. The addresses
/// are already equal.
fn same_ip(first: &[u8], packet: &[u8], v6: bool) -> bool {
    if v6 {
        first[..4] == packet[..4] && first[7] == packet[7]
    } else {
        first[..2] == packet[..2] && first[6..9] == packet[6..9]
    }
}

/// Whether a segment follows `sent` bytes after the first one and differs from it at most in PSH:
/// acknowledgement, window, urgent pointer and options are the same.
fn continues(first: &[u8], packet: &[u8], layout: Layout, sent: usize) -> bool {
    let options = ip::TCP_LEN..layout.headers - layout.transport;
    let next = &packet[layout.transport..];
    be32(next, 4) == be32(first, 4).wrapping_add(sent as u32)
        && first[8..13] == next[8..13]
        && first[14..16] == next[14..16]
        && first[18..20] == next[18..20]
        && first[options.clone()] == next[options]
}
