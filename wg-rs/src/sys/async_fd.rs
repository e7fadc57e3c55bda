//! File descriptors in tokio's reactor.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes a nonblocking `fd` awaitable: a task can wait until it is readable. Must be called within
/// a tokio runtime that has I/O enabled.
///
/// # Errors
/// The reactor does not accept the descriptor.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and unchanged until it is dropped, and the `AsyncFd` owns it,
    // so nobody else can close or replace it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
