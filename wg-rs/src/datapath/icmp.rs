//! Answers a packet that has no destination, because no peer owns its address or the peer has no
//! endpoint. The kernel module sends the same answers (host unreachable, address unreachable).
//!
//! The source of the answer is the unreachable address itself. With an address of this host as its
//! source, a packet that is written to the TUN would be dropped as martian.

use std::time::Duration;

use super::checksum::Sum;
use super::ip::{self, Header, be16, put16};
use crate::tunnel::pace::Pace;
use crate::tunnel::time::Time;

/// Longest answer in bytes: the minimum MTU of IPv6.
pub const MAX_LEN: usize = 1280;

/// RFC 1812, 4.3.2.3.
const V4_MAX_LEN: usize = 576;
const ICMP_LEN: usize = 8;
const TTL: u8 = 64;

/// Writes the ICMP error for `packet` to `out`, and returns its length. None if there must be no
/// answer (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7; RFC 4443, 2.4): to an ICMP error, to a fragment
/// other than the first, if source or destination is not a single host, or if `packet` is not an IP
/// packet.
///
/// # Panics
/// If `out` is shorter than [`MAX_LEN`].
pub fn unreachable(packet: &[u8], out: &mut [u8]) -> Option<usize> {
    let out = &mut out[..MAX_LEN];
    let header = Header::parse(packet)?;
    if header.fragment.is_some_and(|offset| offset != 0) || is_icmp_error(packet, &header) {
        return None;
    }
    if header.v6 {
        unreachable_v6(packet, out)
    } else {
        unreachable_v4(packet, out)
    }
}

fn unreachable_v4(packet: &[u8], out: &mut [u8]) -> Option<usize> {
    const HOST_UNREACHABLE: [u8; 2] = [3, 1];
    let packet = packet.get(..usize::from(be16(packet, 2)))?;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    if !is_host_v4(source) || source[0] == 127 || !is_host_v4(destination) {
        return None;
    }

    let quote = packet.len().min(V4_MAX_LEN - ip::V4_LEN - ICMP_LEN);
    let len = ip::V4_LEN + ICMP_LEN + quote;
    let (head, icmp) = out[..len].split_at_mut(ip::V4_LEN);
    head.fill(0);
    head[0] = 0x45;
    head[1] = 0xc0; // internetwork control: RFC 1812, 4.3.2.5
    put16(head, 2, len as u16);
    put16(head, 6, 0x4000); // DF: the packet needs no identification
    head[8] = TTL;
    head[9] = ip::ICMP;
    head[12..16].copy_from_slice(&destination);
    head[16..20].copy_from_slice(&source);
    let checksum = Sum::of(head).checksum();
    head[10..12].copy_from_slice(&checksum);
    write_icmp(icmp, HOST_UNREACHABLE, &packet[..quote], Sum::default());
    Some(len)
}

fn unreachable_v6(packet: &[u8], out: &mut [u8]) -> Option<usize> {
    const ADDRESS_UNREACHABLE: [u8; 2] = [1, 3];
    const MULTICAST: u8 = 0xff;
    let packet = packet.get(..ip::V6_LEN + usize::from(be16(packet, 4)))?;
    let (source, destination) = (&packet[8..24], &packet[24..40]);
    let mut loopback = [0; 16];
    loopback[15] = 1;
    for address in [source, destination] {
        if address[0] == MULTICAST || address == [0; 16] || address == loopback {
            return None;
        }
    }

    let quote = packet.len().min(MAX_LEN - ip::V6_LEN - ICMP_LEN);
    let len = ip::V6_LEN + ICMP_LEN + quote;
    let (head, icmp) = out[..len].split_at_mut(ip::V6_LEN);
    head.fill(0);
    head[0] = 0x60;
    put16(head, 4, icmp.len() as u16);
    head[6] = ip::ICMPV6;
    head[7] = TTL;
    head[8..24].copy_from_slice(destination);
    head[24..40].copy_from_slice(source);
    let pseudo = Sum::pseudo_header(&head[8..40], ip::ICMPV6, icmp.len());
    write_icmp(icmp, ADDRESS_UNREACHABLE, &packet[..quote], pseudo);
    Some(len)
}

