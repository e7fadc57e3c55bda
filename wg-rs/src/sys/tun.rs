//! The TUN device: one descriptor on /dev/net/tun, attached to one link.
//!
//! Every packet read or written is led by a virtio_net_hdr of [`HEADER`] bytes, so that a read can
//! be one super-packet of up to 64 KiB (TSO, USO, checksum still to do), and a write too. A
//! descriptor handed to us may lack the header (`WG_TUN_FD`); then it is made up here, all zero.
//!
//! The descriptor holds the device wherever it goes. By state of the device (tried on Linux 6.18):
//!
//! | device  | recv        | send            | poll                      |
//! |---------|-------------|-----------------|---------------------------|
//! | up      | packets     | taken           | readable when there is one |
//! | down    | WouldBlock  | EIO             | nothing                   |
//! | moved   | as there, where it is down at first |  |  |
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

/// Where TUN devices are made.
const DEVICE: &str = "/dev/net/tun";

/// Bytes of the virtio_net_hdr before every packet.
pub const HEADER: usize = 10;

/// Longest name of a link, in bytes (IFNAMSIZ less the terminator).
pub const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// Device offloads: as a wish, what may be used; as an answer, what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunOffloads {
    /// Packets carry a virtio header through the kernel: checksums may be left to the reader,
    /// and written super-packets are taken. The other two depend on it.
    pub vnet_hdr: bool,
    /// TCP super-packets are read, IPv4 and IPv6.
    pub tso: bool,
    /// UDP super-packets are read and taken, IPv4 and IPv6 (Linux 6.2).
    pub uso: bool,
}

impl TunOffloads {
    /// Everything the kernel offers.
    pub const ALL: Self = TunOffloads {
        vnet_hdr: true,
        tso: true,
        uso: true,
    };
    /// A plain TUN: one packet a read, one a write.
    pub const NONE: Self = TunOffloads {
        vnet_hdr: false,
        tso: false,
        uso: false,
    };

    /// TUNSETOFFLOAD's argument. TUN_F_TSO_ECN is left out: the kernel then cuts the rare
    /// super-packet that carries CWR itself, and readers need not know the rule for it.
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
        if self.vnet_hdr {
            libc::TUN_F_CSUM | tso | uso
        } else {
            0
        }
    }
}

/// struct ifreq: a name, and a union of which only the first bytes matter here.
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
        // A short in the kernel's structure: IFF_TUN_EXCL and below.
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
    // SAFETY: each operation used with this function reads or writes one struct ifreq, which is
    // 40 bytes on 64-bit Linux and 32 on 32-bit; `request` is 40.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), op, request as *mut IfReq) }).map(drop)
}

fn set_offloads(fd: BorrowedFd<'_>, offer: TunOffloads) -> io::Result<TunOffloads> {
    let flags = libc::c_ulong::from(offer.flags());
    // SAFETY: the argument is a value, not a pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, flags) })?;
    Ok(offer)
}

/// Why [`DEVICE`] cannot be opened, and what to do about it.
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

/// A TUN device held open. Nonblocking; may be used from several threads at once.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    offloads: TunOffloads,
}

impl Tun {
    /// Creates the link `name` (the kernel replaces a `%d` in it by a number), or attaches to a
    /// persistent TUN that nobody holds. `want` is reduced to what the kernel offers.
    ///
    /// # Errors
    /// EBUSY: somebody else holds it; EINVAL: a link of another kind has this name; EPERM;
    /// ENOENT or ENODEV: the kernel has no TUN driver, or the host no /dev/net/tun;
    /// InvalidInput: not a name for a link.
    pub fn create(name: &str, want: TunOffloads) -> io::Result<Self> {
        let vnet_hdr = if want.vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
        let mut request = IfReq::new(name, libc::IFF_TUN | libc::IFF_NO_PI | vnet_hdr)?;
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = open(DEVICE, flags, Mode::empty()).map_err(no_device)?;
        ioctl_ifreq(fd.as_fd(), libc::TUNSETIFF, &mut request)?;
        Self::with_offloads(fd, want)
    }

