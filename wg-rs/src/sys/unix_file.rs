//! The path of a UNIX socket's file.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use super::check;

/// Opens a UNIX socket's file (linux/un.h).
const SIOCUNIXFILE: libc::Ioctl = 0x89e0;

/// The current path of a bound socket's file. It may differ from the path that the socket was bound
/// to.
///
/// # Errors
/// ENOENT: the socket is not bound to a file; EPERM: the process lacks CAP_NET_ADMIN; EINVAL or
/// ENOTTY: Linux before 4.12.
pub fn path_of(socket: BorrowedFd<'_>) -> io::Result<PathBuf> {
    // SAFETY: takes no argument.
    let file = check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE) })?;
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else uses it.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
