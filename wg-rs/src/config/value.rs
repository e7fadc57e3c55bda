//! Parsers for single values. The caller removes white space.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::AllowedIp;
use crate::sys::resolve;

use super::error::{shown, shown_piece};
use super::{Address, AllowedIpSetting, ConfigEndpoint, Reason};

/// Parses a port: a number, including 0, or the name of a service.
pub fn port(text: &str) -> Result<u16, Reason> {
    let bad = || Reason::Port(shown(text));
    if text.is_empty() {
        return Err(Reason::EmptyPort);
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| bad());
    }
    // A name of a service does not begin with these, but numbers do, which the C library would let
    // overflow.
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(bad());
    }
    resolve::service(text).map_err(|_| bad())
}

/// Parses a mark: `off`, decimal, or hexadecimal after a lower-case `0x`.
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

/// Parses a keepalive interval in seconds: `off`, or a number.
pub fn persistent_keepalive(text: &str) -> Result<u16, Reason> {
    let off = text.eq_ignore_ascii_case("off");
    let number = if off { Some(0) } else { digits(text) };
    number.ok_or_else(|| Reason::PersistentKeepalive(shown(text)))
}

/// Parses `host:port` or `[host]:port`. Without brackets, the last colon separates the port.
pub fn endpoint(text: &str) -> Result<ConfigEndpoint, Reason> {
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
    Ok(ConfigEndpoint {
        host: host.into(),
        port: self::port(port)?,
        line: 0,
    })
}

/// Parses networks that are separated by commas. Each may have a sign, `+` or `-`, before it. An
/// empty text means no network. Also returns whether they replace the peer's existing ones: they do
/// if none has a sign.
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

/// Parses `address/cidr`, or an address alone. Also returns the address as written.
pub fn allowed_ip(text: &str) -> Result<(AllowedIp, IpAddr), Reason> {
    let (addr, cidr) = address_and_prefix(text);
    let no_ip = |_| Reason::Ip(shown_piece(addr, text));
    let written: IpAddr = addr.parse().map_err(no_ip)?;
    let cidr = cidr.map_or_else(|| Some(bits(written)), digits);
    let network = cidr.and_then(|cidr| AllowedIp::new(written, cidr));
    let network = network.ok_or_else(|| Reason::AllowedIp(shown(text), bits(written)))?;
    Ok((network, written))
}

/// Parses an interface's address like ip-address(8): alone, or `address/prefix`, where an IPv4
/// prefix may be a mask such as `255.255.255.0`.
pub fn address(text: &str) -> Result<Address, Reason> {
    let (addr, prefix) = address_and_prefix(text);
    let ip: IpAddr = addr.parse().map_err(|_| Reason::Address(shown(text)))?;
    let prefix = match prefix {
        None => Some(bits(ip)),
        Some(prefix) => digits(prefix).or_else(|| mask(prefix).filter(|_| ip.is_ipv4())),
    };
    let prefix = prefix.filter(|prefix| *prefix <= bits(ip));
    let prefix = prefix.ok_or_else(|| Reason::Prefix(shown(text), bits(ip)))?;
    Ok(Address { ip, prefix })
}

fn address_and_prefix(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    }
}

/// The number of bits in an address of this family.
fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The prefix length that a mask stands for.
fn mask(text: &str) -> Option<u8> {
    let mask = text.parse::<Ipv4Addr>().ok()?.to_bits();
    let ones = mask.leading_ones();
    (mask.count_ones() == ones).then_some(ones as u8)
}

