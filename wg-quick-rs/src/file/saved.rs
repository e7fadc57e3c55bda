//! Writes the configuration of a running interface into its config file.
//!
//! The file is edited, not written anew: comments, order, spelling, and values that mean the same as
//! before stay byte for byte. A value that differs is replaced in place. A new key is added at the end
//! of its section, a new peer at the end of the file. A peer that is gone is removed together with the
//! comments right above it.
//!
//! Three things in the file are kept although the interface does not know them: an endpoint that is a
//! host name, search domains, and a key that a hook sets.

use std::net::IpAddr;
use std::ops::Range;

use wg_crypto::key::{PresharedKey, PrivateKey, PublicKey};
use wg_rs::config::lines::Section;
use wg_rs::config::{Address, value};
use wg_rs::model::{AllowedIp, Interface, Peer};
use wg_rs::sys::numeric;
use zeroize::Zeroizing;

use crate::file::edit::Edit;

/// The state of an interface, to be saved.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// Keys, port, mark and peers.
    pub interface: &'a Interface,
    /// Its addresses with their prefix lengths, without the link-local ones that the kernel added.
    pub addresses: &'a [Address],
    /// Its MTU in bytes; written only if the file has one.
    pub mtu: u32,
    /// Its name servers; `None` if they are not known, and then those of the file are kept.
    pub dns: Option<&'a [IpAddr]>,
    /// The port, if the system chose it: it is not added to a file that has none. 0 if it did not.
    pub chosen_port: u16,
    /// The mark, if `up` chose it: it is not added to a file that has none. 0 if it did not.
    pub chosen_mark: u32,
}

/// The text of the file `old`, changed to match the running interface.
pub fn edited(old: &[u8], snapshot: &Snapshot) -> Zeroizing<Vec<u8>> {
    let mut text = Edit::new(old);
    interface(&mut text, snapshot);
    let peers = &snapshot.interface.peers;
    let known = peers_of_file(&mut text, peers);
    for new in peers
        .iter()
        .filter(|peer| !known.contains(&peer.public_key))
    {
        text.append("[Peer]", lines_of(new));
    }
    text.finish()
}

fn interface(text: &mut Edit, snapshot: &Snapshot) {
    let of = |(section, range): &(Section, Range<usize>)| {
        (*section == Section::Interface).then(|| range.clone())
    };
    let part: Vec<_> = text.sections.iter().filter_map(of).collect();
    let Interface {
        private_key,
        listen_port,
        fwmark,
        ..
    } = snapshot.interface;

    text.list(
        &part,
        "Address",
        snapshot.addresses,
        |text| value::address(text).ok(),
        Address::to_string,
    );
    if let Some(dns) = snapshot.dns {
        text.list(
            &part,
            "DNS",
            dns,
            |text| text.parse().ok(),
            IpAddr::to_string,
        );
    }
    // A key without a value counts as absent.
    if let Some(at) = text.find(&part, "MTU")
        && !text.text(at).is_empty()
    {
        let mtu = snapshot.mtu.to_string();
        text.scalar(&part, "MTU", Some(mtu.clone()), |text| text == mtu);
    }
    let port = Some(*listen_port)
        .filter(|port| *port != 0 && *port != snapshot.chosen_port)
        .map(|port| port.to_string());
    // An interface without a socket has no port.
    let keep = *listen_port == 0 || *listen_port == snapshot.chosen_port;
    text.scalar(&part, "ListenPort", port, |text| {
        keep || text.parse() == Ok(*listen_port)
    });
    let mark = Some(*fwmark)
        .filter(|mark| *mark != 0 && *mark != snapshot.chosen_mark)
        .map(|mark| format!("{mark:#x}"));
    text.scalar(&part, "FwMark", mark, |text| {
        let chosen = *fwmark != 0 && *fwmark == snapshot.chosen_mark;
        chosen || value::fwmark(text) == Ok(*fwmark)
    });
    let key = private_key.as_ref().map(|key| key.to_base64());
    let same = |text: &str| PrivateKey::from_base64(text).ok() == *private_key;
    if text.find(&part, "PrivateKey").is_some() || !text.a_hook_says("private-key") {
        text.scalar(&part, "PrivateKey", key, same);
    }
}

