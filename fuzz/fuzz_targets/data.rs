//! Bursts of data packets, right, damaged, repeated or made up: what is delivered is what was sent,
//! each packet once, whatever is around it.

#![no_main]

#[allow(dead_code)]
mod pair;

use std::collections::HashSet;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use pair::{Pair, addr, packet};
use wg_rs::tunnel::peer::Endpoint;
use wg_rs::tunnel::receive::InBurst;

#[derive(Arbitrary, Debug)]
struct Input {
    payload: u16,
    tos: u8,
    last: u16,
    bursts: Vec<Vec<Event>>,
}

#[derive(Arbitrary, Debug)]
enum Event {
    Right,
    Again(u8),
    Change {
        at: u16,
        with: u8,
    },
    /// Sealed by A, but from an address that is not A's.
    Foreign(u8),
    /// Sealed by A, but no IP packet, or one that is longer than what holds it.
    Nonsense {
        at: u8,
        with: u8,
    },
    Raw(Vec<u8>),
}

fuzz_target!(|input: Input| {
    let mut pair = Pair::with_session();
    let plane = pair.b.plane().clone();
    let size = usize::from(input.payload % 1300);
    let mut burst = InBurst::new();
    let mut sent: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut expected = HashSet::new();
    let mut delivered = Vec::new();
    for events in input.bursts.into_iter().take(8) {
        let mut bytes = Vec::new();
        let mut stride = 0;
        for event in events.into_iter().take(40) {
            let mut payload = vec![0x5a; size + 8];
            payload[..8].copy_from_slice(&(sent.len() as u64).to_le_bytes());
            let mut inner = packet(1, 2, &payload);
            let right = inner.clone();
            match &event {
                Event::Foreign(from) if *from != 1 => inner = packet(*from, 2, &payload),
                Event::Nonsense { at, with } => inner[usize::from(*at % 4)] ^= with,
                _ => {}
            }
            let mut datagram = pair
                .send_instead(&right, &inner)
                .expect("there is a session");
            stride = datagram.len();
            match event {
                Event::Again(n) if !sent.is_empty() => {
                    datagram.clone_from(&sent[usize::from(n) % sent.len()].0);
                }
                Event::Change { at, with } if with != 0 => {
                    let at = usize::from(at) % datagram.len();
                    datagram[at] ^= with;
                }
                Event::Raw(raw) => {
                    datagram.fill(0);
                    let len = raw.len().min(stride);
                    datagram[..len].copy_from_slice(&raw[..len]);
                }
                Event::Foreign(_) | Event::Nonsense { .. } if inner != right => {}
                _ => {
                    expected.insert(inner.clone());
                }
            }
            sent.push((datagram.clone(), inner));
            bytes.extend(datagram);
        }
        // The last datagram of a burst may be cut.
        let cut = usize::from(input.last).min(stride.saturating_sub(1));
        let len = bytes.len().saturating_sub(cut);
        burst.buffer()[..len].copy_from_slice(&bytes[..len]);
        burst.received(len, stride, Endpoint::from(addr(1)), input.tos);
        burst.classify(&plane, pair.now, |_, _| {});
        burst.open();
        burst.accept(&plane, pair.now);
        delivered.extend(
            burst
                .packets()
                .iter()
                .map(|range| burst.bytes()[range.clone()].to_vec()),
        );
    }
    let once: HashSet<_> = delivered.iter().cloned().collect();
    for packet in &once {
        // Nonsense that is a whole packet still (another TOS, a shorter length, or one that takes in
        // padding) is A's to send; and ECN, in bytes 1 and 10 to 12, may have changed on the way.
        // Each packet has its number in it, but for nonsense that is too short: some of that is alike.
        let sent_so = |inner: &[u8]| {
            let common = inner.len().min(packet.len());
            inner[0] == packet[0]
                && inner[2..10] == packet[2..10]
                && inner[12..common] == packet[12..common]
                && packet[common..].iter().all(|byte| *byte == 0)
                && packet.len() <= inner.len().next_multiple_of(16)
                && packet[12..16] == [10, 0, 0, 1]
        };
        let sent = sent.iter().filter(|(_, inner)| sent_so(inner)).count();
        let delivered = delivered.iter().filter(|other| *other == packet).count();
        assert!(sent > 0, "delivered what was not sent");
        assert!(
            delivered <= sent,
            "delivered {delivered} times, sent {sent}"
        );
    }
    if input.last == 0 && input.tos & 3 == 0 {
        for packet in &expected {
            assert!(once.contains(packet), "a right packet was lost");
        }
    }
});