fn digits<N: std::str::FromStr>(text: &str) -> Option<N> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// White space in the C locale. `is_ascii_whitespace` lacks the vertical tab.
pub(crate) fn is_space(c: impl Into<char>) -> bool {
    matches!(c.into(), ' ' | '\t'..='\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, number) in [
            ("0", 0),
            ("1", 1),
            ("65535", 65535),
            ("0051820", 51820),
            ("domain", 53),
        ] {
            assert_eq!(port(text), Ok(number), "{text}");
        }
        assert_eq!(port(""), Err(Reason::EmptyPort));
        for text in [
            "65536",
            "99999",
            "18446744073709551617",
            "-1",
            "-4294967291",
            "+1",
            " 1",
            "1 ",
            "0x10",
            "no-such-service",
            "a\0b",
        ] {
            assert_eq!(port(text), Err(Reason::Port(shown(text))), "{text}");
        }
    }

    #[test]
    fn marks() {
        for (text, number) in [
            ("off", 0),
            ("OFF", 0),
            ("0", 0),
            ("51820", 51820),
            ("007", 7),
            ("0xca6c", 51820),
            ("0xFFFFFFFF", u32::MAX),
            ("0x00000000001", 1),
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(fwmark(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "0x",
            "0XFF",
            "0x100000000",
            "4294967296",
            "-1",
            "+1",
            "0x+1",
            "0x-1",
            "0x0x1",
            "ff",
            "1 ",
            "none",
            "on",
        ] {
            assert_eq!(fwmark(text), Err(Reason::FwMark(text.into())), "{text}");
        }
    }

    #[test]
    fn intervals() {
        for (text, number) in [
            ("off", 0),
            ("Off", 0),
            ("0", 0),
            ("25", 25),
            ("065535", 65535),
        ] {
            assert_eq!(persistent_keepalive(text), Ok(number), "{text}");
        }
        for text in ["", "65536", "-1", "+1", "0x10", "25s", "on"] {
            assert_eq!(
                persistent_keepalive(text),
                Err(Reason::PersistentKeepalive(text.into())),
                "{text}"
            );
        }
    }

    #[test]
    fn endpoints() {
        for (text, host, port) in [
            ("192.0.2.1:51820", "192.0.2.1", 51820),
            ("[2001:db8::1]:51820", "2001:db8::1", 51820),
            ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
            // Without brackets, the last colon separates the port.
            ("::1:80", "::1", 80),
            ("vpn.example:domain", "vpn.example", 53),
            ("[vpn.example]:0", "vpn.example", 0),
            (":80", "", 80),
        ] {
            let host = host.into();
            let line = 0;
            assert_eq!(
                endpoint(text),
                Ok(ConfigEndpoint { host, port, line }),
                "{text}"
            );
        }
        assert_eq!(endpoint(""), Err(Reason::EmptyEndpoint));
        let brace: fn(String) -> Reason = Reason::EndpointBrace;
        for (text, reason, shown) in [
            ("[::1", brace, "[::1"),
            ("[::1:80", brace, "[::1:80"),
            ("[::1]", Reason::EndpointPort, "[::1]"),
            ("[::1]:", Reason::EndpointPort, "[::1]:"),
            ("[::1]80", Reason::EndpointPort, "[::1]80"),
            ("vpn.example", Reason::EndpointPort, "vpn.example"),
            ("vpn.example:", Reason::EndpointPort, "vpn.example:"),
            ("vpn.example:65536", Reason::Port, "65536"),
            ("vpn.example:-1", Reason::Port, "-1"),
            ("vpn.example:no-such", Reason::Port, "no-such"),
        ] {
            assert_eq!(endpoint(text), Err(reason(shown.into())), "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.1.2.3/0032", "10.1.2.3/32"),
            ("FD00::1/64", "fd00::/64"),
            ("::", "::/128"),
            ("::ffff:1.2.3.4/120", "::ffff:1.2.3.0/120"),
        ] {
            assert_eq!(allowed_ip(text).unwrap().0.to_string(), network, "{text}");
        }
        for text in [
            "",
            "/",
            "/24",
            "1.2.3/24",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.256",
            "a",
            "vpn.example/24",
            "::1::",
            "fe80::1%lo/64",
            "[::1]/128",
            "++1.2.3.4",
            "1.2.3.4 ",
        ] {
            let addr = text.split('/').next().unwrap();
            assert_eq!(allowed_ip(text), Err(Reason::Ip(addr.into())), "{text}");
        }
        for text in [
            "1.2.3.4/",
            "1.2.3.4/33",
            "::/129",
            "1.2.3.4/-1",
            "1.2.3.4/+1",
            "1.2.3.4/24/8",
            "1.2.3.4/255.255.255.0",
            "1.2.3.4/x",
            "1.2.3.4/4294967304",
            "1.2.3.4/256",
        ] {
            let bits = if text.contains(':') { 128 } else { 32 };
            assert_eq!(
                allowed_ip(text),
                Err(Reason::AllowedIp(text.into(), bits)),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.1/24", "10.0.0.1/24"),
            ("10.0.0.1/255.255.255.0", "10.0.0.1/24"),
            ("10.0.0.1/0.0.0.0", "10.0.0.1/0"),
            ("FD00::1", "fd00::1/128"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), shown);
        }
        for text in ["", "10.0.0", "10.0.0/33", "wg0"] {
            assert_eq!(address(text), Err(Reason::Address(text.into())), "{text}");
        }
        for (text, bits) in [
            ("10.0.0.1/", 32),
            ("10.0.0.1/+8", 32),
            ("10.0.0.1/33", 32),
            ("10.0.0.1/255.0.255.0", 32),
            ("fd00::/129", 128),
            ("fd00::1/255.255.255.0", 128),
        ] {
            let reason = Reason::Prefix(text.into(), bits);
            assert_eq!(address(text), Err(reason), "{text}");
        }
        assert_eq!(
            address("fd00::/129").unwrap_err().to_string(),
            "`fd00::/129' is not an IP address with an optional prefix length (the prefix length \
             of an IPv6 address is a number from 0 to 128)"
        );
    }

    /// Slashes divide the key into pieces that are too short to be recognised as a key.
    #[test]
    fn a_key_is_not_shown_as_a_network() {
        for key in [
            "yAnz5TF+lXX/te14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
            "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB/fBm8=",
            "/Anz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
        ] {
            let hidden = || Reason::Ip("(hidden)".into());
            for text in [key, &format!("+{key}"), &format!("10.0.0.1/8,-{key}")] {
                assert_eq!(allowed_ips(text).unwrap_err(), hidden(), "{text}");
            }
        }
    }

    #[test]
    fn signs_of_networks() {
        for (text, replace, networks) in [
            ("", true, &[][..]),
            (
                "10.0.0.1,::1",
                true,
                &[("10.0.0.1/32", false), ("::1/128", false)],
            ),
            ("+10.0.0.1", false, &[("10.0.0.1/32", false)]),
            ("-10.0.0.1", false, &[("10.0.0.1/32", true)]),
            (
                "10.0.0.1,-::1",
                false,
                &[("10.0.0.1/32", false), ("::1/128", true)],
            ),
            (
                "-10.0.0.1,::1",
                false,
                &[("10.0.0.1/32", true), ("::1/128", false)],
            ),
        ] {
            let (replaces, list) = allowed_ips(text).unwrap();
            let list: Vec<_> = list
                .iter()
                .map(|ip| (ip.ip.to_string(), ip.remove))
                .collect();
            let networks = networks
                .iter()
                .map(|(ip, remove)| (ip.to_string(), *remove));
            assert_eq!((replaces, list), (replace, networks.collect()), "{text}");
        }
        for text in [
            "10.0.0.1,",
            ",10.0.0.1",
            ",",
            "+",
            "-",
            "10.0.0.1,,10.0.0.2",
            "--1.2.3.4",
            "+-1.2.3.4",
        ] {
            assert!(matches!(allowed_ips(text), Err(Reason::Ip(_))), "{text}");
        }
    }
}
