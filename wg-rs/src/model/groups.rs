//! The groups of a peer: a hub relays between peers that share a group.

use std::fmt;
use std::str::FromStr;

use super::label::{Label, NotALabel};

/// Most groups of a peer.
pub const MAX_GROUPS: usize = 8;
/// Most groups of an interface.
pub const MAX_GROUPS_IN_ALL: usize = 64;
/// Words that other programs take for `on` and `off`.
const SWITCHES: [&str; 11] = [
    "yes", "no", "true", "false", "1", "0", "enable", "enabled", "disable", "disabled", "none",
];
/// The group that `on` stands for.
const DEFAULT: &str = "default";

/// The groups of a peer, sorted and without duplicates. Nothing is relayed for a peer without
/// groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(Vec<Label>);

/// Why a text is not a list of groups.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupsError {
    /// A name is not valid.
    #[error(transparent)]
    Label(#[from] NotALabel),
    /// `on`, `off`, or another word for them, which are not names of groups.
    #[error(
        "`on' and `off' cannot be in a list of groups, and neither can other words for them, such as `yes'"
    )]
    Switch,
    /// There are too many groups.
    #[error("a peer is in at most {MAX_GROUPS} groups")]
    TooMany,
}

impl Groups {
    /// No groups.
    pub const NONE: Groups = Groups(Vec::new());

    /// The group that `on` stands for.
    pub fn on() -> Self {
        Groups(DEFAULT.parse().into_iter().collect())
    }

    /// The groups with these names.
    ///
    /// # Errors
    /// [`GroupsError::Switch`] or [`GroupsError::TooMany`].
    pub fn new(mut names: Vec<Label>) -> Result<Self, GroupsError> {
        if names
            .iter()
            .map(Label::as_str)
            .any(|name| matches!(name, "on" | "off") || is_switch(name))
        {
            return Err(GroupsError::Switch);
        }
        names.sort_unstable();
        names.dedup();
        match names.len() > MAX_GROUPS {
            true => Err(GroupsError::TooMany),
            false => Ok(Groups(names)),
        }
    }

    /// Whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the groups.
    pub fn names(&self) -> &[Label] {
        &self.0
    }
}

/// Whether the word was probably meant as `on` or `off`.
pub fn is_switch(word: &str) -> bool {
    SWITCHES
        .iter()
        .any(|switch| word.eq_ignore_ascii_case(switch))
}

/// Parses names that are separated by commas. An empty text means no groups.
impl FromStr for Groups {
    type Err = GroupsError;

    fn from_str(text: &str) -> Result<Self, GroupsError> {
        if text.is_empty() {
            return Ok(Groups::NONE);
        }
        let names: Result<_, _> = text.split(',').map(str::parse).collect();
        Groups::new(names?)
    }
}

/// Prints the groups in the form that is parsed.
impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_without_duplicates() {
        for (text, groups) in [
            ("", ""),
            ("lab", "lab"),
            ("office,lab,office", "lab,office"),
            ("a,b,c,d,e,f,g,h", "a,b,c,d,e,f,g,h"),
            ("a,a,a,a,a,a,a,a,a", "a"),
            ("x-1", "x-1"),
        ] {
            let parsed: Groups = text.parse().unwrap();
            assert_eq!(parsed.to_string(), groups, "{text}");
        }
        assert_eq!("default".parse(), Ok(Groups::on()));
        assert!(Groups::NONE.is_empty() && !Groups::on().is_empty());
    }

    #[test]
    fn invalid_groups_are_refused() {
        for text in [",", "a,", ",a", "A", "1", "a b"] {
            let label = Err(GroupsError::Label(NotALabel));
            assert_eq!(text.parse::<Groups>(), label, "{text}");
        }
        for text in ["on", "off", "a,on", "yes", "a,none"] {
            assert_eq!(text.parse::<Groups>(), Err(GroupsError::Switch));
        }
        assert_eq!(
            "a,b,c,d,e,f,g,h,i".parse::<Groups>(),
            Err(GroupsError::TooMany)
        );
    }
}
