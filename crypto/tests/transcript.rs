//! Known answers for a handshake and its first packets.
//!
//! The messages were made by `snow` 0.10 (pattern Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, prologue
//! "WireGuard v1 zx2c4 Jason@zx2c4.com", `fixed_ephemeral_key_for_testing_only`, stateless
//! transport), once without a psk and once with; the MACs and the cookie by Python's `hashlib.blake2s`.

mod common;

use common::{Host, open, seal};
use wg_crypto::{
    AeadBackend, Cookie, CookieSecret, MacKeys, PresharedKey, PrivateKey, Tai64n,
    create_initiation, receive_initiation,
};

const INITIATOR: [u8; 32] = [0x11; 32];
const RESPONDER: [u8; 32] = [0x22; 32];
const EPHEMERAL_I: [u8; 32] = [0x33; 32];
const EPHEMERAL_R: [u8; 32] = [0x44; 32];
const INDEX_I: u32 = 0x0102_0304;
const INDEX_R: u32 = 0x0506_0708;
const TIMESTAMP: [u8; 12] = [0x40, 0, 0, 0, 0x65, 0x53, 0xf1, 0x0a, 0x3b, 0, 0, 0];

/// The same for any psk, which is mixed in later.
const MESSAGE_1: &str = concat!(
    "7b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b14",
    "81e498317da959fba46669572516a5e6c021bfa620bb6c56ca0082e1feae1498",
    "8c2c64d024c617734a263f76a008df04d0f94bad8ee75ec8dac2695574e5f1e9",
    "53b690288ec56caa0e655cdd"
);
const MAC1: &str = "8e7e35cc4b95f168c95f1cc48af4a16b";
const COOKIE_SECRET: [u8; 32] = [0x55; 32];
const SOURCE: [u8; 6] = [192, 0, 2, 1, 0x1f, 0x90];
const MAC2: &str = "c36befc6f2aba0e2c74154be80e3c918";

struct Answers {
    psk: [u8; 32],
    message_2: &'static str,
    /// An empty packet from the initiator, with counter 0.
    keepalive: &'static str,
    /// "to the initiator", with counter 0x0102030405060708.
    data: &'static str,
}

const WITHOUT_PSK: Answers = Answers {
    psk: [0; 32],
    message_2: "ff2ee45601ec1b67310c7790404585ae697331eee1c1f8cf2419731c1fff3e6b\
                22c911d08c86a0a7dbfd894339a1949a",
    keepalive: "69958abbebcb06f97a256144abed28f6",
    data: "b4aa0a00f2a5ccb45a91b5c87db4ba884adc26c5c4ecff1d113f63732b610004",
};

const WITH_PSK: Answers = Answers {
    psk: [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25, 26, 27, 28, 29, 30, 31,
    ],
    message_2: "ff2ee45601ec1b67310c7790404585ae697331eee1c1f8cf2419731c1fff3e6b\
                015841941915164509c197527ebe319c",
    keepalive: "7d64917a0e5e08a08e96460a8d17e9f4",
    data: "4255f506e634879e18398dddd44f03808933e62b1464d33afc7a9e33632b24e8",
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn handshake_and_first_packets() {
    for answers in [WITHOUT_PSK, WITH_PSK] {
        let initiator = Host::new(PrivateKey::from_bytes(INITIATOR));
        let responder = Host::new(PrivateKey::from_bytes(RESPONDER));
        let psk = PresharedKey::from_bytes(answers.psk);

        let mut message = [0xff; 148];
        let initiation = create_initiation(
            &initiator.identity,
            &responder.public,
            &initiator.identity.static_static(&responder.public).unwrap(),
            PrivateKey::from_bytes(EPHEMERAL_I),
            INDEX_I,
            Tai64n::from_bytes(TIMESTAMP),
            &mut message,
        )
        .unwrap();
        assert_eq!(hex(&message[..8]), "0100000004030201");
        assert_eq!(hex(&message[8..116]), MESSAGE_1);
        assert_eq!(message[116..], [0; 32]);

        let received = receive_initiation(&responder.identity, &message).unwrap();
        assert_eq!(received.remote(), initiator.public);
        assert_eq!(received.sender(), INDEX_I);
        let ss = responder.identity.static_static(&initiator.public).unwrap();
        let (timestamp, answer) = received.finish(&ss).unwrap();
        assert_eq!(timestamp.as_bytes(), &TIMESTAMP);
        let mut message = [0xff; 92];
        let ephemeral = PrivateKey::from_bytes(EPHEMERAL_R);
        let keys_r = answer
            .respond(
                &psk,
                ephemeral,
                INDEX_R,
                AeadBackend::fastest(),
                &mut message,
            )
            .unwrap();
        assert_eq!(hex(&message[..12]), "020000000807060504030201");
        assert_eq!(hex(&message[12..60]), answers.message_2);
        assert_eq!(message[60..], [0; 32]);

        let keys_i = initiation
            .finish(&initiator.identity, &psk, AeadBackend::fastest(), &message)
            .unwrap();
        let keepalive = seal(&keys_i.sealing, INDEX_R, 0, &[]);
        let header = "04000000080706050000000000000000";
        assert_eq!(hex(&keepalive), format!("{header}{}", answers.keepalive));
        assert_eq!(open(&keys_r.opening, &keepalive), Some(vec![]));
        let data = seal(
            &keys_r.sealing,
            INDEX_I,
            0x0102_0304_0506_0708,
            b"to the initiator",
        );
        let header = "04000000040302010807060504030201";
        assert_eq!(hex(&data), format!("{header}{}", answers.data));
        assert_eq!(open(&keys_i.opening, &data).unwrap(), b"to the initiator");
    }
}

#[test]
fn macs() {
    let responder = PrivateKey::from_bytes(RESPONDER).public_key();
    let keys = MacKeys::new(&responder);
    let mut message = [0xff; 148];
    message[..8].copy_from_slice(&[1, 0, 0, 0, 4, 3, 2, 1]);
    for (i, byte) in message[8..116].iter_mut().enumerate() {
        *byte = u8::from_str_radix(&MESSAGE_1[2 * i..2 * i + 2], 16).unwrap();
    }

    assert_eq!(hex(&keys.mac1(&message[..116])), MAC1);
    assert_eq!(hex(&keys.sign(&mut message, None)), MAC1);
    assert_eq!(hex(&message[116..132]), MAC1);
    assert_eq!(message[132..], [0; 16]);

    let cookie = Cookie::derive(&CookieSecret::from_bytes(COOKIE_SECRET), &SOURCE);
    keys.sign(&mut message, Some(&cookie));
    assert_eq!(hex(&message[116..132]), MAC1);
    assert_eq!(hex(&message[132..]), MAC2);
}
