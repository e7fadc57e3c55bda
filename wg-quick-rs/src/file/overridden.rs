//! What a later line of the file takes away from an earlier one. Every program accepts such a file, and
//! none of them does what both lines say.

use std::collections::HashMap;

use wg_crypto::key::PublicKey;
use wg_rs::model::AllowedIp;

use super::{ConfigValue, File};

/// A warning for each line that takes something away, in the order of the lines.
pub fn overridden(file: &File) -> Vec<ConfigValue<String>> {
    let mut found = file.repeated.clone();
    let mut add = |line, value| found.push(ConfigValue { line, value });
    let mut listed: HashMap<PublicKey, usize> = HashMap::new();
    let mut owners: HashMap<AllowedIp, (PublicKey, usize)> = HashMap::new();
    // The line of the last section that replaces all networks of a peer.
    let mut replaced: HashMap<PublicKey, usize> = HashMap::new();
    for peer in &file.settings.peers {
        let (key, line) = (peer.public_key, peer.public_key_line);
        let before = listed.insert(key, line);
        if peer.replace_allowed_ips {
            replaced.insert(key, peer.line);
        }
        if let Some(first) = before
            && peer.replace_allowed_ips
        {
            let message = format!(
                "PublicKey: the peer is already listed in line {first}, and loses the AllowedIPs it \
                 has there"
            );
            add(line, message);
        }
        for network in &peer.allowed_ips {
            let (ip, line) = (network.ip, network.line);
            if network.remove {
                // It is removed only from the peer that has it.
                if owners.get(&ip).is_some_and(|(owner, _)| *owner == key) {
                    owners.remove(&ip);
                }
            } else if let Some((owner, first)) = owners.insert(ip, (key, line))
                && owner != key
                && replaced.get(&owner).is_none_or(|since| first >= *since)
            {
                let message = format!("AllowedIPs: {ip} is taken from peer {owner} (line {first})");
                add(line, message);
            }
        }
    }
    found.sort_by_key(|one| one.line);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_a_peer_no_longer_has_are_not_taken_from_it() {
        let key = |n| PublicKey::from_bytes([n; 32]);
        let removed = "AllowedIPs = 10.0.0.0/24\nAllowedIPs = -10.0.0.0/24\n";
        let replaced = format!(
            "AllowedIPs = 10.0.0.0/24\n[Peer]\nAllowedIPs = 10.0.1.0/24\nPublicKey = {}\n",
            key(1)
        );
        let kept = format!(
            "AllowedIPs = 10.0.0.0/24\n[Peer]\nPublicKey = {}\nAllowedIPs = +10.0.1.0/24\n",
            key(1)
        );
        for (lines, want) in [
            (removed, vec![]),
            (
                &replaced,
                vec![(7, "PublicKey: the peer is already listed")],
            ),
            (&kept, vec![(10, "AllowedIPs: 10.0.0.0/24 is taken from")]),
        ] {
            let text = format!(
                "[Interface]\n[Peer]\nPublicKey = {}\n{lines}\
                 [Peer]\nPublicKey = {}\nAllowedIPs = 10.0.0.0/24\n",
                key(1),
                key(2)
            );
            let (file, errors) = crate::file::parse("wg0.conf", "wg0", text.as_bytes());
            assert_eq!(errors, []);
            let found = overridden(&file);
            assert_eq!(found.len(), want.len(), "{text}: {found:#?}");
            for (found, (line, start)) in found.iter().zip(want) {
                assert!(
                    found.line == line && found.value.starts_with(start),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn keys_peers_and_networks() {
        let key = |n| PublicKey::from_bytes([n; 32]);
        let text = format!(
            "[Interface]\nListenPort = 1\nListenPort = 2\n\
             [Peer]\nPublicKey = {a}\nAllowedIPs = 10.0.0.0/24, 10.0.1.0/24\nAllowedIPs = 10.0.0.0/24\n\
             [Peer]\nPublicKey = {b}\nAllowedIPs = 10.0.0.0/24, 10.0.0.0/16, -10.0.1.0/24\n\
             [Peer]\nPublicKey = {a}\nAllowedIPs = 10.0.1.0/24\n",
            a = key(1),
            b = key(2)
        );
        let (file, errors) = crate::file::parse("wg0.conf", "wg0", text.as_bytes());
        assert_eq!(errors, []);
        let found: Vec<_> = overridden(&file)
            .into_iter()
            .map(|found| (found.line, found.value))
            .collect();
        let own = key(1);
        let want = [
            (3, "ListenPort: line 2 sets it too".into()),
            (
                10,
                format!("AllowedIPs: 10.0.0.0/24 is taken from peer {own} (line 7)"),
            ),
            (12, "PublicKey: the peer is already listed in line 5".into()),
        ];
        assert_eq!(found.len(), want.len(), "{found:#?}");
        for ((line, text), (at, start)) in found.iter().zip(&want) {
            assert!(line == at && text.starts_with(start), "{line} {text}");
        }
    }
}
