//! The outgoing path for a burst: datagrams for one peer at a fixed stride. Each step consumes the
//! result of the step before, so that no step can be left out or repeated:
//!
//! ```text
//! OutBuffer      start             memory, reused
//!   -> OpenBurst      push, push …   each packet is copied once, directly to its slot
//!   -> Plane::prepare                serial: needs a session, reserves the counters
//!   -> PreparedBurst  seal           any thread
//!   -> SealedBurst                   (the caller's send)
//!   -> Plane::sent                   timers, byte counts, renews the session if needed
//!   -> OutBuffer
//! ```
//! The caller must keep the order of a peer's bursts between `prepare` and the send.

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
use super::timers::REKEY_AFTER_TIME;

/// Most segments in one UDP_SEGMENT send on all kernels that support it.
pub const MAX_SEGMENTS: usize = 64;
/// How long the data path waits for the owner, if the owner has long been sending staged packets.
const MOMENT: Duration = Duration::from_millis(1);

/// Memory for a burst. It is allocated once and reused.
pub struct OutBuffer {
    bytes: Box<[u8]>,
    packets: Vec<Slot>,
}

/// The position of a packet without its padding.
#[derive(Clone, Copy)]
struct Slot {
    start: usize,
    len: usize,
}

impl OutBuffer {
    /// Memory for the largest send.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; MAX_DATAGRAM].into_boxed_slice(),
            packets: Vec::with_capacity(MAX_SEGMENTS),
        }
    }

    /// Starts a burst for a peer. `tos` is the TOS of all its outer packets.
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

/// A burst to which packets can be added.
pub struct OpenBurst {
    buffer: OutBuffer,
    /// Number of bytes used.
    len: usize,
    stride: usize,
    tos: u8,
    peer: Arc<Peer>,
}

impl OpenBurst {
    /// Whether the burst has no packets.
    pub fn is_empty(&self) -> bool {
        self.buffer.packets.is_empty()
    }

    /// The number of packets.
    pub fn count(&self) -> usize {
        self.buffer.packets.len()
    }

    /// The destination peer.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Whether the packet can be added with `push`: same peer, same TOS, enough space, and a length
    /// that UDP_SEGMENT allows after the other packets (all equal, only the last may be shorter).
    /// False for the first packet only if it is longer than `MAX_PACKET`.
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

    /// Returns the slot for the next packet: `len` bytes, which must be overwritten completely. Its
    /// padding is set to zero.
    ///
    /// # Panics
    /// If the packet does not fit (see [`OpenBurst::fits`]).
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

    /// Adds the session and its counters. Returns the burst unchanged if there is no session that
    /// can send.
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

/// A burst with a session and counters, which must be sealed next.
pub struct PreparedBurst {
    burst: OpenBurst,
    keypair: Arc<Keypair<Peer>>,
    first: u64,
}

impl PreparedBurst {
    /// The destination peer.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.burst.peer
    }

    /// The number of datagrams.
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
    /// The datagrams at a fixed stride; the last may be shorter.
    pub fn datagrams(&self) -> &[u8] {
        &self.burst.buffer.bytes[..self.burst.len]
    }

    /// Distance between datagrams in bytes.
    pub fn stride(&self) -> usize {
        self.burst.stride
    }

    /// The number of datagrams.
    pub fn count(&self) -> usize {
        self.burst.count()
    }

    /// TOS of the outer packets.
    pub fn tos(&self) -> u8 {
        self.burst.tos
    }

    /// The destination peer.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.burst.peer
    }

    fn content(&self) -> Content {
        let has_data = self.burst.buffer.packets.iter().any(|slot| slot.len > 0);
        match has_data {
            true => Content::Data(self.keypair.jitter),
            false => Content::NoData,
        }
    }

    /// What to account when it is sent, and the memory.
    pub(crate) fn into_receipt(self) -> (Receipt, OutBuffer) {
        let content = self.content();
        let OpenBurst { buffer, peer, .. } = self.burst;
        let receipt = Receipt { peer, content };
        (receipt, buffer)
    }
}

/// What to account when it is known how much the socket accepted.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) peer: Arc<Peer>,
    pub(crate) content: Content,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    /// Data, to which the peer should react: the random addition to the timer for that.
    Data(Duration),
    /// A keepalive or a handshake message.
    NoData,
    /// A frame. It is not counted, and arms and clears no timer, because the peer does not count it
    /// either. But a HELLO or BIND keeps the path to a hub open like a persistent keepalive.
    Frame {
        /// Whether it replaces a persistent keepalive.
        is_keepalive: bool,
    },
}

