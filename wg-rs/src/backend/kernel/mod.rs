//! Interfaces of the kernel module, over generic netlink, in the calling thread's network
//! namespace.
//!
//! A large interface needs several messages: [`get`] assembles the messages of a reply, and [`set`]
//! splits changes into requests.

mod get;
mod message;
mod set;

use std::io;

use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd};

use self::message::KernelMessage;
use super::errno::{Errno, with_wgs_text};
use crate::model::{Change, Interface};
use crate::sys::netlink::Netlink;
use crate::sys::netlink::generic::Generic;

/// `IFNAMSIZ`: the bytes of a link's name, including its terminator.
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
    let request = KernelMessage::new(
        WireguardCmd::GetDevice,
        vec![WireguardAttribute::IfName(name.into())],
    );
    open()?.dump(request, get::collect).map_err(with_wgs_text)
}

/// Refuses extensions before anything is changed. A name that is too long is reported as missing;
/// `wg` would truncate it to the name of another link.
pub(super) fn set(name: &str, changes: &[Change]) -> io::Result<()> {
    let mut kernel = open()?;
    if changes
        .iter()
        .any(|change| matches!(change, Change::Extension(_)))
    {
        return Err(Errno(libc::EOPNOTSUPP).into());
    }
    if name.len() >= NAME_SIZE {
        return Err(Errno(libc::ENODEV).into());
    }
    set::requests(name, changes, set::MAX_REQUEST, |request| {
        kernel.request(request).map_err(with_wgs_text)
    })
}

fn open() -> io::Result<Generic<KernelMessage>> {
    Generic::open().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => Errno(libc::EPROTONOSUPPORT).into(),
        _ => with_wgs_text(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::errno;

    #[test]
    fn impossible_names_are_refused() {
        let long = "a-name-of-16-chr";
        assert_eq!(errno(&get(long).unwrap_err()), Some(libc::ENAMETOOLONG));
        // The errors with and without the kernel module.
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
