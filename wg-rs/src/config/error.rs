//! What is wrong with which text.

use std::fmt;
use std::sync::Arc;

use wg_crypto::KeyError;

use crate::model::{Label, NotALabel};

/// What is wrong, and where. Shown as `wg0.conf:7: AllowedIPs: Unable to parse IP address: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where it was found.
    pub position: Position,
    /// The key of the file or the argument that the value is for.
    pub key: Option<&'static str>,
    /// What is wrong.
    pub reason: Reason,
    /// What may have been meant.
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
            Some(Hint::WgQuick) => f.write_str(" (wg-quick's; `wg-quick strip' leaves it out)"),
            None => Ok(()),
        }
    }
}

/// Where the text is. Shown with a colon and a space behind it, if it is shown at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// In a file.
    Line {
        /// As it was called.
        file: Arc<str>,
        /// The first is 1.
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

/// What may have been meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A word much like the one found.
    Near(&'static str),
    /// A key of the other section.
    Section(&'static str),
    /// A key that wg-quick understands, and `wg` does not.
    WgQuick,
}

/// What is wrong with a text. It repeats the text, but for keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Neither a section, nor a key and a value of this section.
    #[error("Line unrecognized: `{0}'")]
    Line(String),
    /// No word of `wg set`, or out of place, or without its value.
    #[error("Invalid argument: {0}")]
    Argument(String),
    /// A `[Peer]` without `PublicKey`.
    #[error("A peer is missing a public key")]
    NoPublicKey,
    /// Not the base64 form of a key.
    #[error("Key is not the correct length or format: {0}")]
    Key(#[from] KeyError),
    /// A file that should hold a key: its name and what is wrong.
    #[error("{0}: {1}")]
    KeyFile(String, String),
    /// No port at all.
    #[error("Unable to parse empty port")]
    EmptyPort,
    /// Too large, or no name of a service.
    #[error("Port is neither 0-65535 nor the name of a service: `{0}'")]
    Port(String),
    /// No mark.
    #[error("Fwmark is neither 0/off nor 0-0xffffffff: `{0}'")]
    FwMark(String),
    /// No interval.
    #[error("Persistent keepalive interval is neither 0/off nor 1-65535: `{0}'")]
    PersistentKeepalive(String),
    /// No name of a peer.
    #[error("`{0}' is no name: {1}")]
    Label(String, NotALabel),
    /// The name of another peer of the file, and the line of its section.
    #[error("`{0}' is the name of the peer in line {1} already")]
    NameTaken(Label, usize),
    /// No address.
    #[error("Unable to parse IP address: `{0}'")]
    Ip(String),
    /// No address with the length of its network's prefix.
    #[error("`{0}' is not an IP address with an optional prefix length")]
    Address(String),
    /// An address, but no network.
    #[error("AllowedIP is not in the correct format: `{0}'")]
    AllowedIp(String),
    /// No endpoint at all.
    #[error("Unable to parse empty endpoint")]
    EmptyEndpoint,
    /// `[` without `]`.
    #[error("Unable to find matching brace of endpoint: `{0}'")]
    EndpointBrace(String),
    /// No port where it should be.
    #[error("Unable to find port of endpoint: `{0}'")]
    EndpointPort(String),
    /// What the resolver says, and of which endpoint.
    #[error("{0}: `{1}'")]
    Unresolved(String, String),
    /// The variable that says how often names are asked for again.
    #[error("Unable to parse WG_ENDPOINT_RESOLUTION_RETRIES: `{0}'")]
    Retries(String),
}

/// As many letters of the base64 alphabet in a row are taken for a key.
const KEY_LIKE: usize = 40;
/// The longest text that is shown whole.
const LONGEST: usize = 80;
/// The longest word that anybody would take for the name of a key.
const LONGEST_WORD: usize = 24;
/// A piece of a secret as short as this helps nobody.
const SHORT: usize = 8;

/// A wrong value as it may be shown: what holds a key is hidden, what is long is cut, what cannot be
/// seen is escaped.
pub(super) fn shown(text: &str) -> String {
    shown_piece(text, text)
}

/// As [`shown`], a piece of `text`: of a key, that is no longer to be told by its length.
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

/// An unknown word as it may be shown. Unlike a value it can be anything, a piece of a private key
/// too: it is shown if it looks like a word.
pub(super) fn shown_word(word: &str) -> String {
    let like_a_word = |c: char| !c.is_ascii_digit() && !matches!(c, '+' | '/' | '=');
    if word.len() <= SHORT || word.len() <= LONGEST_WORD && word.chars().all(like_a_word) {
        shown(word)
    } else {
        "(hidden)".into()
    }
}

/// The one of `words` that `word` most likely is a misspelling of.
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
    fn values_are_shown_so_that_they_can_be_seen() {
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
    fn words_are_shown_if_they_are_words() {
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
    fn near_words() {
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
