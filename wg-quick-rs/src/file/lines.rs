//! A config file line by line, as `wg` and `wg-quick` see it: what each line is, and where its value
//! stands. Nothing is checked here, and nothing is copied, so an editor keeps all that it does not
//! change.

use std::borrow::Cow;
use std::ops::Range;

use wg_rs::config::{BYTE_ORDER_MARK, EXTENSION_MARK};

/// One line of a file.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its number, counted from 1.
    pub number: usize,
    /// The whole line, with its line end.
    pub raw: &'a [u8],
    /// What kind of line it is.
    pub what: What,
}

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing, or white space.
    Blank,
    /// Only a comment.
    Comment,
    /// The heading of a section.
    Head(Section),
    /// A key, and the range of its value in the line, without white space around it and without a
    /// comment after it. The key of a `#@` line begins with that mark: `#@ Name`.
    Key(String, Range<usize>),
    /// A line of a section that is switched off, but for its head: a comment to every other program.
    Disabled,
    /// Anything else.
    Other,
}

/// What a section is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `[Interface]`.
    Interface,
    /// `[Peer]`.
    Peer,
    /// A `[Peer]` that is switched off: [`OFF`] is before each of its lines.
    Disabled,
    /// Any other heading.
    Other,
}

/// What a line of a section that is switched off begins with.
pub const OFF: &str = "#! ";

/// The keys whose value is a command: a `#` in it does not start a comment.
pub const HOOKS: [&str; 4] = ["PreUp", "PostUp", "PreDown", "PostDown"];

impl<'a> Line<'a> {
    /// The value, if this is a line with a key. Bytes that are not UTF-8 are replaced.
    pub fn value(&self) -> Option<Cow<'a, str>> {
        match &self.what {
            What::Key(_, value) => Some(String::from_utf8_lossy(&self.raw[value.clone()])),
            _ => None,
        }
    }

    /// Whether this is a line with this key, in upper or lower case.
    pub fn is(&self, key: &str) -> bool {
        matches!(&self.what, What::Key(name, _) if name.eq_ignore_ascii_case(key))
    }
}

/// The lines of a file.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let raw = text.split_inclusive(|byte| *byte == b'\n');
    raw.enumerate().map(|(n, raw)| Line {
        number: n + 1,
        raw,
        what: what(raw, n == 0),
    })
}

fn what(raw: &[u8], is_first: bool) -> What {
    let text = raw
        .strip_prefix(BYTE_ORDER_MARK)
        .filter(|_| is_first)
        .unwrap_or(raw);
    if let Some(text) = text.strip_prefix(OFF.as_bytes()) {
        return match what(text, true) {
            What::Head(Section::Peer) => What::Head(Section::Disabled),
            _ => What::Disabled,
        };
    }
    let start = text.trim_ascii_start();
    let extension = start.strip_prefix(EXTENSION_MARK.as_bytes());
    let text = extension.unwrap_or(text);
    let stop = text.iter().position(|byte| *byte == b'#');
    let plain = text[..stop.unwrap_or(text.len())].trim_ascii();
    if plain.is_empty() {
        return if stop.is_some() || extension.is_some() {
            What::Comment
        } else {
            What::Blank
        };
    }
    if plain.starts_with(b"[") && extension.is_none() {
        let head = squeezed(plain);
        return What::Head(if head.eq_ignore_ascii_case("[Interface]") {
            Section::Interface
        } else if head.eq_ignore_ascii_case("[Peer]") {
            Section::Peer
        } else {
            Section::Other
        });
    }
    let Some(equals) = plain.iter().position(|byte| *byte == b'=') else {
        return What::Other;
    };
    let mut key = squeezed(&plain[..equals]);
    if extension.is_some() {
        key = format!("{EXTENSION_MARK} {key}");
    }
    let is_hook = HOOKS.iter().any(|hook| key.eq_ignore_ascii_case(hook));
    let whole = if is_hook { text.trim_ascii() } else { plain };
    let value = whole[equals + 1..].trim_ascii();
    // The value is a part of the line: its position is the distance of their starts.
    let start = value.as_ptr().addr() - raw.as_ptr().addr();
    What::Key(key, start..start + value.len())
}

/// The text without any white space, as `wg` reads a line.
pub fn squeezed(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().filter(|c| !c.is_ascii_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_lines() {
        let key = |text: &str| {
            let line = lines(text.as_bytes()).next().unwrap();
            match &line.what {
                What::Key(key, _) => (key.clone(), line.value().unwrap().into_owned()),
                other => panic!("{other:?}"),
            }
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(key("MTU=1420"), pair("MTU", "1420"));
        assert_eq!(key(" MTU =\t1420 # less\r\n"), pair("MTU", "1420"));
        assert_eq!(key("Listen Port = 1\n"), pair("ListenPort", "1"));
        assert_eq!(key("AllowedIPs =\n"), pair("AllowedIPs", ""));
        assert_eq!(key("AllowedIPs = # none\n"), pair("AllowedIPs", ""));
        assert_eq!(
            key("PostUp = echo '#1' # two\r\n"),
            pair("PostUp", "echo '#1' # two")
        );
        let kind = |text: &[u8]| lines(text).next().unwrap().what;
        assert_eq!(kind(b" \r\n"), What::Blank);
        assert_eq!(kind(b"  # x = y\n"), What::Comment);
        assert_eq!(
            kind(b"[ interface ] # us\n"),
            What::Head(Section::Interface)
        );
        assert_eq!(kind(b"[PEER]"), What::Head(Section::Peer));
        assert_eq!(kind(b"[Pear]"), What::Head(Section::Other));
        assert_eq!(kind(b"; x"), What::Other);
        assert_eq!(key("\u{feff}MTU = 1420"), pair("MTU", "1420"));
        assert_eq!(
            kind("\u{feff}[Interface]".as_bytes()),
            What::Head(Section::Interface)
        );
        assert_eq!(key(" #@ Name = alice # phone\n"), pair("#@ Name", "alice"));
        assert_eq!(key("#@name=alice"), pair("#@ name", "alice"));
        assert_eq!(kind(b"#! [Peer]\n"), What::Head(Section::Disabled));
        assert_eq!(kind(b"#! Name = x\n"), What::Disabled);
        assert_eq!(kind(b"#! [Interface]\n"), What::Disabled);
        assert_eq!(kind(b"#!/bin/sh\n"), What::Comment);
        assert_eq!(kind(b"#@\n"), What::Comment);
        assert_eq!(kind(b"#@ [Peer]\n"), What::Other);
        assert_eq!(lines(b"a\n\nb").count(), 3);
        assert_eq!(lines(b"").count(), 0);
    }
}
