//! One value each. White space is the callers' business.

use std::net::IpAddr;

use crate::sys::resolve;
use crate::uapi::types::AllowedIp;

use super::error::shown;
use super::{AllowedIpSetting, Endpoint, Reason};

/// A port: its number, 0 included, or the name of a service.
pub fn port(text: &str) -> Result<u16, Reason> {
    let bad = || Reason::Port(shown(text));
    if text.is_empty() {
        return Err(Reason::EmptyPort);
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| bad());
    }
    // No name of a service begins otherwise, but numbers do that the C library would let wrap.
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(bad());
    }
    resolve::service(text).map_err(|_| bad())
}

/// A mark: `off`, decimal, or hexadecimal behind a lower-case `0x`.
pub fn fwmark(text: &str) -> Result<u32, Reason> {
    let number = match text.strip_prefix("0x") {
        _ if text.eq_ignore_ascii_case("off") => Some(0),
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u32::from_str_radix(hex, 16).ok()
        }
        Some(_) => None,
        None => digits(text),
    };
    number.ok_or_else(|| Reason::FwMark(shown(text)))
}

/// Seconds between keepalives: `off`, or a number.
pub fn persistent_keepalive(text: &str) -> Result<u16, Reason> {
    let off = text.eq_ignore_ascii_case("off");
    let number = if off { Some(0) } else { digits(text) };
    number.ok_or_else(|| Reason::PersistentKeepalive(shown(text)))
}

/// `host:port` or `[host]:port`. Without brackets the last colon counts.
pub fn endpoint(text: &str) -> Result<Endpoint, Reason> {
    if text.is_empty() {
        return Err(Reason::EmptyEndpoint);
    }
    let no_port = || Reason::EndpointPort(shown(text));
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| Reason::EndpointBrace(shown(text)))?;
            (host, rest.strip_prefix(':').ok_or_else(no_port)?)
        }
        None => text.rsplit_once(':').ok_or_else(no_port)?,
    };
    if port.is_empty() {
        return Err(no_port());
    }
    Ok(Endpoint {
        host: host.into(),
        port: self::port(port)?,
        line: 0,
    })
}

/// Networks, with a comma between them, each with `+`, `-` or neither before it; an empty text for
/// none at all. Also whether they replace those that the peer has: they do if none has a sign.
pub fn allowed_ips(text: &str) -> Result<(bool, Vec<AllowedIpSetting>), Reason> {
    let mut replace = true;
    let mut list = Vec::new();
    if text.is_empty() {
        return Ok((replace, list));
    }
    for entry in text.split(',') {
        let remove = entry.starts_with('-');
        let network = entry.strip_prefix(['+', '-']).inspect(|_| replace = false);
        let (ip, written) = allowed_ip(network.unwrap_or(entry))?;
        list.push(AllowedIpSetting {
            ip,
            written,
            remove,
            line: 0,
        });
    }
    Ok((replace, list))
}

/// `address/cidr`, or an address alone. Also the address as it was written.
pub fn allowed_ip(text: &str) -> Result<(AllowedIp, IpAddr), Reason> {
    let (addr, cidr) = match text.split_once('/') {
        Some((addr, cidr)) => (addr, Some(cidr)),
        None => (text, None),
    };
    let written: IpAddr = addr.parse().map_err(|_| Reason::Ip(shown(addr)))?;
    let cidr = match cidr {
        Some(cidr) => digits(cidr),
        None if written.is_ipv4() => Some(32),
        None => Some(128),
    };
    let network = cidr.and_then(|cidr| AllowedIp::new(written, cidr));
    let network = network.ok_or_else(|| Reason::AllowedIp(shown(text)))?;
    Ok((network, written))
}

fn digits<N: std::str::FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
