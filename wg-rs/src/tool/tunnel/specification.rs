//! The argument that describes a forwarded port: `[udp/][ADDRESS:]PORT:HOST:PORT`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// One forwarded port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Specification {
    pub udp: bool,
    /// Where to listen; `None` if only the port was given.
    pub address: Option<IpAddr>,
    pub port: u16,
    /// A name or an address, without brackets.
    pub host: String,
    pub host_port: u16,
}

/// Formats a host and a port for a message.
pub(super) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

impl Specification {
    /// The address to listen on at this machine.
    pub fn local_address(&self) -> IpAddr {
        self.address.unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    /// The destination.
    pub fn destination(&self) -> String {
        host_and_port(&self.host, self.host_port)
    }
}

impl fmt::Display for Specification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.udp { "udp/" } else { "" })?;
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        write!(f, "{}:{}", self.port, self.destination())
    }
}

/// Splits at the colons that are not in brackets, and removes the brackets.
fn parts(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, behind) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        parts.push(part);
        match behind.strip_prefix(':') {
            Some(behind) => rest = behind,
            None => return behind.is_empty().then_some(parts),
        }
    }
}

impl FromStr for Specification {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (udp, bare) = match text.split_once('/') {
            None => (false, text),
            Some(("tcp", bare)) => (false, bare),
            Some(("udp", bare)) => (true, bare),
            Some((protocol, _)) => {
                return Err(format!("`{protocol}' is neither `tcp' nor `udp'"));
            }
        };
        let port = |text: &str| {
            let port = text.parse::<u16>();
            port.map_err(|_| format!("`{text}' is not a port (0 to 65535)"))
        };
        let parts = parts(bare).unwrap_or_default();
        let (address, [listen, host, host_port]) = match parts[..] {
            [listen, host, host_port] => (None, [listen, host, host_port]),
            [address, listen, host, host_port] => {
                let address = address
                    .parse()
                    .map_err(|_| format!("`{address}' is not an address to listen on"))?;
                (Some(address), [listen, host, host_port])
            }
            _ => {
                return Err(
                    "it is not of the form [udp/][ADDRESS:]PORT:HOST:PORT; an IPv6 address stands in \
                     brackets"
                        .into(),
                );
            }
        };
        let (port, host_port) = (port(listen)?, port(host_port)?);
        if host.is_empty() || host_port == 0 {
            return Err("the destination HOST:PORT is missing".into());
        }
        Ok(Specification {
            udp,
            address,
            port,
            host: host.into(),
            host_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_parsed_and_shown_alike() {
        for text in [
            "8080:10.9.0.3:80",
            "0:intranet.example:80",
            "udp/53:10.9.0.1:53",
            "0.0.0.0:8080:10.9.0.3:80",
            "[::1]:8080:[fd09::3]:80",
        ] {
            let read: Specification = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
        }
        let read: Specification = "tcp/1:[fd09::3]:80".parse().unwrap();
        assert_eq!(
            (read.host.as_str(), read.udp, read.port),
            ("fd09::3", false, 1)
        );
        assert!(read.local_address().is_loopback());
    }

    #[test]
    fn wrong_specifications_are_refused() {
        for text in [
            "",
            "8080",
            "8080:10.9.0.3",
            "8080:10.9.0.3:",
            "8080::80",
            "x:10.9.0.3:80",
            "1:a:65536",
            "sctp/1:a:2",
            "1:2:3:4:5",
            "here:1:a:2",
            "1:fd09::3:80",
            "[::1:1:a:2",
            "1:a:0",
            "[::1]1:a:2",
        ] {
            assert!(text.parse::<Specification>().is_err(), "{text}");
        }
    }
}
