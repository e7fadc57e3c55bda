//! Interfaces of the kernel's module, in the network namespace of the calling thread.

use std::io;

use super::Errno;
use crate::sys::netlink::{self, Netlink};
use crate::uapi::types::{Change, Interface};

/// `IFNAMSIZ`, with the NUL at the end.
const NAME_SIZE: usize = libc::IFNAMSIZ;

/// The names of all links of kind `wireguard`.
pub(super) fn list() -> io::Result<Vec<String>> {
    let links = Netlink::open().and_then(|mut netlink| netlink.links());
    let links = links.map_err(reason)?.into_iter();
    let ours = links.filter(|link| link.kind.as_deref() == Some("wireguard"));
    Ok(ours.map(|link| link.name).collect())
}

pub(super) fn get(name: &str) -> io::Result<Interface> {
    if name.len() >= NAME_SIZE {
        return Err(Errno(libc::ENAMETOOLONG).into());
    }
    Err(Errno(libc::EPROTONOSUPPORT).into())
}

pub(super) fn set(_name: &str, _changes: &[Change]) -> io::Result<()> {
    Err(Errno(libc::EPROTONOSUPPORT).into())
}

fn reason(error: netlink::Error) -> io::Error {
    match error.errno() {
        Some(errno) => Errno(errno).into(),
        None => error.into(),
    }
}
