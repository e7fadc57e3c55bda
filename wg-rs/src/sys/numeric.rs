//! Addresses in the C library's numeric form: inet_ntop(3) and getnameinfo(3).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::net::if_::if_indextoname;

/// An address. The standard library's form differs only for `::1.2.3.4`, which it prints as
/// `::102:304`.
#[derive(Clone, Copy, Debug)]
pub struct NumericIp(pub IpAddr);

impl fmt::Display for NumericIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(ip) if is_v4_compatible(ip) => {
                write!(f, "::{}", Ipv4Addr::from_bits(ip.to_bits() as u32))
            }
            ip => ip.fmt(f),
        }
    }
}

/// Whether the first 96 bits are zero and the next 16 are not.
fn is_v4_compatible(ip: Ipv6Addr) -> bool {
    (0x1_0000..=0xffff_ffff).contains(&ip.to_bits())
}

/// An address and a port, `1.2.3.4:5` or `[fe80::1%eth0]:5`. The scope of a link-local address is
/// the name of its link, if the calling thread's network namespace has that link.
#[derive(Clone, Copy, Debug)]
pub struct NumericEndpoint(pub SocketAddr);

impl fmt::Display for NumericEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = match self.0 {
            SocketAddr::V4(addr) => return addr.fmt(f),
            SocketAddr::V6(addr) => addr,
        };
        write!(f, "[{}", NumericIp(IpAddr::V6(*addr.ip())))?;
        let scope = addr.scope_id();
        // Unicast or multicast on this link only.
        let first = addr.ip().segments()[0];
        let link_local = first & 0xffc0 == 0xfe80 || first & 0xff0f == 0xff02;
        // nix 0.31 returns Ok("") if there is no such link.
        let name = if_indextoname(scope).unwrap_or_default();
        match name.to_string_lossy() {
            name if link_local && !name.is_empty() => write!(f, "%{name}")?,
            _ if scope != 0 => write!(f, "%{scope}")?,
            _ => {}
        }
        write!(f, "]:{}", addr.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for text in [
            "1.2.3.4",
            "::",
            "::1",
            "::ffff",
            "::0.1.0.0",
            "::1.2.3.4",
            "::ffff:1.2.3.4",
            "::ffff:0.0.0.0",
            "fd00::1:0:0:1",
            "1:2:3:4:5:6:7:8",
        ] {
            assert_eq!(NumericIp(text.parse().unwrap()).to_string(), text);
        }
    }

    #[test]
    fn endpoints() {
        for (addr, text) in [
            ("1.2.3.4:5", "1.2.3.4:5"),
            ("[::1]:7002", "[::1]:7002"),
            ("[::ffff:1.2.3.4]:2", "[::ffff:1.2.3.4]:2"),
            ("[fe80::1%1]:1", "[fe80::1%lo]:1"),
            ("[ff02::1%1]:1", "[ff02::1%lo]:1"),
            ("[fe80::1%4000000]:1", "[fe80::1%4000000]:1"),
            ("[2001:db8::1%1]:1", "[2001:db8::1%1]:1"),
        ] {
            assert_eq!(NumericEndpoint(addr.parse().unwrap()).to_string(), text);
        }
    }
}
