//! Detects that the socket file was deleted or replaced.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;

use super::socket::SocketFile;
use crate::sys::async_fd;

/// The watch on the socket file. Closing it takes the kernel a grace period of about 10 ms, so the
/// daemon drops it last.
#[derive(Debug)]
pub struct SocketWatch {
    _inotify: OwnedFd,
}

/// Waits until `file` is no longer at its path.
pub(super) async fn deleted(file: Option<&SocketFile>) -> io::Result<SocketWatch> {
    let Some(file) = file else {
        return std::future::pending().await;
    };
    // IN_DELETE_SELF does not work: our listener keeps the inode. The link count is an attribute.
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let events = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF;
    match inotify.add_watch(&*file.path(), events) {
        Ok(_) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let inotify = async_fd::readable(inotify.into())?;
    while file.is_there() {
        let mut events = [0; 1024];
        let read = |fd: &OwnedFd| nix::unistd::read(fd, &mut events).map_err(io::Error::from);
        inotify.async_io(Interest::READABLE, read).await?;
    }
    Ok(SocketWatch {
        _inotify: inotify.into_inner(),
    })
}
