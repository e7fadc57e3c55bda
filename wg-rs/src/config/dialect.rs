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
