//! IP packets for the simulated hosts to send.

use std::net::IpAddr;

/// An IPv4 packet between the inner addresses of two hosts.
pub(crate) fn packet(from: usize, to: usize, payload: &[u8]) -> Vec<u8> {
    let inner = |host: usize| format!("10.0.0.{}", host + 1).parse().unwrap();
    packet_between(inner(from), inner(to), payload)
}

/// An IP packet. The checksum of an IPv4 header is right.
pub(crate) fn packet_between(from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = vec![0; 20];
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
            packet[8] = 64;
            packet[9] = 17;
            packet[12..16].copy_from_slice(&from.octets());
            packet[16..20].copy_from_slice(&to.octets());
            let sum = checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend_from_slice(payload);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = vec![0; 40];
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            packet[6] = 17;
            packet[7] = 64;
            packet[8..24].copy_from_slice(&from.octets());
            packet[24..40].copy_from_slice(&to.octets());
            packet.extend_from_slice(payload);
            packet
        }
        _ => panic!("families differ"),
    }
}

/// The Internet checksum. For a header that contains its right checksum, it is 0.
pub(crate) fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
