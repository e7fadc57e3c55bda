//! Reasons for dropping packets, and a counter for each: the data path's only error report.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A reason to drop a packet.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &[DropReason] = &[$(DropReason::$name,)*];

            /// The reason in a few words.
            pub fn as_str(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }
        }
    };
}

impl DropReason {
    /// The reason as a name for protocols: `no_peer_for_the_destination`.
    pub fn name(self) -> String {
        let text = self.as_str().to_ascii_lowercase();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        words.join("_")
    }

    /// Whether a handshake message with this fault is refused before any public-key operation.
    pub(super) fn is_early(self) -> bool {
        use DropReason::*;
        matches!(
            self,
            Down | NoPrivateKey | Malformed | BadMac1 | CookieSent | RateLimited
        )
    }
}

drops! {
    /// Outgoing: the kernel could not deliver a packet to us.
    TunReadFailed = "TUN read failed",
    /// Outgoing: neither IPv4 nor IPv6, or shorter than its header.
    NotIp = "not an IP packet",
    /// Outgoing: longer than a datagram can carry.
    TooLong = "packet too long",
    /// Outgoing: no peer has the destination among its allowed IPs.
    NoPeer = "no peer for the destination",
    /// Outgoing or relay: the peer's endpoint is not known yet.
    NoEndpoint = "no endpoint for the peer",
    /// Outgoing: one of our own datagrams, which a route sent back into the interface.
    Loop = "routing loop",
    /// Outgoing: the staged queue was full; its oldest packets were dropped.
    StagedOverflow = "staged queue full",
    /// Outgoing: the handshake was given up, the peer was removed, or the device went down.
    StagedPurged = "no session",
    /// Outgoing or incoming: the device is down.
    Down = "device down",
    /// Outgoing: the network refused the datagram.
    SendFailed = "send failed",
    /// Incoming: the network failed.
    ReceiveFailed = "receive failed",
    /// Incoming: the link refused the packet because it is down or out of memory.
    DeliveryFailed = "delivery failed",
    /// Incoming: no message type has this size.
    Malformed = "malformed message",
    /// Incoming data: no session has this index.
    UnknownIndex = "unknown index",
    /// Incoming data: the session is too old, has carried too many messages, or was ended.
    SessionExpired = "session expired",
    /// Incoming data: the packet was not sealed by the peer.
    Forged = "authentication failed",
    /// Incoming data: the counter was received before, or is older than the window.
    Replayed = "replayed",
    /// Incoming data: the content is not a complete IP packet.
    InnerMalformed = "malformed inner packet",
    /// Incoming frame: shorter than it must be, or not from a peer that may send it.
    BadFrame = "invalid frame",
    /// Incoming frame: the peer sends more than it may, or too many are waiting.
    FrameFlood = "too many frames",
    /// Incoming data: the inner source is not among the peer's allowed IPs.
    NotAllowed = "source not allowed",
    /// Incoming handshake: the queue is full.
    HandshakeQueueFull = "handshake queue full",
    /// Incoming handshake: no private key is set.
    NoPrivateKey = "no private key",
    /// Incoming handshake: mac1 is wrong.
    BadMac1 = "wrong mac1",
    /// Incoming handshake: under load without a valid mac2; a cookie was sent instead.
    CookieSent = "cookie needed",
    /// Incoming handshake: the source sends more than it may.
    RateLimited = "rate limited",
    /// Incoming initiation: it was changed, or is not for us.
    BadInitiation = "invalid initiation",
    /// Incoming initiation: its static key belongs to no peer.
    UnknownPeer = "unknown peer",
    /// Incoming initiation: its timestamp is not newer than the last one.
    ReplayedInitiation = "replayed initiation",
    /// Incoming initiation: less than 20 ms after the last one.
    FloodedInitiation = "too many initiations",
    /// Incoming response: no handshake is waiting for it.
    UnexpectedResponse = "unexpected response",
    /// Incoming response: it was changed, or another host sent it.
    BadResponse = "invalid response",
    /// Incoming cookie reply: none was expected, or it was changed.
    BadCookie = "invalid cookie reply",
    /// Relay: no peer with a group is at the sender's address.
    RelayNotPeer = "relay sender unknown",
    /// Relay: the initiation is for no peer that shares a group with its sender.
    RelayUnknown = "relay addressee unknown",
    /// Relay: a limit on searches, pairs or cookie replies is reached, or the device is under load.
    RelayLimited = "relay limit reached",
    /// Relay: the packet would go back to the address that it came from.
    RelayLoop = "relay loop",
    /// Relay: the packet has passed as many hubs and routers as its hop limit allows.
    RelayHopLimit = "relay hop limit",
    /// Relay: we reach the sender or the receiver through another hub.
    RelayChain = "relay chain",
    /// Relay: the index is ours, or leads from that peer to another one.
    RelayCollision = "relay index in use",
    /// Relay: the pair sent too many initiations; a cookie was sent instead.
    RelayCookie = "relay cookie needed",
    /// Relay: the packet belongs to no relayed handshake or session from the sender's address.
    RelayStale = "relay session unknown",
    /// Relay: the send buffer of the socket is full.
    RelayFull = "relay send buffer full",
}

/// One counter for each reason.
#[derive(Debug)]
pub struct Drops([AtomicU64; DropReason::ALL.len()]);

impl Drops {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(crate) fn add(&self, reason: DropReason, packets: u64) {
        if packets > 0 {
            self.0[reason as usize].fetch_add(packets, Relaxed);
        }
    }

    /// Packets dropped for `reason` since the device was created.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Relaxed)
    }

    /// Packets dropped for any reason.
    pub fn total(&self) -> u64 {
        DropReason::ALL.iter().map(|&reason| self.get(reason)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_text() {
        let drops = Drops::new();
        for (i, &reason) in DropReason::ALL.iter().enumerate() {
            drops.add(reason, i as u64 + 1);
        }
        for (i, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(drops.get(reason), i as u64 + 1);
        }
        let mut texts: Vec<_> = DropReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), DropReason::ALL.len());
        for reason in DropReason::ALL {
            let name = reason.name();
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(is_word), "{name}");
        }
    }
}
