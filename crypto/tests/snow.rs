//! Compares with `snow`, an implementation of the Noise framework: with the same ephemeral keys
//! both make the same bytes, and each accepts the messages of the other.
//!
//! snow does not know WireGuard's framing: it gets messages without header and MACs.

mod common;

use common::{Host, open, private, psk, seal, timestamp};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use snow::{Builder, HandshakeState, StatelessTransportState};
use wg_crypto::{
    AeadBackend, HandshakeError, PresharedKey, PrivateKey, PublicKey, SessionKeys,
    create_initiation, receive_initiation,
};

fn builder<'a>(
    key: &'a PrivateKey,
    psk: &'a PresharedKey,
    ephemeral: &'a PrivateKey,
) -> Builder<'a> {
    Builder::new("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().unwrap())
        .prologue(b"WireGuard v1 zx2c4 Jason@zx2c4.com")
        .unwrap()
        .local_private_key(key.as_bytes())
        .unwrap()
        .psk(2, psk.as_bytes())
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(ephemeral.as_bytes())
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 200];
    let len = state.write_message(payload, &mut message).unwrap();
    message.truncate(len);
    message
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, snow::Error> {
    let mut payload = vec![0; 200];
    let len = state.read_message(message, &mut payload)?;
    payload.truncate(len);
    Ok(payload)
}

/// A message in WireGuard's format, with zero MACs.
fn framed<const N: usize>(kind: u8, indices: &[u32], noise: &[u8]) -> [u8; N] {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(indices.iter().flat_map(|index| index.to_le_bytes()));
    message.extend(noise);
    message.extend([0; 32]);
    message.try_into().unwrap()
}

/// Sends packets in both directions.
fn exchange(rng: &mut ChaCha20Rng, ours: &SessionKeys, theirs: &StatelessTransportState) {
    for _ in 0..4 {
        let mut plain = vec![0; rng.random_range(0..1500)];
        rng.fill_bytes(&mut plain);
        let counter = rng.random::<u64>() >> rng.random_range(1..64);

        let datagram = seal(&ours.sealing, 5, counter, &plain);
        let mut opened = vec![0; plain.len()];
        let len = theirs
            .read_message(counter, &datagram[16..], &mut opened)
            .unwrap();
        assert_eq!(opened[..len], plain);

        let mut body = vec![0; plain.len() + 16];
        theirs.write_message(counter, &plain, &mut body).unwrap();
        let header = [&[4, 0, 0, 0, 5, 0, 0, 0][..], &counter.to_le_bytes()].concat();
        let mut datagram = [header, body].concat();
        assert_eq!(open(&ours.opening, &datagram).unwrap(), plain);
        *datagram.last_mut().unwrap() ^= 1;
        assert_eq!(open(&ours.opening, &datagram), None);
    }
}

