//! Names of hosts and services, by the C library: whatever `/etc/nsswitch.conf` says goes.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ptr;

use super::sockaddr::Name;

/// Why a name could not be resolved.
#[derive(Debug)]
pub struct Failure {
    /// One of `EAI_*`.
    code: i32,
    /// What the system says, for `EAI_SYSTEM`.
    errno: io::Error,
}

impl Failure {
    /// Whether asking again later is of no use.
    pub fn is_final(&self) -> bool {
        matches!(
            self.code,
            libc::EAI_NONAME | libc::EAI_FAIL | libc::EAI_NODATA
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == libc::EAI_SYSTEM {
            return fmt::Display::fmt(&self.errno, f);
        }
        // SAFETY: for any number it returns a string that lives for ever.
        let text = unsafe { CStr::from_ptr(libc::gai_strerror(self.code)) };
        f.write_str(&text.to_string_lossy())
    }
}

/// The addresses of a UDP endpoint, the preferred one first, never none.
pub fn host(name: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let mut addrs = lookup(Some(name), &port.to_string(), 0)?;
    addrs.dedup();
    Ok(addrs)
}

/// The address that this text is, if it is no name: nobody is asked.
pub fn numeric(text: &str, port: u16) -> Option<SocketAddr> {
    let addrs = lookup(Some(text), &port.to_string(), libc::AI_NUMERICHOST);
    addrs.ok()?.first().copied()
}

/// The port of a service over UDP.
pub fn service(name: &str) -> Result<u16, Failure> {
    Ok(lookup(None, name, libc::AI_PASSIVE)?[0].port())
}

fn lookup(host: Option<&str>, service: &str, flags: i32) -> Result<Vec<SocketAddr>, Failure> {
    let failure = |code| Failure {
        code,
        errno: io::Error::last_os_error(),
    };
    let text = |text: &str| CString::new(text).map_err(|_| failure(libc::EAI_NONAME));
    let (host, service) = (host.map(text).transpose()?, text(service)?);
    let hints = libc::addrinfo {
        ai_flags: flags,
        ai_family: libc::AF_UNSPEC,
        ai_socktype: libc::SOCK_DGRAM,
        ai_protocol: libc::IPPROTO_UDP,
        ai_addrlen: 0,
        ai_addr: ptr::null_mut(),
        ai_canonname: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    };
    let host = host.as_ref().map_or(ptr::null(), |host| host.as_ptr());
    let mut list = ptr::null_mut();
    // SAFETY: host is null or a string, service is one, and both outlive the call, as `hints` does.
    let code = unsafe { libc::getaddrinfo(host, service.as_ptr(), &hints, &mut list) };
    if code != 0 {
        return Err(failure(code));
    }
    let mut addrs = Vec::new();
    let mut next = list;
    // SAFETY: the list is the library's until it is freed below; each entry is null or whole.
    while let Some(entry) = unsafe { next.as_ref() } {
        let mut name = Name::empty();
        name.len = (entry.ai_addrlen as usize).min(Name::V6);
        // SAFETY: `ai_addr` has `ai_addrlen` bytes, and `name` has room for as many as are taken.
        unsafe {
            ptr::copy_nonoverlapping(entry.ai_addr.cast(), name.bytes.as_mut_ptr(), name.len);
        }
        addrs.extend(name.addr());
        next = entry.ai_next;
    }
    // SAFETY: it came from `getaddrinfo`, and nothing of it is used afterwards.
    unsafe { libc::freeaddrinfo(list) };
    if addrs.is_empty() {
        return Err(failure(libc::EAI_NODATA));
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_resolver() {
        for (text, addr) in [
            ("192.0.2.1", "192.0.2.1:7"),
            ("::1", "[::1]:7"),
            ("fe80::1%lo", "[fe80::1%1]:7"),
            // As inet_aton(3) has it.
            ("127.1", "127.0.0.1:7"),
        ] {
            assert_eq!(host(text, 7).unwrap(), [addr.parse().unwrap()], "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_final() {
        for name in ["", "no such host", "a\0b"] {
            let failure = host(name, 7).unwrap_err();
            assert!(failure.is_final(), "{name}: {failure}");
        }
        let failure = service("no such service").unwrap_err();
        assert_eq!(
            failure.to_string(),
            "Servname not supported for ai_socktype"
        );
    }
}
