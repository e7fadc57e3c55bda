//! Prints an interface as a configuration file.

use std::fmt::{self, Write};

use zeroize::Zeroizing;

use super::extensions::MARK;
use crate::model::{Extensions, Interface, Peer};
use crate::sys::numeric;

/// The output of `wg showconf`, which `wg setconf` can read. Extensions are in `#@` lines.
pub fn print(interface: &Interface) -> Zeroizing<String> {
    // The buffer never grows, because growing would leave a copy behind.
    let ips: usize = interface
        .peers
        .iter()
        .map(|peer| peer.allowed_ips.len())
        .sum();
    let extended = (interface.peers.iter()).filter(|peer| peer.extensions != Extensions::default());
    let capacity = 256 + 512 * interface.peers.len() + 64 * ips + 1024 * extended.count();
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
        writeln!(out, "Endpoint = {}", numeric::NumericEndpoint(addr))?;
    }
    if peer.persistent_keepalive != 0 {
        writeln!(out, "PersistentKeepalive = {}", peer.persistent_keepalive)?;
    }
    print_extensions(&peer.extensions, out)
}

fn print_extensions(extensions: &Extensions, out: &mut String) -> fmt::Result {
    if let Some(name) = &extensions.name {
        writeln!(out, "{MARK} Name = {name}")?;
    }
    if !extensions.relay.is_empty() {
        writeln!(out, "{MARK} Relay = {}", extensions.relay)?;
    }
    if extensions.hub {
        writeln!(out, "{MARK} Hub = on")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Apply, parse_file};
    use crate::model::Change;
    use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    fn interface() -> Interface {
        let network = |text| crate::config::value::allowed_ip(text).unwrap().0;
        let full = Peer {
            preshared_key: PresharedKey::from_base64(KEY).unwrap(),
            endpoint: Some("[fe80::1%1]:7".parse().unwrap()),
            persistent_keepalive: 25,
            allowed_ips: ["10.0.0.0/8", "::1.2.3.0/120", "::ffff:1.2.3.4"]
                .map(network)
                .into(),
            ..Peer::new(PublicKey::from_bytes([0; 32]))
        };
        Interface {
            private_key: Some(PrivateKey::from_base64(KEY).unwrap()),
            listen_port: 51820,
            fwmark: 0xca6c,
            peers: vec![Peer::new(PublicKey::from_base64(KEY).unwrap()), full],
        }
    }

    #[test]
    fn output_equals_wgs() {
        assert_eq!(*print(&Interface::default()), "[Interface]\n\n");
        let zero = PublicKey::from_bytes([0; 32]);
        assert_eq!(
            *print(&interface()),
            format!(
                "[Interface]\nListenPort = 51820\nFwMark = 0xca6c\nPrivateKey = {KEY}\n\n\
                 [Peer]\nPublicKey = {KEY}\n\n\
                 [Peer]\nPublicKey = {zero}\nPresharedKey = {KEY}\n\
                 AllowedIPs = 10.0.0.0/8, ::1.2.3.0/120, ::ffff:1.2.3.4/128\n\
                 Endpoint = [fe80::1%lo]:7\nPersistentKeepalive = 25\n"
            )
        );
    }

    #[test]
    fn extensions_are_printed_as_they_are_read() {
        let mut interface = interface();
        interface.peers[1].extensions = Extensions {
            name: "alice".parse().ok(),
            relay: "office,lab".parse().unwrap(),
            hub: true,
        };
        let text = print(&interface);
        assert!(text.ends_with(
            "PersistentKeepalive = 25\n#@ Name = alice\n#@ Relay = lab,office\n#@ Hub = on\n"
        ));
        let settings = parse_file("f", text.as_bytes()).unwrap();
        assert_eq!(settings.peers[0].extensions, []);
        assert_eq!(
            settings.peers[1].extensions,
            interface.peers[1].extensions.all()
        );
    }

    #[test]
    fn printed_files_can_be_read() {
        let interface = interface();
        let settings = parse_file("f", print(&interface).as_bytes()).unwrap();
        let changes = settings
            .changes(Apply::AddConf, crate::config::look_up)
            .unwrap();
        let peers = changes
            .iter()
            .filter(|change| matches!(change, Change::Peer(_)));
        assert_eq!(peers.count(), 2);
        for change in [
            Change::PrivateKey(interface.private_key.map(Box::new)),
            Change::ListenPort(interface.listen_port),
            Change::FwMark(interface.fwmark),
            Change::Endpoint(interface.peers[1].endpoint.unwrap()),
        ] {
            assert!(changes.contains(&change), "{change:?}");
        }
    }

    #[test]
    fn the_buffer_fits_the_largest_interface() {
        let longest = crate::config::value::allowed_ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        let mut interface = interface();
        for peer in &mut interface.peers {
            peer.allowed_ips = vec![longest.clone().unwrap().0; 1000];
        }
        let text = print(&interface);
        let capacity = text.capacity();
        assert!(text.len() <= capacity && capacity < 2 * text.len());
    }
}
