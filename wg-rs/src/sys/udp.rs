//! One UDP socket of one address family, with segmentation (UDP_SEGMENT) on the way out and
//! coalescing (UDP_GRO) on the way in.
//!
//! A *burst* is a sequence of datagrams from one sender, at a fixed stride; the last may be
//! shorter. One call receives a burst, and the source, destination and TOS apply to all its
//! datagrams. One call sends a burst or a single datagram. `datapath` decides what to do if the
//! kernel refuses.
//!
//! The sockets behave like those of the kernel module: any local address, IPv6 only for the IPv6
//! socket, no address sharing, DF clear so that the path may fragment, and pending ICMP errors
//! ignored. The send buffer is never the limit: one socket serves all peers, and packets that wait
//! for a slow link must not stop packets to other peers.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::cmsg::{self, ControlBuffer, RecvMsg, int};
use super::sockaddr::Name;
use super::{Version, check, kernel_at_least, kernel_version, set_option};

/// Most datagrams in one send. Newer kernels accept 128, but merge only 64 when receiving.
pub const MAX_SEGMENTS: usize = 64;

/// Most bytes in one send, for either family: 65535 minus the IPv4 and UDP headers.
pub const MAX_PAYLOAD: usize = 65507;

/// Requested size of the receive buffer in bytes: a hundred full bursts.
const RECEIVE_BUFFER: c_int = 8 << 20;

/// Requested size of the send buffer in bytes, which the kernel doubles. No queue holds a gigabyte,
/// and it is half of the greatest count that the kernel can hold.
const SEND_BUFFER: c_int = 1 << 29;

/// How many pending errors of earlier datagrams one call skips.
const PENDING_ERRORS: usize = 2;

/// Kernels that send corrupt datagrams with UDP_SEGMENT (tailscale issues 19777 and 21335).
const CORRUPTING: RangeInclusive<Version> = (7, 0, 0)..=(7, 1, 4);

/// Whether the running kernel corrupts datagrams that it segments (UDP_SEGMENT).
pub fn segmentation_corrupts() -> bool {
    kernel_version().is_some_and(|version| CORRUPTING.contains(&version))
}

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6 only.
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
    /// Send with UDP_SEGMENT if the kernel has it (4.18).
    pub gso: bool,
    /// Receive with UDP_GRO if the kernel implements it correctly (5.12).
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

/// The offloads that a socket uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFeatures {
    /// A burst can be sent in one call.
    pub gso: bool,
    /// A burst can be received in one call.
    pub gro: bool,
}

/// One received burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Number of bytes in the buffer.
    pub len: usize,
    /// Length of each datagram in bytes; the last may be shorter. Equals `len` if there is only
    /// one.
    pub stride: usize,
    /// The sender.
    pub from: SocketAddr,
    /// The local address that the burst was sent to.
    pub to: Option<IpAddr>,
    /// Index of the link that the burst arrived on; 0 if unknown.
    pub ifindex: u32,
    /// TOS or traffic class: DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit. None unless [`UdpSocket::report_hop_limit`] was called.
    pub hop_limit: Option<u8>,
    /// Whether the burst was longer than the buffer, so that its last datagram is incomplete.
    pub truncated: bool,
}

/// Fields of the outer IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OuterHeader {
    /// TOS or traffic class: DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit. None: the default of this host.
    pub hop_limit: Option<u8>,
}

impl OuterHeader {
    /// With this TOS, and otherwise as this host's defaults say.
    pub fn with_tos(tos: u8) -> Self {
        OuterHeader {
            tos,
            hop_limit: None,
        }
    }
}

/// The addresses and the header of a send.
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    /// The destination.
    pub to: SocketAddr,
    /// The local address to send from. The link index is used only for IPv6 link-local addresses;
    /// otherwise routing chooses the link, as in the kernel module.
    pub source: Option<(IpAddr, u32)>,
    /// The other fields of the IP header.
    pub header: OuterHeader,
}

/// A bound, nonblocking UDP socket. Several threads may use it at once.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    family: Family,
    port: u16,
    gso: bool,
    gro: bool,
}

