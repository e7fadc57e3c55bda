//! The TUN device: one descriptor on /dev/net/tun, attached to one link.
//!
//! Each packet that is read or written begins with a virtio_net_hdr of [`HEADER`] bytes. So one
//! read or write can carry a super-packet of up to 64 KiB (TSO, USO, or with its checksum missing).
//! The header has the form with the offsets of UDP tunnels; kernels before 6.17 leave these zero.
//! A descriptor that was passed to us (`WG_TUN_FD`) may lack the header; then this file supplies
//! one of zeros.
//!
//! The descriptor stays attached to the device wherever the device moves. By state of the device
//! (tested on Linux 6.18):
//!
//! | device  | recv        | send            | poll                      |
//! |---------|-------------|-----------------|---------------------------|
//! | up      | packets     | taken           | readable when there is one |
//! | down    | WouldBlock  | EIO             | no event                  |
//! | moved   | down at first; then as above in the new namespace |  |  |
//! | deleted | EBADFD      | EBADFD          | error                     |

use std::ffi::c_int;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;

use super::netns::NetNs;
use super::process::other::Process;
use super::{check, reason};

/// The file that creates TUN devices.
const DEVICE: &str = "/dev/net/tun";

/// Length of the virtio_net_hdr before each packet, in bytes.
pub const HEADER: usize = 24;

/// UDP tunnels in super-packets, and with their own checksum (`linux/if_tun.h`, Linux 6.17).
const TUN_F_UDP_TUNNEL_GSO: u32 = 0x080;
const TUN_F_UDP_TUNNEL_GSO_CSUM: u32 = 0x100;

/// Longest name of a link in bytes (IFNAMSIZ without the terminator).
pub const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// Offloads of a device. In a request: what may be used; in a result: what is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunOffloads {
    /// Packets have a virtio header: checksums may be missing in packets that are read, and
    /// super-packets may be written. The other two offloads depend on this one.
    pub vnet_hdr: bool,
    /// TCP super-packets can be read, IPv4 and IPv6.
    pub tso: bool,
    /// UDP super-packets can be read and written, IPv4 and IPv6 (Linux 6.2).
    pub uso: bool,
    /// TCP super-packets can be read whole also inside VXLAN or Geneve (Linux 6.17). Depends on `tso`.
    pub tunnels: bool,
}

impl TunOffloads {
    /// All offloads that are used here.
    pub const ALL: Self = TunOffloads {
        vnet_hdr: true,
        tso: true,
        uso: true,
        tunnels: true,
    };
    /// A plain TUN: one packet per read or write.
    pub const NONE: Self = TunOffloads {
        vnet_hdr: false,
        tso: false,
        uso: false,
        tunnels: false,
    };

    /// The argument of TUNSETOFFLOAD. TUN_F_TSO_ECN is not requested: the kernel then splits the
    /// rare super-packet with CWR itself, and readers need no rule for it.
    fn flags(self) -> u32 {
        let tso = if self.tso {
            libc::TUN_F_TSO4 | libc::TUN_F_TSO6
        } else {
            0
        };
        let uso = if self.uso {
            libc::TUN_F_USO4 | libc::TUN_F_USO6
        } else {
            0
        };
        let tunnels = if self.tunnels {
            TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM
        } else {
            0
        };
        if self.vnet_hdr {
            libc::TUN_F_CSUM | tso | uso | tunnels
        } else {
            0
        }
    }
}

/// struct ifreq: a name, and a union of which only the first bytes are used here.
#[repr(C, align(8))]
#[derive(Default)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    union: [u8; 24],
}

