//! Splits a config file into lines as `wg` and `wg-quick` do: the kind of each line, and the position
//! of its value. Values are neither checked nor copied, so an editor keeps everything that it does
//! not change.

use std::borrow::Cow;
use std::ops::Range;

use super::value::is_space;
use super::{BYTE_ORDER_MARK, EXTENSION_MARK, extensions};

/// One line of a file.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its number, counted from 1.
    pub number: usize,
    /// The whole line, with its line end.
    pub raw: &'a [u8],
    /// The kind of the line.
    pub what: What,
}

/// The kind of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An empty line, or only white space.
    Blank,
    /// Only a comment.
    Comment,
    /// The heading of a section.
    Head(Section),
    /// A key and its value, as ranges of the line, without white space around them and without a
    /// comment after the value. The key of a `#@` line begins with that mark.
    Key(Range<usize>, Range<usize>),
    /// A line of a disabled section, except its heading. Every other program treats it as a comment.
    Disabled,
    /// Anything else.
    Other,
}

/// The kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `[Interface]`.
    Interface,
    /// `[Peer]`.
    Peer,
    /// A disabled `[Peer]`: each of its lines begins with [`OFF`].
    Disabled,
    /// Any other heading.
    Other,
}

/// The beginning of each line of a disabled section.
pub const OFF: &str = "#! ";

/// The keys whose value is a command: a `#` in it does not start a comment.
pub const HOOKS: [&str; 4] = ["PreUp", "PostUp", "PreDown", "PostDown"];

impl<'a> Line<'a> {
    /// The line before a comment, without white space around it.
    pub fn plain(&self) -> &'a [u8] {
        before_comment(without_mark(self.raw, self.number))
    }

    /// The value, if this is a line with a key. Bytes that are not UTF-8 are replaced.
    pub fn value(&self) -> Option<Cow<'a, str>> {
        match &self.what {
            What::Key(_, value) => Some(String::from_utf8_lossy(&self.raw[value.clone()])),
            _ => None,
        }
    }

    /// The key as `wg` reads it, which ignores white space in it. The key of a `#@` line is `#@ Key`.
    pub fn key(&self) -> Option<String> {
        let What::Key(key, _) = &self.what else {
            return None;
        };
        let key = squeezed(&self.raw[key.clone()]);
        Some(match key.strip_prefix(EXTENSION_MARK) {
            Some(key) => format!("{EXTENSION_MARK} {key}"),
            None => key,
        })
    }

    /// Whether this is a line with this key, in upper or lower case.
    pub fn is(&self, key: &str) -> bool {
        self.key().is_some_and(|own| own.eq_ignore_ascii_case(key))
    }
}

/// The lines of a file.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let raw = text.split_inclusive(|byte| *byte == b'\n');
    raw.enumerate().map(|(n, raw)| Line {
        number: n + 1,
        raw,
        what: what(raw, without_mark(raw, n + 1)),
    })
}

/// The line without the byte order mark with which a file may begin.
fn without_mark(raw: &[u8], number: usize) -> &[u8] {
    let text = raw.strip_prefix(BYTE_ORDER_MARK).filter(|_| number == 1);
    text.unwrap_or(raw)
}

/// The kind of `text`, which is `raw` or the end of it.
fn what(raw: &[u8], text: &[u8]) -> What {
    if let Some(text) = text.strip_prefix(OFF.as_bytes()) {
        return match what(text, text) {
            What::Head(Section::Peer) => What::Head(Section::Disabled),
            _ => What::Disabled,
        };
    }
    let text = trimmed(text);
    let extension = extensions::text_of(text);
    let rest = extension.unwrap_or(text);
    let plain = before_comment(rest);
    if plain.is_empty() {
        return match rest.contains(&b'#') || extension.is_some() {
            true => What::Comment,
            false => What::Blank,
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
    let key = trimmed(&plain[..equals]);
    let name = squeezed(key);
    let is_hook = HOOKS.iter().any(|hook| name.eq_ignore_ascii_case(hook));
    let whole = match is_hook && extension.is_none() {
        true => text,
        false => plain,
    };
    let value = trimmed(&whole[equals + 1..]);
    // Both are parts of the line: their positions are the distances of their starts.
    let start = |part: &[u8]| part.as_ptr().addr() - raw.as_ptr().addr();
    let key_start = start(if extension.is_some() { text } else { key });
    let value_start = start(value);
    What::Key(
        key_start..start(key) + key.len(),
        value_start..value_start + value.len(),
    )
}

fn before_comment(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| *byte == b'#');
    trimmed(&text[..end.unwrap_or(text.len())])
}

/// The text without white space around it.
fn trimmed(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !is_space(*byte);
    let Some(start) = text.iter().position(is_text) else {
        return &text[text.len()..];
    };
    let end = text
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    &text[start..end]
}

/// The text without any white space, as `wg` reads a line. It is allocated once, as it may be a key.
pub fn squeezed(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut squeezed = String::with_capacity(text.len());
    squeezed.extend(text.chars().filter(|c| !is_space(*c)));
    squeezed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_lines() {
        let key = |text: &str| {
            let line = lines(text.as_bytes()).next().unwrap();
            match line.key().zip(line.value()) {
                Some((key, value)) => (key, value.into_owned()),
                None => panic!("{:?}", line.what),
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
