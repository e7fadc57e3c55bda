//! The endpoint of a server as the user gives it: the port may be missing.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use wg_rs::config::{ConfigEndpoint, Reason, value};

/// `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`, or an address alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnEndpoint {
    host: String,
    port: Option<u16>,
}

/// Why a text is not such an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// The port is wrong.
    #[error(transparent)]
    Port(#[from] Reason),
    /// The host is wrong.
    #[error("this is neither a name nor an address")]
    Host,
}

impl FromStr for OwnEndpoint {
    type Err = NoEndpoint;

    fn from_str(text: &str) -> Result<Self, NoEndpoint> {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        let alone = bare.unwrap_or(text);
        let is_host = |host: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:%".contains(&b);
            !host.is_empty() && host.bytes().all(allowed)
        };
        let endpoint = if alone.parse::<Ipv6Addr>().is_ok() || !text.contains(':') {
            OwnEndpoint {
                host: alone.into(),
                port: None,
            }
        } else {
            let ConfigEndpoint { host, port, .. } = value::endpoint(text)?;
            let port = Some(port).filter(|port| *port != 0);
            OwnEndpoint { host, port }
        };
        match is_host(&endpoint.host) {
            true => Ok(endpoint),
            false => Err(NoEndpoint::Host),
        }
    }
}

impl OwnEndpoint {
    /// The endpoint with this port if it has none itself; `None` if there is no port at all.
    pub fn with_port(&self, port: Option<u16>) -> Option<ConfigEndpoint> {
        Some(ConfigEndpoint {
            host: self.host.clone(),
            port: self.port.or(port)?,
            line: 0,
        })
    }
}

impl fmt::Display for OwnEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.with_port(None) {
            Some(endpoint) => endpoint.fmt(f),
            None if self.host.contains(':') => write!(f, "[{}]", self.host),
            None => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_may_have_no_port() {
        for (text, expected) in [
            ("vpn.example.com", "vpn.example.com:7"),
            ("vpn.example.com:51820", "vpn.example.com:51820"),
            ("203.0.113.5", "203.0.113.5:7"),
            ("2001:db8::1", "[2001:db8::1]:7"),
            ("[2001:db8::1]", "[2001:db8::1]:7"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
        ] {
            let endpoint: OwnEndpoint = text.parse().unwrap();
            assert_eq!(endpoint.with_port(Some(7)).unwrap().to_string(), expected);
        }
        for text in [
            "",
            ":1",
            "vpn example",
            "vpn#:1",
            "a:b:c",
            "vpn:99999",
            "[::1",
        ] {
            assert!(text.parse::<OwnEndpoint>().is_err(), "{text}");
        }
    }
}