impl IfReq {
    fn new(name: &str, flags: c_int) -> io::Result<Self> {
        let bad = |c: u8| matches!(c, 0 | b'/' | b':') || c.is_ascii_whitespace();
        if name.is_empty() || name.len() > MAX_NAME || name.bytes().any(bad) {
            let message = format!("{name:?} is not a name for a link");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut request = IfReq::default();
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // The kernel's field is a short: IFF_TUN_EXCL and lower flags.
        request.union[..2].copy_from_slice(&(flags as u16).to_ne_bytes());
        Ok(request)
    }

    fn flags(&self) -> c_int {
        u16::from_ne_bytes([self.union[0], self.union[1]]).into()
    }

    fn name(&self) -> String {
        let end = self
            .name
            .iter()
            .position(|&c| c == 0)
            .unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

fn ioctl_ifreq(fd: BorrowedFd<'_>, op: libc::Ioctl, request: &mut IfReq) -> io::Result<()> {
    // SAFETY: each operation that is used with this function reads or writes one struct ifreq,
    // which has 40 bytes on 64-bit Linux and 32 on 32-bit; `request` has 40.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), op, request as *mut IfReq) }).map(drop)
}

fn set_offloads(fd: BorrowedFd<'_>, offer: TunOffloads) -> io::Result<()> {
    let flags = libc::c_ulong::from(offer.flags());
    // SAFETY: the argument is a value, not a pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, flags) }).map(drop)
}

/// Describes why [`DEVICE`] cannot be opened, and how to fix that.
fn no_device(errno: Errno) -> io::Error {
    let cure = match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => {
            "on a host run `modprobe tun', start a container with `--device /dev/net/tun'; \
             see wireguard-rs(8)"
        }
        Errno::EPERM | Errno::EACCES => {
            "run it as root, and start a container with `--device /dev/net/tun'; \
             see wireguard-rs(8)"
        }
        _ => return io::Error::new(io::Error::from(errno).kind(), with_path(errno)),
    };
    let message = format!("{} ({cure})", with_path(errno));
    io::Error::new(io::Error::from(errno).kind(), message)
}

fn with_path(errno: Errno) -> String {
    format!("{DEVICE}: {}", reason(&io::Error::from(errno)))
}

/// An open TUN device. It is nonblocking, and several threads may use it at once.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    offloads: TunOffloads,
}

impl Tun {
    /// Creates the link `name` (the kernel replaces `%d` in it with a number), or attaches to a
    /// persistent TUN that nobody has open. `want` is reduced to the offloads that the kernel
    /// does not refuse.
    ///
    /// # Errors
    /// EBUSY: another process has it open; EINVAL: a link of another kind has this name; EPERM;
    /// ENOENT or ENODEV: the kernel has no TUN driver, or there is no /dev/net/tun; InvalidInput:
    /// `name` is not a valid name for a link.
    pub fn create(name: &str, want: TunOffloads) -> io::Result<Self> {
        match Self::attach(name, want) {
            // Perhaps the kernel refuses the header, or its length.
            Err(error) if want.vnet_hdr && error.raw_os_error() == Some(libc::EINVAL) => {
                Self::attach(name, TunOffloads::NONE)
            }
            result => result,
        }
    }

    fn attach(name: &str, want: TunOffloads) -> io::Result<Self> {
        let vnet_hdr = if want.vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
        let mut request = IfReq::new(name, libc::IFF_TUN | libc::IFF_NO_PI | vnet_hdr)?;
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = open(DEVICE, flags, Mode::empty()).map_err(no_device)?;
        ioctl_ifreq(fd.as_fd(), libc::TUNSETIFF, &mut request)?;
        if want.vnet_hdr {
            return Self::with_offloads(fd, want);
        }
        Ok(Tun {
            fd,
            offloads: TunOffloads::NONE,
        })
    }

