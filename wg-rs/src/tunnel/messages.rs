//! The protocol's constants and the layout of its messages, named as in the paper and in the
//! kernel's `messages.h`.
//!
//! ```text
//! initiation 148: type 1 | sender | ephemeral 32 | static 32+16 | timestamp 12+16 | mac1 16 | mac2 16
//! response    92: type 2 | sender | receiver | ephemeral 32 | empty 16            | mac1 16 | mac2 16
//! cookie      64: type 3 | receiver | nonce 24 | cookie 16+16
//! data     32 + n: type 4 | receiver | counter 8 | packet n, padded | tag 16
//! ```
//! `type`, `sender` and `receiver` are little-endian 32-bit words.

use std::time::Duration;

/// After this many messages in a session, a new handshake is requested.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// A session refuses this counter and all above.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - 8128 - 1;
/// Initiations that are accepted from one peer per second.
pub const INITIATIONS_PER_SECOND: u32 = 50;
/// Most peers of a device.
pub const MAX_PEERS: usize = 1 << 20;
/// Most handshake messages that wait; further ones are dropped. With an eighth of them the device
/// is under load.
pub const MAX_QUEUED_INCOMING_HANDSHAKES: usize = 4096;
/// Most packets that wait for a peer's handshake; the oldest are dropped for new ones.
pub const MAX_STAGED_PACKETS: usize = 128;
/// Most packets of a peer that wait while its staged packets are being sent.
pub const MAX_QUEUED_PACKETS: usize = 1024;
/// Packets are padded to a multiple of this.
pub const MESSAGE_PADDING_MULTIPLE: usize = 16;
/// Lifetime of the secret that cookies are derived from.
pub const COOKIE_SECRET_MAX_AGE: Duration = Duration::from_secs(120);
/// A received cookie is used for `COOKIE_SECRET_MAX_AGE` minus this time.
pub const COOKIE_SECRET_LATENCY: Duration = Duration::from_secs(5);
/// TOS of initiations and responses (AF41).
pub const HANDSHAKE_DSCP: u8 = 0x88;

/// Message type of an initiation.
pub const MESSAGE_HANDSHAKE_INITIATION: u32 = 1;
/// Message type of a response.
pub const MESSAGE_HANDSHAKE_RESPONSE: u32 = 2;
/// Message type of a cookie reply.
pub const MESSAGE_HANDSHAKE_COOKIE: u32 = 3;
/// Message type of a data packet.
pub const MESSAGE_DATA: u32 = 4;

/// Size of an initiation in bytes.
pub const INITIATION_SIZE: usize = 148;
/// Size of a response in bytes.
pub const RESPONSE_SIZE: usize = 92;
/// Size of a cookie reply in bytes.
pub const COOKIE_SIZE: usize = 64;
/// Size of a data packet's header: type, receiver, counter.
pub const DATA_HEADER: usize = wg_crypto::transport::HEADER;
/// Size of a data packet's header and tag, which is the size of a keepalive.
pub const DATA_OVERHEAD: usize = DATA_HEADER + wg_crypto::transport::TAG;
/// The largest UDP payload that IPv4 carries.
pub const MAX_DATAGRAM: usize = 65507;
/// The longest packet that fits in a datagram with any padding.
pub const MAX_PACKET: usize = MAX_DATAGRAM - DATA_OVERHEAD - (MESSAGE_PADDING_MULTIPLE - 1);

/// A message, recognised by its type and size.
#[derive(Debug)]
pub enum Message<'a> {
    /// Handshake initiation.
    Initiation(&'a [u8; INITIATION_SIZE]),
    /// Handshake response.
    Response(&'a [u8; RESPONSE_SIZE]),
    /// Cookie reply.
    Cookie(&'a [u8; COOKIE_SIZE]),
    /// Data packet or keepalive; at least `DATA_OVERHEAD` bytes.
    Data,
}

impl<'a> Message<'a> {
    /// None if the type is unknown, or does not have this size.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        match word(datagram, 0)? {
            MESSAGE_HANDSHAKE_INITIATION => datagram.try_into().ok().map(Self::Initiation),
            MESSAGE_HANDSHAKE_RESPONSE => datagram.try_into().ok().map(Self::Response),
            MESSAGE_HANDSHAKE_COOKIE => datagram.try_into().ok().map(Self::Cookie),
            MESSAGE_DATA if datagram.len() >= DATA_OVERHEAD => Some(Self::Data),
            _ => None,
        }
    }
}

/// The sender's index in an initiation or response.
pub fn sender_index(message: &[u8]) -> Option<u32> {
    word(message, 4)
}

/// The receiver's index: at byte 8 of a response, at byte 4 of a cookie reply or data packet.
pub fn receiver_index(message: &[u8]) -> Option<u32> {
    match word(message, 0)? {
        MESSAGE_HANDSHAKE_RESPONSE => word(message, 8),
        MESSAGE_HANDSHAKE_COOKIE | MESSAGE_DATA => word(message, 4),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Length of a packet of `len` bytes after padding: a multiple of 16, but at most the MTU. For a
/// packet that is longer than the MTU, only the part after the last whole MTU counts
/// (`calculate_skb_padding` in the kernel).
pub fn padded_len(len: usize, mtu: usize) -> usize {
    let align = |n: usize| n.next_multiple_of(MESSAGE_PADDING_MULTIPLE);
    if mtu == 0 {
        return align(len);
    }
    let last_unit = if len > mtu { len % mtu } else { len };
    len - last_unit + align(last_unit).min(mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_to_16_within_the_mtu() {
        for (len, mtu, want) in [
            (0, 1420, 0),
            (1, 1420, 16),
            (16, 1420, 16),
            (17, 1420, 32),
            (1408, 1420, 1408),
            (1409, 1420, 1420),
            (1420, 1420, 1420),
            (1421, 1420, 1420 + 16),
            (2840, 1420, 2840),
            (2839, 1420, 2840),
            (100, 0, 112),
        ] {
            assert_eq!(padded_len(len, mtu), want, "len {len}, mtu {mtu}");
        }
    }

    #[test]
    fn a_message_needs_the_size_of_its_type() {
        for (kind, size) in [
            (MESSAGE_HANDSHAKE_INITIATION, INITIATION_SIZE),
            (MESSAGE_HANDSHAKE_RESPONSE, RESPONSE_SIZE),
            (MESSAGE_HANDSHAKE_COOKIE, COOKIE_SIZE),
            (MESSAGE_DATA, DATA_OVERHEAD),
        ] {
            let mut datagram = vec![0; size];
            datagram[..4].copy_from_slice(&kind.to_le_bytes());
            assert!(Message::parse(&datagram).is_some());
            assert!(Message::parse(&datagram[..size - 1]).is_none());
            datagram.push(0);
            assert_eq!(Message::parse(&datagram).is_some(), kind == MESSAGE_DATA);
            datagram[1] = 1;
            assert!(
                Message::parse(&datagram[..size]).is_none(),
                "reserved bytes"
            );
        }
        assert!(Message::parse(&[]).is_none());
        assert!(Message::parse(&[1, 0, 0]).is_none());
    }
}
