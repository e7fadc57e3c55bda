//! Edits of a config file: values are replaced in place, new lines follow the last key of their section,
//! and sections are removed. Everything else stays the same, byte for byte.
//!
//! The sections in which a key may stand are given as ranges of lines: a file may have several
//! `[Interface]` sections, and several sections for one peer.

use std::ops::Range;

use wg_rs::config::lines::{HOOKS, Line, OFF, Section, What, lines, squeezed};
use zeroize::Zeroizing;

/// A file and its edits.
pub struct Edit<'a> {
    lines: Vec<Edited<'a>>,
    /// The sections of the file, each with the range of its lines.
    pub sections: Vec<(Section, Range<usize>)>,
    /// The line end for new lines.
    end: &'static str,
    /// Lines for an interface section that the file does not have yet.
    head: Vec<Zeroizing<String>>,
    /// New sections.
    tail: Vec<Zeroizing<String>>,
}

/// A line, and what happens to it.
struct Edited<'a> {
    line: Line<'a>,
    fate: Fate,
    /// New lines after it.
    after: Vec<Zeroizing<String>>,
}

enum Fate {
    Keep,
    Drop,
    Value(Zeroizing<String>),
    /// Another line in its place, with its end.
    Line(Zeroizing<Vec<u8>>),
}

