//! Settings of a peer that only our daemon has. Files contain them in `#@` lines
//! (`config/extensions.rs`), and `set=1` has keys for them (`uapi/text/set.rs`). `get=1` never
//! shows them.

use super::groups::Groups;
use super::label::Label;

/// A change of one of a peer's [`Extensions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The peer's name; None removes it.
    Name(Option<Label>),
    /// The groups within which a hub relays for the peer.
    Relay(Groups),
    /// Whether the peer is a hub, through which we reach other peers.
    Hub(bool),
}

impl Extension {
    /// The default of each extension.
    pub const OFF: [Extension; 3] = [
        Extension::Name(None),
        Extension::Relay(Groups::NONE),
        Extension::Hub(false),
    ];

    /// The key in `set=1`, and the word in `wg-rs set`.
    pub fn key(&self) -> &'static str {
        match self {
            Extension::Name(_) => "name",
            Extension::Relay(_) => "relay",
            Extension::Hub(_) => "hub",
        }
    }

    /// Whether to warn when an interface does not support it. Names are only for display.
    pub fn is_missed(&self) -> bool {
        !self.is_off() && !matches!(self, Extension::Name(_))
    }

    /// Whether it equals the default.
    pub fn is_off(&self) -> bool {
        Extension::OFF.contains(self)
    }
}

/// The extensions of a peer. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// The peer's name.
    pub name: Option<Label>,
    /// The groups within which a hub relays for the peer.
    pub relay: Groups,
    /// Whether the peer is a hub, through which we reach other peers.
    pub hub: bool,
}

impl Extensions {
    /// The current value of each extension.
    pub fn all(&self) -> [Extension; 3] {
        [
            Extension::Name(self.name.clone()),
            Extension::Relay(self.relay.clone()),
            Extension::Hub(self.hub),
        ]
    }

    /// Applies a change.
    pub fn set(&mut self, extension: &Extension) {
        match extension {
            Extension::Name(name) => self.name.clone_from(name),
            Extension::Relay(groups) => self.relay.clone_from(groups),
            Extension::Hub(is_hub) => self.hub = *is_hub,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_values_equal_the_default() {
        let mut extensions = Extensions {
            name: "alice".parse().ok(),
            relay: Groups::on(),
            hub: true,
        };
        for off in &Extension::OFF {
            assert!(off.is_off());
            extensions.set(off);
        }
        assert_eq!(extensions, Extensions::default());
        assert!(!Extension::Name("alice".parse().ok()).is_off());
        assert!(!Extension::Relay(Groups::on()).is_off());
        assert!(!Extension::Hub(true).is_off());
    }
}
