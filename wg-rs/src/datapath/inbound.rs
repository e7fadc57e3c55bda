//! From a socket to the TUN device.
//!
//! ```text
//! recvmsg (up to 64 KiB of datagrams from one sender, at a fixed stride)
//!   ─► handshake messages go to the inbox; one session look-up for each run
//!   ─► relayed packets are sent on (`forward.rs`)
//!   ─► opened in place ─► replay, roaming, confirmation, source check: serial
//!   ─► runs are coalesced by gathering ─► one writev per super-packet, no copy
//! ```

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::coalesce::{Coalescer, MAX_PACKETS, Offer, Write};
use super::forward::forward;
use super::inbox::{Inbox, ReceivedMessage};
use super::lane::{Lane, Order, Stages};
use super::now;
use super::refusals::Refusals;
use super::sockets::Sockets;
use super::tun_io::TunIo;
use super::turn::{Lone, Turn};
use super::virtio::{self, VirtioNetHdr};
use crate::sys::udp::{Received, UdpSocket};
use crate::tunnel::drops::DropReason;
use crate::tunnel::peer::{Endpoint, Source};
use crate::tunnel::plane::Plane;
use crate::tunnel::receive::InBurst;
use crate::tunnel::time::Time;

/// Most bursts in one turn, and a number of bytes after which no further burst is received. Packets that wait on
/// the TUN leave between two turns, so a turn ends after one super-packet.
const TURN_BURSTS: usize = 16;
const TURN_BYTES: usize = 32 << 10;
/// With this many datagrams or more, or after this many bursts without a pause, it is worth waking another
/// core for a burst that others follow.
const LARGE: usize = 16;
const BUSY: usize = 8;

/// Delivers packets to the TUN device, and knows which super-packets it accepts.
pub struct Delivery {
    tun: Arc<dyn TunIo>,
    tcp: Coalescing,
    udp: Coalescing,
}

/// One kind of super-packet.
struct Coalescing {
    /// Whether the device offered this kind when it was opened.
    offered: bool,
    /// The endpoints whose coalesced packets the kernel refused.
    refusals: Refusals,
    /// Whether a refusal was logged.
    told: AtomicBool,
}

impl Coalescing {
    fn new(offered: bool) -> Self {
        Coalescing {
            offered,
            refusals: Refusals::default(),
            told: AtomicBool::new(false),
        }
    }

    fn is_on(&self, from: &SocketAddr, now: Time) -> bool {
        self.offered && !self.refusals.cover(from, 0, now)
    }

    /// Records that the kernel refused a super-packet, as some versions do.
    fn refused(&self, kind: &str, from: SocketAddr, now: Time) {
        self.refusals.note(from, 0, now);
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the kernel refused a {kind} super-packet on the TUN device; \
                 packets of peers to whom that happens are delivered singly for a minute each time"
            );
        }
    }
}

impl Delivery {
    /// Uses the offloads of the device.
    pub fn new(tun: Arc<dyn TunIo>) -> Self {
        let offloads = tun.offloads();
        Delivery {
            tun,
            tcp: Coalescing::new(offloads.tso),
            udp: Coalescing::new(offloads.uso),
        }
    }

    /// Writes the accepted packets of a burst, coalesced. If the kernel refuses a super-packet, its
    /// packets are written one by one.
    fn deliver(&self, plane: &Plane, coalescer: &mut Coalescer, burst: &mut InBurst, now: Time) {
        let Some(from) = burst.from().map(|from| from.addr) else {
            return;
        };
        let offer = Offer {
            tcp: self.tcp.is_on(&from, now),
            udp: self.udp.is_on(&from, now),
        };
        let (bytes, packets) = burst.parts_mut();
        coalescer.plan(bytes, packets, offer);
        for (i, write) in coalescer.writes().enumerate() {
            let Err(error) = self.write(bytes, &write) else {
                continue;
            };
            if error.raw_os_error() != Some(libc::EINVAL) || write.packets == 1 {
                plane.drop_packets(DropReason::DeliveryFailed, write.packets);
                continue;
            }
            if is_udp(&write) {
                self.udp.refused("UDP", from, now);
            } else {
                self.tcp.refused("TCP", from, now);
            }
            for packet in coalescer.restore(bytes, i) {
                let parts = [
                    IoSlice::new(&[0; virtio::LEN]),
                    IoSlice::new(&bytes[packet.clone()]),
                ];
                if self.tun.send(&parts).is_err() {
                    plane.drop_packets(DropReason::DeliveryFailed, 1);
                }
            }
        }
    }

    fn write(&self, bytes: &[u8], write: &Write<'_>) -> io::Result<()> {
        // A lone packet often finds the caches cold, and does not need the long array.
        if let [part] = write.parts {
            let parts = [IoSlice::new(&write.hdr), IoSlice::new(&bytes[part.clone()])];
            return self.tun.send(&parts).map(drop);
        }
        let mut parts = [IoSlice::new(&[]); MAX_PACKETS + 1];
        parts[0] = IoSlice::new(&write.hdr);
        for (slot, part) in parts[1..].iter_mut().zip(write.parts) {
            *slot = IoSlice::new(&bytes[part.clone()]);
        }
        self.tun.send(&parts[..write.parts.len() + 1]).map(drop)
    }
}

