//! Keys that a section has several times although only the last value counts.

use wg_rs::config::lines::{Section, What, lines};

/// The keys with one value. `#@ Endpoint` is one of `[Interface]`, and the other `#@` keys of `[Peer]`.
const SINGLE: [&str; 14] = [
    "PrivateKey",
    "ListenPort",
    "FwMark",
    "MTU",
    "Table",
    "SaveConfig",
    "#@ Endpoint",
    "PublicKey",
    "PresharedKey",
    "Endpoint",
    "PersistentKeepalive",
    "#@ Name",
    "#@ Relay",
    "#@ Hub",
];

/// The lines whose key an earlier line of the same section has too, each with its number and a warning.
/// All `[Interface]` sections of a file are one.
pub fn repeated(text: &[u8]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut section = Section::Other;
    let mut in_interface: Vec<(&str, usize)> = Vec::new();
    let mut in_peer: Vec<(&str, usize)> = Vec::new();
    for line in lines(text) {
        match line.what {
            What::Head(Section::Disabled) => {}
            What::Head(head) => {
                section = head;
                in_peer.clear();
            }
            _ => {}
        }
        let seen = match section {
            Section::Interface => &mut in_interface,
            Section::Peer => &mut in_peer,
            Section::Disabled | Section::Other => continue,
        };
        let Some(key) = SINGLE.into_iter().find(|key| line.is(key)) else {
            continue;
        };
        match seen.iter_mut().find(|(other, _)| *other == key) {
            Some((_, last)) => {
                found.push((line.number, message(key, *last)));
                *last = line.number;
            }
            None => seen.push((key, line.number)),
        }
    }
    found
}

fn message(key: &str, earlier: usize) -> String {
    let name = key.trim_start_matches("#@ ");
    let reason = match key {
        "PublicKey" => "is a line with [Peer] missing before this one?",
        "Endpoint" => "a peer has only one endpoint",
        _ => "only the last one counts",
    };
    format!("{name}: line {earlier} sets it too and is ignored: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_with_one_value_are_found() {
        let text = "\u{feff}[Interface]\nPrivateKey = a\nAddress = 10.0.0.1\nAddress = 10.0.0.2\n\
                    PostUp = a\nPostUp = b\nDNS = ::1\nDNS = ::2\nprivate KEY = b\n#PrivateKey = c\n\
                    [Peer]\nPublicKey = a\nEndpoint = a:1\nEndpoint = b:1\nAllowedIPs = ::1\n\
                    AllowedIPs = ::2\nEndpoint = c:1\n#@ Name = a\n#@Name = b\n\
                    [Peer]\nPublicKey = b\nEndpoint = a:1\n\
                    #! [Peer]\n#! PublicKey = c\n#! PublicKey = c\n\
                    [interface]\nMTU = 1\nPrivateKey = d\n[Peer]\nPublicKey = b\nPublicKey = c\n";
        let found = repeated(text.as_bytes());
        let want = [
            (9, "PrivateKey: line 2 sets it too"),
            (14, "Endpoint: line 13 sets it too"),
            (17, "Endpoint: line 14 sets it too"),
            (19, "Name: line 18 sets it too"),
            (28, "PrivateKey: line 9 sets it too"),
            (31, "PublicKey: line 30 sets it too"),
        ];
        assert_eq!(found.len(), want.len(), "{found:#?}");
        for ((line, text), (at, part)) in found.iter().zip(want) {
            assert_eq!(*line, at, "{text}");
            assert!(text.starts_with(part), "{text}");
        }
        assert!(
            found[5]
                .1
                .ends_with("is a line with [Peer] missing before this one?")
        );
    }
}
