//! Compares with `boringtun`, a complete WireGuard implementation. Its `Tunn` is the peer, in both
//! roles, with and without a psk; and each side sends cookies to the other as if under load.

mod common;

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use boringtun::{
    noise::{Tunn, TunnResult, rate_limiter::RateLimiter},
    x25519,
};
use common::{Host, ip_packet, open, private, psk, seal, timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wg_crypto::{
    AeadBackend, Cookie, CookieSecret, MacKeys, PresharedKey, SessionKeys, Tai64n,
    create_initiation, receive_initiation,
};

fn tunn(them: &Host, us: &Host, psk: &PresharedKey, limiter: Option<Arc<RateLimiter>>) -> Tunn {
    Tunn::new(
        x25519::StaticSecret::from(*them.key.as_bytes()),
        x25519::PublicKey::from(*us.public.as_bytes()),
        (!psk.is_zero()).then_some(*psk.as_bytes()),
        None,
        0x1234,
        limiter,
    )
}

/// The message that a `Tunn` sends.
fn sent(result: TunnResult<'_>) -> Vec<u8> {
    match result {
        TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
        other => panic!("nothing sent: {other:?}"),
    }
}

fn index(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(message[at..at + 4].try_into().unwrap())
}

/// Our signed initiation, and its first MAC.
fn initiate(
    rng: &mut ChaCha20Rng,
    us: &Host,
    them: &Host,
    ts: Tai64n,
    cookie: Option<&Cookie>,
) -> ([u8; 148], [u8; 16], wg_crypto::Initiation) {
    let ss = us.identity.static_static(&them.public).unwrap();
    let mut message = [0; 148];
    let state = create_initiation(
        &us.identity,
        &them.public,
        &ss,
        private(rng),
        rng.random(),
        ts,
        &mut message,
    )
    .unwrap();
    let mac1 = MacKeys::new(&them.public).sign(&mut message, cookie);
    (message, mac1, state)
}

/// Sends packets in both directions, and one modified packet in each direction.
fn exchange(rng: &mut ChaCha20Rng, tunn: &mut Tunn, keys: &SessionKeys, theirs: u32, ours: u32) {
    let buffer = &mut [0; 2000];
    for counter in 1..5 {
        let packet = ip_packet(rng);
        let mut datagram = seal(&keys.sealing, theirs, counter, &packet);
        let last = datagram.len() - 1;
        datagram[last] ^= 1;
        assert!(matches!(
            tunn.decapsulate(None, &datagram, buffer),
            TunnResult::Err(_)
        ));
        datagram[last] ^= 1;
        match tunn.decapsulate(None, &datagram, buffer) {
            TunnResult::WriteToTunnelV4(opened, _) | TunnResult::WriteToTunnelV6(opened, _) => {
                assert_eq!(opened, packet);
            }
            other => panic!("packet refused: {other:?}"),
        }

        let packet = ip_packet(rng);
        let mut datagram = sent(tunn.encapsulate(&packet, buffer));
        assert_eq!(datagram[..4], [4, 0, 0, 0]);
        assert_eq!(index(&datagram, 4), ours);
        assert_eq!(open(&keys.opening, &datagram).unwrap(), packet);
        datagram[20] ^= 1;
        assert_eq!(open(&keys.opening, &datagram), None);
    }
}

#[test]
fn we_initiate() {
    let rng = &mut ChaCha20Rng::seed_from_u64(20);
    for _ in 0..200 {
        let (us, them, psk) = (Host::random(rng), Host::random(rng), psk(rng));
        let mut tunn = tunn(&them, &us, &psk, None);
        let buffer = &mut [0; 2000];

        let ts = timestamp(rng);
        let (message, _, state) = initiate(rng, &us, &them, ts, None);
        let response = sent(tunn.decapsulate(None, &message, buffer));
        assert!(MacKeys::new(&us.public).verify_mac1(&response));
        let response = response.try_into().unwrap();
        let keys = state
            .finish(&us.identity, &psk, AeadBackend::fastest(), &response)
            .unwrap();
        let theirs = index(&response, 4);

        // Our first packet confirms the session.
        let keepalive = seal(&keys.sealing, theirs, 0, &[]);
        assert!(matches!(
            tunn.decapsulate(None, &keepalive, buffer),
            TunnResult::Done
        ));
        exchange(rng, &mut tunn, &keys, theirs, index(&message, 4));
    }
}

#[test]
fn boringtun_initiates() {
    let rng = &mut ChaCha20Rng::seed_from_u64(21);
    for _ in 0..200 {
        let (us, them, psk) = (Host::random(rng), Host::random(rng), psk(rng));
        let mut tunn = tunn(&them, &us, &psk, None);
        let buffer = &mut [0; 2000];

        let message = sent(tunn.format_handshake_initiation(buffer, false));
        assert!(MacKeys::new(&us.public).verify_mac1(&message));
        let message = message.try_into().unwrap();
        let received = receive_initiation(&us.identity, &message).unwrap();
        assert_eq!(received.remote(), them.public);
        let theirs = received.sender();
        let ss = us.identity.static_static(&them.public).unwrap();
        let (ts, answer) = received.finish(&ss).unwrap();
        // boringtun's timestamp includes leap seconds, ours does not.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!(Tai64n::from_unix(now - 100, 0) < ts && ts < Tai64n::from_unix(now + 100, 0));

        let (mut response, ours) = ([0; 92], rng.random());
        let keys = answer
            .respond(
                &psk,
                private(rng),
                ours,
                AeadBackend::fastest(),
                &mut response,
            )
            .unwrap();
        MacKeys::new(&them.public).sign(&mut response, None);
        let keepalive = sent(tunn.decapsulate(None, &response, buffer));
        assert_eq!(open(&keys.opening, &keepalive), Some(vec![]));
        exchange(rng, &mut tunn, &keys, theirs, ours);
    }
}

#[test]
fn messages_with_another_psk_or_mac_are_refused() {
    let rng = &mut ChaCha20Rng::seed_from_u64(22);
    for _ in 0..50 {
        let (us, them, psk) = (Host::random(rng), Host::random(rng), psk(rng));
        let other = PresharedKey::from_bytes(rng.random());
        let mut tunn = tunn(&them, &us, &psk, None);
        let buffer = &mut [0; 2000];

        let ts = timestamp(rng);
        let (mut message, _, state) = initiate(rng, &us, &them, ts, None);
        message[116] ^= 1;
        assert!(matches!(
            tunn.decapsulate(None, &message, buffer),
            TunnResult::Err(_)
        ));
        message[116] ^= 1;
        let response = sent(tunn.decapsulate(None, &message, buffer))
            .try_into()
            .unwrap();
        assert!(
            state
                .finish(&us.identity, &other, AeadBackend::fastest(), &response)
                .is_err()
        );
        state
            .finish(&us.identity, &psk, AeadBackend::fastest(), &response)
            .unwrap();
    }
}

#[test]
fn boringtun_is_under_load() {
    let rng = &mut ChaCha20Rng::seed_from_u64(23);
    for _ in 0..100 {
        let (us, them, psk) = (Host::random(rng), Host::random(rng), psk(rng));
        let limiter = RateLimiter::new(&x25519::PublicKey::from(*them.public.as_bytes()), 0);
        let mut tunn = tunn(&them, &us, &psk, Some(Arc::new(limiter)));
        let from: IpAddr = rng.random::<[u8; 4]>().into();
        let buffer = &mut [0; 2000];

        let (message, mac1, _) = initiate(rng, &us, &them, Tai64n::from_unix(1, 0), None);
        let reply = sent(tunn.decapsulate(Some(from), &message, buffer));
        assert_eq!(index(&reply, 4), index(&message, 4));
        let reply: [u8; 64] = reply.try_into().unwrap();
        let keys = MacKeys::new(&them.public);
        assert!(keys.open_reply(&reply, &[0; 16]).is_none());
        let cookie = keys.open_reply(&reply, &mac1).unwrap();

        // A wrong cookie gets another cookie reply; the right cookie gets a response.
        let wrong = Cookie::derive(&CookieSecret::from_bytes(rng.random()), b"anywhere");
        let (message, _, _) = initiate(rng, &us, &them, Tai64n::from_unix(2, 0), Some(&wrong));
        assert_eq!(
            sent(tunn.decapsulate(Some(from), &message, buffer)).len(),
            64
        );
        let (message, _, state) = initiate(rng, &us, &them, Tai64n::from_unix(3, 0), Some(&cookie));
        let response = sent(tunn.decapsulate(Some(from), &message, buffer))
            .try_into()
            .unwrap();
        state
            .finish(&us.identity, &psk, AeadBackend::fastest(), &response)
            .unwrap();
    }
}

#[test]
fn we_are_under_load() {
    let rng = &mut ChaCha20Rng::seed_from_u64(24);
    for _ in 0..100 {
        let (us, them, psk) = (Host::random(rng), Host::random(rng), psk(rng));
        let mut tunn = tunn(&them, &us, &psk, None);
        let buffer = &mut [0; 2000];
        let secret = CookieSecret::from_bytes(rng.random());
        let cookie = Cookie::derive(&secret, &[192, 0, 2, 1, 0x1f, 0x90]);
        let elsewhere = Cookie::derive(&secret, &[192, 0, 2, 1, 0x1f, 0x91]);

        let message = sent(tunn.format_handshake_initiation(buffer, false));
        let keys = MacKeys::new(&us.public);
        assert!(keys.verify_mac1(&message) && !cookie.verify_mac2(&message));
        let reply = keys.create_reply(&message, &cookie, rng.random());
        assert!(matches!(
            tunn.decapsulate(None, &reply, buffer),
            TunnResult::Done
        ));

        let message = sent(tunn.format_handshake_initiation(buffer, true));
        assert!(keys.verify_mac1(&message) && cookie.verify_mac2(&message));
        assert!(!elsewhere.verify_mac2(&message));
        assert!(receive_initiation(&us.identity, &message.try_into().unwrap()).is_ok());
    }
}
