//! Kernel events about devices. Only one matters here: a virtual machine was copied or restored.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_KOBJECT_UEVENT};

/// Group 1 is the kernel's; the other groups are udev's.
const KERNEL_GROUP: u32 = 1;
/// The event's variable after the hypervisor gave the machine a new generation ID
/// (drivers/virt/vmgenid.c).
const NEW_GENERATION: &[u8] = b"NEW_VMGENID=1";
/// The kernel allows 2 KiB of variables, with a path before them.
const LONGEST: usize = 8 << 10;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uevent {
    /// This machine may be a copy of another that continues to run, or may have returned to an
    /// earlier state. So random values may be known to others, and values for one use may be used
    /// again.
    NewGeneration,
    /// Events were lost, possibly including a new generation.
    Lost,
    /// Any other event.
    Other,
}

/// A nonblocking stream of [`Uevent`]s. It is readable when there is an event.
#[derive(Debug)]
pub struct Uevents {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Uevents {
    /// Listens in the calling thread's network namespace. It needs no privilege. In a user
    /// namespace other than the initial one, only events of network devices arrive.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
        socket.bind(&SocketAddr::new(0, KERNEL_GROUP))?;
        socket.set_non_blocking(true)?;
        Ok(Uevents {
            socket,
            buffer: Vec::with_capacity(LONGEST),
        })
    }

    /// The next event.
    ///
    /// # Errors
    /// `WouldBlock`: there is no event.
    pub fn recv(&mut self) -> io::Result<Uevent> {
        self.buffer.clear();
        match self.socket.recv_from(&mut self.buffer, 0) {
            Ok((_, from)) if from.port_number() == 0 => Ok(read(&self.buffer)),
            // Not sent by the kernel.
            Ok(_) => Ok(Uevent::Other),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Uevent::Lost),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

/// Parses an event: `ACTION@PATH` and variables, each followed by a zero byte.
fn read(event: &[u8]) -> Uevent {
    let mut variables = event.split(|byte| *byte == 0).skip(1);
    if variables.any(|variable| variable == NEW_GENERATION) {
        Uevent::NewGeneration
    } else {
        Uevent::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_variable_means_a_new_generation() {
        let head = b"change@/devices/platform/vmgenid\0ACTION=change\0SUBSYSTEM=platform\0";
        let event = |variable: &[u8]| read(&[head, variable, b"\0SEQNUM=1234\0"].concat());
        assert_eq!(event(b"NEW_VMGENID=1"), Uevent::NewGeneration);
        for other in [
            &b"NEW_VMGENID=10"[..],
            b"NEW_VMGENID=0",
            b"OLD_NEW_VMGENID=1",
            b"",
        ] {
            assert_eq!(event(other), Uevent::Other);
        }
        assert_eq!(
            read(b"NEW_VMGENID=1\0"),
            Uevent::Other,
            "that is no variable"
        );
        assert_eq!(read(b""), Uevent::Other);
    }

    #[test]
    fn reading_without_an_event_does_not_block() {
        let mut uevents = Uevents::open().unwrap();
        // Other devices of the machine may cause events at any time.
        let end = (0..10_000).find_map(|_| uevents.recv().err());
        assert_eq!(end.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
