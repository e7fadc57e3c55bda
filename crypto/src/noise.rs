//! The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (paper, section 5.4).
//!
//! ```text
//!     <- s                                   the responder's static key is known in advance
//!     ...
//!     -> e, es, s, ss, {timestamp}           message 1, initiation, 148 bytes
//!     <- e, ee, se, psk, {}                  message 2, response, 92 bytes
//!
//! initiator                                  responder
//! create_initiation -> Initiation
//!                       --- message 1 --->   receive_initiation -> ReceivedInitiation
//!                                            (the caller looks up the peer and its ss)
//!                                            .finish -> timestamp, Responder
//!                                            (the caller checks it, and looks up the psk)
//!                       <--- message 2 ---   .respond -> SessionKeys
//! .finish -> SessionKeys
//! ```
//!
//! The responder works in three calls because only the caller knows the peers. A message from a
//! stranger costs one Diffie-Hellman operation. A complete handshake costs three and one base point
//! multiplication, because ss is computed only once for each peer. The last 32 bytes of both
//! messages are the MACs; this file leaves them zero and [`crate::cookie`] fills them in.

use crate::{
    aead,
    fields::Fields,
    key::{PresharedKey, PrivateKey, PublicKey},
    symmetric::Symmetric,
    tai64n::Tai64n,
    transport::{AeadBackend, OpeningKey, SealingKey},
    x25519::KeyPair,
};

pub use crate::x25519::SharedSecret;

/// Length of an initiation in bytes.
pub const INITIATION_LEN: usize = 148;
/// Length of a response in bytes.
pub const RESPONSE_LEN: usize = 92;

const MESSAGE_INITIATION: u32 = 1;
const MESSAGE_RESPONSE: u32 = 2;

const SEALED_KEY: usize = 32 + aead::TAG;
const SEALED_TIMESTAMP: usize = 12 + aead::TAG;
const SEALED_NOTHING: usize = aead::TAG;

/// Why a handshake message could not be created or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The type field is not that of the expected message.
    #[error("unexpected type of handshake message")]
    Type,
    /// The response is for a different index than the one the initiation was sent from.
    #[error("response to a different initiation")]
    Receiver,
    /// A public key is a point of low order.
    #[error("public key of low order")]
    LowOrder,
    /// A field was changed, or was not sealed by the expected peer.
    #[error("message is not authentic")]
    Decrypt,
}

/// The local static key, prepared for Diffie-Hellman. It is wiped when dropped.
pub struct Identity(KeyPair);

impl Identity {
    /// Prepares a private key. Costs one base point multiplication.
    pub fn new(key: &PrivateKey) -> Self {
        Self(KeyPair::new(key))
    }

    /// The public key.
    pub fn public_key(&self) -> PublicKey {
        self.0.public
    }

    /// The Diffie-Hellman secret of this key and a peer's static key. It never changes for the two,
    /// so the caller keeps it. None if `remote` is a point of low order: no handshake is possible
    /// with it.
    pub fn static_static(&self, remote: &PublicKey) -> Option<SharedSecret> {
        self.0.dh(remote)
    }
}

/// The initiator's state between message 1 and message 2.
pub struct Initiation {
    state: Symmetric,
    ephemeral: KeyPair,
    sender: u32,
}

/// Writes message 1 to `out`, with zero MACs. `ss` is [`Identity::static_static`] of `local` and
/// `remote`, `ephemeral` is a new random key, and `sender` is the local index.
///
/// # Errors
/// [`HandshakeError::LowOrder`] if `remote` is a point of low order.
pub fn create_initiation(
    local: &Identity,
    remote: &PublicKey,
    ss: &SharedSecret,
    ephemeral: PrivateKey,
    sender: u32,
    ts: Tai64n,
    out: &mut [u8; INITIATION_LEN],
) -> Result<Initiation, HandshakeError> {
    let ephemeral = KeyPair::new(&ephemeral);
    let mut state = Symmetric::new(remote);

    let mut message = Fields(out.as_mut_slice());
    message.put(&MESSAGE_INITIATION.to_le_bytes());
    message.put(&sender.to_le_bytes());
    message.put(ephemeral.public.as_bytes());
    state.mix_ephemeral(&ephemeral.public);
    let key = state.mix_dh_key(&dh(&ephemeral, remote)?);
    state.seal(
        &key,
        local.public_key().as_bytes(),
        message.take::<SEALED_KEY>(),
    );
    let key = state.mix_dh_key(ss);
    state.seal(&key, ts.as_bytes(), message.take::<SEALED_TIMESTAMP>());
    message.0.fill(0);

    Ok(Initiation {
        state,
        ephemeral,
        sender,
    })
}

