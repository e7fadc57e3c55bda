//! `#@ Key = value`: our own settings, in lines that are comments for every other program.
//!
//! `#@` must come first in the line, and another `#` ends the value. The list [`KEYS`] contains all
//! keys: the section of each, and how its value becomes a setting. An unknown key is an error,
//! because otherwise a setting would be silently ignored.

use super::error::{near, shown, shown_word};
use super::value::{endpoint, is_space};
use super::{ConfigEndpoint, Hint, PeerSettings, Reason, Settings};
use crate::model::{Extension, Groups, Label, is_switch};

/// The beginning of such a line.
pub const MARK: &str = "#@";

/// A key, its section, and the meaning of its value.
struct Key {
    name: &'static str,
    /// The key with its mark, for suggestions.
    written: &'static str,
    meaning: Meaning,
}

enum Meaning {
    /// A setting in `[Interface]`.
    Interface(fn(&mut Settings, &str, usize) -> Result<(), Reason>),
    /// A setting in `[Peer]`: a change of the peer in the daemon.
    Peer(fn(&str) -> Result<Extension, Reason>),
}

/// All keys. A key that is valid in both sections is listed twice.
const KEYS: &[Key] = &[
    Key {
        name: "Name",
        written: "#@ Name",
        meaning: Meaning::Peer(|text| Ok(Extension::Name(Some(label(text)?)))),
    },
    Key {
        name: "Relay",
        written: "#@ Relay",
        meaning: Meaning::Peer(|text| Ok(Extension::Relay(groups(text)?))),
    },
    Key {
        name: "Hub",
        written: "#@ Hub",
        meaning: Meaning::Peer(|text| Ok(Extension::Hub(switch(text)?))),
    },
    // The address at which others reach this interface; `wg-quick-rs add` writes it into their
    // files.
    Key {
        name: "Endpoint",
        written: "#@ Endpoint",
        meaning: Meaning::Interface(|settings, text, line| {
            settings.own_endpoint = Some(ConfigEndpoint {
                line,
                ..endpoint(text)?
            });
            Ok(())
        }),
    },
];

impl Key {
    fn is_of_peer(&self) -> bool {
        matches!(self.meaning, Meaning::Peer(_))
    }
}

/// The name of a peer or a group.
pub(super) fn label(text: &str) -> Result<Label, Reason> {
    text.parse()
        .map_err(|error| Reason::Label(shown(text), error))
}

/// `on` or `off`.
pub(super) fn switch(text: &str) -> Result<bool, Reason> {
    if text.eq_ignore_ascii_case("on") {
        return Ok(true);
    }
    if text.eq_ignore_ascii_case("off") {
        return Ok(false);
    }
    Err(Reason::Switch(shown(text)))
}

/// The groups within which a hub relays for a peer: `on`, `off`, or names separated by commas.
pub(super) fn groups(text: &str) -> Result<Groups, Reason> {
    if text.eq_ignore_ascii_case("on") {
        return Ok(Groups::on());
    }
    if text.eq_ignore_ascii_case("off") {
        return Ok(Groups::NONE);
    }
    if is_switch(text) {
        return Err(Reason::GroupSwitch(shown(text)));
    }
    let names = text
        .split(',')
        .map(|name| label(name.trim_matches(is_space)));
    Ok(Groups::new(names.collect::<Result<_, _>>()?)?)
}

