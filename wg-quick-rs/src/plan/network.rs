//! Finds an unused network for a new tunnel.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use rand_core::{OsRng, TryRngCore};
use wg_rs::model::AllowedIp;
use wg_rs::sys::netlink::Netlink;

use crate::file::roster::overlap;
use crate::file::{Address, FOLDER, Location};
use crate::steps::failure::Failure;

/// The number of networks that are tried.
const ATTEMPTS: usize = 1000;
/// The file says whether IPv6 is off on this host. It is absent if the kernel has no IPv6.
const IPV6_IS_OFF: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";

/// The first addresses of unused private networks: of IPv4 a /24 inside 10.0.0.0/8, and of IPv6,
/// where the host has it, a /64 with a random prefix (RFC 4193, 3.2).
///
/// # Errors
/// The routes cannot be read, or no network is free.
pub fn unused() -> Result<Vec<Address>, Failure> {
    let used = used()?;
    let mut own = vec![pick(&used, ipv4)?];
    if fs::read_to_string(IPV6_IS_OFF).is_ok_and(|text| text.trim() == "0") {
        own.push(pick(&used, ipv6)?);
    }
    Ok(own)
}

/// The networks of this host's addresses and routes, and of the config files of its tunnels.
///
/// # Errors
/// The addresses or routes cannot be read.
pub fn used() -> Result<Vec<AllowedIp>, Failure> {
    let mut netlink = Netlink::open()?;
    let addresses = netlink.addresses()?;
    let routes = netlink.routes()?;
    let addresses = addresses.into_iter().map(|one| (one.ip, one.prefix));
    // A default route is for every network, so it does not count.
    let routes = routes.into_iter().map(|route| route.to);
    let routes = routes.filter(|(_, prefix)| *prefix > 0);
    let mut used: Vec<_> = addresses
        .chain(routes)
        .filter_map(|(ip, prefix)| AllowedIp::new(ip, prefix))
        .collect();
    let files = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    for path in files.map(|entry| entry.path()) {
        used.extend(of_file(&path));
    }
    Ok(used)
}

/// The networks in a config file; errors in the file are ignored.
fn of_file(path: &Path) -> Vec<AllowedIp> {
    let location = path.to_str().and_then(|path| Location::of(path).ok());
    let Some(Ok((file, _))) = location.map(|location| location.read_leniently()) else {
        return Vec::new();
    };
    let own = file.addresses.iter().map(|own| own.value);
    let own = own.filter_map(|own| own.network());
    let peers = file
        .settings
        .peers
        .iter()
        .flat_map(|peer| &peer.allowed_ips);
    let peers = peers.map(|one| one.ip).filter(|ip| ip.cidr > 0);
    own.chain(peers).collect()
}

fn pick(used: &[AllowedIp], candidate: fn([u8; 5]) -> Address) -> Result<Address, Failure> {
    for _ in 0..ATTEMPTS {
        let mut random = [0; 5];
        OsRng.try_fill_bytes(&mut random).map_err(Failure::new)?;
        let own = candidate(random);
        if own
            .network()
            .is_some_and(|network| !used.iter().any(|used| overlap(&network, used)))
        {
            return Ok(own);
        }
    }
    Err(Failure::new(
        "no unused private network was found: choose one with --address",
    ))
}

fn ipv4([a, b, ..]: [u8; 5]) -> Address {
    Address {
        ip: Ipv4Addr::new(10, a, b, 1).into(),
        prefix: 24,
    }
}

fn ipv6([a, b, c, d, e]: [u8; 5]) -> Address {
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Address {
        ip: Ipv6Addr::new(pair(0xfd, a), pair(b, c), pair(d, e), 0, 0, 0, 0, 1).into(),
        prefix: 64,
    }
}

/// The source address of packets to the Internet, unless it is a private address, which cannot be
/// reached from there.
pub fn public_address() -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing.
    let ask = |bind: &str, to: &str| {
        let socket = std::net::UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        is_public(ip).then_some(ip)
    };
    ask("0.0.0.0:0", "198.51.100.1:9").or_else(|| ask("[::]:0", "[2000::1]:9"))
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // RFC 6598: addresses behind a provider's NAT.
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared)
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wg_rs::config::value::allowed_ip;

    #[test]
    fn a_used_network_is_not_picked() {
        // All but 10.7.0.0/16.
        let mut used: Vec<_> = (0..=255)
            .filter(|n| *n != 7)
            .map(|n| allowed_ip(&format!("10.{n}.0.0/16")).unwrap().0)
            .collect();
        let own = pick(&used, ipv4).unwrap();
        let text = own.to_string();
        assert!(
            text.starts_with("10.7.") && text.ends_with(".1/24"),
            "{own}"
        );
        used.push(allowed_ip("10.7.0.0/17").unwrap().0);
        used.push(allowed_ip("10.7.128.0/17").unwrap().0);
        assert!(pick(&used, ipv4).is_err());
        let own = pick(&used, ipv6).unwrap().to_string();
        assert!(own.starts_with("fd") && own.ends_with("::1/64"), "{own}");
    }

    #[test]
    fn private_addresses_cannot_be_reached_from_the_internet() {
        for (ip, expected) in [
            ("203.0.113.5", true),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("192.168.1.2", false),
            ("172.16.0.1", false),
            ("169.254.1.1", false),
            ("127.0.0.1", false),
            ("2001:db8::1", true),
            ("fd00::1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
