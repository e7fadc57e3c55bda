//! Sends bursts, and handles refusals of the kernel.
//!
//! ```text
//! may it be segmented? ── yes ─► one call ── EIO, EINVAL, EMSGSIZE ─┐
//!        │ no                       │ any other error: dropped      │
//!        └────────► one call per datagram, in order ◄───────────────┘
//! ```
//! A burst is not segmented if the kernel recently refused that for the endpoint (`Refusals`), or
//! while much data is still queued: the queue of a link counts packets, and a segmented burst of 64
//! KiB counts as one.
//!
//! Nothing here waits. One socket serves all peers, so waiting for one peer would delay all others.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::refusals::Refusals;
use crate::sys::udp::{MAX_PAYLOAD, MAX_SEGMENTS, OuterHeader, Parcel, UdpSocket};
use crate::tunnel::peer::{Endpoint, Source};
use crate::tunnel::time::Time;

/// While more bytes than this are queued, bursts are sent as single datagrams.
const CROWDED: usize = 1 << 20;
/// Bytes that are sent between two checks of the queues, because each check is a system call.
const LOOK_EVERY: usize = 128 << 10;

/// A UDP socket, or in tests a replacement that fails on purpose.
pub trait Wire {
    /// See [`UdpSocket::send`].
    ///
    /// # Errors
    /// Those of the kernel.
    fn send(&self, bytes: &[u8], stride: Option<u16>, parcel: &Parcel) -> io::Result<usize>;
    /// See [`UdpSocket::queued`].
    fn queued(&self) -> usize;
    /// Whether this is a local address; for an IPv6 link-local address, of this link.
    fn has_address(&self, ip: IpAddr, ifindex: u32) -> bool;
}

impl Wire for UdpSocket {
    fn send(&self, bytes: &[u8], stride: Option<u16>, parcel: &Parcel) -> io::Result<usize> {
        self.send(bytes, stride, parcel)
    }

    fn queued(&self) -> usize {
        self.queued()
    }

    fn has_address(&self, ip: IpAddr, ifindex: u32) -> bool {
        let addr = match ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                SocketAddrV6::new(ip, 0, 0, ifindex).into()
            }
            _ => SocketAddr::new(ip, 0),
        };
        std::net::UdpSocket::bind(addr).is_ok()
    }
}

/// The result of sending a burst.
#[derive(Debug, Default)]
#[must_use]
pub struct Sent {
    /// Number of bytes in the datagrams that the socket accepted.
    pub bytes: usize,
    /// Number of datagrams that the socket refused.
    pub refused: usize,
    /// The error for the first refused datagram: ENETUNREACH, EPERM (a firewall), ENOBUFS, EAGAIN,
    /// …
    pub error: Option<io::Error>,
    /// Whether the source address is no longer local. The burst was then sent without it.
    pub bad_source: bool,
}

/// A socket, and what is known about its offloads. Several threads may use it at once.
#[derive(Debug)]
pub struct Egress<W = UdpSocket> {
    wire: Arc<W>,
    /// Whether bursts may be segmented at all.
    gso: bool,
    refusals: Refusals,
    /// Bytes sent since the last check of the queues, and the result of that check.
    unseen: AtomicUsize,
    crowded: AtomicBool,
}

impl<W: Wire> Egress<W> {
    /// Sends through `wire`, and segments bursts if `gso`.
    pub fn new(wire: Arc<W>, gso: bool) -> Self {
        Egress {
            wire,
            gso,
            refusals: Refusals::default(),
            unseen: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
        }
    }

    /// The socket.
    pub fn wire(&self) -> &Arc<W> {
        &self.wire
    }

    /// Sends the datagrams in `datagrams`, which are `stride` bytes apart, to an endpoint, from its
    /// source address if that is still local. A refused datagram does not prevent the following
    /// ones, unless the socket's buffer is full.
    ///
    /// # Panics
    /// If `stride` is 0.
    pub fn send(
        &self,
        datagrams: &[u8],
        stride: usize,
        to: &Endpoint,
        header: OuterHeader,
        now: Time,
    ) -> Sent {
        let mut sending = Sending {
            egress: self,
            stride,
            parcel: Parcel {
                to: to.addr,
                source: to.src.map(|Source { ip, ifindex }| (ip, ifindex)),
                header,
            },
            source_is_local: false,
            now,
            sent: Sent::default(),
        };
        if datagrams.len() > stride && self.may_segment(&to.addr, stride, datagrams.len(), now) {
            sending.segmented(datagrams);
        } else {
            sending.singly(datagrams);
        }
        sending.sent
    }

    fn may_segment(&self, to: &SocketAddr, stride: usize, len: usize, now: Time) -> bool {
        self.gso && !self.refusals.cover(to, stride, now) && !self.is_crowded(len)
    }

