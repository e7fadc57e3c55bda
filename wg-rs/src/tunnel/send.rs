//! The way out, over a burst of datagrams of one peer laid out at one stride:
//!
//! ```text
//! route -> start, push, push …   each packet copied once, straight to its slot
//!       -> Plane::prepare        serial: is there a session? reserves the counters
//!       -> seal                  any thread
//!       -> (the caller's send)
//!       -> Plane::sent           timers, byte counts, is a new key needed?
//! ```
//! Between `prepare` and the send the order of bursts of one peer is the caller's to keep.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::drops::Drop;
use super::keypair::Keypair;
use super::messages::*;
use super::peer::Peer;
use super::plane::{Plane, Routes};
use super::staged::StagedPacket;
use super::time::Time;

/// Segments that one UDP_SEGMENT send may carry on every kernel that has it.
pub const MAX_SEGMENTS: usize = 64;

/// Datagrams for one peer, under construction, sealed, or sent. Allocated once and used again.
pub struct OutBurst {
    bytes: Box<[u8]>,
    /// Bytes used.
    len: usize,
    stride: usize,
    packets: Vec<Slot>,
    tos: u8,
    peer: Option<Arc<Peer>>,
    /// The session and the first counter, from `prepare`.
    session: Option<(Arc<Keypair>, u64)>,
}

/// Where a packet lies, unpadded.
#[derive(Clone, Copy)]
struct Slot {
    start: usize,
    len: usize,
}

impl OutBurst {
    /// An empty burst.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; MAX_DATAGRAM].into_boxed_slice(),
            len: 0,
            stride: 0,
            packets: Vec::with_capacity(MAX_SEGMENTS),
            tos: 0,
            peer: None,
            session: None,
        }
    }

    /// Whether there are no packets.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.len = 0;
        self.stride = 0;
        self.packets.clear();
        self.peer = None;
        self.session = None;
    }

    /// Opens an empty burst for a peer. `tos` is the outer TOS of all its datagrams.
    pub fn start(&mut self, peer: &Arc<Peer>, tos: u8) {
        self.clear();
        self.peer = Some(peer.clone());
        self.tos = tos;
    }

    /// Whether `push` may follow: same peer, same TOS, room, and of a size that UDP_SEGMENT allows
    /// behind what is there (all equal, the last may be shorter). False for the first packet only if
    /// it is longer than `MAX_PACKET`.
    pub fn fits(&self, peer: &Arc<Peer>, tos: u8, len: usize, mtu: usize) -> bool {
        self.tos == tos
            && self.peer.as_ref().is_some_and(|own| Arc::ptr_eq(own, peer))
            && self.has_room(len, mtu)
    }

    fn has_room(&self, len: usize, mtu: usize) -> bool {
        let datagram = padded_len(len, mtu) + DATA_OVERHEAD;
        if self.is_empty() {
            return len <= MAX_PACKET;
        }
        self.packets.len() < MAX_SEGMENTS
            && self.len == self.packets.len() * self.stride
            && datagram <= self.stride
            && self.len + datagram <= self.bytes.len()
    }

    /// The slot for the next packet: `len` bytes, to be overwritten whole. Its padding is zeroed.
    ///
    /// # Panics
    /// If the burst was not started, or the packet does not fit.
    pub fn push(&mut self, len: usize, mtu: usize) -> &mut [u8] {
        assert!(self.peer.is_some(), "burst not started");
        assert!(self.has_room(len, mtu), "packet does not fit the burst");
        let padded = padded_len(len, mtu);
        let start = self.len + DATA_HEADER;
        self.len += padded + DATA_OVERHEAD;
        if self.is_empty() {
            self.stride = self.len;
        }
        self.packets.push(Slot { start, len });
        let slot = &mut self.bytes[start..start + padded];
        let (packet, padding) = slot.split_at_mut(len);
        padding.fill(0);
        packet
    }

    /// Seals every datagram in place. Does nothing before `prepare` said `Ready`.
    pub fn seal(&mut self) {
        if let Some((keypair, first)) = &self.session {
            let datagrams = &mut self.bytes[..self.len];
            keypair
                .sealing
                .seal_burst(keypair.receiver, *first, datagrams, self.stride);
        }
    }

    /// The datagrams, one at each stride, the last maybe shorter.
    pub fn datagrams(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Distance between datagrams.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// How many datagrams.
    pub fn count(&self) -> usize {
        self.packets.len()
    }

    /// Outer TOS of every datagram.
    pub fn tos(&self) -> u8 {
        self.tos
    }

    /// The peer it is for.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.as_ref()
    }

    fn has_data(&self) -> bool {
        self.packets.iter().any(|slot| slot.len > 0)
    }
}

