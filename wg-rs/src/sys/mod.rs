//! Safe functions over Linux: the TUN device, UDP sockets with offloads, poll, netlink, network
//! namespaces, name resolution and the daemon's own process. Except for vectors in `crypto`, all
//! unsafe code of the workspace is here.
//!
//! This folder does not know the protocol, and allocates nothing per packet or per burst.

pub(crate) mod alarm;
pub(crate) mod async_fd;
pub(crate) mod cmsg;
pub(crate) mod icmp;
pub mod netlink;
pub mod netns;
pub mod numeric;
pub mod poll;
pub mod process;
pub mod resolve;
pub(crate) mod resume;
pub(crate) mod secrets;
mod sockaddr;
pub(crate) mod syslog;
pub(crate) mod terminal;
pub mod tun;
pub mod udp;
pub(crate) mod uevent;
pub(crate) mod unix_file;

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The text of an error without the number that the standard library appends: `No such device`.
pub fn reason(error: &impl fmt::Display) -> String {
    let mut text = error.to_string();
    while let Some(start) = text.find(" (os error ") {
        let Some(length) = text[start..].find(')') else {
            break;
        };
        text.replace_range(start..=start + length, "");
    }
    text
}

/// Converts the result of a system call that returns -1 and sets errno.
fn check<T: PartialOrd + Default>(returned: T) -> io::Result<T> {
    if returned < T::default() {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

/// Sets an option of a socket to a value in the form that the kernel expects, often a C int.
fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the value, which is as long.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value.as_ptr().cast(), len) })
        .map(drop)
}

/// A kernel version: 7.1.4 is (7, 1, 4).
type Version = (u32, u32, u32);

/// The running kernel's version. None if it cannot be read.
fn kernel_version() -> Option<Version> {
    let mut name = std::mem::MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: `uname` fills the structure it is given and keeps no pointer to it.
    check(unsafe { libc::uname(name.as_mut_ptr()) }).ok()?;
    // SAFETY: the call succeeded, so the structure is initialised.
    let name = unsafe { name.assume_init() };
    let release: Vec<u8> = name.release.iter().map(|c| c.cast_unsigned()).collect();
    version(std::str::from_utf8(&release).ok()?)
}

/// Whether the running kernel is at least `major.minor`. False if its version is unknown.
pub(crate) fn kernel_at_least(major: u32, minor: u32) -> bool {
    kernel_version().is_some_and(|version| version >= (major, minor, 0))
}

/// Parses a release: `6.18.4-rc1+` is (6, 18, 4), and `7.0-rc1` is (7, 0, 0).
fn version(release: &str) -> Option<Version> {
    let end = release.find(|c: char| c != '.' && !c.is_ascii_digit());
    let mut numbers = release[..end.unwrap_or(release.len())].split('.');
    let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    let patch = numbers.next().and_then(|patch| patch.parse().ok());
    Some((major, minor, patch.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_have_no_number() {
        let error = io::Error::from_raw_os_error(libc::ENODEV);
        assert_eq!(reason(&error), "No such device");
        assert_eq!(
            reason(&format!("wg0: {error}; then {error}")),
            "wg0: No such device; then No such device"
        );
        assert_eq!(reason(&"a (os error"), "a (os error");
        assert_eq!(reason(&"a (os error 1"), "a (os error 1");
    }

    #[test]
    fn releases_are_read_as_versions() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18, 44)));
        assert_eq!(version("7.1.4"), Some((7, 1, 4)));
        assert_eq!(version("5.4-rc1"), Some((5, 4, 0)));
        assert_eq!(version("7.0.0+2-amd64"), Some((7, 0, 0)));
        assert_eq!(version("five"), None);
        assert_eq!(version("5"), None);
        assert!(kernel_version().is_some());
        assert!(kernel_at_least(3, 0));
        assert!(!kernel_at_least(999, 0));
    }
}
