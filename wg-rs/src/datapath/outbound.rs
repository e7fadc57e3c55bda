//! From the TUN device to the peers.
//!
//! ```text
//! read (a super-packet, or one packet) ─► route, once ─► the peer's open burst
//!   each segment copied once, straight to its slot, its checksum completed on the way
//! no more to read, or burst full ─► counters reserved ─► sealed ─► one sendmsg ─► accounted
//! ```
//!
//! Packets that arrive one by one are gathered for as long as the device has more, so bursts grow
//! with the load and a lone packet waits for nothing. A burst belongs to one peer; a few are open at
//! once, so that traffic to several peers is gathered as well. Per peer the order is that of the
//! device: there is at most one open burst of a peer, and counters are reserved as bursts close.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::icmp::{self, Limiter};
use super::lane::{Lane, Stages};
use super::now;
use super::segment::Segmenter;
use super::sockets::Sockets;
use super::tun_io::TunIo;
use super::turn::Turn;
use super::virtio::{self, VirtioNetHdr};
use crate::tunnel::drops::Drop;
use crate::tunnel::messages::MAX_PACKET;
use crate::tunnel::peer::Peer;
use crate::tunnel::plane::Plane;
use crate::tunnel::send::{OutBurst, Prepared, Unroutable, outer_tos, route};
use crate::tunnel::time::Time;

/// Bursts open at once, each for a peer of its own.
const OPEN_BURSTS: usize = 8;
/// From this many datagrams on, sealing is worth another core's wakeup.
const LARGE: usize = 16;
/// What is read in one turn at most: packets, and bytes beyond which no further one is read.
const TURN_PACKETS: usize = 64;
const TURN_BYTES: usize = 128 << 10;
/// ICMP errors a second, and at once: the kernel's `icmp_msgs_per_sec` and `icmp_msgs_burst`.
const UNREACHABLES_PER_SECOND: u32 = 1000;
const UNREACHABLES_AT_ONCE: u32 = 50;
/// The largest super-packet the kernel makes, and its virtio header.
const READ_SIZE: usize = virtio::LEN + (1 << 16) + 1024;

/// Seals bursts and sends them.
pub struct Outbound {
    plane: Arc<Plane>,
    sockets: Arc<Sockets>,
}

impl Stages for Outbound {
    type Burst = OutBurst;
    type Finisher = ();

    fn new_burst(&self) -> OutBurst {
        OutBurst::new()
    }

    fn work(&self, burst: &mut OutBurst) {
        burst.seal();
    }

    fn finish(&self, (): &mut (), burst: &mut OutBurst) {
        send(&self.plane, &self.sockets, burst);
        burst.clear();
    }

    fn is_large(&self, burst: &OutBurst) -> bool {
        burst.count() >= LARGE
    }
}

/// Sends a sealed burst to its peer's endpoint and accounts for it.
fn send(plane: &Plane, sockets: &Sockets, burst: &OutBurst) {
    let Some(peer) = burst.peer() else { return };
    let Some(endpoint) = peer.endpoint() else {
        return plane.drop_packets(Drop::NoEndpoint, burst.count());
    };
    let now = now();
    let (datagrams, stride) = (burst.datagrams(), burst.stride());
    let sent = sockets.send(datagrams, stride, &endpoint, burst.tos(), Some(peer), now);
    if let Some(error) = sent.error {
        tracing::debug!(%error, "sending failed");
        plane.drop_packets(Drop::SendFailed, sent.refused);
    }
    plane.sent(burst, sent.bytes, now);
}

/// Reads the TUN device, a turn at a time.
pub struct TunReader {
    plane: Arc<Plane>,
    tun: Arc<dyn TunIo>,
    lane: Lane<Outbound>,
    /// In the order in which they were begun.
    open: Vec<OutBurst>,
    spare: Vec<OutBurst>,
    unreachables: Limiter,
    buffer: Box<[u8]>,
}

