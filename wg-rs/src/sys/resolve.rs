//! Resolves names of hosts and services with the C library, so `/etc/nsswitch.conf` applies.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use dns_lookup::{AddrInfoHints, LookupError, getaddrinfo};

/// Why a name could not be resolved.
#[derive(Debug)]
pub struct ResolveError {
    /// One of `EAI_*`.
    code: i32,
    /// The system's error, for `EAI_SYSTEM`.
    errno: io::Error,
}

impl ResolveError {
    fn new(code: i32) -> Self {
        LookupError::new(code).into()
    }

    /// Whether trying again later is useless.
    pub fn is_final(&self) -> bool {
        matches!(
            self.code,
            libc::EAI_NONAME | libc::EAI_FAIL | libc::EAI_NODATA
        )
    }
}

impl From<LookupError> for ResolveError {
    fn from(error: LookupError) -> Self {
        // Code 0 means that the text contains a zero byte, so it is not a name.
        let code = match error.error_num() {
            0 => libc::EAI_NONAME,
            code => code,
        };
        Self {
            code,
            errno: error.into(),
        }
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == libc::EAI_SYSTEM {
            return fmt::Display::fmt(&self.errno, f);
        }
        // SAFETY: for any number the function returns a string that is never freed.
        let text = unsafe { CStr::from_ptr(libc::gai_strerror(self.code)) };
        f.write_str(&text.to_string_lossy())
    }
}

/// The addresses of a UDP endpoint: at least one, with the preferred one first.
///
/// # Errors
/// [`ResolveError`]: the name cannot be resolved.
pub fn host(name: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let mut addrs = lookup(Some(name), &port.to_string(), 0)?;
    addrs.dedup();
    Ok(addrs)
}

/// The address in `text`, if `text` is a numeric address. No resolver is asked.
pub fn numeric(text: &str, port: u16) -> Option<SocketAddr> {
    let addrs = lookup(Some(text), &port.to_string(), libc::AI_NUMERICHOST);
    addrs.ok()?.first().copied()
}

/// The UDP port of a service.
///
/// # Errors
/// [`ResolveError`]: there is no such service.
pub fn service(name: &str) -> Result<u16, ResolveError> {
    Ok(lookup(None, name, libc::AI_PASSIVE)?[0].port())
}

fn lookup(host: Option<&str>, service: &str, flags: i32) -> Result<Vec<SocketAddr>, ResolveError> {
    let hints = AddrInfoHints {
        flags,
        address: libc::AF_UNSPEC,
        socktype: libc::SOCK_DGRAM,
        protocol: libc::IPPROTO_UDP,
    };
    let found = getaddrinfo(host, Some(service), Some(hints))?;
    let addrs: Vec<_> = found.flatten().map(|entry| entry.sockaddr).collect();
    if addrs.is_empty() {
        return Err(ResolveError::new(libc::EAI_NODATA));
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
            // inet_aton(3) accepts this form.
            ("127.1", "127.0.0.1:7"),
        ] {
            assert_eq!(host(text, 7).unwrap(), [addr.parse().unwrap()], "{text}");
        }
    }

    #[test]
    fn an_invalid_name_is_final() {
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