/// A received initiation that names its sender but does not yet prove it.
pub struct ReceivedInitiation {
    state: Symmetric,
    ephemeral: PublicKey,
    remote: PublicKey,
    sender: u32,
    timestamp: [u8; SEALED_TIMESTAMP],
}

/// Reads message 1 up to the sender's static key.
///
/// # Errors
/// [`HandshakeError::Type`], [`HandshakeError::LowOrder`] or [`HandshakeError::Decrypt`].
pub fn receive_initiation(
    local: &Identity,
    msg: &[u8; INITIATION_LEN],
) -> Result<ReceivedInitiation, HandshakeError> {
    let mut message = Fields(msg.as_slice());
    if u32::from_le_bytes(message.get()) != MESSAGE_INITIATION {
        return Err(HandshakeError::Type);
    }
    let sender = u32::from_le_bytes(message.get());
    let ephemeral = PublicKey::from_bytes(message.get());

    let mut state = Symmetric::new(&local.public_key());
    state.mix_ephemeral(&ephemeral);
    let key = state.mix_dh_key(&dh(&local.0, &ephemeral)?);
    let remote = state.open(&key, message.get::<SEALED_KEY>());
    let remote = remote.ok_or(HandshakeError::Decrypt)?;
    let remote = PublicKey::from_bytes(remote);
    Ok(ReceivedInitiation {
        state,
        ephemeral,
        remote,
        sender,
        timestamp: message.get(),
    })
}

impl ReceivedInitiation {
    /// The static key that the sender claims to have.
    pub fn remote(&self) -> PublicKey {
        self.remote
    }

    /// The index that the sender expects the response at.
    pub fn sender(&self) -> u32 {
        self.sender
    }

    /// Verifies that the sender has the static key that it claims, and reads its timestamp. `ss` is
    /// [`Identity::static_static`] with [`ReceivedInitiation::remote`].
    ///
    /// # Errors
    /// [`HandshakeError::Decrypt`] if the sender does not have that key.
    pub fn finish(mut self, ss: &SharedSecret) -> Result<(Tai64n, Responder), HandshakeError> {
        let key = self.state.mix_dh_key(ss);
        let timestamp = self.state.open(&key, self.timestamp);
        let timestamp = timestamp.ok_or(HandshakeError::Decrypt)?;
        let Self {
            state,
            ephemeral,
            remote,
            sender,
            ..
        } = self;
        Ok((
            Tai64n::from_bytes(timestamp),
            Responder {
                state,
                ephemeral,
                remote,
                sender,
            },
        ))
    }
}

/// The responder's state between message 1 and message 2.
pub struct Responder {
    state: Symmetric,
    ephemeral: PublicKey,
    remote: PublicKey,
    sender: u32,
}

impl Responder {
    /// Writes message 2 to `out`, with zero MACs. `ephemeral` is a new random key and `sender` is
    /// the local index. The session keys are made for `backend`.
    ///
    /// # Errors
    /// [`HandshakeError::LowOrder`] if one of the initiator's keys is a point of low order.
    pub fn respond(
        self,
        psk: &PresharedKey,
        ephemeral: PrivateKey,
        sender: u32,
        backend: AeadBackend,
        out: &mut [u8; RESPONSE_LEN],
    ) -> Result<SessionKeys, HandshakeError> {
        let mut state = self.state;
        let ephemeral = KeyPair::new(&ephemeral);
        let ee = dh(&ephemeral, &self.ephemeral)?;
        let se = dh(&ephemeral, &self.remote)?;

        let mut message = Fields(out.as_mut_slice());
        message.put(&MESSAGE_RESPONSE.to_le_bytes());
        message.put(&sender.to_le_bytes());
        message.put(&self.sender.to_le_bytes());
        message.put(ephemeral.public.as_bytes());
        state.mix_ephemeral(&ephemeral.public);
        state.mix_dh(&ee);
        state.mix_dh(&se);
        let key = state.mix_psk(psk);
        state.seal(&key, &[], message.take::<SEALED_NOTHING>());
        message.0.fill(0);

        let [receiving, sending] = state.split();
        Ok(SessionKeys {
            sealing: SealingKey::new(backend, &sending),
            opening: OpeningKey::new(backend, &receiving),
        })
    }
}

