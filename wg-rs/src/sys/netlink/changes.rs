//! Reports that routes, rules or links of this namespace have changed, so that packets may now take
//! other paths. The changes themselves are not read: there may be thousands per second.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::Error;

// linux/rtnetlink.h
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV4_RULE: u32 = 8;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_IPV6_RULE: u32 = 19;

/// Number of messages taken in one call.
const AT_ONCE: usize = 64;

/// Becomes readable after changes.
#[derive(Debug)]
pub struct Changes(Socket);

impl Changes {
    /// Starts to record changes in the calling thread's network namespace.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            for group in [
                RTNLGRP_LINK,
                RTNLGRP_IPV4_ROUTE,
                RTNLGRP_IPV4_RULE,
                RTNLGRP_IPV6_ROUTE,
                RTNLGRP_IPV6_RULE,
            ] {
                socket.add_membership(group)?;
            }
            Ok(socket)
        };
        open().map(Changes).map_err(|source| Error {
            action: "listen for changes of routes".into(),
            source,
        })
    }

    /// Whether anything changed since the last call. Never blocks, and takes a limited number of
    /// messages: the descriptor stays readable while there are more.
    pub fn take(&self) -> bool {
        let mut changed = false;
        for _ in 0..AT_ONCE {
            match recv(self.0.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT) {
                // There were more changes than the kernel could queue.
                Ok(_) | Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        changed
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket lives as long as the borrow, and closes its descriptor only when
        // dropped.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