impl<'a> Edit<'a> {
    /// The file without any edit.
    pub fn new(old: &'a [u8]) -> Self {
        let lines: Vec<_> = lines(old)
            .map(|line| Edited {
                line,
                fate: Fate::Keep,
                after: Vec::new(),
            })
            .collect();
        let mut sections: Vec<(Section, Range<usize>)> = Vec::new();
        for (at, edited) in lines.iter().enumerate() {
            if let What::Head(section) = edited.line.what {
                sections.push((section, at..at + 1));
            } else if let Some((_, range)) = sections.last_mut() {
                range.end = at + 1;
            }
        }
        let crlf = lines
            .first()
            .is_some_and(|first| first.line.raw.ends_with(b"\r\n"));
        Edit {
            lines,
            sections,
            end: if crlf { "\r\n" } else { "\n" },
            head: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// Sets a key of which the last line counts to `want`, unless `same` finds that its text already
    /// means that.
    pub fn scalar(
        &mut self,
        part: &[Range<usize>],
        key: &str,
        want: Option<impl Into<Zeroizing<String>>>,
        same: impl Fn(&str) -> bool,
    ) {
        match (self.find(part, key), want) {
            (Some(at), _) if same(&self.text(at)) => {}
            (Some(at), Some(want)) => self.lines[at].fate = Fate::Value(want.into()),
            (Some(_), None) => {
                for at in self.all(part, key) {
                    self.lines[at].fate = Fate::Drop;
                }
            }
            (None, Some(want)) => self.add(part, key, &want.into()),
            (None, None) => {}
        }
    }

    /// Sets a key whose lines add up to exactly the items of `want`. Items that `read` does not
    /// understand are left in the file.
    pub fn list<T: PartialEq>(
        &mut self,
        part: &[Range<usize>],
        key: &str,
        want: &[T],
        read: impl Fn(&str) -> Option<T>,
        print: impl Fn(&T) -> String,
    ) {
        let all = self.all(part, key);
        let mut have = Vec::new();
        let mut removes = false;
        for at in &all {
            for item in items(&self.items_of(*at)) {
                match item.strip_prefix('-') {
                    Some(item) => {
                        removes = true;
                        let gone = read(item);
                        have.retain(|item| Some(item) != gone.as_ref());
                    }
                    None => have.extend(read(item.trim_start_matches('+'))),
                }
            }
        }
        if have.iter().all(|item| want.contains(item))
            && want.iter().all(|item| have.contains(item))
        {
            return;
        }
        let mut last = None;
        let mut present = Vec::new();
        for &at in &all {
            let text = self.items_of(at);
            let stays = |item: &&str| {
                let value = read(item.trim_start_matches('+'));
                !removes && value.is_none_or(|value| want.contains(&value))
            };
            let kept: Vec<_> = items(&text).filter(stays).collect();
            if kept.is_empty() {
                self.lines[at].fate = Fate::Drop;
                continue;
            }
            if kept.len() < items(&text).count() {
                self.lines[at].fate = Fate::Value(Zeroizing::new(kept.join(", ")));
            }
            present.extend(
                kept.iter()
                    .filter_map(|item| read(item.trim_start_matches('+'))),
            );
            last = Some((at, kept.join(", ")));
        }
        let new: Vec<_> = want
            .iter()
            .filter(|item| !present.contains(item))
            .map(print)
            .collect();
        match (last, new.is_empty()) {
            (_, true) => {}
            (Some((at, kept)), false) => {
                let all = format!("{kept}, {}", new.join(", "));
                self.lines[at].fate = Fate::Value(Zeroizing::new(all));
            }
            (None, false) => match all.first() {
                Some(&at) => self.lines[at].fate = Fate::Value(Zeroizing::new(new.join(", "))),
                None => self.add(part, key, &new.join(", ")),
            },
        }
    }

    /// Appends a section with these keys at the end.
    pub fn append(&mut self, head: &str, keys: Vec<(&str, Zeroizing<String>)>) {
        self.tail
            .push(Zeroizing::new([self.end, head, self.end].concat()));
        for (key, value) in keys {
            let line = [key, " = ", &value, self.end].concat();
            self.tail.push(Zeroizing::new(line));
        }
    }

    /// Removes a section, with the comments right above it. Comments and blank lines at its end that
    /// do not belong to it stay.
    pub fn remove(&mut self, section: &Range<usize>) {
        let is = |lines: &[Edited], at: usize, what: What| lines[at].line.what == what;
        let start = self.comments_above(section.start);
        let content =
            |at: &usize| !is(&self.lines, *at, What::Blank) && !is(&self.lines, *at, What::Comment);
        let last = section.clone().rev().find(content);
        let mut end = last.unwrap_or(section.start) + 1;
        let limit = if section.end < self.lines.len() {
            self.comments_above(section.end)
        } else {
            section.end
        };
        while end < limit && is(&self.lines, end, What::Comment) {
            end += 1;
        }
        while end < limit && is(&self.lines, end, What::Blank) {
            end += 1;
        }
        for edited in &mut self.lines[start..end] {
            edited.fate = Fate::Drop;
        }
        // At the end of the file, the blank lines above separate nothing.
        if end == self.lines.len() {
            let kept = |edited: &Edited| {
                !matches!(edited.fate, Fate::Drop) && edited.line.what != What::Blank
            };
            for edited in self.lines.iter_mut().rev().take_while(|line| !kept(line)) {
                edited.fate = Fate::Drop;
            }
        }
    }

    /// Makes comments of a section's lines, up to the last that is none. Blank lines stay.
    pub fn disable(&mut self, section: &Range<usize>) {
        let content =
            |at: &usize| !matches!(self.lines[*at].line.what, What::Blank | What::Comment);
        let Some(last) = section.clone().rev().find(content) else {
            return;
        };
        for edited in &mut self.lines[section.start..=last] {
            if edited.line.what != What::Blank {
                let line = [OFF.as_bytes(), edited.line.raw].concat();
                edited.fate = Fate::Line(Zeroizing::new(line));
            }
        }
    }

    /// Takes back [`Edit::disable`].
    pub fn enable(&mut self, section: &Range<usize>) {
        for edited in &mut self.lines[section.clone()] {
            if let Some(line) = edited.line.raw.strip_prefix(OFF.as_bytes()) {
                edited.fate = Fate::Line(Zeroizing::new(line.to_vec()));
            }
        }
    }

    /// The text of a section, as if it were not switched off.
    pub fn text_of(&self, section: &Range<usize>) -> Zeroizing<Vec<u8>> {
        let lines = self.lines[section.clone()].iter().map(|edited| {
            let raw = edited.line.raw;
            raw.strip_prefix(OFF.as_bytes()).unwrap_or(raw)
        });
        Zeroizing::new(lines.collect::<Vec<_>>().concat())
    }

    /// Whether a hook contains `word`.
    pub fn a_hook_says(&self, word: &str) -> bool {
        let speaks = |edited: &Edited| {
            let hook = HOOKS.iter().any(|hook| edited.line.is(hook));
            hook && edited
                .line
                .value()
                .is_some_and(|value| value.contains(word))
        };
        self.lines.iter().any(speaks)
    }

    /// The line of a key that counts: the last one.
    pub fn find(&self, part: &[Range<usize>], key: &str) -> Option<usize> {
        self.all(part, key).pop()
    }

    /// The value of a line with a key, as `wg` reads it: without white space.
    pub fn text(&self, at: usize) -> Zeroizing<String> {
        let Line { raw, what, .. } = &self.lines[at].line;
        Zeroizing::new(match what {
            What::Key(_, value) => squeezed(&raw[value.clone()]),
            _ => String::new(),
        })
    }

    /// The new text.
    pub fn finish(self) -> Zeroizing<Vec<u8>> {
        let mut out = Vec::new();
        if !self.head.is_empty() {
            out.extend([b"[Interface]", self.end.as_bytes()]);
            out.extend(self.head.iter().map(|line| line.as_bytes()));
            if !self.lines.is_empty() {
                out.push(self.end.as_bytes());
            }
        }
        for edited in &self.lines {
            let Line { raw, what, .. } = &edited.line;
            match (&edited.fate, what) {
                (Fate::Drop, _) => {}
                (Fate::Line(new), _) => out.push(new),
                (Fate::Value(new), What::Key(_, old)) => {
                    out.extend([&raw[..old.start], new.as_bytes(), &raw[old.end..]]);
                }
                _ => out.push(*raw),
            }
            if !edited.after.is_empty() && !raw.ends_with(b"\n") {
                out.push(self.end.as_bytes());
            }
            out.extend(edited.after.iter().map(|line| line.as_bytes()));
        }
        if !self.tail.is_empty() && out.last().is_some_and(|last| !last.ends_with(b"\n")) {
            out.push(self.end.as_bytes());
        }
        // In an empty file there is no blank line above a new section.
        let skip = if out.is_empty() { self.end.len() } else { 0 };
        let tail = self.tail.iter().map(|line| line.as_bytes());
        out.extend(
            tail.enumerate()
                .map(|(n, line)| if n == 0 { &line[skip..] } else { line }),
        );
        // Allocated once, so that no copy of a key stays in memory.
        Zeroizing::new(out.concat())
    }

    /// Adds a line after the last key of a section; the section is created if there is none.
    fn add(&mut self, part: &[Range<usize>], key: &str, value: &str) {
        let line = Zeroizing::new([key, " = ", value, self.end].concat());
        let Some(section) = part.last() else {
            self.head.push(line);
            return;
        };
        let has_key = |at: &usize| matches!(self.lines[*at].line.what, What::Key(..));
        let at = section.clone().rev().find(has_key);
        self.lines[at.unwrap_or(section.start)].after.push(line);
    }

    /// The first of the comments right above a section.
    fn comments_above(&self, head: usize) -> usize {
        let comments = self.lines[..head].iter().rev();
        head - comments
            .take_while(|edited| edited.line.what == What::Comment)
            .count()
    }

    /// All lines with a key.
    fn all(&self, part: &[Range<usize>], key: &str) -> Vec<usize> {
        let lines = part.iter().cloned().flatten();
        lines.filter(|at| self.lines[*at].line.is(key)).collect()
    }

    /// The value of a line with a list: `wg` separates items only by commas, `wg-quick` also by spaces.
    fn items_of(&self, at: usize) -> String {
        let line = &self.lines[at].line;
        if line.is("AllowedIPs") {
            self.text(at).to_string()
        } else {
            line.value().unwrap_or_default().into_owned()
        }
    }
}

/// The items of a list.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_ascii_whitespace())
        .filter(|item| !item.is_empty())
}
