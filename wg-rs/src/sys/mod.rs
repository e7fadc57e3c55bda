//! Linux, as safe functions: the TUN device, UDP sockets with offloads, waiting, rtnetlink,
//! network namespaces, names and the daemon's own process. The only unsafe code of the workspace.
//!
//! Nothing here knows the protocol, and nothing here allocates per packet or per burst.

pub mod alarm;
pub mod async_fd;
pub mod cmsg;
pub mod netlink;
pub mod netns;
pub mod numeric;
pub mod poll;
pub mod process;
pub mod resolve;
pub mod resume;
pub mod secrets;
mod sockaddr;
pub mod terminal;
pub mod tun;
pub mod udp;
pub mod uevent;
pub mod unix_file;

use std::fmt;
use std::io;

/// An error in words, without the number that the standard library puts behind them:
/// `No such device`.
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

/// The `-1`/errno convention of system calls as a `Result`.
fn check<T: PartialOrd + Default>(returned: T) -> io::Result<T> {
    if returned < T::default() {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned)
    }
}

/// The running kernel is at least `major.minor`. Unknown counts as older.
pub(crate) fn kernel_at_least(major: u32, minor: u32) -> bool {
    let mut name = std::mem::MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: `uname` fills the structure it is given and keeps no pointer to it.
    if unsafe { libc::uname(name.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call above succeeded, so all of it is initialised.
    let name = unsafe { name.assume_init() };
    let release: Vec<u8> = name.release.iter().map(|c| c.cast_unsigned()).collect();
    version(&release).is_some_and(|version| version >= (major, minor))
}

/// `6.18.4-rc1+` is `(6, 18)`.
fn version(release: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(release).ok()?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_words_without_numbers() {
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
        assert_eq!(version(b"6.18.44-fc-v657\0\0"), Some((6, 18)));
        assert_eq!(version(b"5.4-rc1"), Some((5, 4)));
        assert_eq!(version(b"five"), None);
        assert!(kernel_at_least(3, 0));
        assert!(!kernel_at_least(999, 0));
    }
}