    /// Takes over an attached descriptor, made nonblocking here.
    ///
    /// # Errors
    /// EBADFD: not attached to a link; ENOTTY: no TUN descriptor at all;
    /// InvalidInput: a TAP, or one with packet information (no IFF_NO_PI).
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
        let mut tun = Self::with_offloads(fd, want)?;
        tun.offloads.vnet_hdr = true;
        Ok(tun)
    }

    /// Asks for `want`, then for ever less, until the kernel agrees.
    fn with_offloads(fd: OwnedFd, want: TunOffloads) -> io::Result<Self> {
        let size = HEADER as c_int;
        // SAFETY: reads one int. Without IFF_VNET_HDR it has no effect.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &size) })?;
        let want = if want.vnet_hdr {
            want
        } else {
            TunOffloads::NONE
        };
        let no_uso = TunOffloads { uso: false, ..want };
        let no_tso = TunOffloads {
            tso: false,
            ..no_uso
        };
        let offloads = set_offloads(fd.as_fd(), want)
            .or_else(|_| set_offloads(fd.as_fd(), no_uso))
            .or_else(|_| set_offloads(fd.as_fd(), no_tso))?;
        Ok(Tun { fd, offloads })
    }

    /// The link's name now: it may be renamed, and moved to any namespace.
    ///
    /// # Errors
    /// EBADFD: the link was deleted.
    pub fn name(&self) -> io::Result<String> {
        let mut request = IfReq::default();
        ioctl_ifreq(self.fd.as_fd(), libc::TUNGETIFF, &mut request)?;
        Ok(request.name())
    }

    /// The network namespace the link is in now. With the name, all that finds it:
    /// [`super::netlink::Netlink::link_of`].
    ///
    /// # Errors
    /// EBADFD: the link was deleted; EPERM: no CAP_NET_ADMIN there; EINVAL: Linux before 5.2.
    pub fn netns(&self) -> io::Result<OwnedFd> {
        // SAFETY: takes no argument.
        let fd = check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNGETDEVNETNS) })?;
        // SAFETY: a descriptor the kernel just opened for us, that nobody else knows of.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// What of the wish is in use.
    pub fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// Reads one packet led by its virtio header; the length counts both.
    /// A packet longer than `buf` is cut silently: give it [`HEADER`] + 65535 bytes.
    ///
    /// # Errors
    /// WouldBlock: none there, or the link is down; EBADFD: the link was deleted.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        if self.offloads.vnet_hdr {
            return Ok(nix::unistd::read(&self.fd, buf)?);
        }
        let (header, packet) = buf.split_at_mut(HEADER);
        header.fill(0);
        Ok(HEADER + nix::unistd::read(&self.fd, packet)?)
    }

    /// Writes one packet, given in parts of which the first is its virtio header and nothing
    /// else; the length returned counts both.
    ///
    /// # Errors
    /// EIO: the link is down; EBADFD: it was deleted; EINVAL: the kernel does not take this
    /// header, or this is neither IPv4 nor IPv6; WouldBlock or ENOBUFS: no memory now.
    pub fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.offloads.vnet_hdr {
            return Ok(nix::sys::uio::writev(&self.fd, parts)?);
        }
        let Some((header, packet)) = parts.split_first() else {
            return Ok(0);
        };
        debug_assert_eq!(header.len(), HEADER);
        debug_assert_eq!(header[1], 0, "a super-packet for a plain TUN");
        Ok(HEADER + nix::sys::uio::writev(&self.fd, packet)?)
    }
}

/// The links whose TUNs a process holds, by name and namespace, wherever they were moved. The TUNs
/// are asked, and left as they are.
///
/// # Errors
/// NotFound, ESRCH: the process ended; PermissionDenied; ENOSYS: Linux before 5.6, EINVAL: before 5.2.
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
        // One that is not attached, or whose link was deleted, is nobody's.
        let Ok(name) = tun.name() else { continue };
        let netns = NetNs::from(tun.netns()?);
        // Each queue of a link is a descriptor of its own.
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
