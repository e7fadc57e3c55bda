//! The incoming path for the result of one receive call: datagrams of one sender at a fixed stride.
//!
//! ```text
//! buffer, received        (the caller's receive)
//!   -> classify           handshake messages go to the caller; one index look-up for each run of
//!                         packets of one session; checks whether that session is still valid
//!      strangers          packets whose index is not ours, which may have to be relayed
//!   -> open               AEAD in place, any thread
//!   -> accept             serial: replay, roaming, key confirmation, timers, then for each packet
//!                         its length, its source and its ECN, in the kernel's order
//!   -> packets            where the inner packets lie, in `bytes`
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use arc_swap::Guard;

use super::drops::DropReason;
use super::frame;
use super::keypair::Keypair;
use super::messages::*;
use super::peer::{Endpoint, Peer};
use super::plane::{Plane, Routes};
use super::relay::RelayRoute;
use super::time::Time;
use super::timers::{KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_TIMEOUT};
use super::way::Heard;
use crate::model::status::Refusal;

/// The hop limit that a relayed packet counts from if the kernel did not report its own.
const HOP_LIMIT: u8 = 64;

/// Space for the result of one receive call, in bytes.
pub const BUFFER: usize = 1 << 16;

/// Datagrams of one sender: received, opened, accepted. It is allocated once and reused.
pub struct InBurst {
    bytes: Box<[u8]>,
    len: usize,
    stride: usize,
    from: Option<Endpoint>,
    tos: u8,
    runs: Vec<Run>,
    strangers: Vec<Stranger>,
    /// For each datagram of all runs, whether it is authentic.
    authentic: Vec<bool>,
    /// The same for one run.
    opened: Vec<bool>,
    packets: Vec<Range<usize>>,
}

/// Consecutive data packets with an index that is not ours.
struct Stranger {
    bytes: Range<usize>,
    index: u32,
}

/// Consecutive data packets of one session.
struct Run {
    bytes: Range<usize>,
    keypair: Arc<Keypair<Peer>>,
}

