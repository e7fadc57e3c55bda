//! From the TUN device to the peers.
//!
//! ```text
//! read (a super-packet or one packet) ─► one look-up of the route ─► the peer's open burst
//!   each segment is copied once, directly to its slot, and its checksum completed
//! nothing left to read, or burst full ─► counters reserved ─► sealed ─► one sendmsg ─► accounted
//! ```
//!
//! Packets are gathered as long as the device has more of them, so bursts grow with the load, and a
//! single packet does not wait. A burst belongs to one peer; a few bursts are open at once, so that
//! traffic to several peers is also gathered. The order of each peer's packets is kept: a peer has
//! at most one open burst, and counters are reserved when a burst is closed.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::icmp::{self, Limiter};
use super::lane::{Lane, Order, Stages};
use super::loops::Loops;
use super::now;
use super::segment::Segmenter;
use super::sockets::Sockets;
use super::tun_io::TunIo;
use super::turn::{Lone, Turn};
use super::virtio::{self, VirtioNetHdr};
use crate::sys::udp::OuterHeader;
use crate::tunnel::drops::DropReason;
use crate::tunnel::messages::MAX_PACKET;
use crate::tunnel::peer::Peer;
use crate::tunnel::plane::Plane;
use crate::tunnel::send::{
    OpenBurst, OutBuffer, Prepared, PreparedBurst, SealedBurst, Unroutable, outer_tos, route,
};
use crate::tunnel::time::Time;

/// Most bursts that are open at once, each for a different peer.
const OPEN_BURSTS: usize = 8;
/// With this many datagrams or more, or after this many packets without a pause, it is worth waking another
/// core for a burst that others follow.
const LARGE: usize = 16;
const BUSY: usize = 16;
/// Most packets in one turn, and a number of bytes after which no further packet is read.
const TURN_PACKETS: usize = 64;
const TURN_BYTES: usize = 128 << 10;
/// Most failed reads in a row in one turn, so that a device that always fails does not occupy a
/// core.
const TURN_FAILURES: usize = 8;
/// Most ICMP errors per second, and at once: the kernel's `icmp_msgs_per_sec` and
/// `icmp_msgs_burst`.
const UNREACHABLES_PER_SECOND: u32 = 1000;
const UNREACHABLES_AT_ONCE: u32 = 50;
/// The size of the largest super-packet, with its virtio header.
const READ_SIZE: usize = virtio::LEN + (1 << 16) + 1024;

/// Seals bursts and sends them.
pub struct Outbound {
    plane: Arc<Plane>,
    sockets: Arc<Sockets>,
}

impl Stages for Outbound {
    type Buffer = OutBuffer;
    type Burst = PreparedBurst;
    type Worked = SealedBurst;
    type Scratch = ();

    fn new_buffer(&self) -> OutBuffer {
        OutBuffer::new()
    }

    fn new_scratch(&self) {}

    fn order(&self, burst: &PreparedBurst) -> Order {
        Order::Of(burst.peer().id)
    }

    fn work(&self, burst: PreparedBurst) -> SealedBurst {
        burst.seal()
    }

    fn finish(&self, (): &mut (), burst: SealedBurst) -> OutBuffer {
        let now = now();
        self.plane.sending(&burst, now);
        let taken = send(&self.plane, &self.sockets, &burst, now);
        self.plane.sent(burst, taken, now)
    }
}

/// Sends a sealed burst to its peer's endpoint. Returns the number of bytes that the network
/// accepted.
fn send(plane: &Plane, sockets: &Sockets, burst: &SealedBurst, now: Time) -> usize {
    let peer = burst.peer();
    let Some(destination) = peer.destination(true, now) else {
        plane.drop_packets(DropReason::NoEndpoint, burst.count());
        return 0;
    };
    plane.note(peer, &destination);
    let (datagrams, stride) = (burst.datagrams(), burst.stride());
    let header = OuterHeader::with_tos(burst.tos());
    if let Some(also) = &destination.also {
        // The peer's replay window refuses the second copy. Only the other one is accounted.
        let _ = sockets.send(datagrams, stride, also, header, None, now);
    }
    let sent = sockets.send(datagrams, stride, &destination.to, header, Some(peer), now);
    if let Some(error) = sent.error {
        peer.send_failed(&error, now);
        plane.drop_packets(DropReason::SendFailed, sent.refused);
    }
    sent.bytes
}

