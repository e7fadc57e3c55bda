//! Errors in configuration text and arguments.

use std::fmt;
use std::sync::Arc;

use wg_crypto::KeyError;

use crate::model::{GroupsError, Label, NotALabel};

/// An error and its position. Printed as `wg0.conf:7: AllowedIPs: Unable to parse IP address: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where the error is.
    pub position: Position,
    /// The key or argument that the value belongs to.
    pub key: Option<&'static str>,
    /// What is wrong.
    pub reason: Reason,
    /// A suggestion.
    pub hint: Option<Hint>,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.position.fmt(f)?;
        if let Some(key) = self.key {
            write!(f, "{key}: ")?;
        }
        self.reason.fmt(f)?;
        match self.hint {
            Some(Hint::Near(word)) => write!(f, " (did you mean `{word}'?)"),
            Some(Hint::Section(section)) => write!(f, " (it belongs in [{section}])"),
            Some(Hint::WgQuick) => f.write_str(" (a key of wg-quick; `wg-quick strip' removes it)"),
            Some(Hint::NoEquals(key)) => write!(f, " (write `{key} = ...': the `=' is missing)"),
            Some(Hint::NoValue) => f.write_str(" (the value after `=' is missing)"),
            Some(Hint::NoSection) => {
                f.write_str(" (a line with [Interface] or [Peer] must come before it)")
            }
            Some(Hint::Sections) => f.write_str(" (the sections are [Interface] and [Peer])"),
            Some(Hint::Comment) => f.write_str(" (a comment begins with `#')"),
            Some(Hint::Form) => f.write_str(
                " (a line is `Key = value', [Interface], [Peer], or a comment that begins with `#')",
            ),
            Some(Hint::ExtensionForm) => f.write_str(
                " (a line with `#@' is `#@ Key = value'; in a comment, write a space after the `#')",
            ),
            None => Ok(()),
        }
    }
}

/// The position of a text. Printed with a colon and a space after it, or as nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// In a file.
    Line {
        /// The file's name, as the user gave it.
        file: Arc<str>,
        /// The line, starting at 1.
        line: usize,
    },
    /// In the arguments or the environment.
    CommandLine,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Line { file, line } => write!(f, "{file}:{line}: "),
            Position::CommandLine => Ok(()),
        }
    }
}

/// A suggestion for a wrong word or line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A similar word.
    Near(&'static str),
    /// The key belongs in this section.
    Section(&'static str),
    /// The key belongs to wg-quick; `wg` does not know it.
    WgQuick,
    /// The line begins with this key, or a similar word, but has no `=`.
    NoEquals(&'static str),
    /// A key and `=`, but no value.
    NoValue,
    /// The line is before the first section.
    NoSection,
    /// Not the heading of a section.
    Sections,
    /// The line begins like a comment in other programs.
    Comment,
    /// The line has none of the forms that a line may have.
    Form,
    /// The line has a `#@`, but no `=`.
    ExtensionForm,
}

/// What is wrong with a text. The message contains the text, except for keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Neither a section header, nor a key of this section with a value.
    #[error("Line unrecognized: `{0}'")]
    Line(String),
    /// An unknown word of `wg set`, a word in the wrong place, or one without a value.
    #[error("Invalid argument: {0}")]
    Argument(String),
    /// A `[Peer]` section without `PublicKey`.
    #[error("A peer is missing a public key")]
    NoPublicKey,
    /// Not the base64 form of a key.
    #[error("Key is not the correct length or format: {0}")]
    Key(#[from] KeyError),
    /// A key file: its name and the error.
    #[error("{0}: {1}")]
    KeyFile(String, String),
    /// The port is empty.
    #[error("Unable to parse empty port")]
    EmptyPort,
    /// Not a port: too large, or an unknown service.
    #[error("Port is neither 0-65535 nor the name of a service: `{0}'")]
    Port(String),
    /// Not a mark.
    #[error("Fwmark is neither 0/off nor 0-0xffffffff: `{0}'")]
    FwMark(String),
    /// Not an interval.
    #[error("Persistent keepalive interval is neither 0/off nor 1-65535: `{0}'")]
    PersistentKeepalive(String),
    /// Not a valid name of a peer.
    #[error("`{0}' is not a valid name: {1}")]
    Label(String, NotALabel),
    /// Not a switch.
    #[error("`{0}' is neither `on' nor `off'")]
    Switch(String),
    /// A word that was probably meant as a switch, where names of groups are expected.
    #[error(
        "`{0}' is not a group: write `on' for the group `default', `off' for no group, or the \
         names of groups"
    )]
    GroupSwitch(String),
    /// Not a valid list of groups.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// The name of another peer in the file, and the line of that peer's section.
    #[error("`{0}' is already the name of the peer in line {1}")]
    NameTaken(Label, usize),
    /// Not an IP address.
    #[error("Unable to parse IP address: `{0}'")]
    Ip(String),
    /// Not an IP address with an optional prefix length.
    #[error("`{0}' is not an IP address with an optional prefix length")]
    Address(String),
    /// An interface's address with an invalid prefix length, and the address's number of bits.
    #[error("`{0}' is not an IP address with an optional prefix length{range}", range = range(*.1))]
    Prefix(String, u8),
    /// A network with an invalid prefix length, and its address's number of bits.
    #[error("AllowedIP is not in the correct format: `{0}'{range}", range = range(*.1))]
    AllowedIp(String, u8),
    /// The endpoint is empty.
    #[error("Unable to parse empty endpoint")]
    EmptyEndpoint,
    /// `[` without `]`.
    #[error("Unable to find matching brace of endpoint: `{0}'")]
    EndpointBrace(String),
    /// The port is missing.
    #[error("Unable to find port of endpoint: `{0}'")]
    EndpointPort(String),
    /// The resolver's message, the endpoint, and why no resolver can know it.
    #[error("{0}: `{1}'{why}", why = in_parentheses(*.2))]
    Unresolved(String, String, Option<NotAHost>),
    /// An invalid value of the variable that sets the number of retries.
    #[error("Unable to parse WG_ENDPOINT_RESOLUTION_RETRIES: `{0}'")]
    Retries(String),
}