impl InBurst {
    /// An empty burst.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER].into_boxed_slice(),
            len: 0,
            stride: 0,
            from: None,
            tos: 0,
            runs: Vec::new(),
            strangers: Vec::new(),
            authentic: Vec::new(),
            opened: Vec::new(),
            packets: Vec::new(),
        }
    }

    /// A burst whose packets are already accepted.
    #[cfg(test)]
    pub(crate) fn accepted(packets: &[Vec<u8>], from: Endpoint) -> Self {
        let mut burst = InBurst::new();
        let mut end = 0;
        for packet in packets {
            let start = end + DATA_HEADER;
            end = start + packet.len();
            burst.bytes[start..end].copy_from_slice(packet);
            burst.packets.push(start..end);
        }
        burst.from = Some(from);
        burst
    }

    /// The buffer to receive into.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Describes what was received: `len` bytes, with a datagram at each `stride` (0: only one),
    /// the sender and our address, and the TOS.
    pub fn received(&mut self, len: usize, stride: usize, from: Endpoint, tos: u8) {
        self.len = len.min(self.bytes.len());
        self.stride = if stride == 0 { self.len } else { stride };
        self.from = Some(from);
        self.tos = tos;
        self.runs.clear();
        self.strangers.clear();
        self.authentic.clear();
        self.packets.clear();
    }

    /// The sender.
    pub fn from(&self) -> Option<Endpoint> {
        self.from
    }

    /// Finds the sessions of data packets, and passes all other messages to `control`. Malformed
    /// messages are counted.
    pub fn classify(&mut self, plane: &Plane, now: Time, mut control: impl FnMut(&[u8], Endpoint)) {
        let Some(from) = self.from else { return };
        // The last index that was looked up, even if no session has it.
        let mut last: Option<(u32, Guard<_>)> = None;
        let mut start = 0;
        while start < self.len {
            let end = (start + self.stride).min(self.len);
            let datagram = &self.bytes[start..end];
            match Message::parse(datagram) {
                None => plane.drop_packets(DropReason::Malformed, 1),
                Some(Message::Data) => {
                    let index = receiver_index(datagram).expect("data packets have a header");
                    if last.as_ref().is_none_or(|(known, _)| *known != index) {
                        last = Some((index, plane.index.lookup(index)));
                    }
                    match last.as_ref().and_then(|(_, keypair)| keypair.as_ref()) {
                        Some(keypair) if keypair.can_receive(now) => {
                            extend(&mut self.runs, start..end, keypair);
                        }
                        Some(_) => plane.drop_packets(DropReason::SessionExpired, 1),
                        None if plane.relay().is_some() => {
                            note(&mut self.strangers, start..end, index);
                        }
                        None => plane.drop_packets(DropReason::UnknownIndex, 1),
                    }
                }
                Some(_) => control(datagram, from),
            }
            start = end;
        }
    }

    /// Data packets that may have to be relayed: runs with one index each, at a fixed `stride`. Empty
    /// unless the device relays.
    pub fn strangers(&self) -> impl Iterator<Item = (&[u8], u32)> {
        let run = |stranger: &Stranger| (&self.bytes[stranger.bytes.clone()], stranger.index);
        self.strangers.iter().map(run)
    }

    /// Passes each of these runs that is to be relayed to `send`, with its route and the hop limit to send it
    /// with. The others are counted as dropped. `hop_limit`: that of the burst.
    ///
    /// A hub reduces the hop limit as a router does. Otherwise a packet could go round among several hubs:
    /// someone with peers on all of them may claim that each peer is at the next hub's address.
    pub fn relay(
        &self,
        plane: &Plane,
        now: Time,
        hop_limit: Option<u8>,
        mut send: impl FnMut(&[u8], &RelayRoute, u8),
    ) {
        let (Some(relay), Some(from)) = (plane.relay(), self.from) else {
            return;
        };
        let hops_left = hop_limit.unwrap_or(HOP_LIMIT).saturating_sub(1);
        for (datagrams, index) in self.strangers() {
            let reason = match relay.route(index, from.addr, now) {
                Ok(_) if hops_left == 0 => DropReason::RelayHopLimit,
                Ok(route) => {
                    send(datagrams, &route, hops_left);
                    continue;
                }
                Err(reason) => reason,
            };
            plane.drop_packets(reason, datagrams.len().div_ceil(self.stride));
        }
    }

    /// Distance between datagrams in bytes.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The TOS of the outer packets.
    pub fn tos(&self) -> u8 {
        self.tos
    }

    /// The number of data packets to open.
    pub fn count(&self) -> usize {
        self.runs
            .iter()
            .map(|run| run.bytes.len().div_ceil(self.stride))
            .sum()
    }

    /// The number of the peer that sent the data packets, 0 if there are none. None if several peers sent
    /// them, from one address.
    pub(crate) fn only_peer(&self) -> Option<u64> {
        let number = |run: &Run| run.keypair.peer().map_or(0, |peer| peer.id);
        let mut numbers = self.runs.iter().map(number);
        let first = numbers.next().unwrap_or(0);
        numbers.all(|number| number == first).then_some(first)
    }

    /// Opens all data packets in place.
    pub fn open(&mut self) {
        for run in &self.runs {
            let datagrams = &mut self.bytes[run.bytes.clone()];
            let opening = &run.keypair.opening;
            opening.open_burst(datagrams, self.stride, &mut self.opened);
            self.authentic.append(&mut self.opened);
        }
    }

    /// Decides which opened packets are delivered, as described at the head of this file. Bursts
    /// must be accepted in the order in which they were received.
    pub fn accept(&mut self, plane: &Plane, now: Time) {
        let Some(from) = self.from else { return };
        if !plane.is_up() {
            plane.drop_packets(DropReason::Down, self.count());
            self.runs.clear();
            return;
        }
        let routes = plane.routes();
        let mut authentic = self.authentic.drain(..);
        for run in self.runs.drain(..) {
            let count = run.bytes.len().div_ceil(self.stride);
            let authentic = authentic.by_ref().take(count);
            let first = self.packets.len();
            let received = replay_check(
                plane,
                &self.bytes,
                &run,
                self.stride,
                authentic,
                &mut self.packets,
                now,
            );
            let Some(peer) = received else { continue };
            // From `first` on, `packets` contains the plaintexts of this run, with padding;
            // keepalives are empty.
            if self.packets.len() == first {
                continue;
            }
            let frames = match peer.takes_frames() {
                true => take_frames(&self.bytes, &mut self.packets, first),
                false => Vec::new(),
            };
            let total = self.packets.len() - first;
            let keepalives = self.packets[first..]
                .iter()
                .filter(|packet| packet.is_empty())
                .count();
            if total > 0 {
                let heard = match total == keepalives {
                    true => Heard::Keepalive,
                    false => Heard::Data,
                };
                plane.heard(&peer, from, heard, now);
            }
            if let Some(discarded) = peer.keypairs.confirm(&run.keypair) {
                plane.forget(discarded);
                plane.confirmed(&peer);
            }
            plane.keep_key_fresh_receiving(&peer, now);
            for range in frames {
                plane.frame(&peer, from, &self.bytes[range], now);
            }
            // Frames alone are no sign of life, because they may have come by another path.
            if total == 0 {
                continue;
            }
            peer.timers.any_authenticated_packet_received();
            plane.wake(&peer, peer.timers.any_authenticated_packet_traversal(now));
            plane.wake(&peer, peer.timers.data_received(now, total - keepalives));

            let mut rx_bytes = keepalives * DATA_OVERHEAD;
            let mut kept = first;
            let mut foreign = None;
            for i in first..self.packets.len() {
                let packet = self.packets[i].clone();
                if packet.is_empty() {
                    continue;
                }
                match inspect(&mut self.bytes[packet.clone()], self.tos, &peer, &routes) {
                    Ok(len) => {
                        rx_bytes += packet.len() + DATA_OVERHEAD;
                        self.packets[kept] = packet.start..packet.start + len;
                        kept += 1;
                    }
                    Err(reason) => {
                        if reason == DropReason::NotAllowed && foreign.is_none() {
                            foreign = source(&self.bytes[packet]);
                        }
                        plane.drop_packets(reason, 1);
                    }
                }
            }
            if let Some(source) = foreign {
                peer.refused(Refusal::NotAllowed { source }, now);
            }
            self.packets.truncate(kept);
            peer.add_rx_bytes(rx_bytes);
        }
    }

    /// The accepted inner packets as ranges of `bytes`, in order of arrival.
    pub fn packets(&self) -> &[Range<usize>] {
        &self.packets
    }

    /// The buffer that contains the packets.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The mutable buffer, and the ranges of `packets`.
    pub fn parts_mut(&mut self) -> (&mut [u8], &[Range<usize>]) {
        (&mut self.bytes, &self.packets)
    }
}

