//! Initiations and responses that are valid, damaged or forged, at any load: only an unchanged
//! initiation is answered by a response, only an unchanged response makes a session, and after an
//! invalid message the valid one is still accepted.

#![no_main]

#[allow(dead_code)]
mod pair;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use pair::{Pair, WALL, addr, public, transmits};
use wg_crypto::MacKeys;
use wg_rs::tunnel::ingress::HandshakeBacklog;
use wg_rs::tunnel::peer::Endpoint;

#[derive(Arbitrary, Debug)]
struct Input {
    to_initiator: bool,
    waiting: u16,
    /// Whether mac1 is computed again, so that the change passes the first check.
    sign: bool,
    event: Event,
}

#[derive(Arbitrary, Debug)]
enum Event {
    Change(Vec<(u8, u8)>),
    Cut(u8),
    Raw(Vec<u8>),
}

fuzz_target!(|input: Input| {
    let mut pair = Pair::new();
    let initiation = pair.initiation();
    let right = if input.to_initiator {
        pair.b.handle_message(
            pair.now,
            WALL,
            Endpoint::from(addr(1)),
            &initiation,
            HandshakeBacklog::default(),
        );
        transmits(&mut pair.b, pair.now).pop().expect("B answers")
    } else {
        initiation
    };
    let mut message = right.clone();
    match input.event {
        Event::Change(changes) => {
            for (at, with) in changes {
                let at = usize::from(at) % message.len();
                message[at] ^= with;
            }
        }
        Event::Cut(len) => message.truncate(len.into()),
        Event::Raw(raw) => message = raw,
    }
    let (receiver, key) = if input.to_initiator {
        (&mut pair.a, 1)
    } else {
        (&mut pair.b, 2)
    };
    if input.sign && message.len() == right.len() {
        MacKeys::new(&public(key)).sign(&mut message, None);
    }
    let loaded = input.waiting >= 512;
    receiver.handle_message(
        pair.now,
        WALL,
        Endpoint::from(addr(9)),
        &message,
        HandshakeBacklog {
            initiations: input.waiting.into(),
            answers: 0,
        },
    );
    let answers = transmits(receiver, pair.now);
    // mac2 counts only under load. Only mac1 covers the sender index, so that may differ if mac1 is
    // computed again.
    let macs = right.len() - 32;
    let unchanged = message.len() == right.len()
        && message[..4] == right[..4]
        && message[8..macs] == right[8..macs]
        && (input.sign
            || message[4..8] == right[4..8] && message[macs..macs + 16] == right[macs..macs + 16]);
    if unchanged && !loaded {
        assert!(!answers.is_empty(), "a valid message is refused");
    } else {
        let cookies_only = answers.iter().all(|answer| answer.len() == 64 && loaded);
        assert!(cookies_only, "an invalid message is answered");
        // The valid message is still accepted.
        receiver.handle_message(
            pair.now,
            WALL,
            Endpoint::from(addr(9)),
            &right,
            HandshakeBacklog::default(),
        );
        if !loaded {
            assert!(
                !transmits(receiver, pair.now).is_empty(),
                "after an invalid message the valid one is refused"
            );
        }
    }
});
