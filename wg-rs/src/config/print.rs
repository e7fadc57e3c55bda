//! An interface as a configuration file, and addresses as inet_ntop(3) and getnameinfo(3) write them.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_indextoname;
use zeroize::Zeroizing;

use crate::uapi::types::{AllowedIp, Interface, Peer};

/// What `wg showconf` prints, for `wg setconf` to read.
pub fn print(interface: &Interface) -> Zeroizing<String> {
    // Never grown, so nothing of it stays behind elsewhere.
    let ips: usize = interface
        .peers
        .iter()
        .map(|peer| peer.allowed_ips.len())
        .sum();
    let capacity = 256 + 512 * interface.peers.len() + 64 * ips;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    // Writing to a String cannot fail.
    let _ = print_interface(interface, &mut text);
    debug_assert!(text.len() <= capacity);
    text
}

fn print_interface(interface: &Interface, out: &mut String) -> fmt::Result {
    writeln!(out, "[Interface]")?;
    if interface.listen_port != 0 {
        writeln!(out, "ListenPort = {}", interface.listen_port)?;
    }
    if interface.fwmark != 0 {
        writeln!(out, "FwMark = {:#x}", interface.fwmark)?;
    }
    if let Some(key) = &interface.private_key {
        writeln!(out, "PrivateKey = {}", *key.to_base64())?;
    }
    writeln!(out)?;
    for (i, peer) in interface.peers.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        print_peer(peer, out)?;
    }
    Ok(())
}

fn print_peer(peer: &Peer, out: &mut String) -> fmt::Result {
    writeln!(out, "[Peer]\nPublicKey = {}", peer.public_key)?;
    if !peer.preshared_key.is_zero() {
        writeln!(out, "PresharedKey = {}", *peer.preshared_key.to_base64())?;
    }
    for (i, ip) in peer.allowed_ips.iter().enumerate() {
        out.push_str(if i == 0 { "AllowedIPs = " } else { ", " });
        out.push_str(&allowed_ip(ip));
    }
    if !peer.allowed_ips.is_empty() {
        writeln!(out)?;
    }
    if let Some(addr) = &peer.endpoint {
        writeln!(out, "Endpoint = {}", endpoint(addr))?;
    }
    if peer.persistent_keepalive != 0 {
        writeln!(out, "PersistentKeepalive = {}", peer.persistent_keepalive)?;
    }
    Ok(())
}

/// A network as `wg` prints it: `::1.2.3.0/120` where [`AllowedIp`] itself has `::102:300/120`.
pub fn allowed_ip(ip: &AllowedIp) -> String {
    format!("{}/{}", address(ip.addr), ip.cidr)
}

/// An endpoint as `wg` prints it, the scope of a link-local address by its name.
pub fn endpoint(addr: &SocketAddr) -> String {
    match addr {
        SocketAddr::V4(addr) => addr.to_string(),
        SocketAddr::V6(addr) => {
            let ip = address((*addr.ip()).into());
            format!("[{ip}{}]:{}", scope(addr), addr.port())
        }
    }
}

fn address(addr: IpAddr) -> String {
    match addr {
        // "IPv4-compatible", which only the C library still knows.
        IpAddr::V6(v6) if v6.segments()[..6] == [0; 6] && v6.segments()[6] != 0 => {
            format!("::{}", Ipv4Addr::from_bits(v6.to_bits() as u32))
        }
        other => other.to_string(),
    }
}

fn scope(addr: &SocketAddrV6) -> String {
    let scope = addr.scope_id();
    if scope == 0 {
        return String::new();
    }
    let name = is_of_link(addr.ip()).then(|| if_indextoname(scope).ok());
    match name.flatten().as_ref().and_then(|name| name.to_str().ok()) {
        Some(name) => format!("%{name}"),
        None => format!("%{scope}"),
    }
}

/// Whether an address means nothing without its link.
fn is_of_link(addr: &Ipv6Addr) -> bool {
    addr.is_unicast_link_local() || addr.segments()[0] & 0xff0f == 0xff02
}
