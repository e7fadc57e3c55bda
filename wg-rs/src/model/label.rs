//! The names of peers and groups.

use std::fmt;
use std::str::FromStr;

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
}
