//! One UDP socket of one address family, with segmentation (UDP_SEGMENT) on the way out and
//! coalescing (UDP_GRO) on the way in.
//!
//! A *burst* is datagrams of one sender laid one after another at a stride, the last of which may
//! be shorter. One call receives a burst, with source, destination and TOS that hold for each of
//! its datagrams; one call sends a burst. Where the kernel refuses a segmented burst, the same
//! bytes go out again one datagram a call, in order, and nothing is lost.
//!
//! Sockets behave as those of the kernel module: any local address, the IPv6 one for IPv6 only,
//! no address sharing, DF clear so that the path may fragment, and pending ICMP errors ignored.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::cmsg::{self, Control, Envelope, int};
use super::sockaddr::Name;
use super::{check, kernel_at_least, poll};

/// Most datagrams in one send. Newer kernels take 128, but merge 64 on receipt.
pub const MAX_SEGMENTS: usize = 64;

/// Most bytes of one send, for either family: 65535 less the IPv4 and UDP headers.
pub const MAX_PAYLOAD: usize = 65507;

/// Wanted size of the socket's two buffers: a hundred full bursts.
const BUFFER: c_int = 8 << 20;

/// Refusals of a segmented send in a row after which a socket stops trying. One is not enough:
/// the route of a single peer can refuse (its MTU is below the stride, or it passes through xfrm).
const GSO_REFUSALS: u32 = 16;

/// How long a send waits for room in a full socket buffer before the burst is given up.
const SEND_WAIT: Duration = Duration::from_millis(100);

/// Errors left behind by earlier datagrams that one call skips.
const PENDING_ERRORS: usize = 2;

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and only that.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(addr: &IpAddr) -> Self {
        if addr.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }
}

/// How to open a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Send with UDP_SEGMENT where the kernel has it (4.18).
    pub gso: bool,
    /// Receive with UDP_GRO where the kernel does it right (5.12).
    pub gro: bool,
    /// SO_MARK of every packet sent; 0 for none.
    pub fwmark: u32,
}

impl Default for UdpOptions {
    fn default() -> Self {
        UdpOptions {
            gso: true,
            gro: true,
            fwmark: 0,
        }
    }
}

/// What a socket does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFeatures {
    /// Bursts leave in one call. Turns false when the kernel keeps refusing them.
    pub gso: bool,
    /// Bursts arrive in one call.
    pub gro: bool,
    /// Most datagrams that leave in one call.
    pub max_segments: usize,
}

/// One received burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes now in the buffer.
    pub len: usize,
    /// Length of each datagram, the last of which may be shorter; `len` when there is one.
    pub stride: usize,
    /// The sender.
    pub from: SocketAddr,
    /// The local address it was sent to.
    pub to: Option<IpAddr>,
    /// Index of the link it came in by; 0 when unknown.
    pub ifindex: u32,
    /// TOS or traffic class: DSCP and ECN.
    pub tos: u8,
    /// The burst was longer than the buffer, so its last datagram is not whole.
    pub truncated: bool,
}

/// Why a burst was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The source is no local address any more. Forget it and send again without.
    #[error("the source address is not usable any more")]
    BadSource,
    /// No route, a firewall, no memory, …
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::BadSource => io::ErrorKind::AddrNotAvailable.into(),
            SendError::Io(error) => error,
        }
    }
}

