//! struct sockaddr_in and struct sockaddr_in6 as bytes.

use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A socket address in the kernel's form, or the space for one.
pub(super) struct Name {
    pub bytes: [u8; Name::V6],
    pub len: usize,
}

impl Name {
    pub const V4: usize = mem::size_of::<libc::sockaddr_in>();
    pub const V6: usize = mem::size_of::<libc::sockaddr_in6>();

    pub fn empty() -> Self {
        Name {
            bytes: [0; Name::V6],
            len: Name::V6,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn new(addr: &SocketAddr) -> Self {
        let mut name = Name::empty();
        let bytes = &mut name.bytes;
        bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
        let family = match addr {
            SocketAddr::V4(addr) => {
                bytes[4..8].copy_from_slice(&addr.ip().octets());
                name.len = Name::V4;
                libc::AF_INET
            }
            SocketAddr::V6(addr) => {
                bytes[4..8].copy_from_slice(&addr.flowinfo().to_be_bytes());
                bytes[8..24].copy_from_slice(&addr.ip().octets());
                bytes[24..].copy_from_slice(&addr.scope_id().to_ne_bytes());
                libc::AF_INET6
            }
        };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        name
    }

    pub fn addr(&self) -> Option<SocketAddr> {
        let bytes = self.bytes.get(..self.len)?;
        let (family, rest) = bytes.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let port = u16::from_be_bytes(*port);
        match u16::from_ne_bytes(*family).into() {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
                Some(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 => {
                let (_flow, rest) = rest.split_first_chunk::<4>()?;
                let (ip, rest) = rest.split_first_chunk::<16>()?;
                let scope = u32::from_ne_bytes(*rest.first_chunk()?);
                Some(SocketAddrV6::new(Ipv6Addr::from(*ip), port, 0, scope).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_addresses_survive_their_bytes() {
        for text in ["192.0.2.7:51820", "[2001:db8::7]:65535", "[fe80::1%9]:1"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(Name::new(&addr).addr(), Some(addr));
        }
        assert_eq!(Name::empty().addr(), None);
        assert_eq!(
            Name {
                len: 1,
                ..Name::empty()
            }
            .addr(),
            None
        );
    }
}
