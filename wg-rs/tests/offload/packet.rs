//! Inner packets for tests, built from their fields.

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// One TCP segment or UDP datagram over IPv4 or IPv6.
#[derive(Clone, Debug)]
pub struct Packet {
    pub v6: bool,
    pub protocol: u8,
    pub source: u8,
    pub destination: u8,
    pub ports: (u16, u16),
    pub tos: u8,
    pub ttl: u8,
    pub label: u16,
    pub id: u16,
    pub df: bool,
    /// IPv4 options, or IPv6 extension headers after the type of the first one.
    pub between: Vec<u8>,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub urgent: u16,
    pub flags: u8,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A timestamp option with Linux's padding.
pub const TIMESTAMP: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];

impl Packet {
    pub fn new(v6: bool, protocol: u8, payload: usize) -> Packet {
        Packet {
            v6,
            protocol,
            source: 1,
            destination: 2,
            ports: (40000, 5201),
            tos: 0,
            ttl: 64,
            label: 0x1234,
            id: 0xfffe,
            df: true,
            between: Vec::new(),
            seq: 0xffff_ff00,
            ack: 77,
            window: 502,
            urgent: 0,
            flags: ACK,
            options: if protocol == TCP {
                TIMESTAMP.to_vec()
            } else {
                Vec::new()
            },
            payload: (0..payload).map(|i| (i * 31 + 7) as u8).collect(),
        }
    }

    /// The next packet of the flow, with a payload of the same length.
    pub fn next(&self) -> Packet {
        let mut next = self.clone();
        next.id = self.id.wrapping_add(1);
        next.seq = self.seq.wrapping_add(self.payload.len() as u32);
        next.payload
            .iter_mut()
            .for_each(|byte| *byte = byte.wrapping_mul(5).wrapping_add(3));
        next
    }

    /// Offset of the transport header.
    pub fn transport(&self) -> usize {
        if self.v6 {
            40 + self.between.len().saturating_sub(1)
        } else {
            20 + self.between.len()
        }
    }

    /// Length of all headers.
    pub fn headers(&self) -> usize {
        self.transport()
            + if self.protocol == TCP {
                20 + self.options.len()
            } else {
                8
            }
    }

    /// The finished packet.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.unfinished();
        finish(&mut bytes, self.transport(), self.protocol);
        bytes
    }

    /// The packet as a super-packet of the kernel: its checksum field contains the folded sum of
    /// the pseudo header.
    pub fn super_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        let transport = self.transport();
        let sum = pseudo_sum(&bytes, self.protocol, bytes.len() - transport);
        let field = transport + checksum_offset(self.protocol);
        bytes[field..field + 2].copy_from_slice(&fold(sum).to_be_bytes());
        bytes
    }

    fn unfinished(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.v6 {
            bytes.extend([0x60 | self.tos >> 4, self.tos << 4]);
            bytes.extend(self.label.to_be_bytes());
            let first = self.between.first().copied().unwrap_or(self.protocol);
            bytes.extend([0, 0, first, self.ttl]);
            bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.source]);
            bytes.extend([
                0xfd,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                self.destination,
            ]);
            bytes.extend(self.between.iter().skip(1));
        } else {
            bytes.extend([0x45 + (self.between.len() / 4) as u8, self.tos, 0, 0]);
            bytes.extend(self.id.to_be_bytes());
            bytes.extend([
                if self.df { 0x40 } else { 0 },
                0,
                self.ttl,
                self.protocol,
                0,
                0,
            ]);
            bytes.extend([10, 0, 0, self.source, 10, 0, 0, self.destination]);
            bytes.extend(&self.between);
        }
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        if self.protocol == TCP {
            bytes.extend(self.seq.to_be_bytes());
            bytes.extend(self.ack.to_be_bytes());
            bytes.extend([(((20 + self.options.len()) / 4) << 4) as u8, self.flags]);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(self.urgent.to_be_bytes());
            bytes.extend(&self.options);
        } else {
            bytes.extend([0, 0, 0, 0]);
        }
        bytes.extend(&self.payload);
        bytes
    }
}

/// Replaces all lengths and checksums of a packet by the right ones.
pub fn finish(packet: &mut [u8], transport: usize, protocol: u8) {
    let len = packet.len();
    if packet[0] >> 4 == 6 {
        put(packet, 4, (len - 40) as u16);
    } else {
        put(packet, 2, len as u16);
        put(packet, 10, 0);
        let header = usize::from(packet[0] & 15) * 4;
        put(packet, 10, !fold(sum(&packet[..header])));
    }
    if protocol == UDP {
        put(packet, transport + 4, (len - transport) as u16);
    }
    let field = transport + checksum_offset(protocol);
    put(packet, field, 0);
    let whole = pseudo_sum(packet, protocol, len - transport) + sum(&packet[transport..]);
    let checksum = !fold(whole);
    put(
        packet,
        field,
        if protocol == UDP && checksum == 0 {
            0xffff
        } else {
            checksum
        },
    );
}

pub fn checksum_offset(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

pub fn put(packet: &mut [u8], at: usize, value: u16) {
    packet[at] = (value >> 8) as u8;
    packet[at + 1] = value as u8;
}

pub fn get(packet: &[u8], at: usize) -> u16 {
    u16::from(packet[at]) << 8 | u16::from(packet[at + 1])
}

pub fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .enumerate()
        .map(|(i, b)| u64::from(*b) << if i % 2 == 0 { 8 } else { 0 })
        .sum()
}

pub fn fold(sum: u64) -> u16 {
    if sum > 0xffff {
        fold(sum % 0x10000 + sum / 0x10000)
    } else {
        sum as u16
    }
}

pub fn pseudo_sum(packet: &[u8], protocol: u8, len: usize) -> u64 {
    let addresses = if packet[0] >> 4 == 6 {
        &packet[8..40]
    } else {
        &packet[12..20]
    };
    sum(addresses) + u64::from(protocol) + sum(&(len as u32).to_be_bytes())
}
