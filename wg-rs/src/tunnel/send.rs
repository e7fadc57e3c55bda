//! The way out, over a burst of datagrams of one peer laid out at one stride. Each step takes what the
//! one before it gave, so that none can be left out or done twice:
//!
//! ```text
//! OutBuffer      start          memory, used again and again
//!   -> OpenBurst      push, push …   each packet copied once, straight to its slot
//!   -> Plane::prepare                serial: is there a session? reserves the counters
//!   -> PreparedBurst  seal           any thread
//!   -> SealedBurst                   (the caller's send)
//!   -> Plane::sent                   timers, byte counts, is a new key needed?
//!   -> OutBuffer
//! ```
//! Between `prepare` and the send the order of bursts of one peer is the caller's to keep.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::drops::DropReason;
use super::keypair::Keypair;
use super::messages::*;
use super::peer::Peer;
use super::plane::{Plane, Routes};
use super::staged::StagedPacket;
use super::time::Time;

/// Segments that one UDP_SEGMENT send may carry on every kernel that has it.
pub const MAX_SEGMENTS: usize = 64;
/// How long the data path waits for the owner to finish with staged packets it has long been sending.
const MOMENT: Duration = Duration::from_millis(1);

/// Memory for a burst. Allocated once and used again.
pub struct OutBuffer {
    bytes: Box<[u8]>,
    packets: Vec<Slot>,
}

/// Where a packet lies, unpadded.
#[derive(Clone, Copy)]
struct Slot {
    start: usize,
    len: usize,
}

impl OutBuffer {
    /// Room for as much as one send may carry.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; MAX_DATAGRAM].into_boxed_slice(),
            packets: Vec::with_capacity(MAX_SEGMENTS),
        }
    }

    /// Opens a burst for a peer. `tos` is the outer TOS of all its datagrams.
    pub fn start(mut self, peer: &Arc<Peer>, tos: u8) -> OpenBurst {
        self.packets.clear();
        OpenBurst {
            buffer: self,
            len: 0,
            stride: 0,
            tos,
            peer: peer.clone(),
        }
    }
}

impl Default for OutBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Packets for one peer, each in its slot.
pub struct OpenBurst {
    buffer: OutBuffer,
    /// Bytes used.
    len: usize,
    stride: usize,
    tos: u8,
    peer: Arc<Peer>,
}

impl OpenBurst {
    /// Whether there are no packets.
    pub fn is_empty(&self) -> bool {
        self.buffer.packets.is_empty()
    }

    /// How many packets.
    pub fn count(&self) -> usize {
        self.buffer.packets.len()
    }

    /// The peer it is for.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Whether `push` may follow: same peer, same TOS, room, and of a size that UDP_SEGMENT allows
    /// behind what is there (all equal, the last may be shorter). False for the first packet only if
    /// it is longer than `MAX_PACKET`.
    pub fn fits(&self, peer: &Arc<Peer>, tos: u8, len: usize, mtu: usize) -> bool {
        self.tos == tos && Arc::ptr_eq(&self.peer, peer) && self.has_room(len, mtu)
    }

    fn has_room(&self, len: usize, mtu: usize) -> bool {
        let datagram = padded_len(len, mtu) + DATA_OVERHEAD;
        if self.is_empty() {
            return len <= MAX_PACKET;
        }
        self.count() < MAX_SEGMENTS
            && self.len == self.count() * self.stride
            && datagram <= self.stride
            && self.len + datagram <= self.buffer.bytes.len()
    }

    /// The slot for the next packet: `len` bytes, to be overwritten whole. Its padding is zeroed.
    ///
    /// # Panics
    /// If the packet does not fit.
    pub fn push(&mut self, len: usize, mtu: usize) -> &mut [u8] {
        assert!(self.has_room(len, mtu), "packet does not fit the burst");
        let padded = padded_len(len, mtu);
        let start = self.len + DATA_HEADER;
        self.len += padded + DATA_OVERHEAD;
        if self.is_empty() {
            self.stride = self.len;
        }
        self.buffer.packets.push(Slot { start, len });
        let slot = &mut self.buffer.bytes[start..start + padded];
        let (packet, padding) = slot.split_at_mut(len);
        padding.fill(0);
        packet
    }

    /// With a session and its counters, if there is one that can send.
    fn with_session(self, now: Time) -> Result<PreparedBurst, OpenBurst> {
        let current = self.peer.keypairs.current();
        let reserved = current.as_ref().and_then(|current| {
            Some((current.reserve(self.count() as u64, now)?, current.clone()))
        });
        drop(current);
        match reserved {
            Some((first, keypair)) => Ok(PreparedBurst {
                burst: self,
                keypair,
                first,
            }),
            None => Err(self),
        }
    }
}

