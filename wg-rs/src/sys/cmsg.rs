//! recvmsg and sendmsg with control messages (cmsg(3)) in a fixed buffer on the stack.
//!
//! The layout is the kernel's: `{ len: size_t, level: int, type: int }`, data, padding to a word.
//! `len` counts the header and the data, but not the padding.

use std::io;
use std::mem::{self, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

const WORD: usize = size_of::<usize>();
const HEADER: usize = WORD + 2 * size_of::<i32>();
const CAPACITY: usize = 128;

/// A buffer for control messages, with the alignment that `msghdr.msg_control` requires.
#[repr(C, align(8))]
pub struct ControlBuffer {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Default for ControlBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl ControlBuffer {
    /// An empty buffer, to append messages to or to receive into.
    pub const fn new() -> Self {
        ControlBuffer {
            bytes: [0; CAPACITY],
            len: 0,
        }
    }

    /// Appends one message.
    ///
    /// # Panics
    /// If the buffer is full. It has room for all messages that this crate sends in one call.
    pub fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let at = self.len;
        self.bytes[at..][..WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        self.bytes[at + WORD..][..4].copy_from_slice(&level.to_ne_bytes());
        self.bytes[at + WORD + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[at + HEADER..][..data.len()].copy_from_slice(data);
        self.len = at + (HEADER + data.len()).next_multiple_of(WORD);
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Iterates over the messages in order, as (level, type, data). Stops at the first malformed
    /// message.
    pub fn messages(&self) -> Messages<'_> {
        Messages(self.as_bytes())
    }
}

/// Iterator over [`ControlBuffer::messages`].
pub struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (i32, i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (len, rest) = self.0.split_first_chunk()?;
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let len = usize::from_ne_bytes(*len);
        let data = rest.get(..len.checked_sub(HEADER)?)?;
        self.0 = self.0.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        Some((i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data))
    }
}

/// The result of recvmsg besides the bytes and the control messages.
#[derive(Clone, Copy, Debug)]
pub struct RecvMsg {
    /// Bytes received.
    pub len: usize,
    /// Length of the sender's name.
    pub name_len: usize,
    /// Whether the datagram was longer than the buffer.
    pub truncated: bool,
}

/// Calls recvmsg: receives bytes into `buf` and the sender's socket address into `name`.
///
/// # Errors
/// Those of recvmsg(2).
pub fn recvmsg(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    name: &mut [u8],
    control: &mut ControlBuffer,
) -> io::Result<RecvMsg> {
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: zero is a valid value for a structure of integers and pointers.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = name.len() as _;
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes.as_mut_ptr().cast();
    header.msg_controllen = CAPACITY as _;
    // SAFETY: buffer, name and control are exclusively borrowed during the call, and the header has
    // their lengths.
    let len = check(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, 0) })?;
    control.len = (header.msg_controllen as usize).min(CAPACITY);
    Ok(RecvMsg {
        len: len.cast_unsigned(),
        name_len: (header.msg_namelen as usize).min(name.len()),
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
    })
}

/// Calls sendmsg: sends `bytes` to the socket address `name`.
///
/// # Errors
/// Those of sendmsg(2).
pub fn sendmsg(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    name: &[u8],
    control: &ControlBuffer,
) -> io::Result<usize> {
    let mut iov = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: zero is a valid value for a structure of integers and pointers.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = name.as_ptr().cast_mut().cast();
    header.msg_namelen = name.len() as _;
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    if control.len > 0 {
        header.msg_control = control.bytes.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len as _;
    }
    // SAFETY: the kernel only reads. All buffers are borrowed during the call, and the header has
    // their lengths.
    let sent: libc::ssize_t =
        check(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) })?;
    Ok(sent.cast_unsigned())
}

/// The native-endian `int` at the start of a control message's data. None if the data is too short.
pub fn int(data: &[u8]) -> Option<i32> {
    data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_messages_are_read_back() {
        let mut control = ControlBuffer::new();
        control.push(1, 2, &[7]);
        control.push(3, 4, &5i32.to_ne_bytes());
        control.push(6, 7, &[9; 20]);
        let read: Vec<_> = control.messages().collect();
        assert_eq!(
            read,
            [
                (1, 2, &[7][..]),
                (3, 4, &5i32.to_ne_bytes()),
                (6, 7, &[9; 20])
            ]
        );
        assert_eq!(control.as_bytes().len() % WORD, 0);
        assert_eq!(int(read[1].2), Some(5));
        assert_eq!(int(read[0].2), None);
    }

    #[test]
    fn layout_matches_libc() {
        let mut control = ControlBuffer::new();
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &1200u16.to_ne_bytes());
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, len) = unsafe { (libc::CMSG_SPACE(2), libc::CMSG_LEN(2)) };
        assert_eq!(control.as_bytes().len(), space as usize);
        assert_eq!(control.as_bytes()[..WORD], (len as usize).to_ne_bytes());
    }

    #[test]
    fn malformed_lengths_end_the_list() {
        for len in [0usize, HEADER - 1, HEADER + 1, CAPACITY + 1, usize::MAX - 3] {
            let mut control = ControlBuffer::new();
            control.bytes[..WORD].copy_from_slice(&len.to_ne_bytes());
            control.len = HEADER;
            assert_eq!(control.messages().count(), 0, "{len}");
        }
    }
}