impl Initiation {
    /// Reads message 2. A refused message changes nothing, so the right one is still accepted
    /// later. The session keys are made for `backend`.
    ///
    /// # Errors
    /// Any [`HandshakeError`].
    pub fn finish(
        &self,
        local: &Identity,
        psk: &PresharedKey,
        backend: AeadBackend,
        msg: &[u8; RESPONSE_LEN],
    ) -> Result<SessionKeys, HandshakeError> {
        let mut message = Fields(msg.as_slice());
        if u32::from_le_bytes(message.get()) != MESSAGE_RESPONSE {
            return Err(HandshakeError::Type);
        }
        // The caller reads the responder's index.
        let _sender: [u8; 4] = message.get();
        if u32::from_le_bytes(message.get()) != self.sender {
            return Err(HandshakeError::Receiver);
        }
        let ephemeral = PublicKey::from_bytes(message.get());

        let mut state = self.state.clone();
        state.mix_ephemeral(&ephemeral);
        state.mix_dh(&dh(&self.ephemeral, &ephemeral)?);
        state.mix_dh(&dh(&local.0, &ephemeral)?);
        let key = state.mix_psk(psk);
        let nothing = state.open(&key, message.get::<SEALED_NOTHING>());
        let [] = nothing.ok_or(HandshakeError::Decrypt)?;

        let [sending, receiving] = state.split();
        Ok(SessionKeys {
            sealing: SealingKey::new(backend, &sending),
            opening: OpeningKey::new(backend, &receiving),
        })
    }
}

/// The two keys of a session, from the point of view of this side.
#[derive(Debug)]
pub struct SessionKeys {
    /// Seals the packets that this side sends.
    pub sealing: SealingKey,
    /// Opens the packets that this side receives.
    pub opening: OpeningKey,
}

redacted!(Identity, Initiation, ReceivedInitiation, Responder);

