//! One UDP socket of one address family, with segmentation (UDP_SEGMENT) on the way out and
//! coalescing (UDP_GRO) on the way in.
//!
//! A *burst* is datagrams of one sender laid one after another at a stride, the last of which may
//! be shorter. One call receives a burst, with source, destination and TOS that hold for each of
//! its datagrams; one call sends a burst, or a single datagram. What to do where the kernel refuses
//! is decided in `datapath`.
//!
//! Sockets behave as those of the kernel module: any local address, the IPv6 one for IPv6 only,
//! no address sharing, DF clear so that the path may fragment, pending ICMP errors ignored, and a
//! send buffer that is never the limit: one socket serves all peers, and what waits for a slow link
//! must not keep the others from sending.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::cmsg::{self, Control, Envelope, int};
use super::sockaddr::Name;
use super::{Version, check, kernel_at_least, kernel_version};

/// Most datagrams in one send. Newer kernels take 128, but merge 64 on receipt.
pub const MAX_SEGMENTS: usize = 64;

/// Most bytes of one send, for either family: 65535 less the IPv4 and UDP headers.
pub const MAX_PAYLOAD: usize = 65507;

/// Wanted size of the receive buffer: a hundred full bursts.
const RECEIVE_BUFFER: c_int = 8 << 20;

/// Wanted size of the send buffer, which the kernel doubles: a gigabyte is what no queue holds, and
/// half of what the kernel's count of queued bytes can.
const SEND_BUFFER: c_int = 1 << 29;

/// Errors left behind by earlier datagrams that one call skips.
const PENDING_ERRORS: usize = 2;

/// Kernels that send wrong datagrams with UDP_SEGMENT (tailscale issues 19777 and 21335).
const CORRUPTING: RangeInclusive<Version> = (7, 0, 0)..=(7, 1, 4);

/// Whether the running kernel is one of those that corrupt what is segmented with UDP_SEGMENT.
pub fn segmentation_corrupts() -> bool {
    kernel_version().is_some_and(|version| CORRUPTING.contains(&version))
}

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
    /// A burst may leave in one call.
    pub gso: bool,
    /// Bursts arrive in one call.
    pub gro: bool,
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

/// Where a send goes, and what it says beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    /// The receiver.
    pub to: SocketAddr,
    /// The local address to send from. The link index is used for IPv6 link-local ones only: routing
    /// stays free, as in the kernel module.
    pub source: Option<(IpAddr, u32)>,
    /// TOS or traffic class: DSCP and ECN.
    pub tos: u8,
}

/// A bound, nonblocking UDP socket. May be used from several threads at once.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    family: Family,
    port: u16,
    gso: bool,
    gro: bool,
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
        for (force, plain, size) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER),
        ] {
            set(libc::SOL_SOCKET, force, size).or_else(|_| set(libc::SOL_SOCKET, plain, size))?;
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

    /// What this socket does.
    pub fn features(&self) -> UdpFeatures {
        UdpFeatures {
            gso: self.gso,
            gro: self.gro,
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

    /// Sends `bytes` as one datagram, or, with a stride, as datagrams of that length, the last of which
    /// may be shorter. Never waits. The length that the kernel took.
    ///
    /// # Errors
    /// InvalidInput: an address of the other family; WouldBlock: no room in the socket's buffer;
    /// otherwise those of sendmsg(2).
    pub fn send(&self, bytes: &[u8], stride: Option<u16>, parcel: &Parcel) -> io::Result<usize> {
        if Family::of(&parcel.to.ip()) != self.family {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let name = Name::new(&parcel.to);
        let mut control = Control::new();
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

    /// Bytes of memory that wait in queues of links for their turn, over all receivers (SIOCOUTQ).
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

impl Parcel {
    fn write(&self, control: &mut Control) {
        if self.tos != 0 {
            let tos = c_int::from(self.tos).to_ne_bytes();
            match self.to {
                SocketAddr::V4(_) => control.push(libc::IPPROTO_IP, libc::IP_TOS, &tos),
                SocketAddr::V6(_) => control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &tos),
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

/// What ICMP said of an earlier datagram is reported by the next call, which itself did nothing.
fn is_pending(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::EPROTO)
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

    #[test]
    fn the_kernels_that_corrupt_segments() {
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
