//! A simple model of the segmenter and the coalescer.
//!
//! The segmenter's model splits the payload, and makes each piece a packet with all lengths and
//! checksums computed again. The coalescer's model adds a packet to a group if it equals the packet
//! that segmentation would make in that place.

use wg_rs::datapath::coalesce::{MAX_PACKETS, Offer};
use wg_rs::datapath::virtio::{self, VirtioNetHdr};

use super::packet::{ACK, CWR, FIN, PSH, TCP, UDP, checksum_offset, finish, get, put};

/// Most flows that the coalescer follows at once.
const MAX_FLOWS: usize = 16;

/// The packets of a well-formed super-packet, for which the pseudo header has the addresses of the
/// IP header.
pub fn segment(hdr: VirtioNetHdr, packet: &[u8]) -> Vec<Vec<u8>> {
    let protocol = if hdr.gso_type == virtio::GSO_UDP_L4 {
        UDP
    } else {
        TCP
    };
    let transport = usize::from(hdr.csum_start);
    let headers = transport
        + match protocol {
            TCP => usize::from(packet[transport + 12] >> 4) * 4,
            _ => 8,
        };
    let payload = &packet[headers..];
    let mut pieces: Vec<&[u8]> = payload.chunks(hdr.gso_size.into()).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let mut sent = 0;
    let mut packets = Vec::new();
    for (i, piece) in pieces.into_iter().enumerate() {
        let mut flags = 0xff;
        if i != last {
            flags &= !(PSH | FIN);
        }
        if i != 0 {
            flags &= !CWR;
        }
        packets.push(follow(
            &packet[..headers],
            transport,
            protocol,
            i,
            sent,
            flags,
            piece,
        ));
        sent += piece.len();
    }
    packets
}

/// Packet number `i` after the headers, whose payload begins `sent` bytes after the first.
fn follow(
    headers: &[u8],
    transport: usize,
    protocol: u8,
    i: usize,
    sent: usize,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = headers.to_vec();
    packet.extend(payload);
    if packet[0] >> 4 == 4 {
        let id = get(&packet, 4).wrapping_add(i as u16);
        put(&mut packet, 4, id);
    }
    if protocol == TCP {
        let seq = &mut packet[transport + 4..transport + 8];
        let next = u32::from_be_bytes(seq.try_into().unwrap()).wrapping_add(sent as u32);
        seq.copy_from_slice(&next.to_be_bytes());
        packet[transport + 13] &= flags;
    }
    finish(&mut packet, transport, protocol);
    packet
}

#[derive(Debug, PartialEq, Eq)]
pub struct Write {
    pub hdr: VirtioNetHdr,
    pub bytes: Vec<u8>,
    pub packets: Vec<usize>,
}

struct Group<'p> {
    key: Key,
    packets: Vec<&'p [u8]>,
    numbers: Vec<usize>,
    open: bool,
    fixed: Option<bool>,
}

/// Addresses and, if they are visible, protocol and ports.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    addresses: Vec<u8>,
    flow: Option<(u8, u16, u16)>,
}

/// The writes for a burst.
pub fn coalesce(packets: &[Vec<u8>], offer: Offer) -> Vec<Write> {
    let mut groups: Vec<Group> = Vec::new();
    for (number, packet) in packets.iter().enumerate() {
        let key = key(packet);
        let mut single = Group {
            key: key.clone(),
            packets: vec![packet],
            numbers: vec![number],
            open: false,
            fixed: None,
        };
        let followed = match key.flow {
            Some((protocol, ..)) => {
                if protocol == TCP {
                    offer.tcp
                } else {
                    offer.udp
                }
            }
            None => offer.tcp || offer.udp,
        };
        if !followed || key.addresses.is_empty() {
            groups.push(single);
            continue;
        }
        let mut rivals = groups.iter_mut().filter(|g| {
            g.open
                && g.key.addresses == key.addresses
                && (key.flow.is_none() || g.key.flow == key.flow)
        });
        if key.flow.is_none() {
            rivals.for_each(|group| group.open = false);
            groups.push(single);
            continue;
        }
        if let Some(group) = rivals.next() {
            if group.take(packet) {
                group.numbers.push(number);
                continue;
            }
            group.open = false;
        }
        single.open = may_begin(packet, &key) && !has_psh(packet, &key);
        if single.open && groups.iter().filter(|g| g.open).count() == MAX_FLOWS {
            groups.iter_mut().find(|g| g.open).unwrap().open = false;
        }
        groups.push(single);
    }
    groups.iter().map(Group::write).collect()
}

fn key(packet: &[u8]) -> Key {
    let mut key = Key {
        addresses: Vec::new(),
        flow: None,
    };
    let (transport, protocol, whole) = match packet.first().map_or(0, |b| b >> 4) {
        4 if packet.len() >= 20 => {
            key.addresses = packet[12..20].to_vec();
            let fragment = get(packet, 6) & !0xc000 != 0;
            let whole = usize::from(get(packet, 2)) == packet.len();
            (20, packet[9], whole && !fragment && packet[0] & 15 == 5)
        }
        6 if packet.len() >= 40 => {
            key.addresses = packet[8..40].to_vec();
            (
                40,
                packet[6],
                usize::from(get(packet, 4)) + 40 == packet.len(),
            )
        }
        _ => return key,
    };
    let least = if protocol == TCP { 20 } else { 8 };
    if whole && [TCP, UDP].contains(&protocol) && packet.len() >= transport + least {
        key.flow = Some((protocol, get(packet, transport), get(packet, transport + 2)));
    }
    key
}