    /// Takes over a descriptor that is attached to a TUN, and makes it nonblocking.
    ///
    /// # Errors
    /// EBADFD: not attached to a link; ENOTTY: not a TUN descriptor; InvalidInput: a TAP, or a TUN
    /// with packet information (without IFF_NO_PI).
    pub fn from_fd(fd: OwnedFd, want: TunOffloads) -> io::Result<Self> {
        let mut request = IfReq::default();
        ioctl_ifreq(fd.as_fd(), libc::TUNGETIFF, &mut request)?;
        let flags = request.flags();
        if flags & libc::IFF_TUN == 0 || flags & libc::IFF_NO_PI == 0 {
            let message = format!("{} is not a TUN without packet information", request.name());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let status = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
        if flags & libc::IFF_VNET_HDR == 0 {
            return Ok(Tun {
                fd,
                offloads: TunOffloads::NONE,
            });
        }
        Self::with_offloads(fd, want)
    }

    /// Requests `want`, and then fewer and fewer offloads until the kernel accepts. A kernel that refuses
    /// all of them leaves the device as it is: a new one has none. Packets have a header.
    fn with_offloads(fd: OwnedFd, want: TunOffloads) -> io::Result<Self> {
        let size = HEADER as c_int;
        // SAFETY: the kernel reads one int.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &size) })?;
        let none = TunOffloads {
            vnet_hdr: true,
            ..TunOffloads::NONE
        };
        let want = TunOffloads {
            tunnels: want.tunnels && want.tso,
            ..if want.vnet_hdr { want } else { none }
        };
        let no_tunnels = TunOffloads {
            tunnels: false,
            ..want
        };
        let no_uso = TunOffloads {
            uso: false,
            ..no_tunnels
        };
        let accepted = [want, no_tunnels, no_uso, none]
            .into_iter()
            .find(|offer| set_offloads(fd.as_fd(), *offer).is_ok());
        Ok(Tun {
            fd,
            offloads: accepted.unwrap_or(none),
        })
    }

    /// The link's current name. The link may be renamed and may move to any namespace.
    ///
    /// # Errors
    /// EBADFD: the link was deleted.
    pub fn name(&self) -> io::Result<String> {
        let mut request = IfReq::default();
        ioctl_ifreq(self.fd.as_fd(), libc::TUNGETIFF, &mut request)?;
        Ok(request.name())
    }

    /// The link's current network namespace. Together with the name it identifies the link, which
    /// [`super::netlink::Netlink::link_of`] looks up.
    ///
    /// # Errors
    /// EBADFD: the link was deleted; EPERM: no CAP_NET_ADMIN in that namespace; EINVAL: Linux
    /// before 5.2.
    pub fn netns(&self) -> io::Result<OwnedFd> {
        // SAFETY: the operation has no argument.
        let fd = check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNGETDEVNETNS) })?;
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else uses it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The offloads in use.
    pub fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// Reads one packet with its virtio header. Returns the length of both. A packet that is longer
    /// than `buf` is truncated silently, so `buf` should have [`HEADER`] + 65535 bytes.
    ///
    /// # Errors
    /// WouldBlock: there is no packet, or the link is down; EBADFD: the link was deleted.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        if self.offloads.vnet_hdr {
            return Ok(nix::unistd::read(&self.fd, buf)?);
        }
        let (header, packet) = buf.split_at_mut(HEADER);
        header.fill(0);
        Ok(HEADER + nix::unistd::read(&self.fd, packet)?)
    }

    /// Writes one packet, given in parts. The first part is exactly the virtio header. Returns the
    /// length of all parts.
    ///
    /// # Errors
    /// EIO: the link is down; EBADFD: the link was deleted; EINVAL: the kernel does not accept the
    /// header, or the packet is neither IPv4 nor IPv6; WouldBlock or ENOBUFS: no memory at the
    /// moment.
    pub fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.offloads.vnet_hdr {
            return Ok(nix::sys::uio::writev(&self.fd, parts)?);
        }
        let Some((header, packet)) = parts.split_first() else {
            return Ok(0);
        };
        debug_assert_eq!(header.len(), HEADER);
        debug_assert_eq!(header[1], 0, "a plain TUN takes no super-packet");
        Ok(HEADER + nix::sys::uio::writev(&self.fd, packet)?)
    }
}

/// The links whose TUNs a process has open, by name and current namespace. The TUNs are only
/// queried.
///
/// # Errors
/// NotFound or ESRCH: the process ended; PermissionDenied; ENOSYS: Linux before 5.6; EINVAL: before
/// 5.2.
pub fn held_by(process: &Process) -> io::Result<Vec<(String, NetNs)>> {
    let mut links: Vec<(String, NetNs)> = Vec::new();
    for (number, leads_to) in process.descriptors()? {
        if !leads_to.ends_with("net/tun") {
            continue;
        }
        let tun = Tun {
            fd: process.copy(number)?,
            offloads: TunOffloads::NONE,
        };
        // Skips a TUN that is not attached, or whose link was deleted.
        let Ok(name) = tun.name() else { continue };
        let netns = NetNs::from(tun.netns()?);
        // A link with several queues has one descriptor for each.
        let mut known = links.iter();
        if !known.any(|(other, there)| *other == name && there.is(&netns).unwrap_or(false)) {
            links.push((name, netns));
        }
    }
    Ok(links)
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