fn write_icmp(icmp: &mut [u8], kind: [u8; 2], quote: &[u8], pseudo: Sum) {
    let (head, body) = icmp.split_at_mut(ICMP_LEN);
    head.fill(0);
    head[..2].copy_from_slice(&kind);
    let sum = pseudo + Sum::of(head) + Sum::copy(body, quote);
    head[2..4].copy_from_slice(&sum.checksum());
}

/// Whether the address is not "this network", multicast, reserved or broadcast.
fn is_host_v4(address: [u8; 4]) -> bool {
    (1..224).contains(&address[0])
}

/// Whether this is an ICMP error or a redirect, or too short to tell.
fn is_icmp_error(packet: &[u8], header: &Header) -> bool {
    let kind = packet.get(header.transport).copied();
    match (header.v6, header.protocol) {
        (false, ip::ICMP) => kind.is_none_or(|kind| matches!(kind, 3..=5 | 11 | 12)),
        (true, ip::ICMPV6) => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    }
}

/// Limits the answers that a flood can cause (RFC 4443, 2.4 f).
#[derive(Debug)]
pub struct Limiter {
    pace: Pace,
    interval: Duration,
    ahead: Duration,
}

impl Limiter {
    /// At most `rate` answers per second and `burst` at once. Each is at least one.
    pub fn new(rate: u32, burst: u32) -> Limiter {
        let interval = Duration::from_nanos(1_000_000_000 / u64::from(rate.max(1)));
        Limiter {
            pace: Pace::default(),
            interval,
            ahead: interval * burst.max(1),
        }
    }