fn transport(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 6 { 40 } else { 20 }
}

fn has_psh(packet: &[u8], key: &Key) -> bool {
    key.flow.unwrap().0 == TCP && packet[transport(packet) + 13] & PSH != 0
}

fn headers(packet: &[u8], protocol: u8) -> usize {
    let transport = transport(packet);
    transport
        + if protocol == TCP {
            usize::from(packet[transport + 12] >> 4) * 4
        } else {
            8
        }
}

/// Lengths and checksums are right, there is payload, and only the flags ACK and PSH are set.
fn may_begin(packet: &[u8], key: &Key) -> bool {
    let protocol = key.flow.unwrap().0;
    let (transport, headers) = (transport(packet), headers(packet, protocol));
    if protocol == TCP {
        let (offset, flags) = (packet[transport + 12], packet[transport + 13]);
        if offset >> 4 < 5 || offset & 15 != 0 || flags | PSH != ACK | PSH {
            return false;
        }
    } else if get(packet, transport + 6) == 0 {
        return false;
    }
    if packet.len() <= headers {
        return false;
    }
    let mut good = packet.to_vec();
    finish(&mut good, transport, protocol);
    canonical(&good, protocol) == canonical(packet, protocol)
}

/// In one's complement, the checksums of IPv4 and TCP have two equal zeros.
pub fn canonical(packet: &[u8], protocol: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let mut fields = Vec::new();
    if packet[0] >> 4 == 4 {
        fields.push(10);
    }
    if protocol == TCP {
        fields.push(transport(&packet) + checksum_offset(protocol));
    }
    for field in fields {
        if get(&packet, field) == 0xffff {
            put(&mut packet, field, 0);
        }
    }
    packet
}

impl<'p> Group<'p> {
    fn take(&mut self, packet: &'p [u8]) -> bool {
        if !may_begin(packet, &self.key) {
            return false;
        }
        let protocol = self.key.flow.unwrap().0;
        let first = self.packets[0];
        let head = headers(first, protocol);
        let payload = &packet[headers(packet, protocol)..];
        let size = first.len() - head;
        let sent: usize = self.packets.iter().map(|p| p.len() - head).sum();
        if payload.len() > size || head + sent + payload.len() > 65535 {
            return false;
        }
        let mut like = first[..head].to_vec();
        if has_psh(packet, &self.key) {
            like[transport(first) + 13] |= PSH;
        }
        let make = |i| follow(&like, transport(first), protocol, i, sent, 0xff, payload);
        let is = |made: Vec<u8>| canonical(&made, protocol) == canonical(packet, protocol);
        let v4 = first[0] >> 4 == 4;
        if self.fixed != Some(true) && is(make(self.packets.len())) {
            self.fixed = v4.then_some(false);
        } else if self.fixed != Some(false) && v4 && first[6] & 0x40 != 0 && is(make(0)) {
            self.fixed = Some(true);
        } else {
            return false;
        }
        self.packets.push(packet);
        self.open = payload.len() == size
            && self.packets.len() < MAX_PACKETS
            && !has_psh(packet, &self.key);
        true
    }

    fn write(&self) -> Write {
        let numbers = self.numbers.clone();
        let first = self.packets[0];
        if self.packets.len() == 1 {
            return Write {
                hdr: VirtioNetHdr::default(),
                bytes: first.to_vec(),
                packets: numbers,
            };
        }
        let protocol = self.key.flow.unwrap().0;
        let (start, head) = (transport(first), headers(first, protocol));
        let mut bytes = first[..head].to_vec();
        self.packets.iter().for_each(|p| bytes.extend(&p[head..]));
        if has_psh(self.packets.last().unwrap(), &self.key) {
            bytes[start + 13] |= PSH;
        }
        finish(&mut bytes, start, protocol);
        let field = start + checksum_offset(protocol);
        let pseudo = super::packet::pseudo_sum(&bytes, protocol, bytes.len() - start);
        put(&mut bytes, field, super::packet::fold(pseudo));
        let hdr = VirtioNetHdr {
            flags: virtio::NEEDS_CSUM,
            gso_type: match (protocol, first[0] >> 4) {
                (TCP, 4) => virtio::GSO_TCPV4,
                (TCP, _) => virtio::GSO_TCPV6,
                _ => virtio::GSO_UDP_L4,
            },
            hdr_len: head as u16,
            gso_size: (first.len() - head) as u16,
            csum_start: start as u16,
            csum_offset: checksum_offset(protocol) as u16,
            ..VirtioNetHdr::default()
        };
        Write {
            hdr,
            bytes,
            packets: numbers,
        }
    }
}

/// Coalescing and segmentation must give the original packets. Two things may differ: a checksum of
/// zero in its other form, and the identification of packets that cannot be fragmented.
pub fn same_packet(before: &[u8], after: &[u8]) -> bool {
    let plain = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        if key(&packet).flow.is_some() {
            let protocol = key(&packet).flow.unwrap().0;
            if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
                put(&mut packet, 4, 0);
                put(&mut packet, 10, 0);
            }
            packet = canonical(&packet, protocol);
        }
        packet
    };
    before == after || plain(before) == plain(after)
}
