//! The keys of a configuration file, and what may be meant by others.

use super::Hint;
use super::error::near;
use super::extensions;

/// Whose file it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// That of `wg`.
    #[default]
    Wg,
    /// That of `wg-quick`, whose own lines have been taken out (and left empty, so that the others keep
    /// their numbers). `AllowedIPs =` says that there are none.
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
/// What wg-quick has in `[Interface]` besides.
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

/// The one of `keys` that this is, in whatever case.
pub(super) fn find(key: &str, keys: &[&'static str]) -> Option<&'static str> {
    let mut keys = keys.iter().copied();
    keys.find(|known| known.eq_ignore_ascii_case(key))
}

impl Dialect {
    /// What may have been meant by a key that is none of its section.
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