impl SendError {
    /// The datagrams that follow would fare no better.
    fn is_final(&self) -> bool {
        match self {
            SendError::BadSource => true,
            SendError::Io(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// A bound, nonblocking UDP socket. May be used from several threads at once.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    family: Family,
    port: u16,
    gso: bool,
    gro: bool,
    /// Refused segmented sends since the last one that went out.
    refusals: AtomicU32,
}

impl UdpSocket {
    /// Binds `port` (0: any free one) on every local address of `family`, in the network
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// EADDRINUSE; EAFNOSUPPORT: a host without this family; EPERM: `fwmark` without
    /// CAP_NET_ADMIN.
    pub fn bind(family: Family, port: u16, options: &UdpOptions) -> io::Result<Self> {
        let domain = match family {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::socket(domain, kind, 0) })?;
        // SAFETY: a descriptor just opened, that nobody else knows of.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let set = |level, option, value| set_option(fd.as_fd(), level, option, value);
        match family {
            Family::V4 => {
                set(
                    libc::IPPROTO_IP,
                    libc::IP_MTU_DISCOVER,
                    libc::IP_PMTUDISC_DONT,
                )?;
                set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
                set(libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
            }
            Family::V6 => {
                set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
                set(
                    libc::IPPROTO_IPV6,
                    libc::IPV6_MTU_DISCOVER,
                    libc::IPV6_PMTUDISC_DONT,
                )?;
                set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
                set(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
            }
        }
        for (force, plain) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            set(libc::SOL_SOCKET, force, BUFFER)
                .or_else(|_| set(libc::SOL_SOCKET, plain, BUFFER))?;
        }
        // Linux 4.9 ignores the control message silently and sends one glued datagram, so ask.
        let gso = options.gso && get_option(fd.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        let gro =
            options.gro && kernel_at_least(5, 12) && set(libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        let mut socket = UdpSocket {
            fd,
            family,
            port: 0,
            gso,
            gro,
            refusals: AtomicU32::new(0),
        };
        if options.fwmark != 0 {
            socket.set_fwmark(options.fwmark)?;
        }
        let any = match family {
            Family::V4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            Family::V6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        };
        let name = Name::new(&any);
        // SAFETY: the kernel reads `len` bytes of the buffer, which is as long.
        check(unsafe {
            let len = name.as_bytes().len() as libc::socklen_t;
            libc::bind(socket.fd.as_raw_fd(), name.as_bytes().as_ptr().cast(), len)
        })?;
        let mut name = Name::empty();
        let mut len = name.bytes.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes, the size of the buffer.
        check(unsafe {
            let bytes = name.bytes.as_mut_ptr().cast();
            libc::getsockname(socket.fd.as_raw_fd(), bytes, &raw mut len)
        })?;
        name.len = len as usize;
        socket.port = name.addr().map_or(0, |addr| addr.port());
        Ok(socket)
    }

    /// The port bound to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The family bound to.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Sets SO_MARK of every packet sent from now on; 0 for none.
    ///
    /// # Errors
    /// EPERM: no CAP_NET_ADMIN.
    pub fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        set_option(
            self.fd.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            mark.cast_signed(),
        )
    }

    /// What this socket does now.
    pub fn features(&self) -> UdpFeatures {
        let gso = self.gso && self.refusals.load(Ordering::Relaxed) < GSO_REFUSALS;
        UdpFeatures {
            gso,
            gro: self.gro,
            max_segments: if gso { MAX_SEGMENTS } else { 1 },
        }
    }

    /// Receives one burst. Give it room for 65535 bytes.
    ///
    /// # Errors
    /// WouldBlock: nothing there.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        let mut skipped = 0;
        loop {
            match self.recvmsg(buf) {
                Err(error) if is_pending(&error) && skipped < PENDING_ERRORS => skipped += 1,
                result => return result,
            }
        }
    }

    fn recvmsg(&self, buf: &mut [u8]) -> io::Result<Received> {
        let mut name = Name::empty();
        let mut control = Control::new();
        let Envelope {
            len,
            name_len,
            truncated,
        } = cmsg::recvmsg(self.fd.as_fd(), buf, &mut name.bytes, &mut control)?;
        name.len = name_len;
        let from = name.addr().ok_or(io::ErrorKind::InvalidData)?;
        let mut received = Received {
            len,
            stride: len,
            from,
            to: None,
            ifindex: 0,
            tos: 0,
            truncated,
        };
        for (level, kind, data) in control.messages() {
            received.note(level, kind, data);
        }
        Ok(received)
    }

    /// Sends the burst `datagrams`, laid out at `stride`, all to `to`, with this TOS (DSCP and
    /// ECN) and, if given, from this local address. The link index of a source is used for IPv6
    /// link-local ones only: routing stays free, as in the kernel module.
    ///
    /// Waits shortly for room in a full socket buffer. A datagram that the kernel refuses does
    /// not keep those behind it from being sent.
    ///
    /// # Errors
    /// [`SendError::BadSource`]: nothing was sent, unless the address vanished just now.
    /// [`SendError::Io`]: the first refusal: ENETUNREACH, EPERM (firewall), EMSGSIZE, ENOBUFS, …;
    /// WouldBlock: no room in time.
    pub fn send(
        &self,
        datagrams: &[u8],
        stride: usize,
        to: SocketAddr,
        source: Option<(IpAddr, u32)>,
        tos: u8,
    ) -> Result<(), SendError> {
        if stride == 0 || Family::of(&to.ip()) != self.family {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        let parcel = Parcel {
            to: Name::new(&to),
            source,
            tos,
        };
        if !self.features().gso {
            return self.send_split(datagrams, stride, &parcel);
        }
        let most = (MAX_PAYLOAD / stride).clamp(1, MAX_SEGMENTS) * stride;
        let mut result = Ok(());
        for burst in datagrams.chunks(most) {
            match self.send_segmented(burst, stride, &parcel) {
                Err(error) if error.is_final() => return Err(error),
                other => result = result.and(other),
            }
        }
        result
    }

    /// One call, or one a datagram if that is refused.
    fn send_segmented(
        &self,
        burst: &[u8],
        stride: usize,
        parcel: &Parcel,
    ) -> Result<(), SendError> {
        if burst.len() <= stride {
            return self
                .sendmsg(burst, None, parcel)
                .map_err(|error| parcel.judge(error));
        }
        match self.sendmsg(burst, Some(stride), parcel) {
            Ok(()) => {
                // Written only on change: the line is shared between threads.
                if self.refusals.load(Ordering::Relaxed) != 0 {
                    self.refusals.store(0, Ordering::Relaxed);
                }
                Ok(())
            }
            // EIO: the route's device or xfrm cannot; EMSGSIZE, EINVAL on older kernels: the
            // stride is above the route's MTU; EINVAL: a driver that fails, or a bad source.
            Err(error) if is_one_of(&error, &[libc::EIO, libc::EINVAL, libc::EMSGSIZE]) => {
                let result = self.send_split(burst, stride, parcel);
                if result.is_ok() && !is_one_of(&error, &[libc::EMSGSIZE]) {
                    self.refusals.fetch_add(1, Ordering::Relaxed);
                }
                result
            }
            Err(error) => Err(parcel.judge(error)),
        }
    }

    fn send_split(&self, burst: &[u8], stride: usize, parcel: &Parcel) -> Result<(), SendError> {
        let mut result = Ok(());
        for datagram in burst.chunks(stride) {
            let sent = self.sendmsg(datagram, None, parcel);
            match sent.map_err(|error| parcel.judge(error)) {
                Err(error) if error.is_final() => return Err(error),
                other => result = result.and(other),
            }
        }
        result
    }

    /// One sendmsg, with patience for a full buffer and for errors that are not its own.
    fn sendmsg(&self, bytes: &[u8], stride: Option<usize>, parcel: &Parcel) -> io::Result<()> {
        let mut control = Control::new();
        parcel.write(&mut control);
        if let Some(stride) = stride {
            // At most MAX_PAYLOAD: a burst longer than its stride fits one packet.
            control.push(
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                &(stride as u16).to_ne_bytes(),
            );
        }
        let mut skipped = 0;
        loop {
            let sent = cmsg::sendmsg(self.fd.as_fd(), bytes, parcel.to.as_bytes(), &control);
            let Err(error) = sent else { return Ok(()) };
            let retry = match error.raw_os_error() {
                Some(libc::EAGAIN) => {
                    skipped == 0 && poll::wait_writable(self.fd.as_fd(), SEND_WAIT)?
                }
                _ => is_pending(&error),
            };
            if !retry || skipped == PENDING_ERRORS {
                return Err(error);
            }
            skipped += 1;
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Received {
    /// Takes up one control message.
    fn note(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let stride = int(data).and_then(|stride| usize::try_from(stride).ok());
                self.stride = stride.filter(|stride| *stride > 0).unwrap_or(self.len);
            }
            // struct in_pktinfo { int ifindex; in_addr spec_dst; in_addr addr; }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                self.ifindex = int(data).unwrap_or(0).cast_unsigned();
                let local = data
                    .get(4..8)
                    .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
                self.to = local.map(IpAddr::from);
            }
            // struct in6_pktinfo { in6_addr addr; int ifindex; }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                self.to = data.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes));
                self.ifindex = data.get(16..).and_then(int).unwrap_or(0).cast_unsigned();
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => self.tos = data.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => self.tos = int(data).unwrap_or(0) as u8,
            _ => {}
        }
    }
}

/// What a send says beside its bytes.
struct Parcel {
    to: Name,
    source: Option<(IpAddr, u32)>,
    tos: u8,
}

impl Parcel {
    fn write(&self, control: &mut Control) {
        if self.tos != 0 {
            let tos = c_int::from(self.tos).to_ne_bytes();
            match self.family() {
                Family::V4 => control.push(libc::IPPROTO_IP, libc::IP_TOS, &tos),
                Family::V6 => control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &tos),
            }
        }
        match self.source {
            Some((IpAddr::V4(ip), _)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some((IpAddr::V6(ip), ifindex)) => {
                let scope = if ip.is_unicast_link_local() {
                    ifindex
                } else {
                    0
                };
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                info[16..].copy_from_slice(&scope.to_ne_bytes());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
    }

    fn family(&self) -> Family {
        if self.to.as_bytes().len() == Name::V4 {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// A source that is no address of ours gives EINVAL, for IPv4 on newer kernels ENETUNREACH,
    /// which has a plainer meaning too; and one whose link is gone ENODEV.
    fn judge(&self, error: io::Error) -> SendError {
        match (error.raw_os_error(), self.source) {
            (Some(libc::EINVAL | libc::ENODEV), Some(_)) => SendError::BadSource,
            (Some(libc::ENETUNREACH), Some((ip, _))) if ip.is_ipv4() && !is_local(ip) => {
                SendError::BadSource
            }
            _ => SendError::Io(error),
        }
    }
}

/// Whether a socket could be bound to it.
fn is_local(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

fn is_one_of(error: &io::Error, errnos: &[c_int]) -> bool {
    error
        .raw_os_error()
        .is_some_and(|errno| errnos.contains(&errno))
}

/// What ICMP said of an earlier datagram is reported by the next call, which itself did nothing.
fn is_pending(error: &io::Error) -> bool {
    is_one_of(
        error,
        &[
            libc::EINTR,
            libc::ECONNREFUSED,
            libc::EHOSTUNREACH,
            libc::EPROTO,
        ],
    )
}

fn set_option(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let pointer = (&raw const value).cast::<c_void>();
    let len = mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes, the size of `value`.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, pointer, len) }).map(drop)
}

fn get_option(fd: BorrowedFd<'_>, level: c_int, option: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let pointer = (&raw mut value).cast::<c_void>();
    let mut len = mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `value`.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, pointer, &raw mut len) })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::Netlink;
    use crate::sys::netns::NetNs;

    /// SO_NO_CHECK makes Linux refuse UDP_SEGMENT with EINVAL, and nothing else.
    #[test]
    fn a_kernel_that_keeps_refusing_segmentation_is_believed_and_nothing_is_lost() {
        let work = || {
            Netlink::open().unwrap().set_up("lo", true).unwrap();
            let plain = UdpOptions {
                gso: false,
                gro: false,
                fwmark: 0,
            };
            let receiver = UdpSocket::bind(Family::V4, 0, &plain).unwrap();
            let sender = UdpSocket::bind(Family::V4, 0, &UdpOptions::default()).unwrap();
            let to = SocketAddr::from(([127, 0, 0, 1], receiver.port()));
            let mut sent = 0..=u8::MAX;
            let mut burst_of_three = || {
                let first = sent.next().unwrap();
                sender
                    .send(&[first, 1, first, 2, first], 2, to, None, 0)
                    .unwrap();
                for expected in [&[first, 1][..], &[first, 2], &[first]] {
                    let mut buf = [0; 10];
                    let received = receiver.recv(&mut buf).unwrap();
                    assert_eq!(buf[..received.len], *expected);
                }
            };
            let refuse = |refused| {
                set_option(sender.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, refused).unwrap();
            };
            refuse(1);
            (1..GSO_REFUSALS).for_each(|_| burst_of_three());
            assert!(sender.features().gso);
            refuse(0);
            burst_of_three();
            refuse(1);
            (1..GSO_REFUSALS).for_each(|_| burst_of_three());
            assert!(
                sender.features().gso,
                "one that went out starts the count anew"
            );
            burst_of_three();
            assert_eq!(
                sender.features(),
                UdpFeatures {
                    gso: false,
                    gro: true,
                    max_segments: 1
                }
            );
            refuse(0);
            burst_of_three();
            assert!(!sender.features().gso);
        };
        NetNs::new().expect("needs root").run(work).unwrap();
    }
}
