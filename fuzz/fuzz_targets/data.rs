//! Bursts of data packets that are valid, damaged, repeated or forged: only packets that were sent are
//! delivered, each once, whatever else is in the burst.

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
    /// Sealed by A, but not an IP packet, or one whose length is beyond the message.
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
        // The last datagram of a burst may be truncated.
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
        // A may send a changed packet that is still complete (with another TOS, a shorter length, or
        // one that includes padding). ECN, in bytes 1 and 10 to 12, may have changed on the way. Each
        // packet contains its number, except for changed ones that are too short: some of those are
        // equal.
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
        assert!(sent > 0, "a packet was delivered that was not sent");
        assert!(
            delivered <= sent,
            "delivered {delivered} times, sent {sent}"
        );
    }
    if input.last == 0 && input.tos & 3 == 0 {
        for packet in &expected {
            assert!(once.contains(packet), "a valid packet was lost");
        }
    }
});
