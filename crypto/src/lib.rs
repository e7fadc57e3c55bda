//! The cryptography of WireGuard, and nothing else: no clock, no I/O, no thread, no random source.
//!
//! - [`key`]: the keys of an interface and its peers, and their text forms.
//! - [`noise`]: the handshake that turns them into a session.
//! - [`cookie`]: the two MACs of a handshake message, and the cookie replies of a host under load.
//! - [`tai64n`]: the timestamp in an initiation.
//! - [`transport`]: data messages, sealed and opened in place, one by one or as a burst.
//! - [`replay`]: which counters a session has received.
//!
//! The caller passes in time and randomness: the same arguments always give the same bytes. Input
//! from the network is a fixed-size array, or a slice whose length is checked. A bad message gives
//! `Err`, `None` or `false` and changes nothing, except that a refused data message loses its body.
//! The caller also chooses the implementation that seals data messages ([`AeadBackend`]).
//!
//! A session, from nothing to the first packet:
//!
//! ```
//! use wg_crypto::*;
//! # fn random() -> [u8; 32] {
//! #     use std::sync::atomic::{AtomicU8, Ordering};
//! #     static NEXT: AtomicU8 = AtomicU8::new(1);
//! #     [NEXT.fetch_add(1, Ordering::Relaxed); 32]
//! # }
//! let alice = Identity::new(&PrivateKey::from_bytes(random()));
//! let bob = Identity::new(&PrivateKey::from_bytes(random()));
//! let psk = PresharedKey::default();
//!
//! // Alice starts a handshake with Bob. Her index is 1, and the MACs are made for Bob.
//! let ss = alice.static_static(&bob.public_key()).expect("Bob's key is not of low order");
//! let mut message = [0; noise::INITIATION_LEN];
//! let now = Tai64n::from_unix(1_700_000_000, 0);
//! let ephemeral = PrivateKey::from_bytes(random());
//! let initiation =
//!     create_initiation(&alice, &bob.public_key(), &ss, ephemeral, 1, now, &mut message)?;
//! MacKeys::new(&bob.public_key()).sign(&mut message, None);
//!
//! // Bob checks that the message is for him, reads who sent it and when, and answers.
//! assert!(MacKeys::new(&bob.public_key()).verify_mac1(&message));
//! let received = receive_initiation(&bob, &message)?;
//! assert_eq!(received.remote(), alice.public_key());
//! let ss = bob.static_static(&received.remote()).expect("Alice's key is not of low order");
//! let (timestamp, responder) = received.finish(&ss)?;
//! assert_eq!(timestamp, now);
//! let mut response = [0; noise::RESPONSE_LEN];
//! let ephemeral = PrivateKey::from_bytes(random());
//! let bobs = responder.respond(&psk, ephemeral, 2, AeadBackend::fastest(), &mut response)?;
//! MacKeys::new(&alice.public_key()).sign(&mut response, None);
//!
//! // Alice now has a session. She sends "hello" to index 2, with counter 0.
//! assert!(MacKeys::new(&alice.public_key()).verify_mac1(&response));
//! let alices = initiation.finish(&alice, &psk, AeadBackend::fastest(), &response)?;
//! let mut datagram = [0; HEADER + 5 + TAG];
//! datagram[HEADER..][..5].copy_from_slice(b"hello");
//! alices.sealing.seal(2, 0, &mut datagram);
//!
//! // Bob opens the datagram in place, and records its counter.
//! assert!(bobs.opening.open(&mut datagram));
//! assert!(ReplayWindow::new().accept(0));
//! assert_eq!(&datagram[HEADER..][..5], b"hello");
//! # Ok::<(), HandshakeError>(())
//! ```
#![deny(unsafe_code)]

/// Implements `Debug` for secret types: prints the name of the type and nothing of its value.
macro_rules! redacted {
    ($($secret:ident),+) => { $(
        impl std::fmt::Debug for $secret {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($secret), "(..)"))
            }
        }
    )+ };
}

mod aead;
pub mod cookie;
mod encoding;
mod fields;
mod hash;
pub mod key;
pub mod noise;
pub mod replay;
mod stack;
mod symmetric;
pub mod tai64n;
pub mod transport;
mod x25519;

pub use cookie::{Cookie, CookieSecret, MacKeys};
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use noise::{
    HandshakeError, Identity, Initiation, ReceivedInitiation, Responder, SessionKeys, SharedSecret,
    create_initiation, receive_initiation,
};
pub use replay::{REJECT_AFTER_MESSAGES, ReplayWindow};
pub use stack::wipe_stack_after;
pub use tai64n::Tai64n;
pub use transport::{AeadBackend, HEADER, OpeningKey, SealingKey, TAG};
