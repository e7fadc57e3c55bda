//! An interface as a configuration file.

use std::fmt::{self, Write};

use zeroize::Zeroizing;

use crate::sys::numeric;
use crate::uapi::types::{Interface, Peer};

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
        write!(out, "{ip}")?;
    }
    if !peer.allowed_ips.is_empty() {
        writeln!(out)?;
    }
    if let Some(addr) = peer.endpoint {
        writeln!(out, "Endpoint = {}", numeric::Endpoint(addr))?;
    }
    if peer.persistent_keepalive != 0 {
        writeln!(out, "PersistentKeepalive = {}", peer.persistent_keepalive)?;
    }
    Ok(())
}