/// Edits the peers of the file, or removes them. Returns the keys of those in the file.
fn peers_of_file(text: &mut Edit, peers: &[Peer]) -> Vec<PublicKey> {
    let mut found: Vec<(PublicKey, Vec<Range<usize>>)> = Vec::new();
    for (section, range) in &text.sections {
        let part = std::slice::from_ref(range);
        let Some(at) = text.find(part, "PublicKey") else {
            continue;
        };
        if let (Section::Peer, Ok(key)) = (section, PublicKey::from_base64(&text.text(at))) {
            match found.iter_mut().find(|(known, _)| *known == key) {
                Some((_, part)) => part.push(range.clone()),
                None => found.push((key, vec![range.clone()])),
            }
        }
    }
    for (key, part) in &found {
        match peers.iter().find(|peer| peer.public_key == *key) {
            Some(peer) => edit_peer(text, part, peer),
            None => part.iter().for_each(|section| text.remove(section)),
        }
    }
    found.into_iter().map(|(key, _)| key).collect()
}

fn edit_peer(text: &mut Edit, part: &[Range<usize>], peer: &Peer) {
    let psk = Some(&peer.preshared_key).filter(|key| !key.is_zero());
    if text.find(part, "PresharedKey").is_some() || !text.a_hook_says("preshared-key") {
        text.scalar(
            part,
            "PresharedKey",
            psk.map(PresharedKey::to_base64),
            |text| {
                let key = PresharedKey::from_base64(text);
                key.is_ok_and(|key| key == peer.preshared_key)
            },
        );
    }
    // A peer with several sections has the networks of the last one.
    let last = &part[part.len() - 1..];
    text.list(
        last,
        "AllowedIPs",
        &peer.allowed_ips,
        allowed_ip,
        AllowedIp::to_string,
    );
    let endpoint = peer
        .endpoint
        .map(|at| numeric::NumericEndpoint(at).to_string());
    text.scalar(part, "Endpoint", endpoint, |text| {
        let endpoint = value::endpoint(text).ok();
        let numeric = endpoint.and_then(|endpoint| endpoint.numeric());
        numeric.is_none() || numeric == peer.endpoint
    });
    let keepalive = peer.persistent_keepalive;
    let seconds = (keepalive != 0).then(|| keepalive.to_string());
    text.scalar(part, "PersistentKeepalive", seconds, |text| {
        let off = keepalive == 0 && text.eq_ignore_ascii_case("off");
        off || text.parse() == Ok(keepalive)
    });
}

fn lines_of(peer: &Peer) -> Vec<(&'static str, Zeroizing<String>)> {
    let mut lines = vec![("PublicKey", Zeroizing::new(peer.public_key.to_base64()))];
    if !peer.preshared_key.is_zero() {
        lines.push(("PresharedKey", peer.preshared_key.to_base64()));
    }
    let mut add = |key, value| lines.push((key, Zeroizing::new(value)));
    let networks: Vec<_> = peer.allowed_ips.iter().map(AllowedIp::to_string).collect();
    if !networks.is_empty() {
        add("AllowedIPs", networks.join(", "));
    }
    if let Some(endpoint) = peer.endpoint {
        add("Endpoint", numeric::NumericEndpoint(endpoint).to_string());
    }
    if peer.persistent_keepalive != 0 {
        add("PersistentKeepalive", peer.persistent_keepalive.to_string());
    }
    lines
}