fn is_udp(write: &Write<'_>) -> bool {
    VirtioNetHdr::parse(&write.hdr).is_some_and(|(hdr, _)| hdr.gso_type == virtio::GSO_UDP_L4)
}

/// Opens bursts and delivers them.
pub struct Inbound {
    plane: Arc<Plane>,
    delivery: Arc<Delivery>,
}

impl Stages for Inbound {
    type Buffer = InBurst;
    type Burst = InBurst;
    type Worked = InBurst;
    type Scratch = Coalescer;

    fn new_buffer(&self) -> InBurst {
        InBurst::new()
    }

    fn new_scratch(&self) -> Coalescer {
        Coalescer::new()
    }

    fn order(&self, burst: &InBurst) -> Order {
        burst.only_peer().map_or(Order::Alone, Order::Of)
    }

    fn work(&self, mut burst: InBurst) -> InBurst {
        burst.open();
        burst
    }

    fn finish(&self, coalescer: &mut Coalescer, mut burst: InBurst) -> InBurst {
        let now = now();
        burst.accept(&self.plane, now);
        self.delivery
            .deliver(&self.plane, coalescer, &mut burst, now);
        burst
    }
}

/// Reads a socket in turns.
pub struct SocketReader {
    plane: Arc<Plane>,
    socket: Arc<UdpSocket>,
    /// The sockets that relayed packets are sent with.
    sockets: Arc<Sockets>,
    inbox: Arc<Inbox>,
    lane: Lane<Inbound>,
    /// Whether the socket reports hop limits, which only a hub needs.
    reports_hop_limit: bool,
    lone: Lone,
    /// The last burst, until it is known whether another one follows. Without workers that does not matter.
    held: Option<InBurst>,
    /// The number of bursts since the socket had none.
    in_a_row: usize,
    /// Whether a packet of this turn is for the TUN, and not only to be relayed.
    delivers: bool,
    /// Free memory.
    spare: Vec<InBurst>,
    /// Handshake messages of this turn. They are queued together, as a wake-up for each of a flood would
    /// cost more than to drop it.
    messages: Vec<ReceivedMessage>,
}

impl SocketReader {
    /// A reader of `socket`, which is one of `sockets`. This number of workers helps while packets are waiting.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(
        plane: Arc<Plane>,
        socket: Arc<UdpSocket>,
        sockets: Arc<Sockets>,
        inbox: Arc<Inbox>,
        delivery: Arc<Delivery>,
        workers: usize,
    ) -> io::Result<Self> {
        let stages = Inbound {
            plane: plane.clone(),
            delivery,
        };
        let lane = Lane::new("wg-open", workers, stages)?;
        Ok(SocketReader {
            plane,
            socket,
            sockets,
            inbox,
            reports_hop_limit: false,
            lone: Lone::default(),
            held: None,
            in_a_row: 0,
            delivers: false,
            spare: vec![lane.new_buffer()],
            lane,
            messages: Vec::new(),
        })
    }

    /// Receives what has arrived, up to a limit, and delivers it. Returns [`Turn::Nothing`] also if everything
    /// was relayed, because then nothing was delivered.
    pub fn turn(&mut self) -> Turn {
        let began = now();
        self.delivers = false;
        let is_lone = self.lone.is_lone(began);
        let turn = self.receive(is_lone, began);
        if let Some(last) = self.held.take() {
            self.pass(last, turn == Turn::More);
        }
        self.lone.ended(turn, now());
        if !self.messages.is_empty() {
            let refused = self.inbox.push(&mut self.messages);
            let reason = DropReason::HandshakeQueueFull;
            self.plane.drop_packets(reason, refused);
        }
        if turn != Turn::More {
            self.in_a_row = 0;
        }
        if self.delivers { turn } else { Turn::Nothing }
    }

    fn receive(&mut self, is_lone: bool, now: Time) -> Turn {
        let mut bytes = 0;
        for received in 0..TURN_BURSTS {
            if bytes >= TURN_BYTES {
                break;
            }
            let spare = self.spare.pop();
            let mut burst = spare.unwrap_or_else(|| self.lane.new_buffer());
            match self.socket.recv(burst.buffer()) {
                Ok(received) => {
                    self.handle(burst, &received, now);
                    bytes += received.len;
                    self.in_a_row += 1;
                    if is_lone {
                        return Turn::Lone;
                    }
                }
                Err(error) => {
                    self.spare.push(burst);
                    if error.kind() == io::ErrorKind::WouldBlock {
                        return if received == 0 {
                            Turn::Nothing
                        } else {
                            Turn::Drained
                        };
                    }
                    tracing::debug!(%error, "receiving failed");
                    self.plane.drop_packets(DropReason::ReceiveFailed, 1);
                }
            }
        }
        Turn::More
    }

    /// Sorts a burst that was received in a turn that began `now`, and passes it on when it is known what
    /// follows.
    fn handle(&mut self, mut burst: InBurst, received: &Received, now: Time) {
        // A truncated datagram is refused as forged.
        let Received {
            len,
            stride,
            from,
            to,
            ifindex,
            tos,
            hop_limit,
            truncated: _,
        } = *received;
        let src = to.map(|ip| Source { ip, ifindex });
        burst.received(len, stride, Endpoint { addr: from, src }, tos);
        burst.classify(&self.plane, now, |message, from| {
            self.messages.extend(ReceivedMessage::new(message, from));
        });
        if self.plane.relay().is_some() {
            self.forward(&burst, hop_limit, now);
        }
        if burst.count() == 0 {
            return self.spare.push(burst);
        }
        self.delivers = true;
        if !self.lane.has_workers() {
            self.pass(burst, false);
        } else if let Some(before) = self.held.replace(burst) {
            self.pass(before, true);
        }
    }

    /// Relays what is for others.
    fn forward(&mut self, burst: &InBurst, hop_limit: Option<u8>, now: Time) {
        if !self.reports_hop_limit {
            self.reports_hop_limit = true;
            if let Err(error) = self.socket.report_hop_limit() {
                tracing::error!(%error, "the kernel does not report hop limits; a packet may be relayed in a circle");
            }
        }
        forward(&self.plane, &self.sockets, burst, hop_limit, now);
    }

    /// Passes a burst to the lane. `more`: whether another one follows.
    fn pass(&mut self, burst: InBurst, more: bool) {
        let backlog = more && (burst.count() >= LARGE || self.in_a_row >= BUSY);
        let free = self.lane.run(burst, backlog);
        self.spare.push(free);
    }
}

