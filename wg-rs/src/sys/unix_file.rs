//! Where the file of a UNIX socket is.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use super::check;

/// Opens a UNIX socket's file (linux/un.h).
const SIOCUNIXFILE: libc::Ioctl = 0x89e0;

/// The path of the file of a bound socket now, which may be another than it was bound to.
///
/// # Errors
/// ENOENT: it is bound to no file; EPERM: no CAP_NET_ADMIN; Linux before 4.12 cannot tell.
pub fn path_of(socket: BorrowedFd<'_>) -> io::Result<PathBuf> {
    // SAFETY: takes no argument.
    let file = check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE) })?;
    // SAFETY: a descriptor the kernel just opened for us, that nobody else knows of.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