/// An error in a `#@` line: the key, if it is known, the reason, and a suggestion.
pub(super) type Wrong = (Option<&'static str>, Reason, Option<Hint>);

/// The section of a line.
pub(super) enum Place<'a> {
    /// In `[Interface]`.
    Interface(&'a mut Settings),
    /// In `[Peer]`.
    Peer(&'a mut PeerSettings),
    /// Before the first section.
    Nowhere,
}

/// The text after [`MARK`], if the line has the mark. A line such as `#@@@` is a comment.
pub(super) fn text_of(line: &[u8]) -> Option<&[u8]> {
    let start = line.iter().position(|b| !is_space(*b))?;
    let text = line[start..].strip_prefix(MARK.as_bytes())?;
    let is_key = |first: &u8| is_space(*first) || first.is_ascii_alphabetic();
    text.first().is_none_or(is_key).then_some(text)
}

/// Reads the text after [`MARK`] in line `number` of a file.
pub(super) fn read(text: &[u8], number: usize, place: Place<'_>) -> Result<(), Wrong> {
    let text = text.split(|b| *b == b'#').next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (
            key.trim_matches(is_space),
            Some(value.trim_matches(is_space)),
        ),
        None => (text.trim_matches(is_space), None),
    };
    let in_peer = matches!(place, Place::Peer(_));
    let here = |known: &&Key| known.is_of_peer() == in_peer;
    let unknown = |hint| Err((None, unrecognized(key), hint));
    let known = KEYS
        .iter()
        .filter(|known| known.name.eq_ignore_ascii_case(key));
    let Some(known) = known
        .clone()
        .find(|known| here(known) && !matches!(place, Place::Nowhere))
    else {
        let elsewhere = known.clone().next().map(|known| match known.is_of_peer() {
            true => Hint::Section("Peer"),
            false => Hint::Section("Interface"),
        });
        let names = KEYS.iter().filter(here).map(|known| known.name);
        let form = value.is_none().then_some(Hint::ExtensionForm);
        return unknown(elsewhere.or_else(|| near(key, names)).or(form));
    };
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        let hint = match value {
            Some(_) => Hint::NoValue,
            None => Hint::NoEquals(known.written),
        };
        let reason = Reason::Line(format!("{MARK} {}=", known.name));
        return Err((None, reason, Some(hint)));
    };
    let set = match (&known.meaning, place) {
        (Meaning::Interface(set), Place::Interface(settings)) => set(settings, value, number),
        (Meaning::Peer(parse), Place::Peer(peer)) => {
            parse(value).map(|extension| peer.extend(extension))
        }
        _ => Ok(()),
    };
    set.map_err(|reason| (Some(known.name), reason, None))
}

fn unrecognized(key: &str) -> Reason {
    // The text after the first word may be anything.
    let word = key.split(is_space).next().unwrap_or_default();
    Reason::Line(format!("{MARK} {}", shown_word(word)))
}