    fn is_crowded(&self, len: usize) -> bool {
        let crowded = self.crowded.load(Ordering::Relaxed);
        let unseen = self.unseen.fetch_add(len, Ordering::Relaxed) + len;
        if unseen < LOOK_EVERY && !crowded {
            return false;
        }
        self.unseen.store(0, Ordering::Relaxed);
        let still = self.wire.queued() > CROWDED;
        if still != crowded {
            self.crowded.store(still, Ordering::Relaxed);
        }
        still
    }
}

/// The state of sending one burst.
struct Sending<'a, W> {
    egress: &'a Egress<W>,
    stride: usize,
    parcel: Parcel,
    /// Whether the source was found to be an address of this host, so that an error has another cause.
    source_is_local: bool,
    now: Time,
    sent: Sent,
}

impl<W: Wire> Sending<'_, W> {
    /// Sends with as few calls as possible.
    fn segmented(&mut self, mut datagrams: &[u8]) {
        let most = (MAX_PAYLOAD / self.stride).clamp(1, MAX_SEGMENTS) * self.stride;
        while datagrams.len() > self.stride {
            let (burst, rest) = datagrams.split_at(datagrams.len().min(most));
            let segments = (burst.len() > self.stride).then_some(self.stride as u16);
            match self.call(burst, segments) {
                Ok(taken) if taken >= burst.len() => {
                    self.sent.bytes += burst.len();
                    datagrams = rest;
                }
                // A datagram that was sent in part is sent again completely.
                Ok(taken) if taken >= self.stride => {
                    let whole = taken - taken % self.stride;
                    self.sent.bytes += whole;
                    datagrams = &datagrams[whole..];
                }
                Ok(_) => {
                    self.refuse(&datagrams[..self.stride], io::ErrorKind::WriteZero.into());
                    datagrams = &datagrams[self.stride..];
                }
                Err(error) if is_refusal(&error) => return self.not_segmented(datagrams, &error),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.refuse(datagrams, error);
                }
                Err(error) => {
                    self.refuse(burst, error);
                    datagrams = rest;
                }
            }
        }
        self.singly(datagrams);
    }

    /// Called when segmentation was refused. If the datagrams can be sent without it, segmentation
    /// was the cause.
    fn not_segmented(&mut self, datagrams: &[u8], error: &io::Error) {
        let refused = self.sent.refused;
        self.singly(datagrams);
        if self.sent.refused == refused {
            tracing::debug!(to = %self.parcel.to, %error, "segmentation refused; datagrams are sent one by one");
            let refusals = &self.egress.refusals;
            refusals.note(self.parcel.to, self.stride, self.now);
        }
    }

    /// Sends each datagram with a call of its own.
    fn singly(&mut self, mut datagrams: &[u8]) {
        while !datagrams.is_empty() {
            let (datagram, rest) = datagrams.split_at(datagrams.len().min(self.stride));
            match self.call(datagram, None) {
                Ok(taken) if taken >= datagram.len() => self.sent.bytes += datagram.len(),
                Ok(_) => self.refuse(datagram, io::ErrorKind::WriteZero.into()),
                // The following datagrams would be refused too.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.refuse(datagrams, error);
                }
                Err(error) => self.refuse(datagram, error),
            }
            datagrams = rest;
        }
    }

    /// Makes one call; if the source is refused, makes another one without it.
    fn call(&mut self, bytes: &[u8], segments: Option<u16>) -> io::Result<usize> {
        let result = self.egress.wire.send(bytes, segments, &self.parcel);
        match (result, self.parcel.source) {
            (Err(error), Some(source)) if self.is_bad_source(&error, source) => {
                self.parcel.source = None;
                self.sent.bad_source = true;
                self.egress.wire.send(bytes, segments, &self.parcel)
            }
            (result, _) => result,
        }
    }

    /// An address that is not local causes EINVAL as a source, or ENETUNREACH for IPv4 on newer
    /// kernels; an address whose link is gone causes ENODEV. The first two can also have other
    /// causes.
    fn is_bad_source(&mut self, error: &io::Error, (ip, ifindex): (IpAddr, u32)) -> bool {
        match error.raw_os_error() {
            Some(libc::ENODEV) => true,
            Some(libc::EINVAL | libc::ENETUNREACH) if !self.source_is_local => {
                self.source_is_local = self.egress.wire.has_address(ip, ifindex);
                !self.source_is_local
            }
            _ => false,
        }
    }

    fn refuse(&mut self, datagrams: &[u8], error: io::Error) {
        self.sent.refused += datagrams.len().div_ceil(self.stride);
        self.sent.error.get_or_insert(error);
    }
}