impl Default for InBurst {
    fn default() -> Self {
        Self::new()
    }
}

fn extend(runs: &mut Vec<Run>, bytes: Range<usize>, keypair: &Arc<Keypair<Peer>>) {
    match runs.last_mut() {
        Some(run) if run.bytes.end == bytes.start && Arc::ptr_eq(&run.keypair, keypair) => {
            run.bytes.end = bytes.end;
        }
        _ => runs.push(Run {
            bytes,
            keypair: keypair.clone(),
        }),
    }
}

fn note(strangers: &mut Vec<Stranger>, bytes: Range<usize>, index: u32) {
    match strangers.last_mut() {
        Some(last) if last.bytes.end == bytes.start && last.index == index => {
            last.bytes.end = bytes.end;
        }
        _ => strangers.push(Stranger { bytes, index }),
    }
}

/// Appends to `packets` the plaintexts of a run that are authentic and new. None if the peer or the
/// session has ended since.
fn replay_check(
    plane: &Plane,
    bytes: &[u8],
    run: &Run,
    stride: usize,
    authentic: impl Iterator<Item = bool>,
    packets: &mut Vec<Range<usize>>,
    now: Time,
) -> Option<Arc<Peer>> {
    let count = run.bytes.len().div_ceil(stride);
    let peer = run
        .keypair
        .peer()
        .filter(|peer| !peer.is_dead() && run.keypair.can_receive(now));
    if peer.is_none() {
        // All entries are consumed, so that the next run finds its own.
        authentic.for_each(drop);
        plane.drop_packets(DropReason::SessionExpired, count);
        return None;
    }
    let (mut forged, mut replayed) = (0, 0);
    let mut replay = run
        .keypair
        .replay
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for (i, authentic) in authentic.enumerate() {
        let start = run.bytes.start + i * stride;
        let end = (start + stride).min(run.bytes.end);
        let counter: [u8; 8] = bytes[start + 8..start + DATA_HEADER]
            .try_into()
            .expect("8 bytes");
        if !authentic {
            forged += 1;
        } else if !replay.accept(u64::from_le_bytes(counter)) {
            replayed += 1;
        } else {
            packets.push(start + DATA_HEADER..end - wg_crypto::transport::TAG);
        }
    }
    plane.drop_packets(DropReason::Forged, forged);
    plane.drop_packets(DropReason::Replayed, replayed);
    peer
}

