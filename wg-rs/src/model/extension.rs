//! Settings of a peer that only our daemon has. Files contain them in `#@` lines
//! (`config/extensions.rs`), and `set=1` has keys for them (`uapi/text/set.rs`). `get=1` never
//! shows them.

use std::fmt;
use std::str::FromStr;

use super::Groups;

/// A DNS label in lower case, `[a-z][a-z0-9-]{0,30}`, but not `localhost`: the name of a peer or a
/// group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<str>);

impl Label {
    /// Length of the longest label in bytes.
    pub const MAX_LEN: usize = 31;

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a valid [`Label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to 31 characters of a-z, 0-9 and `-', begins with a letter, and is not `localhost'"
)]
pub struct NotALabel;

impl FromStr for Label {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        let rest = text.strip_prefix(|c: char| c.is_ascii_lowercase());
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_label = rest.is_some_and(|rest| rest.bytes().all(allowed))
            && text.len() <= Label::MAX_LEN
            && text != "localhost";
        is_label.then(|| Label(text.into())).ok_or(NotALabel)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A change of one of a peer's [`Extensions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The peer's name; None removes it.
    Name(Option<Label>),
    /// The groups within which a hub relays for the peer.
    Relay(Groups),
}

impl Extension {
    /// The default of each extension.
    pub const OFF: [Extension; 2] = [Extension::Name(None), Extension::Relay(Groups::NONE)];

    /// The key in `set=1`, and the word in `wg-rs set`.
    pub fn key(&self) -> &'static str {
        match self {
            Extension::Name(_) => "name",
            Extension::Relay(_) => "relay",
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
}

impl Extensions {
    /// The current value of each extension.
    pub fn all(&self) -> [Extension; 2] {
        [
            Extension::Name(self.name.clone()),
            Extension::Relay(self.relay.clone()),
        ]
    }

    /// Applies a change.
    pub fn set(&mut self, extension: &Extension) {
        match extension {
            Extension::Name(name) => self.name.clone_from(name),
            Extension::Relay(groups) => self.relay.clone_from(groups),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let longest = "a".repeat(Label::MAX_LEN);
        for text in ["a", "alice", "alice-2", "x-", &longest] {
            assert_eq!(text.parse::<Label>().unwrap().as_str(), text);
        }
        for text in [
            "",
            "Alice",
            "2alice",
            "-a",
            "al ice",
            "alice.example",
            "al_ice",
            "alicé",
            "localhost",
            "a\n",
            &format!("{longest}a"),
        ] {
            assert_eq!(text.parse::<Label>(), Err(NotALabel), "{text:?}");
        }
    }

    #[test]
    fn off_values_equal_the_default() {
        let mut extensions = Extensions {
            name: "alice".parse().ok(),
            relay: Groups::on(),
        };
        for off in &Extension::OFF {
            assert!(off.is_off());
            extensions.set(off);
        }
        assert_eq!(extensions, Extensions::default());
        assert!(!Extension::Name("alice".parse().ok()).is_off());
        assert!(!Extension::Relay(Groups::on()).is_off());
    }
}