/// EIO: a device or an IPsec policy on the route cannot segment. EMSGSIZE, and EINVAL on older
/// kernels: the stride is above the route's MTU. EINVAL: a failing driver.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::refusals::EXPIRY;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;

    const T: Time = Time::from_nanos(1_000_000_000_000);
    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    /// The result of a call.
    type Answer = Box<dyn Fn(&Call) -> io::Result<usize> + Send + Sync>;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Call {
        bytes: Vec<u8>,
        stride: Option<u16>,
        to: SocketAddr,
        source: Option<IpAddr>,
    }

    /// Records all calls, and fails as configured.
    struct Faulty {
        answer: Answer,
        calls: Mutex<Vec<Call>>,
        queued: AtomicUsize,
        looks: AtomicU32,
        has_source: bool,
    }

    impl Wire for Faulty {
        fn send(&self, bytes: &[u8], stride: Option<u16>, parcel: &Parcel) -> io::Result<usize> {
            let call = Call {
                bytes: bytes.to_vec(),
                stride,
                to: parcel.to,
                source: parcel.source.map(|(ip, _)| ip),
            };
            let answer = (self.answer)(&call);
            self.calls.lock().unwrap().push(call);
            answer
        }

        fn queued(&self) -> usize {
            self.looks.fetch_add(1, Ordering::Relaxed);
            self.queued.load(Ordering::Relaxed)
        }

        fn has_address(&self, ip: IpAddr, _: u32) -> bool {
            assert_eq!(ip, SOURCE);
            self.has_source
        }
    }

    fn egress(
        answer: impl Fn(&Call) -> io::Result<usize> + Send + Sync + 'static,
    ) -> Egress<Faulty> {
        let wire = Faulty {
            answer: Box::new(answer),
            calls: Mutex::default(),
            queued: AtomicUsize::new(0),
            looks: AtomicU32::new(0),
            has_source: true,
        };
        Egress::new(Arc::new(wire), true)
    }

    fn errno(errno: i32) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(errno))
    }

    fn taken(call: &Call) -> io::Result<usize> {
        Ok(call.bytes.len())
    }

    fn peer(n: u8) -> Endpoint {
        SocketAddr::from(([10, 0, 0, n], 51820)).into()
    }

    /// Datagrams at a stride of 100, each filled with its number; the last has 40 bytes.
    fn burst(count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count).flat_map(|n| vec![n as u8; 100]).collect();
        bytes.truncate(count * 100 - 60);
        bytes
    }

    /// Sends such a burst. Returns the result and the calls.
    fn send(egress: &Egress<Faulty>, count: usize, to: &Endpoint, now: Time) -> (Sent, Vec<Call>) {
        let sent = egress.send(&burst(count), 100, to, OuterHeader::default(), now);
        (
            sent,
            std::mem::take(&mut *egress.wire.calls.lock().unwrap()),
        )
    }

    fn is_errno(sent: &Sent, errno: i32) -> bool {
        sent.error.as_ref().and_then(io::Error::raw_os_error) == Some(errno)
    }

    #[test]
    fn a_burst_is_one_call_and_a_datagram_needs_no_segmentation() {
        let egress = egress(taken);
        let (sent, calls) = send(&egress, 5, &peer(1), T);
        assert_eq!((sent.bytes, sent.refused, calls.len()), (440, 0, 1));
        assert_eq!(calls[0].stride, Some(100));
        let (sent, calls) = send(&egress, 1, &peer(1), T);
        assert_eq!((sent.bytes, calls[0].stride), (40, None));
        // At most 64 in one call; the remaining one is alone.
        let (sent, calls) = send(&egress, 65, &peer(1), T);
        assert_eq!((sent.bytes, calls.len()), (6440, 2));
        assert_eq!((calls[0].stride, calls[1].stride), (Some(100), None));
    }

    #[test]
    fn a_refused_segmentation_loses_nothing_and_applies_to_its_endpoint() {
        for refusal in [libc::EIO, libc::EINVAL, libc::EMSGSIZE] {
            let bad = peer(1);
            let egress = egress(move |call| match call.stride {
                Some(_) if call.to == bad.addr => errno(refusal),
                _ => taken(call),
            });
            let (sent, calls) = send(&egress, 5, &bad, T);
            assert_eq!((sent.bytes, sent.refused), (440, 0));
            assert!(sent.error.is_none());
            assert_eq!(calls.len(), 6);
            let singly: Vec<u8> = calls[1..]
                .iter()
                .flat_map(|call| call.bytes.clone())
                .collect();
            assert_eq!(singly, burst(5), "in order");
            // The refusal applies …
            assert_eq!(send(&egress, 5, &bad, T).1.len(), 5);
            // … only to this peer …
            assert_eq!(send(&egress, 5, &peer(2), T).1.len(), 1);
            // … and expires.
            assert_eq!(send(&egress, 5, &bad, T + EXPIRY).1.len(), 6);
        }
    }

    #[test]
    fn a_failure_without_segmentation_is_not_a_refusal() {
        let egress = egress(|_| errno(libc::EINVAL));
        for _ in 0..2 {
            let (sent, calls) = send(&egress, 5, &peer(1), T);
            assert_eq!((sent.bytes, sent.refused, calls.len()), (0, 5, 6));
            assert!(is_errno(&sent, libc::EINVAL));
        }
    }

    #[test]
    fn other_errors_affect_only_their_burst() {
        for refused in [libc::ENOBUFS, libc::EPERM, libc::ENETUNREACH] {
            let egress = egress(move |call| match call.bytes[0] {
                0 => errno(refused),
                _ => taken(call),
            });
            let (sent, calls) = send(&egress, 70, &peer(1), T);
            assert_eq!((sent.bytes, sent.refused, calls.len()), (540, 64, 2));
            assert!(is_errno(&sent, refused));
        }
        // A refused datagram does not affect those after it.
        let egress = Egress {
            gso: false,
            ..egress(|call| match call.bytes[0] {
                1 => errno(libc::EPERM),
                _ => taken(call),
            })
        };
        let (sent, calls) = send(&egress, 5, &peer(1), T);
        assert_eq!((sent.bytes, sent.refused, calls.len()), (340, 1, 5));
    }

    #[test]
    fn a_full_buffer_does_not_block() {
        for gso in [true, false] {
            let egress = Egress {
                gso,
                ..egress(|_| errno(libc::EAGAIN))
            };
            let (sent, calls) = send(&egress, 70, &peer(1), T);
            assert_eq!((sent.bytes, sent.refused, calls.len()), (0, 70, 1));
            assert!(is_errno(&sent, libc::EAGAIN));
        }
    }

    #[test]
    fn a_partly_accepted_burst_is_completed() {
        let egress = egress(|call| Ok(call.bytes.len().min(250)));
        let (sent, calls) = send(&egress, 7, &peer(1), T);
        assert_eq!((sent.bytes, sent.refused), (640, 0));
        let starts: Vec<_> = calls.iter().map(|call| call.bytes[0]).collect();
        assert_eq!(starts, [0, 2, 4]);
        // A datagram that was accepted in part was not sent.
        let egress = self::egress(|call| Ok(call.bytes.len().min(50)));
        let (sent, calls) = send(&egress, 3, &peer(1), T);
        assert_eq!((sent.bytes, sent.refused), (40, 2));
        assert!(calls.len() <= 3);
    }

    #[test]
    fn only_a_source_that_is_no_longer_local_is_left_out() {
        let from_source = Endpoint {
            src: Some(Source {
                ip: SOURCE,
                ifindex: 7,
            }),
            ..peer(1)
        };
        for (refused, has_source, is_bad) in [
            (libc::EINVAL, false, true),
            (libc::ENETUNREACH, false, true),
            (libc::ENODEV, true, true),
            (libc::ENETUNREACH, true, false),
            (libc::EPERM, false, false),
        ] {
            let mut egress = egress(move |call| match call.source {
                Some(_) => errno(refused),
                None => taken(call),
            });
            Arc::get_mut(&mut egress.wire).unwrap().has_source = has_source;
            for count in [1, 5] {
                let (sent, calls) = send(&egress, count, &from_source, T);
                assert_eq!(sent.bad_source, is_bad, "{refused}");
                assert_eq!(sent.refused, if is_bad { 0 } else { count });
                assert_eq!(calls.len(), if is_bad { 2 } else { 1 });
            }
        }
    }

    #[test]
    fn bursts_are_sent_as_datagrams_while_queues_are_crowded() {
        let egress = egress(taken);
        egress.wire.queued.store(CROWDED + 1, Ordering::Relaxed);
        // The queues are not checked for every burst …
        let bursts = |most: usize, segmented: bool| {
            let is_segmented = |_: &usize| send(&egress, 60, &peer(1), T).1.len() == 1;
            (0..most).find(|i| is_segmented(i) == segmented)
        };
        assert_eq!(bursts(100, false), Some(LOOK_EVERY / 5940));
        assert_eq!(egress.wire.looks.load(Ordering::Relaxed), 1);
        // … until they are found crowded; then the end of that is noticed at once.
        assert_eq!(bursts(10, true), None);
        egress.wire.queued.store(CROWDED, Ordering::Relaxed);
        assert_eq!(bursts(1, true), Some(0));
    }
}
