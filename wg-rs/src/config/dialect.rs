//! The keys of configuration files, and hints for unknown keys.

use super::Hint;
use super::error::near;
use super::extensions;

/// The program that a file is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// A file for `wg`.
    #[default]
    Wg,
    /// A file for `wg-quick`. Its own lines have been emptied, so that the other lines keep their
    /// numbers. An empty `AllowedIPs =` means that there are none.
    WgQuick,
}

/// The keys of `[Interface]`.
pub(super) const INTERFACE: &[&str] = &["PrivateKey", "ListenPort", "FwMark"];
/// The keys of `[Peer]`.
pub(super) const PEER: &[&str] = &[
    "PublicKey",
    "PresharedKey",
    "AllowedIPs",
    "Endpoint",
    "PersistentKeepalive",
];
/// Further keys that wg-quick has in `[Interface]`.
pub const WG_QUICK: &[&str] = &[
    "Address",
    "DNS",
    "MTU",
    "Table",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
    "SaveConfig",
];

/// Finds a key in `keys`, ignoring case.
pub(super) fn find(key: &str, keys: &[&'static str]) -> Option<&'static str> {
    let mut keys = keys.iter().copied();
    keys.find(|known| known.eq_ignore_ascii_case(key))
}

impl Dialect {
    /// A suggestion for a line without `=` that begins with this word.
    pub(super) fn hint_without_equals(self, word: &str, in_peer: bool) -> Hint {
        if word.starts_with([';', '/']) {
            return Hint::Comment;
        }
        let own = if in_peer { PEER } else { INTERFACE };
        let is_wg_quicks = self == Dialect::WgQuick && !in_peer;
        let known = find(word, own).or_else(|| find(word, WG_QUICK).filter(|_| is_wg_quicks));
        match known.map(Hint::Near).or_else(|| self.hint(word, in_peer)) {
            Some(Hint::Near(key)) => Hint::NoEquals(key),
            Some(hint) => hint,
            None => Hint::Form,
        }
    }

    /// A suggestion for a key that does not exist in its section.
    pub(super) fn hint(self, key: &str, in_peer: bool) -> Option<Hint> {
        let (keys, others, other) = match in_peer {
            true => (PEER, INTERFACE, "Interface"),
            false => (INTERFACE, PEER, "Peer"),
        };
        if find(key, others).is_some() {
            return Some(Hint::Section(other));
        }
        if let Some(written) = extensions::unmarked(key, in_peer) {
            return Some(Hint::Near(written));
        }
        match self {
            Dialect::Wg if find(key, WG_QUICK).is_some() => Some(Hint::WgQuick),
            Dialect::WgQuick if find(key, WG_QUICK).is_some() => Some(Hint::Section("Interface")),
            Dialect::WgQuick if !in_peer => near(key, [keys, WG_QUICK].concat()),
            _ => near(key, keys.iter().copied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::first_error;

    #[test]
    fn hints_for_lines_that_are_not_understood() {
        for (text, expected) in [
            (
                "ListenPort=1",
                "1: Line unrecognized: `ListenPort' (a line with [Interface] or [Peer] must come before it)",
            ),
            (
                "Endpoint 1.2.3.4:5",
                "1: Line unrecognized: `Endpoint' (a line with [Interface] or [Peer] must come before it)",
            ),
            (
                "\n;comment",
                "2: Line unrecognized: `;comment' (a comment begins with `#')",
            ),
            (
                "I\n// x",
                "2: Line unrecognized: `//' (a comment begins with `#')",
            ),
            (
                "I\nListenPort",
                "2: Line unrecognized: `ListenPort' (write `ListenPort = ...': the `=' is missing)",
            ),
            (
                "I\nListenPrt 1",
                "2: Line unrecognized: `ListenPrt' (write `ListenPort = ...': the `=' is missing)",
            ),
            (
                "I\nListenPort:1",
                "2: Line unrecognized: `ListenPort' (write `ListenPort = ...': the `=' is missing)",
            ),
            (
                "I\nEndpoint 1.2.3.4:5",
                "2: Line unrecognized: `Endpoint' (it belongs in [Peer])",
            ),
            (
                "P\nName alice",
                "3: Line unrecognized: `Name' (write `#@ Name = ...': the `=' is missing)",
            ),
            (
                "P\nmy phone",
                "3: Line unrecognized: `my' (a line is `Key = value', [Interface], [Peer], or a \
                 comment that begins with `#')",
            ),
            (
                "I\nListenPort=",
                "2: Line unrecognized: `ListenPort=' (the value after `=' is missing)",
            ),
            ("I\n=1", "2: Line unrecognized: `'"),
            (
                "P\nAllowedIPs = ",
                "3: Line unrecognized: `AllowedIPs=' (the value after `=' is missing)",
            ),
            (
                "I\nListenPrt=1",
                "2: Line unrecognized: `ListenPrt' (did you mean `ListenPort'?)",
            ),
            (
                "P\nallowedip=1.2.3.4",
                "3: Line unrecognized: `allowedip' (did you mean `AllowedIPs'?)",
            ),
            (
                "I\nEndpoint=1.2.3.4:5",
                "2: Line unrecognized: `Endpoint' (it belongs in [Peer])",
            ),
            (
                "P\nprivatekey=x",
                "3: Line unrecognized: `privatekey' (it belongs in [Interface])",
            ),
            (
                "I\nDNS=1.1.1.1",
                "2: Line unrecognized: `DNS' (a key of wg-quick; `wg-quick strip' removes it)",
            ),
            (
                "[Intreface]\nListenPort=1",
                "1: Line unrecognized: `[Intreface]' (did you mean `[Interface]'?)",
            ),
            (
                "[Peers]",
                "1: Line unrecognized: `[Peers]' (did you mean `[Peer]'?)",
            ),
            (
                "[Network]",
                "1: Line unrecognized: `[Network]' (the sections are [Interface] and [Peer])",
            ),
            (
                "[Peer",
                "1: Line unrecognized: `[Peer' (did you mean `[Peer]'?)",
            ),
            (
                "[Interface]\n\u{feff}[Peer]",
                "2: Line unrecognized: `\\u{feff}[Peer]' (a line is `Key = value', [Interface], [Peer], or a \
                 comment that begins with `#')",
            ),
        ] {
            assert_eq!(
                first_error(text, Dialect::Wg),
                format!("f:{expected}"),
                "{text}"
            );
        }
    }

    #[test]
    fn lines_that_wg_quick_leaves_to_wg() {
        for (text, expected) in [
            ("P\nAllowedIPs =\n", ""),
            (
                "P\nAllowedIPs",
                "f:3: Line unrecognized: `AllowedIPs' (write `AllowedIPs = ...': the `=' is missing)",
            ),
            (
                "P\nEndpoint=",
                "f:3: Line unrecognized: `Endpoint=' (the value after `=' is missing)",
            ),
            (
                "I\nAddress 10.0.0.1",
                "f:2: Line unrecognized: `Address' (write `Address = ...': the `=' is missing)",
            ),
            (
                "I\nAdress=10.0.0.1",
                "f:2: Line unrecognized: `Adress' (did you mean `Address'?)",
            ),
            (
                "P\nAddress=10.0.0.1",
                "f:3: Line unrecognized: `Address' (it belongs in [Interface])",
            ),
        ] {
            assert_eq!(first_error(text, Dialect::WgQuick), expected, "{text}");
        }
    }
}