/// A burst that has its session and counters, to be sealed.
pub struct PreparedBurst {
    burst: OpenBurst,
    keypair: Arc<Keypair<Peer>>,
    first: u64,
}

impl PreparedBurst {
    /// How many datagrams.
    pub fn count(&self) -> usize {
        self.burst.count()
    }

    /// Seals every datagram in place.
    pub fn seal(mut self) -> SealedBurst {
        let OpenBurst {
            buffer,
            len,
            stride,
            ..
        } = &mut self.burst;
        let datagrams = &mut buffer.bytes[..*len];
        let Keypair {
            sealing, receiver, ..
        } = &*self.keypair;
        sealing.seal_burst(*receiver, self.first, datagrams, *stride);
        SealedBurst {
            burst: self.burst,
            keypair: self.keypair,
        }
    }
}

/// A burst that is ready to be sent.
pub struct SealedBurst {
    burst: OpenBurst,
    keypair: Arc<Keypair<Peer>>,
}

impl SealedBurst {
    /// The datagrams, one at each stride, the last maybe shorter.
    pub fn datagrams(&self) -> &[u8] {
        &self.burst.buffer.bytes[..self.burst.len]
    }

    /// Distance between datagrams.
    pub fn stride(&self) -> usize {
        self.burst.stride
    }

    /// How many datagrams.
    pub fn count(&self) -> usize {
        self.burst.count()
    }

    /// Outer TOS of every datagram.
    pub fn tos(&self) -> u8 {
        self.burst.tos
    }

    /// The peer it is for.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.burst.peer
    }

    /// What is left to account for it, and its memory.
    pub(crate) fn into_receipt(self) -> (Receipt, OutBuffer) {
        let OpenBurst { buffer, peer, .. } = self.burst;
        let has_data = buffer.packets.iter().any(|slot| slot.len > 0);
        let receipt = Receipt {
            peer,
            answer: has_data.then_some(self.keypair.jitter),
        };
        (receipt, buffer)
    }
}

/// Of what is to be accounted once it is known how much of it the socket took.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) peer: Arc<Peer>,
    /// Of data, which is to be answered: the jitter of the time for that.
    pub(crate) answer: Option<Duration>,
}

/// What became of a burst.
#[must_use]
pub enum Prepared {
    /// It has its counters: seal and send it.
    Ready(PreparedBurst),
    /// Its packets wait for a session, or for those that waited before them, or were dropped
    /// because the device is down or the peer's endpoint unknown. Its memory is free again.
    Staged(OutBuffer),
}

/// What came of sending staged packets.
pub(crate) enum Unstaged {
    /// A burst of them.
    Burst(PreparedBurst),
    /// There are none (left).
    Nothing(OutBuffer),
    /// There are, but no session.
    NoSession(OutBuffer),
}

/// Why a packet has nowhere to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unroutable {
    /// Neither IPv4 nor IPv6: only to be dropped.
    NotIp,
    /// No peer owns the destination: host unreachable.
    NoPeer,
    /// The owner's endpoint is not known yet: host unreachable.
    NoEndpoint,
}

impl From<Unroutable> for DropReason {
    fn from(reason: Unroutable) -> Self {
        match reason {
            Unroutable::NotIp => DropReason::NotIp,
            Unroutable::NoPeer => DropReason::NoPeer,
            Unroutable::NoEndpoint => DropReason::NoEndpoint,
        }
    }
}

/// The peer that `packet` (whole, or its header) goes to.
pub fn route<'a>(routes: &'a Routes, packet: &[u8]) -> Result<&'a Arc<Peer>, Unroutable> {
    let peer = match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => {
            let dst: [u8; 4] = packet[16..20].try_into().expect("four bytes");
            routes.lookup_v4(Ipv4Addr::from(dst))
        }
        Some(6) if packet.len() >= 40 => {
            let dst: [u8; 16] = packet[24..40].try_into().expect("sixteen bytes");
            routes.lookup_v6(Ipv6Addr::from(dst))
        }
        _ => return Err(Unroutable::NotIp),
    };
    let peer = peer.ok_or(Unroutable::NoPeer)?;
    if peer.has_endpoint() {
        Ok(peer)
    } else {
        Err(Unroutable::NoEndpoint)
    }
}

/// TOS of the outer packet: DSCP 0, ECN by RFC 6040 section 4.1 in normal mode, but CE as ECT(0) as
/// the kernel does.
pub fn outer_tos(inner: &[u8]) -> u8 {
    const CE: u8 = 3;
    const ECT_0: u8 = 2;
    let ecn = match inner {
        [first, tos, ..] if first >> 4 == 4 => tos & 3,
        [first, second, ..] if first >> 4 == 6 => second >> 4 & 3,
        _ => 0,
    };
    if ecn == CE { ECT_0 } else { ecn }
}