    /// Whether an answer is allowed now; if so, it is counted.
    pub fn allow(&mut self, now: Time) -> bool {
        self.pace.take(now, self.interval, self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP packets with `payload` bytes, over IPv4 and IPv6.
    fn packets(payload: usize) -> [Vec<u8>; 2] {
        let mut v4 = vec![
            0x45,
            0,
            0,
            0,
            0,
            1,
            0,
            0,
            64,
            ip::UDP,
            0,
            0,
            10,
            0,
            0,
            1,
            10,
            0,
            0,
            2,
        ];
        v4.resize(28 + payload, 0xaa);
        let len = v4.len() as u16;
        put16(&mut v4, 2, len);
        let mut v6 = vec![0x60, 0, 0, 0, 0, 0, ip::UDP, 64];
        v6.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v6.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        v6.resize(48 + payload, 0xaa);
        put16(&mut v6, 4, (8 + payload) as u16);
        [v4, v6]
    }

    fn answer(packet: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0x5a; MAX_LEN];
        let len = unreachable(packet, &mut out)?;
        assert!(out[len..].iter().all(|byte| *byte == 0x5a));
        Some(out[..len].to_vec())
    }

    fn refused(packet: &[u8], change: impl Fn(&mut Vec<u8>)) -> bool {
        let mut packet = packet.to_vec();
        change(&mut packet);
        answer(&packet).is_none()
    }

    #[test]
    fn the_answer_comes_from_the_unreachable_address() {
        let [v4, v6] = packets(100);
        let out = answer(&v4).unwrap();
        assert_eq!(out[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(out[20..22], [3, 1]);
        assert_eq!(out[28..], v4);
        assert_eq!(usize::from(be16(&out, 2)), out.len());
        assert!(Sum::of(&out[..20]).is_valid() && Sum::of(&out[20..]).is_valid());

        let out = answer(&v6).unwrap();
        assert_eq!((&out[8..24], &out[24..40]), (&v6[24..40], &v6[8..24]));
        assert_eq!(out[40..42], [1, 3]);
        assert_eq!(out[48..], v6);
        assert_eq!(usize::from(be16(&out, 4)), out.len() - 40);
        let pseudo = Sum::pseudo_header(&out[8..40], ip::ICMPV6, out.len() - 40);
        assert!((pseudo + Sum::of(&out[40..])).is_valid());
    }

    #[test]
    fn the_answer_quotes_as_much_as_allowed() {
        let [v4, v6] = packets(3000);
        let out = answer(&v4).unwrap();
        assert_eq!((out.len(), &out[28..]), (576, &v4[..548]));
        let out = answer(&v6).unwrap();
        assert_eq!((out.len(), &out[48..]), (1280, &v6[..1232]));
    }

    #[test]
    fn the_answer_quotes_nothing_beyond_the_packet() {
        for mut packet in packets(100) {
            let expected = answer(&packet);
            packet.resize(400, 1);
            assert_eq!(answer(&packet), expected);
        }
    }

    #[test]
    fn icmp_errors_are_not_answered() {
        let [v4, v6] = packets(100);
        let icmp = |kind: u8| move |p: &mut Vec<u8>| (p[9], p[20]) = (ip::ICMP, kind);
        assert!(
            [3, 4, 5, 11, 12]
                .into_iter()
                .all(|kind| refused(&v4, icmp(kind)))
        );
        assert!([0, 8, 13].into_iter().all(|kind| !refused(&v4, icmp(kind))));
        let icmp = |kind: u8| move |p: &mut Vec<u8>| (p[6], p[40]) = (ip::ICMPV6, kind);
        assert!(
            [1, 2, 3, 4, 127, 137]
                .into_iter()
                .all(|kind| refused(&v6, icmp(kind)))
        );
        assert!(
            [128, 129, 135]
                .into_iter()
                .all(|kind| !refused(&v6, icmp(kind)))
        );
        let hidden = |p: &mut Vec<u8>| {
            (p[6], p[40], p[41], p[48]) = (60, ip::ICMPV6, 0, 1);
        };
        assert!(refused(&v6, hidden));
    }

    #[test]
    fn later_fragments_are_not_answered() {
        let [v4, v6] = packets(100);
        assert!(refused(&v4, |p| p[7] = 1));
        assert!(!refused(&v4, |p| p[6] = 0x20));
        let fragment = |offset: u16| {
            move |p: &mut Vec<u8>| {
                (p[6], p[40]) = (44, ip::UDP);
                put16(p, 42, offset << 3 | 1);
            }
        };
        assert!(refused(&v6, fragment(1)));
        assert!(!refused(&v6, fragment(0)));
    }

    #[test]
    fn only_packets_between_single_hosts_are_answered() {
        let [v4, v6] = packets(100);
        for (at, first) in [
            (12, 0),
            (12, 127),
            (12, 224),
            (12, 255),
            (16, 0),
            (16, 224),
            (16, 255),
        ] {
            assert!(refused(&v4, |p| p[at] = first), "{first} at {at}");
        }
        for at in [8, 24] {
            assert!(refused(&v6, |p| p[at] = 0xff));
            assert!(refused(&v6, |p| p[at..at + 16].fill(0)));
            assert!(refused(&v6, |p| (p[at], p[at + 15]) = (0, 1)));
        }
    }

    #[test]
    fn invalid_packets_are_not_answered() {
        for packet in packets(100) {
            assert!((0..packet.len()).all(|len| answer(&packet[..len]).is_none()));
            assert!(refused(&packet, |p| p[0] = 0x55));
        }
        let [v4, _] = packets(100);
        assert!(refused(&v4, |p| p[0] = 0x44));
        assert!(refused(&v4, |p| put16(p, 2, 19)));
    }

    #[test]
    fn answers_to_a_flood_are_limited() {
        let mut limiter = Limiter::new(100, 20);
        let ms = |millis| Time::ZERO + Duration::from_millis(millis);
        let allowed = |limiter: &mut Limiter, from: u64, to: u64| {
            (from..to).filter(|now| limiter.allow(ms(*now))).count()
        };
        assert_eq!((0..1000).filter(|_| limiter.allow(ms(0))).count(), 20);
        assert_eq!(allowed(&mut limiter, 0, 1001), 100);
        assert_eq!((0..1000).filter(|_| limiter.allow(ms(100_000))).count(), 20);
        assert!(
            !limiter.allow(ms(0)),
            "a clock that goes back adds no tokens"
        );
    }
}