/// The result of preparing a burst.
#[must_use]
pub enum Prepared {
    /// The burst has its counters, and must be sealed and sent.
    Ready(PreparedBurst),
    /// The packets wait for a session or behind earlier packets, or they were dropped because the
    /// device is down or the endpoint is unknown. The memory can be reused.
    Staged(OutBuffer),
}

/// The result of preparing staged packets.
pub(crate) enum Unstaged {
    /// A burst of staged packets.
    Burst(PreparedBurst),
    /// There are no staged packets.
    Nothing(OutBuffer),
    /// There are staged packets, but no session.
    NoSession(OutBuffer),
}

/// Why a packet has no destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unroutable {
    /// Neither IPv4 nor IPv6: it can only be dropped.
    NotIp,
    /// No peer owns the destination address: answered with "host unreachable".
    NoPeer,
    /// The peer's endpoint is not known yet: answered with "host unreachable".
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

/// The destination peer of `packet`, of which at least the header is given.
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

/// TOS of the outer packet: DSCP 0, and ECN by RFC 6040 section 4.1 in normal mode, but ECT(0) for
/// CE, as in the kernel.
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
    /// Adds a session and counters to the burst, or stages its packets and requests a handshake.
    /// Bursts of a peer must be prepared in the order of their packets.
    pub fn prepare(&self, burst: OpenBurst, now: Time) -> Prepared {
        if burst.is_empty() {
            return Prepared::Staged(burst.buffer);
        }
        if !self.is_up() || burst.peer.is_dead() {
            self.drop_packets(DropReason::Down, burst.count());
            return Prepared::Staged(burst.buffer);
        }
        if !burst.peer.has_endpoint() {
            self.drop_packets(DropReason::NoEndpoint, burst.count());
            return Prepared::Staged(burst.buffer);
        }
        let mut burst = burst;
        if !burst.peer.staged.is_busy() || burst.peer.staged.wait_for_owner(MOMENT) {
            burst = match burst.with_session(now) {
                Ok(prepared) => return Prepared::Ready(prepared),
                Err(burst) => burst,
            };
        }
        let peer = burst.peer.clone();
        let OutBuffer { bytes, packets } = &burst.buffer;
        let packets = packets.iter().map(|slot| StagedPacket {
            tos: burst.tos,
            bytes: bytes[slot.start..slot.start + slot.len].into(),
        });
        let dropped = peer.staged.push(packets);
        self.drop_packets(DropReason::StagedOverflow, dropped as usize);
        // Checked after staging, because the owner first adds a session and then checks the queue.
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

    /// Must be called before the burst is passed to the network. The answer may arrive on another thread
    /// before the network returns, and the timers that it starts must not be stopped afterwards.
    pub fn sending(&self, burst: &SealedBurst, now: Time) {
        self.account(burst.peer(), burst.content(), now);
    }

    /// Reports that the burst was passed to the network, which accepted this many bytes.
    pub fn sent(&self, burst: SealedBurst, taken: usize, now: Time) -> OutBuffer {
        let (receipt, buffer) = burst.into_receipt();
        self.taken(&receipt, taken, now);
        buffer
    }

    /// The accounting that does not depend on the network: the peer's timers, and the age of its
    /// key.
    pub(crate) fn account(&self, peer: &Arc<Peer>, content: Content, now: Time) {
        let is_frame = matches!(content, Content::Frame { .. });
        if !is_frame || matches!(content, Content::Frame { is_keepalive: true }) {
            self.wake(peer, peer.timers.any_authenticated_packet_traversal(now));
        }
        if !is_frame {
            peer.timers.any_authenticated_packet_sent();
        }
        self.keep_key_fresh_sending(peer, now);
    }

    /// The accounting for bytes that the network accepted: they are counted, and data starts the
    /// timer for an answer.
    pub(crate) fn taken(&self, receipt: &Receipt, bytes: usize, now: Time) {
        if bytes == 0 || matches!(receipt.content, Content::Frame { .. }) {
            return;
        }
        let peer = &receipt.peer;
        peer.add_tx_bytes(bytes);
        if let Content::Data(jitter) = receipt.content {
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

    /// A keepalive, if there is a session; otherwise returns the memory.
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

    /// A frame, if there is a session; otherwise returns the memory.
    pub(crate) fn frame_burst(
        &self,
        peer: &Arc<Peer>,
        frame: &[u8],
        buffer: OutBuffer,
        now: Time,
    ) -> Result<PreparedBurst, OutBuffer> {
        let mut burst = buffer.start(peer, HANDSHAKE_DSCP);
        burst.push(frame.len(), self.mtu()).copy_from_slice(frame);
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