#[test]
fn both_make_the_same_bytes_and_keys() {
    let rng = &mut ChaCha20Rng::seed_from_u64(10);
    for _ in 0..300 {
        let (initiator, responder) = (Host::random(rng), Host::random(rng));
        let (psk, ts) = (psk(rng), timestamp(rng));
        let (ephemeral_i, ephemeral_r) = (private(rng), private(rng));
        let (index_i, index_r) = (rng.random(), rng.random());
        let mut snow_i = builder(&initiator.key, &psk, &ephemeral_i)
            .remote_public_key(responder.public.as_bytes())
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut snow_r = builder(&responder.key, &psk, &ephemeral_r)
            .build_responder()
            .unwrap();

        // Message 1: each implementation writes it, and reads the other's.
        let mut ours = [0xff; 148];
        let ss = initiator.identity.static_static(&responder.public).unwrap();
        let initiation = create_initiation(
            &initiator.identity,
            &responder.public,
            &ss,
            ephemeral_i.clone(),
            index_i,
            ts,
            &mut ours,
        )
        .unwrap();
        let theirs: [u8; 148] = framed(1, &[index_i], &write(&mut snow_i, ts.as_bytes()));
        assert_eq!(ours, theirs);
        assert_eq!(read(&mut snow_r, &ours[8..116]).unwrap(), ts.as_bytes());
        assert_eq!(
            snow_r.get_remote_static().unwrap(),
            initiator.public.as_bytes()
        );
        let received = receive_initiation(&responder.identity, &theirs).unwrap();
        assert_eq!(
            (received.remote(), received.sender()),
            (initiator.public, index_i)
        );
        let ss = responder
            .identity
            .static_static(&received.remote())
            .unwrap();
        let (timestamp, answer) = received.finish(&ss).unwrap();
        assert_eq!(timestamp, ts);

        // Message 2.
        let mut ours = [0xff; 92];
        let keys_r = answer
            .respond(
                &psk,
                ephemeral_r.clone(),
                index_r,
                AeadBackend::fastest(),
                &mut ours,
            )
            .unwrap();
        let theirs: [u8; 92] = framed(2, &[index_r, index_i], &write(&mut snow_r, &[]));
        assert_eq!(ours, theirs);
        assert_eq!(read(&mut snow_i, &ours[12..60]).unwrap(), []);
        let keys_i = initiation
            .finish(&initiator.identity, &psk, AeadBackend::fastest(), &theirs)
            .unwrap();

        exchange(
            rng,
            &keys_i,
            &snow_r.into_stateless_transport_mode().unwrap(),
        );
        exchange(
            rng,
            &keys_r,
            &snow_i.into_stateless_transport_mode().unwrap(),
        );
    }
}

#[test]
fn a_different_psk_is_refused_by_both() {
    let rng = &mut ChaCha20Rng::seed_from_u64(11);
    for _ in 0..50 {
        let (initiator, responder) = (Host::random(rng), Host::random(rng));
        let (psk, other) = (psk(rng), PresharedKey::from_bytes(rng.random()));
        let ephemeral = private(rng);
        let mut snow_i = builder(&initiator.key, &psk, &ephemeral)
            .remote_public_key(responder.public.as_bytes())
            .unwrap()
            .build_initiator()
            .unwrap();
        let message = framed(1, &[1], &write(&mut snow_i, &[0; 12]));
        let received = receive_initiation(&responder.identity, &message).unwrap();
        let ss = responder.identity.static_static(&initiator.public).unwrap();
        let (_, answer) = received.finish(&ss).unwrap();
        let mut response = [0; 92];
        answer
            .respond(
                &other,
                private(rng),
                2,
                AeadBackend::fastest(),
                &mut response,
            )
            .unwrap();
        assert!(read(&mut snow_i, &response[12..60]).is_err());

        let mut message = [0; 148];
        let initiation = create_initiation(
            &initiator.identity,
            &responder.public,
            &ss,
            private(rng),
            1,
            timestamp(rng),
            &mut message,
        )
        .unwrap();
        let mut snow_r = builder(&responder.key, &psk, &ephemeral)
            .build_responder()
            .unwrap();
        read(&mut snow_r, &message[8..116]).unwrap();
        let response = framed(2, &[2, 1], &write(&mut snow_r, &[]));
        let error = initiation
            .finish(
                &initiator.identity,
                &other,
                AeadBackend::fastest(),
                &response,
            )
            .unwrap_err();
        assert_eq!(error, HandshakeError::Decrypt);
        initiation
            .finish(&initiator.identity, &psk, AeadBackend::fastest(), &response)
            .unwrap();
    }
}

#[test]
fn public_keys_agree() {
    let rng = &mut ChaCha20Rng::seed_from_u64(12);
    for _ in 0..50 {
        let host = Host::random(rng);
        let theirs = boringtun::x25519::StaticSecret::from(*host.key.as_bytes());
        let theirs = boringtun::x25519::PublicKey::from(&theirs);
        assert_eq!(host.public, PublicKey::from_bytes(*theirs.as_bytes()));
    }
}