/// The right form for a key without its mark.
pub(super) fn unmarked(key: &str, in_peer: bool) -> Option<&'static str> {
    let here = KEYS.iter().filter(|known| known.is_of_peer() == in_peer);
    let found = |known: &&Key| known.name.eq_ignore_ascii_case(key);
    here.clone().find(found).map(|known| known.written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Dialect, parse_file, read_file};

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    const OTHER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn name(text: &str) -> Extension {
        Extension::Name(Some(text.parse().unwrap()))
    }

    fn peer(lines: &str) -> Result<Vec<Extension>, String> {
        let text = format!("[Peer]\n{lines}\nPublicKey = {KEY}\n");
        match parse_file("f", text.as_bytes()) {
            Ok(settings) => Ok(settings.peers[0].extensions.clone()),
            Err(errors) => Err(errors[0].to_string()),
        }
    }

    #[test]
    fn a_name() {
        for line in [
            "#@ Name = alice",
            "#@Name=alice",
            " \t#@\tname =\talice \r",
            "#@ NAME = alice # the phone",
            "#@ Name = bob\n#@ Name = alice",
        ] {
            assert_eq!(peer(line), Ok(vec![name("alice")]), "{line}");
        }
        for line in [
            "",
            "# @ Name = alice",
            "## Name",
            "# Name = x #@ Name = y",
            "#@@@ Name = alice @@@",
            "#@-- the office",
        ] {
            assert_eq!(peer(line), Ok(vec![]), "{line}");
        }
    }

    #[test]
    fn groups_of_a_hub() {
        for (line, groups) in [
            ("on", "default"),
            ("ON", "default"),
            ("off", ""),
            ("lab", "lab"),
            ("default", "default"),
            ("office,lab", "lab,office"),
            (" office , lab # and no more", "lab,office"),
        ] {
            let relay = Extension::Relay(groups.parse().unwrap());
            let line = format!("#@ Relay = {line}");
            assert_eq!(peer(&line), Ok(vec![relay]), "{line}");
        }
        let rule = "a name has 1 to 31 characters of a-z, 0-9 and `-', begins with a \
                         letter, and is not `localhost'";
        for (value, expected) in [
            ("Lab", format!("`Lab' is not a valid name: {rule}")),
            ("lab,", format!("`' is not a valid name: {rule}")),
            (
                "Yes",
                "`Yes' is not a group: write `on' for the group `default', `off' for no group, or \
                 the names of groups"
                    .into(),
            ),
            (
                "lab,off",
                "`on' and `off' cannot be in a list of groups, and neither can other words for \
                 them, such as `yes'"
                    .into(),
            ),
            ("a,b,c,d,e,f,g,h,i", "a peer is in at most 8 groups".into()),
        ] {
            let error = peer(&format!("#@ Relay = {value}")).unwrap_err();
            assert_eq!(error, format!("f:2: Relay: {expected}"));
        }
    }

    #[test]
    fn a_hub_of_a_client() {
        for (line, is_hub) in [("on", true), ("ON # fra", true), ("off", false)] {
            let line = format!("#@ Hub = {line}");
            assert_eq!(peer(&line), Ok(vec![Extension::Hub(is_hub)]), "{line}");
        }
        assert_eq!(
            peer("#@ Hub = yes").unwrap_err(),
            "f:2: Hub: `yes' is neither `on' nor `off'"
        );
    }

    #[test]
    fn the_interfaces_own_endpoint() {
        let text = b"[Interface]\n#@ Endpoint = vpn.example:51820\n[Peer]\n#Endpoint";
        let (settings, _) = read_file("f", text, Dialect::Wg);
        let endpoint = settings.own_endpoint.unwrap();
        assert_eq!(
            (endpoint.to_string().as_str(), endpoint.line),
            ("vpn.example:51820", 2)
        );
    }

    #[test]
    fn errors_name_the_line() {
        let rule = "a name has 1 to 31 characters of a-z, 0-9 and `-', begins with a \
                         letter, and is not `localhost'";
        let form =
            " (a line with `#@' is `#@ Key = value'; in a comment, write a space after the `#')";
        for (line, expected) in [
            (
                "#@ Nmae = alice",
                "Line unrecognized: `#@ Nmae' (did you mean `Name'?)".into(),
            ),
            ("#@ Color = red", "Line unrecognized: `#@ Color'".into()),
            ("#@", format!("Line unrecognized: `#@ '{form}")),
            (
                "#@ Name",
                "Line unrecognized: `#@ Name=' (write `#@ Name = ...': the `=' is missing)".into(),
            ),
            (
                "#@ Name = # alice",
                "Line unrecognized: `#@ Name=' (the value after `=' is missing)".into(),
            ),
            ("#@ my notes", format!("Line unrecognized: `#@ my'{form}")),
            (
                "#@ Endpoint = a:1",
                "Line unrecognized: `#@ Endpoint' (it belongs in [Interface])".into(),
            ),
            (
                "#@ Name = Alice",
                format!("Name: `Alice' is not a valid name: {rule}"),
            ),
            (
                "#@ Name = al ice",
                format!("Name: `al ice' is not a valid name: {rule}"),
            ),
            (
                "Name = alice",
                "Line unrecognized: `Name' (did you mean `#@ Name'?)".into(),
            ),
        ] {
            assert_eq!(peer(line), Err(format!("f:2: {expected}")), "{line}");
        }
        for (text, expected) in [
            (
                "[Interface]\n#@ Name = a",
                "f:2: Line unrecognized: `#@ Name' (it belongs in [Peer])",
            ),
            (
                "#@ Name = a\n[Interface]",
                "f:1: Line unrecognized: `#@ Name' (it belongs in [Peer])",
            ),
            (
                "[Interface]\n#@ Endpoint = a",
                "f:2: Endpoint: Unable to find port of endpoint: `a'",
            ),
        ] {
            let errors = parse_file("f", text.as_bytes()).unwrap_err();
            assert_eq!(errors[0].to_string(), expected, "{text}");
        }
        let secret = "oJ7v3VvCvK1kG0hS4mWvQW3t0C2kz3zQmJ5cJz9R8E4=";
        for line in [format!("#@ {secret}"), format!("#@ Name = {secret}")] {
            let error = peer(&line).unwrap_err();
            assert!(
                error.contains("(hidden)") && !error.contains(&secret[3..12]),
                "{error}"
            );
        }
    }

    #[test]
    fn two_peers_cannot_have_the_same_name() {
        let text = |second: &str| {
            format!(
                "[Peer]\n#@ Name = alice\nPublicKey = {KEY}\n\
                 [Peer]\nPublicKey = {second}\n#@ Name = alice\n"
            )
        };
        let errors = parse_file("f", text(OTHER).as_bytes()).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(
            errors[0].to_string(),
            "f:4: Name: `alice' is already the name of the peer in line 1"
        );
        assert!(
            parse_file("f", text(KEY).as_bytes()).is_ok(),
            "one peer, in two sections"
        );
    }
}