impl UdpSocket {
    /// Binds `port` (0: any free port) on all local addresses of `family`, in the calling thread's
    /// network namespace.
    ///
    /// # Errors
    /// EADDRINUSE; EAFNOSUPPORT: the host does not have this family; EPERM: `fwmark` requires
    /// CAP_NET_ADMIN.
    pub fn bind(family: Family, port: u16, options: &UdpOptions) -> io::Result<Self> {
        let domain = match family {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call has no pointer arguments.
        let fd = check(unsafe { libc::socket(domain, kind, 0) })?;
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else uses it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let set = |level, option, value: c_int| {
            set_option(fd.as_fd(), level, option, &value.to_ne_bytes())
        };
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
        for (force, plain, size) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER),
        ] {
            set(libc::SOL_SOCKET, force, size).or_else(|_| set(libc::SOL_SOCKET, plain, size))?;
        }
        // Linux 4.9 ignores the control message silently and sends one long datagram, so support is
        // tested here.
        let gso = options.gso && get_option(fd.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        let gro =
            options.gro && kernel_at_least(5, 12) && set(libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        let mut socket = UdpSocket {
            fd,
            family,
            port: 0,
            gso,
            gro,
        };
        if options.fwmark != 0 {
            socket.set_fwmark(options.fwmark)?;
        }
        let any = match family {
            Family::V4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            Family::V6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        };
        let name = Name::new(&any);
        // SAFETY: the kernel reads `len` bytes, which is the length of the buffer.
        check(unsafe {
            let len = name.as_bytes().len() as libc::socklen_t;
            libc::bind(socket.fd.as_raw_fd(), name.as_bytes().as_ptr().cast(), len)
        })?;
        let mut name = Name::empty();
        let mut len = name.bytes.len() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes, which is the size of the buffer.
        check(unsafe {
            let bytes = name.bytes.as_mut_ptr().cast();
            libc::getsockname(socket.fd.as_raw_fd(), bytes, &raw mut len)
        })?;
        name.len = len as usize;
        socket.port = name.addr().map_or(0, |addr| addr.port());
        Ok(socket)
    }

    /// The local port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Sets SO_MARK for all packets that are sent from now on; 0 removes the mark.
    ///
    /// # Errors
    /// EPERM: the process lacks CAP_NET_ADMIN.
    pub fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        set_option(
            self.fd.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            &mark.to_ne_bytes(),
        )
    }

    /// Makes the socket report the TTL or hop limit of what it receives.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn report_hop_limit(&self) -> io::Result<()> {
        let (level, option) = match self.family {
            Family::V4 => (libc::IPPROTO_IP, libc::IP_RECVTTL),
            Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
        };
        set_option(self.fd.as_fd(), level, option, &1_i32.to_ne_bytes())
    }

    /// The offloads that this socket uses.
    pub fn features(&self) -> UdpFeatures {
        UdpFeatures {
            gso: self.gso,
            gro: self.gro,
        }
    }

    /// Receives one burst. `buf` should have 65535 bytes.
    ///
    /// # Errors
    /// WouldBlock: nothing has arrived.
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
        let mut control = ControlBuffer::new();
        let RecvMsg {
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
            hop_limit: None,
            truncated,
        };
        for (level, kind, data) in control.messages() {
            received.note(level, kind, data);
        }
        Ok(received)
    }

    /// Sends `bytes` as one datagram, or with a stride as datagrams of that length, the last of
    /// which may be shorter. Never blocks. Returns the number of bytes that the kernel accepted.
    ///
    /// # Errors
    /// InvalidInput: the destination is of the other family; WouldBlock: the socket's buffer is
    /// full; other errors of sendmsg(2).
    pub fn send(&self, bytes: &[u8], stride: Option<u16>, parcel: &Parcel) -> io::Result<usize> {
        if Family::of(&parcel.to.ip()) != self.family {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let name = Name::new(&parcel.to);
        let mut control = ControlBuffer::new();
        parcel.write(&mut control);
        if let Some(stride) = stride {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &stride.to_ne_bytes());
        }
        let mut skipped = 0;
        loop {
            match cmsg::sendmsg(self.fd.as_fd(), bytes, name.as_bytes(), &control) {
                Err(error) if is_pending(&error) && skipped < PENDING_ERRORS => skipped += 1,
                result => return result,
            }
        }
    }

    /// Bytes of memory that sent packets occupy in the queues of links, for all destinations
    /// (SIOCOUTQ).
    pub fn queued(&self) -> usize {
        let mut bytes: c_int = 0;
        // SAFETY: the kernel writes one int.
        let asked =
            check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) });
        asked.map_or(0, |_| usize::try_from(bytes).unwrap_or(0))
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Received {
    /// Evaluates one control message.
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
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                self.hop_limit = int(data).and_then(|hops| u8::try_from(hops).ok());
            }
            _ => {}
        }
    }
}

impl Parcel {
    fn write(&self, control: &mut ControlBuffer) {
        let OuterHeader { tos, hop_limit } = self.header;
        if tos != 0 {
            let tos = c_int::from(tos).to_ne_bytes();
            match self.to {
                SocketAddr::V4(_) => control.push(libc::IPPROTO_IP, libc::IP_TOS, &tos),
                SocketAddr::V6(_) => control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &tos),
            }
        }
        if let Some(hops) = hop_limit {
            let hops = c_int::from(hops).to_ne_bytes();
            match self.to {
                SocketAddr::V4(_) => control.push(libc::IPPROTO_IP, libc::IP_TTL, &hops),
                SocketAddr::V6(_) => control.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &hops),
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
}

/// Whether this is an ICMP error about an earlier datagram: such a call has sent or received
/// nothing.
fn is_pending(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::EPROTO)
    )
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

    #[test]
    fn kernels_that_corrupt_segments_are_recognised() {
        for (version, corrupts) in [
            ((6, 19, 99), false),
            ((7, 0, 0), true),
            ((7, 0, 12), true),
            ((7, 1, 4), true),
            ((7, 1, 5), false),
            ((7, 2, 0), false),
        ] {
            assert_eq!(CORRUPTING.contains(&version), corrupts, "{version:?}");
        }
    }
}