impl Default for OutBurst {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Prepared {
    /// It has its counters: seal and send it.
    Ready,
    /// Its packets wait for a session, or for those that waited before them, or were dropped
    /// because the device is down or the peer's endpoint unknown. The burst is empty.
    Staged,
}

/// What came of sending staged packets.
pub(crate) enum Unstaged {
    /// A burst, to be sealed.
    Burst,
    /// There are none (left).
    Nothing,
    /// There are, but no session.
    NoSession,
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

impl From<Unroutable> for Drop {
    fn from(reason: Unroutable) -> Self {
        match reason {
            Unroutable::NotIp => Drop::NotIp,
            Unroutable::NoPeer => Drop::NoPeer,
            Unroutable::NoEndpoint => Drop::NoEndpoint,
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

/// Gives the owner a moment to finish with what is staged, if it has been at it for long.
fn pause_for(peer: &Peer) {
    const MOMENT: usize = 10_000;
    if peer.staged.is_long() {
        for _ in 0..MOMENT {
            if !peer.staged.is_busy() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl Plane {
    /// Gives the burst a session and its counters, or stages its packets and asks for a handshake.
    /// Bursts of one peer must be prepared in the order of their packets.
    pub fn prepare(&self, burst: &mut OutBurst, now: Time) -> Prepared {
        let Some(peer) = burst.peer.clone().filter(|_| !burst.is_empty()) else {
            burst.clear();
            return Prepared::Staged;
        };
        if !self.is_up() || peer.is_dead() {
            self.drop_packets(Drop::Down, burst.count());
            burst.clear();
            return Prepared::Staged;
        }
        if !peer.has_endpoint() {
            self.drop_packets(Drop::NoEndpoint, burst.count());
            burst.clear();
            return Prepared::Staged;
        }
        if peer.staged.is_busy() {
            pause_for(&peer);
        }
        if !peer.staged.is_busy()
            && let Some(current) = &*peer.keypairs.current()
            && let Some(first) = current.reserve(burst.count() as u64, now)
        {
            burst.session = Some((current.clone(), first));
            return Prepared::Ready;
        }
        let packets = burst.packets.iter().map(|slot| StagedPacket {
            tos: burst.tos,
            bytes: burst.bytes[slot.start..slot.start + slot.len].into(),
        });
        let dropped = peer.staged.push(packets);
        self.drop_packets(Drop::StagedOverflow, dropped as usize);
        burst.clear();
        // Looked at after staging: the owner adds a session and then looks at the queue.
        let has_session =
            matches!(&*peer.keypairs.current(), Some(current) if current.can_send(now));
        if has_session {
            self.ask_flush(&peer);
        } else {
            self.ask_handshake(&peer, now);
        }
        if peer.is_dead() || !self.is_up() {
            self.drop_packets(Drop::StagedPurged, peer.staged.purge() as usize);
        }
        Prepared::Staged
    }

    /// The network was given the burst, and took so many bytes of datagrams. If it took none, the timers
    /// of the peer go on as if it had, except that no answer is expected.
    pub fn sent(&self, burst: &OutBurst, taken: usize, now: Time) {
        let Some((peer, keypair)) = burst.sealed_for() else {
            return;
        };
        peer.add_tx_bytes(taken);
        self.wake(peer, peer.timers.any_authenticated_packet_traversal(now));
        peer.timers.any_authenticated_packet_sent();
        if taken > 0 && burst.has_data() {
            self.wake(peer, peer.timers.data_sent(now, keypair.jitter));
        }
        self.keep_key_fresh_sending(peer, now);
    }

    /// Fills a burst with staged packets and prepares it.
    pub(crate) fn unstage(&self, peer: &Arc<Peer>, burst: &mut OutBurst, now: Time) -> Unstaged {
        burst.clear();
        let mtu = self.mtu();
        let packets = peer.staged.take(|packet| {
            let len = packet.bytes.len();
            if burst.is_empty() {
                burst.start(peer, packet.tos);
            }
            let fits = burst.fits(peer, packet.tos, len, mtu);
            if fits {
                burst.push(len, mtu).copy_from_slice(&packet.bytes);
            }
            fits
        });
        if packets.is_empty() {
            burst.clear();
            return Unstaged::Nothing;
        }
        if let Some(current) = &*peer.keypairs.current()
            && let Some(first) = current.reserve(packets.len() as u64, now)
        {
            burst.session = Some((current.clone(), first));
            return Unstaged::Burst;
        }
        peer.staged.put_back(packets);
        burst.clear();
        Unstaged::NoSession
    }

    /// Makes the burst a keepalive. False if there is no session.
    pub(crate) fn keepalive(&self, peer: &Arc<Peer>, burst: &mut OutBurst, now: Time) -> bool {
        burst.start(peer, 0);
        burst.push(0, self.mtu());
        if let Some(current) = &*peer.keypairs.current()
            && let Some(first) = current.reserve(1, now)
        {
            burst.session = Some((current.clone(), first));
            return true;
        }
        burst.clear();
        false
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

impl OutBurst {
    fn sealed_for(&self) -> Option<(&Arc<Peer>, &Arc<Keypair>)> {
        Some((self.peer.as_ref()?, &self.session.as_ref()?.0))
    }
}