fn allowed_ip(text: &str) -> Option<AllowedIp> {
    value::allowed_ip(text).ok().map(|(network, _)| network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn peer(n: u8, allowed_ips: &[&str], endpoint: Option<&str>) -> Peer {
        Peer {
            allowed_ips: allowed_ips
                .iter()
                .map(|ip| allowed_ip(ip).unwrap())
                .collect(),
            endpoint: endpoint.map(|endpoint| endpoint.parse().unwrap()),
            ..Peer::new(public(n))
        }
    }

    fn key() -> PrivateKey {
        PrivateKey::from_bytes([7; 32])
    }

    fn interface(peers: Vec<Peer>) -> Interface {
        Interface {
            private_key: Some(key()),
            listen_port: 51820,
            fwmark: 0,
            peers,
        }
    }

    fn saved(old: &str, interface: &Interface, addresses: &[&str]) -> String {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|text| value::address(text).unwrap())
            .collect();
        let snapshot = Snapshot {
            interface,
            addresses: &addresses,
            mtu: 1400,
            dns: None,
            chosen_port: 0,
            chosen_mark: 0,
        };
        let new = edited(old.as_bytes(), &snapshot);
        assert_eq!(edited(&new, &snapshot), new, "saved twice");
        String::from_utf8(new.to_vec()).unwrap()
    }

    /// A typical file, and the interface that runs from it.
    fn typical() -> (String, Interface) {
        let text = format!(
            "# the gateway\n[Interface]\naddress = 10.0.0.1/24,fd00::1/64   # both\n\
             PrivateKey={}\nListenPort = 51820\nDNS = 10.0.0.53, corp.example\n\
             PostUp = echo '# up' %i\n#MTU = 1300\nSaveConfig = TRUE\n\n\
             # Alice\n[Peer]\nPublicKey = {}\nEndpoint = alice.example:51820 # moves\n\
             AllowedIPs = 10.0.0.2/32, 10.9.0.7/24\nAllowedIPs = fd00::2/128\n\
             PersistentKeepalive = off\n\n# --- phones ---\n\n# Bob\n[Peer]\n\
             PublicKey = {}\nAllowedIPs = 10.0.0.3/32\n",
            *key().to_base64(),
            public(1),
            public(2)
        );
        let peers = vec![
            peer(
                1,
                &["fd00::2", "10.9.0.0/24", "10.0.0.2"],
                Some("192.0.2.1:4711"),
            ),
            peer(2, &["10.0.0.3"], None),
        ];
        (text, interface(peers))
    }

    const ADDRESSES: [&str; 2] = ["10.0.0.1/24", "fd00::1/64"];

    #[test]
    fn a_file_that_matches_stays_the_same() {
        let (text, snapshot) = typical();
        assert_eq!(saved(&text, &snapshot, &ADDRESSES), text);
        let crlf = text.replace('\n', "\r\n");
        assert_eq!(saved(&crlf, &snapshot, &ADDRESSES), crlf);
        let open = text.trim_end();
        assert_eq!(saved(open, &snapshot, &ADDRESSES), open);
    }

    #[test]
    fn a_value_that_differs_is_replaced_in_place() {
        let (text, mut snapshot) = typical();
        snapshot.listen_port = 1;
        snapshot.fwmark = 0x33;
        snapshot.peers[0].persistent_keepalive = 25;
        snapshot.peers[0].allowed_ips.remove(1);
        snapshot.peers[1].allowed_ips = vec![allowed_ip("10.0.0.4").unwrap()];
        snapshot.peers[1].endpoint = Some("[2001:db8::1]:9".parse().unwrap());
        let want = text
            .replace("10.0.0.1/24,fd00::1/64", "10.0.0.1/24, 10.1.0.1/16")
            .replace("ListenPort = 51820", "ListenPort = 1")
            .replace("SaveConfig = TRUE\n", "SaveConfig = TRUE\nFwMark = 0x33\n")
            .replace("10.0.0.2/32, 10.9.0.7/24", "10.0.0.2/32")
            .replace("= off", "= 25")
            .replace("10.0.0.3/32\n", "10.0.0.4/32\nEndpoint = [2001:db8::1]:9\n");
        assert_eq!(
            saved(&text, &snapshot, &["10.0.0.1/24", "10.1.0.1/16"]),
            want
        );
    }

    #[test]
    fn values_that_mean_the_same_stay() {
        let text = "[Interface]\nAddress = 10.0.0.1/255.255.255.0, 10.0.1.1\nMTU = 1300\nMTU =\n\
                    FwMark = 0X33\n";
        let text = text.replace("0X33", "0x0033");
        let mut snapshot = interface(vec![peer(1, &[], Some("[fe80::1%1]:51820"))]);
        (snapshot.private_key, snapshot.fwmark) = (None, 0x33);
        let ports = "ListenPort = 51820\n[Peer]\n";
        let text = format!(
            "{text}{ports}PublicKey = {}\nEndpoint = [fe80::1%lo]:51820\n",
            public(1)
        );
        let addresses = ["10.0.0.1/24", "10.0.1.1/32"];
        assert_eq!(saved(&text, &snapshot, &addresses), text);
        // The scope of an address is written as the name of its link.
        let want = text.replace("]:51820", "]:7");
        snapshot.peers[0].endpoint = "[fe80::1%1]:7".parse().ok();
        assert_eq!(saved(&text, &snapshot, &addresses), want);
        let new = saved(ports, &snapshot, &[]);
        assert!(new.contains("Endpoint = [fe80::1%lo]:7\n"), "{new}");
    }

    #[test]
    fn peers_are_added_and_removed_with_their_comments() {
        let (text, mut snapshot) = typical();
        snapshot.peers.remove(1);
        let mut new = peer(3, &["10.0.0.9", "10.0.0.8"], Some("192.0.2.3:3"));
        new.preshared_key = PresharedKey::from_bytes([9; 32]);
        snapshot.peers.push(new.clone());
        let bob = text.find("# Bob").unwrap();
        let want = format!(
            "{}[Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = 10.0.0.9/32, 10.0.0.8/32\n\
             Endpoint = 192.0.2.3:3\n",
            &text[..bob],
            public(3),
            *new.preshared_key.to_base64()
        );
        assert_eq!(saved(&text, &snapshot, &ADDRESSES), want);

        let (text, mut snapshot) = typical();
        snapshot.peers.remove(0);
        let (alice, phones) = (text.find("# Alice").unwrap(), text.find("# ---").unwrap());
        let want = [&text[..alice], &text[phones..]].concat();
        assert_eq!(saved(&text, &snapshot, &ADDRESSES), want);

        snapshot.peers.clear();
        let want = format!("{}# --- phones ---\n", &text[..alice]);
        assert_eq!(saved(&text, &snapshot, &ADDRESSES), want);
    }

    #[test]
    fn names_stay_and_go_with_their_peers() {
        let (text, mut snapshot) = typical();
        let text = text
            .replace("[Peer]\nPublicKey", "[Peer]\n#@ Name = x\nPublicKey")
            .replacen("Name = x", "Name = alice", 1)
            .replace(
                "AllowedIPs = 10.0.0.3/32\n",
                "AllowedIPs = 10.0.0.3/32\n#@ Name = bob\n",
            );
        assert_eq!(saved(&text, &snapshot, &ADDRESSES), text);
        snapshot.peers.remove(0);
        let left = saved(&text, &snapshot, &ADDRESSES);
        assert!(
            !left.contains("alice") && left.contains("#@ Name = bob"),
            "{left}"
        );
        snapshot.peers.clear();
        let left = saved(&text, &snapshot, &ADDRESSES);
        assert!(!left.contains("#@"), "{left}");
    }

    #[test]
    fn values_that_are_gone_are_removed() {
        let (text, mut snapshot) = typical();
        snapshot.private_key = None;
        snapshot.peers[0].allowed_ips.clear();
        let want = text
            .replace(&format!("PrivateKey={}\n", *key().to_base64()), "")
            .replace("address = 10.0.0.1/24,fd00::1/64   # both\n", "")
            .replace(
                "AllowedIPs = 10.0.0.2/32, 10.9.0.7/24\nAllowedIPs = fd00::2/128\n",
                "",
            );
        assert_eq!(saved(&text, &snapshot, &[]), want);
    }

    #[test]
    fn values_that_up_chose_are_not_written() {
        let mut snapshot = interface(vec![]);
        snapshot.fwmark = 51820;
        let text = format!("[Interface]\nPrivateKey = {}\n", *key().to_base64());
        let mut state = Snapshot {
            interface: &snapshot,
            addresses: &[],
            mtu: 1420,
            dns: None,
            chosen_port: 51820,
            chosen_mark: 51820,
        };
        assert_eq!(*edited(text.as_bytes(), &state), text.as_bytes());
        (state.chosen_port, state.chosen_mark) = (1, 1);
        let want = format!("{text}ListenPort = 51820\nFwMark = 0xca6c\n");
        assert_eq!(*edited(text.as_bytes(), &state), want.as_bytes());
    }

    #[test]
    fn a_key_that_a_hook_sets_is_not_written() {
        let hook = "[Interface]\nListenPort = 51820\nPostUp = wg set %i private-key /run/key\n";
        assert_eq!(saved(hook, &interface(vec![]), &[]), hook);
        let bare = "[Interface]\nListenPort = 51820";
        let want = format!("{bare}\nPrivateKey = {}\n", *key().to_base64());
        assert_eq!(saved(bare, &interface(vec![]), &[]), want);
    }

    #[test]
    fn dns_and_mtu() {
        let (text, snapshot) = typical();
        let text = text.replace("#MTU = 1300", "MTU = 1300");
        let addresses = ADDRESSES.map(|text| value::address(text).unwrap());
        let servers = ["10.0.0.54".parse().unwrap(), "fd00::53".parse().unwrap()];
        let state = Snapshot {
            interface: &snapshot,
            addresses: &addresses,
            mtu: 1400,
            dns: Some(&servers),
            chosen_port: 0,
            chosen_mark: 0,
        };
        let want = text.replace("MTU = 1300", "MTU = 1400").replace(
            "10.0.0.53, corp.example",
            "corp.example, 10.0.0.54, fd00::53",
        );
        let new = edited(text.as_bytes(), &state);
        assert_eq!(String::from_utf8_lossy(&new), want);
    }

    #[test]
    fn oddities_of_the_grammar() {
        // Repeated sections and keys, `+`, `-`, a misplaced key, a peer listed twice, bytes of Latin-1.
        let one = public(1);
        let text = format!(
            "[interface]\nListenPort = 1\n[Peer]\nPublicKey = {one}\nAllowedIPs = 10.0.0.0/8\n\
             [Peer]\nPublicKey={one}\nAllowedIPs = +10.1.0.0/16, 10.2.0.0 / 16,-10.2.0.0/16\n\
             Persistent Keepalive = 25\n[Interface]\nListenPort = 51820\nPrivateKey = {}\n[Peer]\nEndpoint = x\n",
            *key().to_base64()
        );
        let mut snapshot = interface(vec![peer(1, &["10.1.0.0/16"], None)]);
        snapshot.peers[0].persistent_keepalive = 25;
        assert_eq!(saved(&text, &snapshot, &[]), text);
        snapshot.peers[0]
            .allowed_ips
            .push(allowed_ip("10.3.0.0/16").unwrap());
        let want = text.replace(
            "+10.1.0.0/16, 10.2.0.0 / 16,-10.2.0.0/16",
            "10.1.0.0/16, 10.3.0.0/16",
        );
        assert_eq!(saved(&text, &snapshot, &[]), want);
        let latin = [text.as_bytes(), b"# caf\xe9\n"].concat();
        snapshot.peers[0].allowed_ips.pop();
        let state = Snapshot {
            interface: &snapshot,
            addresses: &[],
            mtu: 0,
            dns: None,
            chosen_port: 0,
            chosen_mark: 0,
        };
        assert_eq!(*edited(&latin, &state), latin);
    }

    #[test]
    fn an_empty_file() {
        let want = format!(
            "[Interface]\nAddress = 10.0.0.1/24\nListenPort = 51820\nPrivateKey = {}\n\n[Peer]\nPublicKey = {}\n",
            *key().to_base64(),
            public(1)
        );
        let snapshot = interface(vec![peer(1, &[], None)]);
        assert_eq!(saved("", &snapshot, &["10.0.0.1/24"]), want);
    }
}