/// Why something is neither an IP address nor can be the name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHost {
    /// It begins like a URL.
    #[error("an endpoint is HOST:PORT, without `udp://' or the like before it")]
    Url,
    /// It has a slash.
    #[error("neither an address nor a name has a `/' in it")]
    Slash,
    /// Only digits and dots.
    #[error("an IPv4 address is four numbers from 0 to 255")]
    V4,
    /// It has a colon.
    #[error("a host with `:' must be an IPv6 address; its endpoint is [ADDRESS]:PORT")]
    V6,
}

fn in_parentheses(why: Option<NotAHost>) -> String {
    why.map(|why| format!(" ({why})")).unwrap_or_default()
}

/// The valid prefix lengths of an address with this many bits.
fn range(bits: u8) -> String {
    let family = if bits == 32 { "IPv4" } else { "IPv6" };
    format!(" (the prefix length of an {family} address is a number from 0 to {bits})")
}

/// A sequence of this many base64 characters is treated as a key.
const KEY_LIKE: usize = 40;
/// Longest text that is shown in full.
const LONGEST: usize = 80;
/// Longest word that could be the name of a key.
const LONGEST_WORD: usize = 24;
/// A piece of a secret that is this short reveals nothing useful.
const SHORT: usize = 8;

/// Prepares a wrong value for display: a key is hidden, a long value is truncated, and invisible
/// characters are escaped.
pub fn shown(text: &str) -> String {
    shown_piece(text, text)
}

/// Like [`shown`], for a piece of `text`: a piece of a key no longer has a key's length.
pub(super) fn shown_piece(piece: &str, text: &str) -> String {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    if text.split(|c| !letter(c)).any(|run| run.len() >= KEY_LIKE) {
        return "(hidden)".into();
    }
    let mut shown = String::new();
    for (i, c) in piece.chars().enumerate() {
        match c {
            _ if i == LONGEST => {
                shown.push_str("...");
                break;
            }
            '\'' | '"' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// Prepares an unknown word for display. Unlike a value it may be anything, including a piece of a
/// private key, so it is only shown if it looks like a word.
pub(super) fn shown_word(word: &str) -> String {
    let like_a_word = |c: char| !c.is_ascii_digit() && !matches!(c, '+' | '/' | '=');
    if word.len() <= SHORT || word.len() <= LONGEST_WORD && word.chars().all(like_a_word) {
        shown(word)
    } else {
        "(hidden)".into()
    }
}

/// The most similar of `words`, if `word` is probably a misspelling of it.
pub(super) fn near(word: &str, words: impl IntoIterator<Item = &'static str>) -> Option<Hint> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let distance = |other: &str| strsim::damerau_levenshtein(&word, &other.to_ascii_lowercase());
    let near = words.into_iter().map(|other| (distance(other), other));
    let (distance, near) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= near.len() / 3).then_some(Hint::Near(near))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_truncated_or_hidden() {
        for (text, seen) in [
            ("10.0.0.0/33", "10.0.0.0/33"),
            ("bücher.example:port", "bücher.example:port"),
            ("it's \"so\" \\", "it's \"so\" \\"),
            ("a\u{1b}[31m\0\n", r"a\u{1b}[31m\0\n"),
            (&"x".repeat(KEY_LIKE - 1), &"x".repeat(KEY_LIKE - 1)),
            (&"x".repeat(KEY_LIKE), "(hidden)"),
            (&"x.".repeat(LONGEST), &("x.".repeat(LONGEST / 2) + "...")),
        ] {
            assert_eq!(shown(text), seen);
        }
    }

    #[test]
    fn only_words_are_shown() {
        for word in [
            "",
            "H1",
            "Jc",
            ";comment",
            "PersistentKeepAlives",
            "[Interfaces]",
        ] {
            assert_eq!(shown_word(word), word);
        }
        for piece in [
            "lXXJte14t",
            "PersistentKeepaliveInterval",
            "ji+zlMNqhd",
            "ijzlMNqhdr=",
        ] {
            assert_eq!(shown_word(piece), "(hidden)");
        }
    }

    #[test]
    fn similar_words_are_suggested() {
        let keys = ["ListenPort", "PrivateKey", "DNS"];
        for (word, meant) in [
            ("listenport", Some("ListenPort")),
            ("ListenProt", Some("ListenPort")),
            ("Listen_Port", Some("ListenPort")),
            ("PrivKey", Some("PrivateKey")),
            ("DSN", Some("DNS")),
            ("MTU", None),
            ("Endpoint", None),
            ("", None),
        ] {
            assert_eq!(near(word, keys), meant.map(Hint::Near), "{word}");
        }
        assert_eq!(near("ListenPort", []), None);
    }
}
