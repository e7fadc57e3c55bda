//! sock_diag for UNIX sockets: finds the socket at the other end of a connection.

use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::sys::stat::fstat;

use super::{Channel, envelope};

// linux/sock_diag.h, linux/unix_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
/// Length of a struct unix_diag_msg, which precedes the attributes, in bytes.
const HEADER: usize = 16;

/// The inode of the socket at the other end of a connected UNIX socket of the calling thread's
/// network namespace. In the process that accepted the connection, in any namespace, `/proc/PID/fd`
/// shows that socket as `socket:[INODE]`. None if nobody has accepted the connection yet.
///
/// # Errors
/// ENOENT: the kernel lacks unix_diag, or the socket belongs to another network namespace.
pub fn peer_inode(socket: impl AsFd) -> io::Result<Option<u32>> {
    // The kernel's tables contain only the lower half.
    let inode = fstat(socket)?.st_ino as u32;
    let mut peer = None;
    let mut find = |answer: io::Result<DiagMessage>| {
        let answer = answer?;
        let attributes = answer.0.get(HEADER..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes).flatten() {
            if attribute.kind() == UNIX_DIAG_PEER {
                peer = attribute.value().first_chunk().copied();
            }
        }
        Ok(())
    };
    Channel::open(NETLINK_SOCK_DIAG)?.exchange(
        &mut envelope(DiagMessage(request(inode))),
        NLM_F_ACK,
        &mut find,
    )?;
    Ok(peer.map(u32::from_ne_bytes).filter(|inode| *inode != 0))
}

/// A struct unix_diag_req: family, protocol, padding, states, inode, what to show, any cookie.
fn request(inode: u32) -> Vec<u8> {
    let mut bytes = vec![libc::AF_UNIX as u8, 0, 0, 0];
    for word in [u32::MAX, inode, UDIAG_SHOW_PEER, u32::MAX, u32::MAX] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

/// A request or a reply, without the netlink header.
#[derive(Debug)]
struct DiagMessage(Vec<u8>);

impl NetlinkSerializable for DiagMessage {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

impl NetlinkDeserializable for DiagMessage {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(DiagMessage(payload.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn the_other_end_is_known_once_it_is_accepted() {
        let path = std::env::temp_dir().join(format!("wg-rs-diag-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path);
        std::fs::remove_file(&path).unwrap();
        let stream = stream.unwrap();
        assert_eq!(peer_inode(&stream).unwrap(), None);
        let (accepted, _) = listener.accept().unwrap();
        let expected = fstat(&accepted).unwrap().st_ino as u32;
        assert_eq!(peer_inode(&stream).unwrap(), Some(expected));
        drop(accepted);
        assert_eq!(peer_inode(&stream).unwrap(), None);
    }
}
