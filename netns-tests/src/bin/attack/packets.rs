//! Packets, right and wrong, and cheap random numbers.

use std::net::SocketAddrV4;

use netns_tests::Key;

/// Numbers that are random enough for an attacker (xorshift).
pub struct Random(u64);

impl Random {
    /// With a random seed.
    pub fn new() -> Random {
        let seed = Key::random().0;
        Random(u64::from_le_bytes(*seed.first_chunk().expect("8 of 32 bytes")) | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 8) as usize % limit
    }

    /// Fills a buffer.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
    }
}

/// An IPv4 packet with a UDP datagram without a checksum.
pub fn ipv4_udp(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let len = 28 + payload.len() as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend_from_slice(&from.ip().octets());
    packet.extend_from_slice(&to.ip().octets());
    let sum = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&from.port().to_be_bytes());
    packet.extend_from_slice(&to.port().to_be_bytes());
    packet.extend_from_slice(&(len - 20).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet with this next header and content.
fn ipv6(next: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet[4..6].copy_from_slice(&(content.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[0xfd; 32]);
    packet.extend_from_slice(content);
    packet
}

/// A packet that is wrong in some way; `right` is a right one.
pub fn malformed(right: &[u8], random: &mut Random) -> Vec<u8> {
    let mut packet = right.to_vec();
    match random.below(10) {
        // Lengths: of the header, in the header, of the packet.
        0 => packet[0] = 0x40 | random.below(16) as u8,
        1 => packet[2..4].copy_from_slice(&random.next().to_be_bytes()[..2]),
        2 => packet.truncate(random.below(right.len() + 1)),
        3 => packet.resize(right.len() + random.below(1000), 0),
        // Versions.
        4 => packet[0] = random.next() as u8,
        // Fragments.
        5 => packet[6..8].copy_from_slice(&random.next().to_be_bytes()[..2]),
        // Options, which may be longer than the packet.
        6 => {
            packet[0] = 0x4f;
            let mut options = [0; 40];
            random.fill(&mut options);
            packet.splice(20..20, options);
        }
        // TCP, ICMP and anything else, with a header that need not be there.
        7 => packet[9] = random.next() as u8,
        // Extension headers, in chains that end nowhere.
        8 => {
            let mut content = vec![0; random.below(300)];
            random.fill(&mut content);
            let next = [0, 6, 17, 43, 44, 50, 51, 58, 59, 60][random.below(10)];
            for head in content.chunks_mut(8) {
                head[0] = next;
            }
            packet = ipv6(next, &content);
        }
        _ => random.fill(&mut packet),
    }
    packet
}