/// Reads the TUN device in turns.
pub struct TunReader {
    plane: Arc<Plane>,
    tun: Arc<dyn TunIo>,
    lane: Lane<Outbound>,
    /// The open bursts, in the order in which they were started.
    open: Vec<OpenBurst>,
    spare: Vec<OutBuffer>,
    unreachables: Limiter,
    loops: Loops,
    lone: Lone,
    /// The number of packets since the device had none.
    in_a_row: usize,
    /// Whether a failed read was logged.
    told_failure: bool,
    buffer: Box<[u8]>,
}

impl TunReader {
    /// A reader of `tun`. This number of workers helps while packets are waiting.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(
        plane: Arc<Plane>,
        tun: Arc<dyn TunIo>,
        sockets: Arc<Sockets>,
        workers: usize,
    ) -> io::Result<Self> {
        let stages = Outbound {
            plane: plane.clone(),
            sockets: sockets.clone(),
        };
        Ok(TunReader {
            plane,
            tun,
            loops: Loops::new(sockets),
            lone: Lone::default(),
            in_a_row: 0,
            told_failure: false,
            lane: Lane::new("wg-seal", workers, stages)?,
            open: Vec::with_capacity(OPEN_BURSTS),
            spare: Vec::with_capacity(OPEN_BURSTS),
            unreachables: Limiter::new(UNREACHABLES_PER_SECOND, UNREACHABLES_AT_ONCE),
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
        })
    }

    /// The part of the tunnel that is shared.
    pub fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }

    /// Reads what there is, up to a limit, and sends it. After [`Turn::More`] another turn must
    /// follow.
    ///
    /// # Errors
    /// `EBADFD`: the link was deleted. Other errors are counted, and reading continues.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let is_lone = self.lone.is_lone(now());
        let turn = self.read(&mut buffer, is_lone);
        self.buffer = buffer;
        if let Ok(turn) = turn {
            self.lone.ended(turn, now());
        }
        // If more packets follow at once, open bursts stay open for them.
        if !matches!(turn, Ok(Turn::More)) {
            self.flush();
            self.in_a_row = 0;
        }
        turn
    }

    fn read(&mut self, buffer: &mut [u8], is_lone: bool) -> io::Result<Turn> {
        let (mut packets, mut bytes, mut failures) = (0, 0, 0);
        while packets < TURN_PACKETS && bytes < TURN_BYTES {
            match self.tun.recv(buffer) {
                Ok(len) => {
                    self.take(&buffer[..len]);
                    packets += 1;
                    self.in_a_row += 1;
                    bytes += len;
                    failures = 0;
                    if is_lone {
                        return Ok(Turn::Lone);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        return Ok(if packets == 0 {
                            Turn::Nothing
                        } else {
                            Turn::Drained
                        });
                    }
                    Some(libc::EINTR) => {}
                    Some(libc::EBADFD) => return Err(error),
                    // The kernel could not deliver a packet, or the device fails.
                    _ => {
                        self.failed(&error);
                        failures += 1;
                        if failures == TURN_FAILURES {
                            return Ok(Turn::Failing);
                        }
                    }
                },
            }
        }
        Ok(Turn::More)
    }

    fn failed(&mut self, error: &io::Error) {
        self.plane.drop_packets(DropReason::TunReadFailed, 1);
        if !std::mem::replace(&mut self.told_failure, true) {
            tracing::error!(%error, "cannot read a packet from the TUN device; continuing with the next");
        }
    }

    /// Adds the packets of one read to their peer's burst.
    fn take(&mut self, read: &[u8]) {
        let Some((header, packet)) = VirtioNetHdr::parse(read) else {
            return self.plane.drop_packets(DropReason::Malformed, 1);
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
            return self.plane.drop_packets(DropReason::Malformed, 1);
        };
        // The first packet is the longest.
        if segments.segment_len(0) > MAX_PACKET {
            return self
                .plane
                .drop_packets(DropReason::TooLong, segments.count());
        }
        if self.loops.is_ours(&self.plane, packet, peer) {
            return self.plane.drop_packets(DropReason::Loop, segments.count());
        }
        let mtu = self.plane.mtu();
        let tos = outer_tos(packet);
        for i in 0..segments.count() {
            let len = segments.segment_len(i);
            let burst = self.burst_for(peer, tos, len, mtu);
            segments.write(i, burst.push(len, mtu));
        }
    }

    /// The peer's burst, with space for a packet of `len` bytes.
    fn burst_for(&mut self, peer: &Arc<Peer>, tos: u8, len: usize, mtu: usize) -> &mut OpenBurst {
        let open = self
            .open
            .iter()
            .position(|burst| Arc::ptr_eq(burst.peer(), peer));
        if let Some(i) = open {
            if self.open[i].fits(peer, tos, len, mtu) {
                return &mut self.open[i];
            }
            self.close(i, true);
        } else if self.open.len() == OPEN_BURSTS {
            self.close(0, true);
        }
        let buffer = self.spare.pop().unwrap_or_else(|| self.lane.new_buffer());
        self.open.push(buffer.start(peer, tos));
        self.open.last_mut().expect("just pushed")
    }

    /// Passes an open burst on. `more`: whether there is something to do after it.
    fn close(&mut self, i: usize, more: bool) {
        let free = match self.plane.prepare(self.open.remove(i), now()) {
            Prepared::Ready(burst) => {
                let backlog = more && (burst.count() >= LARGE || self.in_a_row >= BUSY);
                self.lane.run(burst, backlog)
            }
            Prepared::Staged(buffer) => buffer,
        };
        self.spare.push(free);
    }

    fn flush(&mut self) {
        while !self.open.is_empty() {
            self.close(0, self.open.len() > 1);
        }
    }

    /// Answers a packet that no peer can get, like the kernel module.
    fn answer_unreachable(&mut self, packet: &[u8]) {
        if !self.unreachables.allow(now()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tun::TunOffloads;
    use crate::tunnel::plane::Plane;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// A TUN whose reads end as configured; the last result is repeated.
    struct Script(Mutex<VecDeque<Result<Vec<u8>, i32>>>);

    impl TunIo for Script {
        fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
            let mut reads = self.0.lock().unwrap();
            let read = match reads.len() {
                1 => reads[0].clone(),
                _ => reads.pop_front().unwrap(),
            };
            let bytes = read.map_err(io::Error::from_raw_os_error)?;
            buf[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }

        fn send(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }

        fn offloads(&self) -> TunOffloads {
            TunOffloads::ALL
        }
    }

    fn reader(reads: impl IntoIterator<Item = Result<Vec<u8>, i32>>) -> (Arc<Plane>, TunReader) {
        let plane = Arc::new(Plane::new());
        let tun = Arc::new(Script(Mutex::new(reads.into_iter().collect())));
        let sockets = Arc::new(Sockets::default());
        let mut reader = TunReader::new(plane.clone(), tun, sockets, 0).unwrap();
        // As among many packets.
        reader.lone.ended(Turn::More, Time::default());
        (plane, reader)
    }

    /// A virtio header with bytes that are not an IP packet, which end in a counter.
    fn junk() -> Result<Vec<u8>, i32> {
        Ok(vec![0; virtio::LEN + 20])
    }

    #[test]
    fn a_failed_read_is_counted_and_the_next_packet_is_read() {
        let errors = [libc::EIO, libc::EINVAL, libc::ENOMEM, libc::EFAULT];
        let reads = errors.into_iter().flat_map(|errno| [Err(errno), junk()]);
        let reads = reads.chain([Err(libc::EINTR), junk(), Err(libc::EAGAIN)]);
        let (plane, mut reader) = reader(reads);
        assert_eq!(reader.turn().unwrap(), Turn::Drained);
        assert_eq!(plane.drops().get(DropReason::TunReadFailed), 4);
        assert_eq!(plane.drops().get(DropReason::NotIp), 5);
        assert_eq!(reader.turn().unwrap(), Turn::Nothing);
    }

    #[test]
    fn after_a_single_packet_the_turn_ends() {
        let (plane, mut reader) = reader([junk(), junk(), Err(libc::EAGAIN)]);
        reader.lone = Lone::default();
        assert_eq!(reader.turn().unwrap(), Turn::Lone);
        assert_eq!(plane.drops().get(DropReason::NotIp), 1);
        reader.lone.ended(Turn::More, Time::default());
        assert_eq!(reader.turn().unwrap(), Turn::Drained);
        assert_eq!(plane.drops().get(DropReason::NotIp), 2);
        assert_eq!(reader.turn().unwrap(), Turn::Nothing);
    }

    #[test]
    fn a_device_that_always_fails_is_not_read_for_a_while() {
        let (plane, mut reader) = reader([Err(libc::EIO)]);
        for turn in 1..4 {
            assert_eq!(reader.turn().unwrap(), Turn::Failing);
            let failed = plane.drops().get(DropReason::TunReadFailed);
            assert_eq!(failed, turn * TURN_FAILURES as u64);
        }
    }

    #[test]
    fn only_a_deleted_link_ends_reading() {
        let (plane, mut reader) = reader([junk(), Err(libc::EBADFD)]);
        let error = reader.turn().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
        assert_eq!(plane.drops().get(DropReason::NotIp), 1);
    }
}