impl TunReader {
    /// A reader of `tun` whose large bursts are sealed by so many workers.
    ///
    /// # Errors
    /// Of making the workers' threads.
    pub fn new(
        plane: Arc<Plane>,
        tun: Arc<dyn TunIo>,
        sockets: Arc<Sockets>,
        workers: usize,
    ) -> io::Result<Self> {
        let stages = Outbound {
            plane: plane.clone(),
            sockets,
        };
        Ok(TunReader {
            plane,
            tun,
            lane: Lane::new("wg-seal", workers, stages, ())?,
            open: Vec::with_capacity(OPEN_BURSTS),
            spare: Vec::with_capacity(OPEN_BURSTS),
            unreachables: Limiter::new(UNREACHABLES_PER_SECOND, UNREACHABLES_AT_ONCE),
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
        })
    }

    /// Reads what there is, within limits, and sends it. After [`Turn::More`] another turn must follow.
    ///
    /// # Errors
    /// Of the device: `EBADFD` once the link was deleted.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let turn = self.read(&mut buffer);
        self.buffer = buffer;
        // With more to come at once, what is gathered waits for it.
        if !matches!(turn, Ok(Turn::More)) {
            self.flush();
        }
        turn
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Turn> {
        let (mut packets, mut bytes) = (0, 0);
        while packets < TURN_PACKETS && bytes < TURN_BYTES {
            match self.tun.recv(buffer) {
                Ok(len) => {
                    self.take(&buffer[..len]);
                    packets += 1;
                    bytes += len;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(if packets == 0 {
                        Turn::Nothing
                    } else {
                        Turn::Drained
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Turn::More)
    }

    /// Puts the packets of one read into their peer's burst.
    fn take(&mut self, read: &[u8]) {
        let Some((header, packet)) = VirtioNetHdr::parse(read) else {
            return self.plane.drop_packets(Drop::Malformed, 1);
        };
        let routes = self.plane.routes();
        let peer = match route(&routes, packet) {
            Ok(peer) => peer,
            Err(reason) => {
                self.plane.drop_packets(reason.into(), 1);
                if reason != Unroutable::NotIp {
                    self.answer_unreachable(packet);
                }
                return;
            }
        };
        let Ok(segments) = Segmenter::new(header, packet) else {
            return self.plane.drop_packets(Drop::Malformed, 1);
        };
        // The first is the longest.
        if segments.segment_len(0) > MAX_PACKET {
            return self.plane.drop_packets(Drop::TooLong, segments.count());
        }
        let mtu = self.plane.mtu();
        let tos = outer_tos(packet);
        for i in 0..segments.count() {
            let len = segments.segment_len(i);
            let burst = self.burst_for(peer, tos, len, mtu);
            segments.write(i, burst.push(len, mtu));
        }
    }

    /// The peer's burst, with room for a packet of `len` bytes.
    fn burst_for(&mut self, peer: &Arc<Peer>, tos: u8, len: usize, mtu: usize) -> &mut OutBurst {
        let open = self
            .open
            .iter()
            .position(|burst| burst.peer().is_some_and(|p| Arc::ptr_eq(p, peer)));
        if let Some(i) = open {
            if self.open[i].fits(peer, tos, len, mtu) {
                return &mut self.open[i];
            }
            self.close(i);
        } else if self.open.len() == OPEN_BURSTS {
            self.close(0);
        }
        let mut burst = self.spare.pop().unwrap_or_else(|| self.lane.new_burst());
        burst.start(peer, tos);
        self.open.push(burst);
        self.open.last_mut().expect("just pushed")
    }

    /// Sends an open burst on its way.
    fn close(&mut self, i: usize) {
        let mut burst = self.open.remove(i);
        match self.plane.prepare(&mut burst, now()) {
            Prepared::Ready => self.lane.run(&mut burst),
            Prepared::Staged => {}
        }
        self.spare.push(burst);
    }

    fn flush(&mut self) {
        while !self.open.is_empty() {
            self.close(0);
        }
    }

    /// Tells a packet's sender that nobody has its destination, as the kernel module does.
    fn answer_unreachable(&mut self, packet: &[u8]) {
        if !self.unreachables.allow(now().saturating_since(Time::ZERO)) {
            return;
        }
        let mut answer = [0; icmp::MAX_LEN];
        if let Some(len) = icmp::unreachable(packet, &mut answer) {
            let parts = [
                IoSlice::new(&[0; virtio::LEN]),
                IoSlice::new(&answer[..len]),
            ];
            if let Err(error) = self.tun.send(&parts) {
                tracing::debug!(%error, "ICMP unreachable not delivered");
            }
        }
    }
}
