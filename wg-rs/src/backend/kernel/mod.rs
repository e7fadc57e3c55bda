//! Interfaces of the kernel's module, over generic netlink, in the network namespace of the calling
//! thread.
//!
//! Interfaces larger than a message travel in several: [`get`] puts the pieces of an answer
//! together, [`set`] cuts changes into requests.

mod get;
mod set;

use std::fmt;
use std::io;

use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use netlink_packet_wireguard::{
    WireguardAttribute, WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute,
};
use zeroize::Zeroize;

use super::Errno;
use crate::sys::netlink::Netlink;
use crate::sys::netlink::generic::Generic;
use crate::uapi::types::{Change, Interface};

/// `IFNAMSIZ`: the bytes of a link's name, and a NUL at its end.
const NAME_SIZE: usize = libc::IFNAMSIZ;

/// The names of all links of kind `wireguard`.
pub(super) fn list() -> io::Result<Vec<String>> {
    let links = Netlink::open().and_then(|mut netlink| netlink.links());
    let links = links.map_err(|error| match error.errno() {
        Some(errno) => Errno(errno).into(),
        None => io::Error::from(error),
    })?;
    let ours = |kind: &str| kind == "wireguard";
    Ok(links
        .into_iter()
        .filter(|link| link.kind.as_deref().is_some_and(ours))
        .map(|link| link.name)
        .collect())
}

pub(super) fn get(name: &str) -> io::Result<Interface> {
    if name.len() >= NAME_SIZE {
        return Err(Errno(libc::ENAMETOOLONG).into());
    }
    let request = Message::new(
        WireguardCmd::GetDevice,
        vec![WireguardAttribute::IfName(name.into())],
    );
    open()?.dump(request, get::collect).map_err(plain)
}

/// A name that no link can have is one that no link has. (`wg` would cut it to one that exists.)
pub(super) fn set(name: &str, changes: &[Change]) -> io::Result<()> {
    let mut kernel = open()?;
    if name.len() >= NAME_SIZE {
        return Err(Errno(libc::ENODEV).into());
    }
    set::requests(name, changes, set::MAX_REQUEST, |request| {
        kernel.request(request).map_err(plain)
    })
}

fn open() -> io::Result<Generic<Message>> {
    Generic::open().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => Errno(libc::EPROTONOSUPPORT).into(),
        _ => plain(error),
    })
}

fn plain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => Errno(errno).into(),
        None => error,
    }
}

/// A message of the family `wireguard`, whose keys are wiped when it is dropped.
struct Message(WireguardMessage);

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WireguardMessage { cmd, attributes } = &self.0;
        write!(f, "Message({cmd:?}, {} attributes)", attributes.len())
    }
}

impl Message {
    fn new(cmd: WireguardCmd, attributes: Vec<WireguardAttribute>) -> Self {
        Message(WireguardMessage { cmd, attributes })
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        for attribute in &mut self.0.attributes {
            match attribute {
                WireguardAttribute::PrivateKey(key) => key.zeroize(),
                WireguardAttribute::Peers(peers) => {
                    for attribute in peers.iter_mut().flat_map(|WireguardPeer(peer)| peer) {
                        if let WireguardPeerAttribute::PresharedKey(key) = attribute {
                            key.zeroize();
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        WireguardMessage::family_name()
    }

    fn command(&self) -> u8 {
        self.0.command()
    }

    fn version(&self) -> u8 {
        self.0.version()
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.0.buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        WireguardMessage::parse_with_param(bytes, header).map(Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::errno;

    #[test]
    fn keys_are_not_for_debugging() {
        let attributes = vec![WireguardAttribute::PrivateKey([77; 32])];
        let message = Message::new(WireguardCmd::SetDevice, attributes);
        assert_eq!(format!("{message:?}"), "Message(SetDevice, 1 attributes)");
    }

    #[test]
    fn names_that_no_link_has() {
        let long = "a-name-of-16-chr";
        assert_eq!(errno(&get(long).unwrap_err()), Some(libc::ENAMETOOLONG));
        // With the module and without.
        let expected = [
            Some(libc::ENODEV),
            Some(libc::EPROTONOSUPPORT),
            Some(libc::EPERM),
        ];
        for name in [long, "no-such", "a/b"] {
            let error = set(name, &[Change::FwMark(1)]).unwrap_err();
            assert!(expected.contains(&errno(&error)), "{name}: {error}");
        }
    }
}