/// Moves the frames out of the packets from `first` on.
fn take_frames(bytes: &[u8], packets: &mut Vec<Range<usize>>, first: usize) -> Vec<Range<usize>> {
    let is_frame = |packet: &mut Range<usize>| frame::is_frame(&bytes[packet.clone()]);
    packets.extract_if(first.., is_frame).collect()
}

/// Checks an inner packet of `peer`, which may be padded, and combines its ECN with that of the
/// outer packet. Returns its length.
fn inspect(
    packet: &mut [u8],
    outer_tos: u8,
    peer: &Arc<Peer>,
    routes: &Routes,
) -> Result<usize, DropReason> {
    let (len, owner) = match packet[0] >> 4 {
        4 if packet.len() >= 20 => {
            let len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            if len < 20 || len > packet.len() {
                return Err(DropReason::InnerMalformed);
            }
            let source: [u8; 4] = packet[12..16].try_into().expect("4 bytes");
            (len, routes.lookup_v4(Ipv4Addr::from(source)))
        }
        6 if packet.len() >= 40 => {
            let len = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            if len > packet.len() {
                return Err(DropReason::InnerMalformed);
            }
            let source: [u8; 16] = packet[8..24].try_into().expect("16 bytes");
            (len, routes.lookup_v6(Ipv6Addr::from(source)))
        }
        _ => return Err(DropReason::InnerMalformed),
    };
    if !owner.is_some_and(|owner| Arc::ptr_eq(owner, peer)) {
        return Err(DropReason::NotAllowed);
    }
    decapsulate_ecn(packet, outer_tos);
    Ok(len)
}

/// The source address of a complete inner packet.
fn source(packet: &[u8]) -> Option<IpAddr> {
    if packet[0] >> 4 == 4 {
        let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
        Some(source.into())
    } else {
        let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
        Some(source.into())
    }
}

/// RFC 6040 section 4.2: outer CE turns inner ECT into CE, and outer ECT(1) turns inner ECT(0) into
/// ECT(1). Inner Not-ECT does not change, and is delivered even with outer CE, as in the kernel.
fn decapsulate_ecn(packet: &mut [u8], outer_tos: u8) {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    let v4 = packet[0] >> 4 == 4;
    let inner = if v4 {
        packet[1] & 3
    } else {
        packet[1] >> 4 & 3
    };
    let ecn = match (inner, outer_tos & 3) {
        (ECT_0 | ECT_1, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        _ => return,
    };
    debug_assert!(inner != NOT_ECT);
    if v4 {
        // RFC 1624: HC' = ~(~HC + ~m + m').
        let word = |at: usize, packet: &[u8]| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let old = word(0, packet);
        packet[1] = packet[1] & !3 | ecn;
        let sum = u32::from(!word(10, packet)) + u32::from(!old) + u32::from(word(0, packet));
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    } else {
        packet[1] = packet[1] & !0x30 | ecn << 4;
    }
}

impl Plane {
    /// The initiator of a session that will soon end requests a new one, once, when it receives: it
    /// may have nothing to send.
    fn keep_key_fresh_receiving(&self, peer: &Arc<Peer>, now: Time) {
        const LAST_MINUTE: std::time::Duration = REJECT_AFTER_TIME
            .saturating_sub(KEEPALIVE_TIMEOUT)
            .saturating_sub(REKEY_TIMEOUT);
        if peer.sent_lastminute_handshake.load(Ordering::Relaxed) {
            return;
        }
        let last_minute = matches!(&*peer.keypairs.current(), Some(current) if current.can_send(now)
            && current.is_initiator
            && current.age(now) >= LAST_MINUTE);
        if last_minute {
            peer.sent_lastminute_handshake
                .store(true, Ordering::Relaxed);
            self.ask_handshake(peer, now);
        }
    }
}