impl Plane {
    /// Gives the burst a session and its counters, or stages its packets and asks for a handshake.
    /// Bursts of one peer must be prepared in the order of their packets.
    pub fn prepare(&self, burst: OpenBurst, now: Time) -> Prepared {
        let peer = burst.peer.clone();
        if burst.is_empty() {
            return Prepared::Staged(burst.buffer);
        }
        if !self.is_up() || peer.is_dead() {
            self.drop_packets(DropReason::Down, burst.count());
            return Prepared::Staged(burst.buffer);
        }
        if !peer.has_endpoint() {
            self.drop_packets(DropReason::NoEndpoint, burst.count());
            return Prepared::Staged(burst.buffer);
        }
        let mut burst = burst;
        if !peer.staged.is_busy() || peer.staged.wait_for_owner(MOMENT) {
            burst = match burst.with_session(now) {
                Ok(prepared) => return Prepared::Ready(prepared),
                Err(burst) => burst,
            };
        }
        let OutBuffer { bytes, packets } = &burst.buffer;
        let packets = packets.iter().map(|slot| StagedPacket {
            tos: burst.tos,
            bytes: bytes[slot.start..slot.start + slot.len].into(),
        });
        let dropped = peer.staged.push(packets);
        self.drop_packets(DropReason::StagedOverflow, dropped as usize);
        // Looked at after staging: the owner adds a session and then looks at the queue.
        let has_session =
            matches!(&*peer.keypairs.current(), Some(current) if current.can_send(now));
        if has_session {
            self.ask_flush(&peer);
        } else {
            self.ask_handshake(&peer, now);
        }
        if peer.is_dead() || !self.is_up() {
            self.drop_packets(DropReason::StagedPurged, peer.staged.purge() as usize);
        }
        Prepared::Staged(burst.buffer)
    }

    /// The network was given the burst, and took so many bytes of its datagrams.
    pub fn sent(&self, burst: SealedBurst, taken: usize, now: Time) -> OutBuffer {
        let (receipt, buffer) = burst.into_receipt();
        self.sending(&receipt, now);
        self.taken(&receipt, taken, now);
        buffer
    }

    /// What goes on whether or not the network takes it: the peer's timers, and the age of its key.
    pub(crate) fn sending(&self, receipt: &Receipt, now: Time) {
        let peer = &receipt.peer;
        self.wake(peer, peer.timers.any_authenticated_packet_traversal(now));
        peer.timers.any_authenticated_packet_sent();
        self.keep_key_fresh_sending(peer, now);
    }

    /// The network took so many bytes: they count, and data is to be answered.
    pub(crate) fn taken(&self, receipt: &Receipt, bytes: usize, now: Time) {
        if bytes == 0 {
            return;
        }
        let peer = &receipt.peer;
        peer.add_tx_bytes(bytes);
        if let Some(jitter) = receipt.answer {
            self.wake(peer, peer.timers.data_sent(now, jitter));
        }
    }

    /// Fills a burst with staged packets and prepares it.
    pub(crate) fn unstage(&self, peer: &Arc<Peer>, buffer: OutBuffer, now: Time) -> Unstaged {
        let mtu = self.mtu();
        let mut burst = buffer.start(peer, 0);
        let packets = peer.staged.take(|packet| {
            let len = packet.bytes.len();
            if burst.is_empty() {
                burst.tos = packet.tos;
            }
            let fits = burst.fits(peer, packet.tos, len, mtu);
            if fits {
                burst.push(len, mtu).copy_from_slice(&packet.bytes);
            }
            fits
        });
        if packets.is_empty() {
            return Unstaged::Nothing(burst.buffer);
        }
        match burst.with_session(now) {
            Ok(prepared) => Unstaged::Burst(prepared),
            Err(burst) => {
                peer.staged.put_back(packets);
                Unstaged::NoSession(burst.buffer)
            }
        }
    }

    /// A keepalive, if there is a session; else the memory back.
    pub(crate) fn keepalive(
        &self,
        peer: &Arc<Peer>,
        buffer: OutBuffer,
        now: Time,
    ) -> Result<PreparedBurst, OutBuffer> {
        let mut burst = buffer.start(peer, 0);
        burst.push(0, self.mtu());
        burst.with_session(now).map_err(|burst| burst.buffer)
    }

    fn keep_key_fresh_sending(&self, peer: &Arc<Peer>, now: Time) {
        let stale = matches!(&*peer.keypairs.current(), Some(current) if current.can_send(now)
            && (current.counter() > REKEY_AFTER_MESSAGES
                || current.is_initiator && current.age(now) >= REKEY_AFTER_TIME));
        if stale {
            self.ask_handshake(peer, now);
        }
    }
}