impl AsFd for SocketReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::refusals::EXPIRY;
    use crate::datapath::segment::Segmenter;
    use crate::sys::tun::TunOffloads;
    use std::sync::Mutex;

    const T: Time = Time::from_nanos(1_000_000_000_000);

    /// A TUN that refuses all super-packets and records the other writes.
    #[derive(Default)]
    struct Refusing {
        tries: Mutex<Vec<u8>>,
        packets: Mutex<Vec<Vec<u8>>>,
    }

    impl TunIo for Refusing {
        fn recv(&self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
            let (hdr, packet) = VirtioNetHdr::parse(&all).unwrap();
            self.tries.lock().unwrap().push(hdr.gso_type);
            if hdr.gso_type != virtio::GSO_NONE {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            self.packets.lock().unwrap().push(packet.to_vec());
            Ok(all.len())
        }

        fn offloads(&self) -> TunOffloads {
            TunOffloads::ALL
        }
    }

    /// Packets of a UDP flow, segmented from a super-packet of the kernel.
    fn flow() -> Vec<Vec<u8>> {
        let payload = 350u16;
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(28 + payload).to_be_bytes());
        packet[8..10].copy_from_slice(&[64, 17]);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[20..24].copy_from_slice(&[0, 1, 0, 2]);
        packet[24..26].copy_from_slice(&(8 + payload).to_be_bytes());
        // The sum of the pseudo header.
        let pseudo = 0x0a00u16 + 1 + 0x0a00 + 2 + 17 + 8 + payload;
        packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
        packet.extend((0..payload).map(|n| n as u8));
        let hdr = VirtioNetHdr {
            flags: virtio::NEEDS_CSUM,
            gso_type: virtio::GSO_UDP_L4,
            hdr_len: 28,
            gso_size: 100,
            csum_start: 20,
            csum_offset: 6,
            ..VirtioNetHdr::default()
        };
        let segments = Segmenter::new(hdr, &packet).unwrap();
        let segment = |i| {
            let mut slot = vec![0; segments.segment_len(i)];
            segments.write(i, &mut slot);
            slot
        };
        (0..segments.count()).map(segment).collect()
    }

    #[test]
    fn a_refused_super_packet_is_split_and_coalescing_continues_elsewhere_and_later() {
        let tun = Arc::new(Refusing::default());
        let delivery = Delivery::new(tun.clone());
        let plane = Plane::new();
        let mut coalescer = Coalescer::new();
        let packets = flow();
        assert_eq!(packets.len(), 4);
        let mut tries = |from: u8, now: Time| {
            let from = SocketAddr::from(([192, 0, 2, from], 51820));
            let mut burst = InBurst::accepted(&packets, from.into());
            delivery.deliver(&plane, &mut coalescer, &mut burst, now);
            assert!(
                *tun.packets.lock().unwrap() == packets,
                "all packets, in order, unchanged"
            );
            tun.packets.lock().unwrap().clear();
            std::mem::take(&mut *tun.tries.lock().unwrap())
        };
        let refused = [virtio::GSO_UDP_L4, 0, 0, 0, 0];
        assert_eq!(tries(1, T), refused);
        assert_eq!(tries(1, T), [0; 4]);
        assert_eq!(tries(2, T), refused);
        assert_eq!(tries(1, T + EXPIRY), refused);
        assert_eq!(plane.drops().total(), 0);
    }
}
