//! Cookie replies to a device that waits for the response to its initiation: only the valid one is
//! accepted, once, also after an invalid one. The mac2 of the next initiation shows whether it was.

#![no_main]

#[allow(dead_code)]
mod pair;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pair::{Pair, WALL, addr, public, transmits};
use wg_crypto::{Cookie, CookieSecret, MacKeys};
use wg_rs::tunnel::ingress::HandshakeBacklog;
use wg_rs::tunnel::peer::Endpoint;

fuzz_target!(|input: (Vec<(u8, u8)>, Option<Vec<u8>>)| {
    let (changes, raw) = input;
    let mut pair = Pair::new();
    let initiation = pair.initiation();
    let cookie = Cookie::derive(&CookieSecret::from_bytes([7; 32]), b"where it came from");
    let right = MacKeys::new(&public(2))
        .create_reply(&initiation, &cookie, [9; 24])
        .to_vec();
    let mut reply = right.clone();
    for (at, with) in changes {
        reply[usize::from(at) % right.len()] ^= with;
    }
    let reply = raw.unwrap_or(reply);

    let from = Endpoint::from(addr(2));
    pair.a
        .handle_message(pair.now, WALL, from, &reply, HandshakeBacklog::default());
    assert!(
        transmits(&mut pair.a, pair.now).is_empty(),
        "a cookie reply is not answered"
    );
    let mut later = pair.now;
    let mut has_cookie = || {
        // The retry comes after five seconds and at most a third of a second.
        later = later + Duration::from_millis(5400);
        pair.a.handle_timeout(later, WALL);
        let retry = transmits(&mut pair.a, later).pop().expect("it tries again");
        (retry[132..] != [0; 16], cookie.verify_mac2(&retry))
    };
    let taken = has_cookie();
    assert_eq!(taken, (reply == right, reply == right));
});