fn dh(local: &KeyPair, remote: &PublicKey) -> Result<SharedSecret, HandshakeError> {
    local.dh(remote).ok_or(HandshakeError::LowOrder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cookie::MacKeys, transport};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    fn private(rng: &mut ChaCha20Rng) -> PrivateKey {
        PrivateKey::from_bytes(rng.random())
    }

    /// Two hosts and the secrets between them.
    struct Pair {
        rng: ChaCha20Rng,
        initiator: Identity,
        responder: Identity,
        ss: SharedSecret,
        psk: PresharedKey,
    }

    impl Pair {
        fn new(seed: u64) -> Self {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let initiator = Identity::new(&private(&mut rng));
            let responder = Identity::new(&private(&mut rng));
            let ss = initiator.static_static(&responder.public_key()).unwrap();
            let psk = PresharedKey::from_bytes(rng.random());
            Self {
                rng,
                initiator,
                responder,
                ss,
                psk,
            }
        }

        fn initiate(&mut self) -> (Initiation, [u8; INITIATION_LEN]) {
            let mut message = [0xff; INITIATION_LEN];
            let remote = self.responder.public_key();
            let ephemeral = private(&mut self.rng);
            let ts = Tai64n::from_unix(1, 0);
            let state = create_initiation(
                &self.initiator,
                &remote,
                &self.ss,
                ephemeral,
                7,
                ts,
                &mut message,
            );
            (state.unwrap(), message)
        }

        fn receive(&self, message: &[u8; INITIATION_LEN]) -> Result<Responder, HandshakeError> {
            let received = receive_initiation(&self.responder, message)?;
            Ok(received.finish(&self.ss)?.1)
        }

        fn respond(&mut self, message: &[u8; INITIATION_LEN]) -> (SessionKeys, [u8; RESPONSE_LEN]) {
            let mut response = [0xff; RESPONSE_LEN];
            let ephemeral = private(&mut self.rng);
            let answer = self.receive(message).unwrap();
            let keys = answer
                .respond(&self.psk, ephemeral, 8, AeadBackend::Library, &mut response)
                .unwrap();
            (keys, response)
        }
    }

    fn can_open(from: &SessionKeys, to: &SessionKeys) -> bool {
        let mut datagram = [0; transport::HEADER + 5 + transport::TAG];
        from.sealing.seal(1, 2, &mut datagram);
        to.opening.open(&mut datagram)
    }

    #[test]
    fn both_sides_agree() {
        for seed in 0..50 {
            let mut pair = Pair::new(seed);
            let (initiation, message) = pair.initiate();
            let (keys_r, response) = pair.respond(&message);
            let keys_i = initiation
                .finish(&pair.initiator, &pair.psk, AeadBackend::Library, &response)
                .unwrap();
            assert!(can_open(&keys_i, &keys_r) && can_open(&keys_r, &keys_i));
            assert!(!can_open(&keys_i, &keys_i) && !can_open(&keys_r, &keys_r));
        }
    }

    /// Only the Noise fields are checked, because anybody who knows the public key can make new
    /// MACs. The sender's index is the only part of the message that Noise does not authenticate.
    #[test]
    fn every_flipped_bit_of_an_initiation_is_refused() {
        let mut pair = Pair::new(1);
        let (_, message) = pair.initiate();
        for bit in 0..116 * 8 {
            let mut changed = message;
            changed[bit / 8] ^= 1 << (bit % 8);
            let is_index = (32..64).contains(&bit);
            assert_eq!(pair.receive(&changed).is_ok(), is_index, "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_response_is_refused_and_the_right_one_is_still_accepted() {
        let mut pair = Pair::new(2);
        let (initiation, message) = pair.initiate();
        let (keys_r, response) = pair.respond(&message);
        for bit in 0..60 * 8 {
            let mut changed = response;
            changed[bit / 8] ^= 1 << (bit % 8);
            let is_index = (32..64).contains(&bit);
            let result =
                initiation.finish(&pair.initiator, &pair.psk, AeadBackend::Library, &changed);
            assert_eq!(result.is_ok(), is_index, "bit {bit}");
        }
        let keys_i = initiation
            .finish(&pair.initiator, &pair.psk, AeadBackend::Library, &response)
            .unwrap();
        assert!(can_open(&keys_i, &keys_r));
    }

    /// Under load a receiver also checks both MACs, so that no bit of the message may change.
    #[test]
    fn every_flipped_bit_of_a_signed_message_is_refused() {
        let mut pair = Pair::new(3);
        let (initiation, mut message) = pair.initiate();
        let (_, mut response) = pair.respond(&message);
        let secret = crate::CookieSecret::from_bytes([3; 32]);
        let cookie = crate::Cookie::derive(&secret, b"here");
        let (initiator, responder) = (pair.initiator.public_key(), pair.responder.public_key());

        let keys = MacKeys::new(&responder);
        keys.sign(&mut message, Some(&cookie));
        let accepts = |msg: &[u8; INITIATION_LEN]| {
            keys.verify_mac1(msg) && cookie.verify_mac2(msg) && pair.receive(msg).is_ok()
        };
        assert!(accepts(&message));
        for bit in 0..INITIATION_LEN * 8 {
            let mut changed = message;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!accepts(&changed), "bit {bit}");
        }

        let keys = MacKeys::new(&initiator);
        keys.sign(&mut response, Some(&cookie));
        let accepts = |msg: &[u8; RESPONSE_LEN]| {
            keys.verify_mac1(msg)
                && cookie.verify_mac2(msg)
                && initiation
                    .finish(&pair.initiator, &pair.psk, AeadBackend::Library, msg)
                    .is_ok()
        };
        assert!(accepts(&response));
        for bit in 0..RESPONSE_LEN * 8 {
            let mut changed = response;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!accepts(&changed), "bit {bit}");
        }
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let mut pair = Pair::new(4);
        let (initiation, message) = pair.initiate();
        let (_, response) = pair.respond(&message);
        let refused = |msg: &[u8; RESPONSE_LEN]| {
            initiation
                .finish(&pair.initiator, &pair.psk, AeadBackend::Library, msg)
                .unwrap_err()
        };

        let mut changed = message;
        changed[0] = 2;
        assert_eq!(pair.receive(&changed).err(), Some(HandshakeError::Type));
        changed = message;
        changed[3] = 1;
        assert_eq!(pair.receive(&changed).err(), Some(HandshakeError::Type));
        changed = message;
        changed[8..40].fill(0);
        assert_eq!(pair.receive(&changed).err(), Some(HandshakeError::LowOrder));

        let mut changed = response;
        changed[0] = 1;
        assert_eq!(refused(&changed), HandshakeError::Type);
        changed = response;
        changed[8] ^= 1;
        assert_eq!(refused(&changed), HandshakeError::Receiver);
        changed = response;
        changed[12..44].fill(0);
        assert_eq!(refused(&changed), HandshakeError::LowOrder);
        let other = PresharedKey::default();
        let error = initiation
            .finish(&pair.initiator, &other, AeadBackend::Library, &response)
            .unwrap_err();
        assert_eq!(error, HandshakeError::Decrypt);
    }

    #[test]
    fn a_message_for_another_receiver_is_refused() {
        let mut pair = Pair::new(5);
        let (_, message) = pair.initiate();
        let stranger = Identity::new(&private(&mut pair.rng));
        assert_eq!(
            receive_initiation(&stranger, &message).err(),
            Some(HandshakeError::Decrypt)
        );
    }

    /// A sender that knows only public keys can claim another identity, but cannot prove it.
    #[test]
    fn a_claimed_identity_must_be_proved() {
        let mut pair = Pair::new(6);
        let mut liar = Identity::new(&private(&mut pair.rng));
        liar.0.public = pair.initiator.public_key();
        pair.ss = liar.static_static(&pair.responder.public_key()).unwrap();
        let truth = std::mem::replace(&mut pair.initiator, liar);
        let (_, message) = pair.initiate();
        let received = receive_initiation(&pair.responder, &message).unwrap();
        assert_eq!(received.remote(), truth.public_key());
        let ss = pair.responder.static_static(&truth.public_key()).unwrap();
        assert_eq!(received.finish(&ss).err(), Some(HandshakeError::Decrypt));
    }

    #[test]
    fn low_order_points_are_refused() {
        let mut pair = Pair::new(7);
        let zero = PublicKey::from_bytes([0; 32]);
        assert!(pair.initiator.static_static(&zero).is_none());

        let mut out = [0; INITIATION_LEN];
        let ephemeral = private(&mut pair.rng);
        let ts = Tai64n::default();
        let made = create_initiation(&pair.initiator, &zero, &pair.ss, ephemeral, 1, ts, &mut out);
        assert_eq!(made.err(), Some(HandshakeError::LowOrder));

        let (_, message) = pair.initiate();
        let mut answer = pair.receive(&message).unwrap();
        answer.remote = zero;
        let ephemeral = private(&mut pair.rng);
        let made = answer.respond(
            &pair.psk,
            ephemeral,
            1,
            AeadBackend::Library,
            &mut [0; RESPONSE_LEN],
        );
        assert_eq!(made.err(), Some(HandshakeError::LowOrder));
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut pair = Pair::new(8);
        let (initiation, message) = pair.initiate();
        let received = receive_initiation(&pair.responder, &message).unwrap();
        assert_eq!(
            format!("{:?} {initiation:?} {received:?}", pair.initiator),
            "Identity(..) Initiation(..) ReceivedInitiation(..)"
        );
        assert_eq!(format!("{:?}", pair.receive(&message)), "Ok(Responder(..))");
        let (keys, _) = pair.respond(&message);
        assert_eq!(
            format!("{:?} {keys:?}", pair.ss),
            "SharedSecret(..) SessionKeys { sealing: SealingKey(..), opening: OpeningKey(..) }"
        );
    }
}
