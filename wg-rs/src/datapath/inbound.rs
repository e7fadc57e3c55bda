//! From a socket to the TUN device.
//!
//! ```text
//! recvmsg (up to 64 KiB of datagrams of one sender, at one stride)
//!   ─► handshake messages to the inbox; session looked up once per run
//!   ─► opened in place ─► replay, roaming, confirmation, source check: serial
//!   ─► runs coalesced by gathering ─► one writev per super-packet, no copy
//! ```

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::coalesce::{Coalescer, MAX_PACKETS, Offer, Write};
use super::inbox::Inbox;
use super::lane::{Lane, Stages};
use super::now;
use super::refusals::Refusals;
use super::tun_io::TunIo;
use super::turn::Turn;
use super::virtio::{self, VirtioNetHdr};
use crate::sys::udp::{Received, UdpSocket};
use crate::tunnel::drops::Drop;
use crate::tunnel::peer::{Endpoint, Source};
use crate::tunnel::plane::Plane;
use crate::tunnel::receive::InBurst;
use crate::tunnel::time::Time;

/// What is received in one turn at most: bursts, and bytes beyond which no further one is.
const TURN_BURSTS: usize = 16;
const TURN_BYTES: usize = 128 << 10;
/// From this many datagrams on, opening is worth another core's wakeup.
const LARGE: usize = 16;

/// The TUN device as packets are delivered to it, with the super-packets that it takes.
pub struct Delivery {
    tun: Arc<dyn TunIo>,
    tcp: Coalescing,
    udp: Coalescing,
}

/// One kind of super-packet.
struct Coalescing {
    /// Whether the device offered it when it was opened.
    offered: bool,
    /// From whose datagrams they were that the kernel refused.
    refusals: Refusals,
    /// Whether that was logged.
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

    /// The kernel refused a super-packet (some releases do).
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
    /// Delivery with what the device offered when it was opened.
    pub fn new(tun: Arc<dyn TunIo>) -> Self {
        let offloads = tun.offloads();
        Delivery {
            tun,
            tcp: Coalescing::new(offloads.tso),
            udp: Coalescing::new(offloads.uso),
        }
    }

    /// Writes the accepted packets of a burst, coalesced; what the kernel refuses coalesced goes again
    /// singly.
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
                plane.drop_packets(Drop::DeliveryFailed, write.packets);
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
                    plane.drop_packets(Drop::DeliveryFailed, 1);
                }
            }
        }
    }

    fn write(&self, bytes: &[u8], write: &Write<'_>) -> io::Result<()> {
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
    type Burst = InBurst;
    type Finisher = Coalescer;

    fn new_burst(&self) -> InBurst {
        InBurst::new()
    }

    fn work(&self, burst: &mut InBurst) {
        burst.open();
    }

    fn finish(&self, coalescer: &mut Coalescer, burst: &mut InBurst) {
        let now = now();
        burst.accept(&self.plane, now);
        self.delivery.deliver(&self.plane, coalescer, burst, now);
    }

    fn is_large(&self, burst: &InBurst) -> bool {
        burst.count() >= LARGE
    }
}

/// Reads a socket, a turn at a time.
pub struct SocketReader {
    plane: Arc<Plane>,
    socket: Arc<UdpSocket>,
    inbox: Arc<Inbox>,
    lane: Lane<Inbound>,
    burst: InBurst,
}

impl SocketReader {
    /// A reader of `socket` whose large bursts are opened by so many workers.
    ///
    /// # Errors
    /// Of making the workers' threads.
    pub fn new(
        plane: Arc<Plane>,
        socket: Arc<UdpSocket>,
        inbox: Arc<Inbox>,
        delivery: Arc<Delivery>,
        workers: usize,
    ) -> io::Result<Self> {
        let stages = Inbound {
            plane: plane.clone(),
            delivery,
        };
        let lane = Lane::new("wg-open", workers, stages, Coalescer::new())?;
        Ok(SocketReader {
            plane,
            socket,
            inbox,
            burst: lane.new_burst(),
            lane,
        })
    }

    /// Receives what there is, within limits, and delivers it.
    pub fn turn(&mut self) -> Turn {
        let mut bytes = 0;
        for received in 0..TURN_BURSTS {
            if bytes >= TURN_BYTES {
                break;
            }
            let burst = &mut self.burst;
            match self.socket.recv(burst.buffer()) {
                // A datagram that was cut is refused as forged.
                Ok(Received {
                    len,
                    stride,
                    from,
                    to,
                    ifindex,
                    tos,
                    truncated: _,
                }) => {
                    let src = to.map(|ip| Source { ip, ifindex });
                    burst.received(len, stride, Endpoint { addr: from, src }, tos);
                    burst.classify(&self.plane, now(), |message, from| {
                        if !self.inbox.push(message, from) {
                            self.plane.drop_packets(Drop::HandshakeQueueFull, 1);
                        }
                    });
                    self.lane.run(burst);
                    bytes += len;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return if received == 0 {
                        Turn::Nothing
                    } else {
                        Turn::Drained
                    };
                }
                Err(error) => {
                    tracing::debug!(%error, "receiving failed");
                    self.plane.drop_packets(Drop::ReceiveFailed, 1);
                }
            }
        }
        Turn::More
    }
}

impl AsFd for SocketReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
