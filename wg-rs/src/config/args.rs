//! Reads the arguments of `wg set` into settings.
//!
//! Words must match exactly. Those before the first `peer` are about the interface, later ones
//! about the last peer. If a word is repeated, its last value counts; allowed IPs are added up.

use std::ffi::{OsStr, OsString};

use wg_crypto::{KeyError, PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::error::{near, shown, shown_word};
use super::extensions::{groups, label, switch};
use super::value::is_space;
use super::{Error, Hint, PeerSettings, Position, Reason, Settings, value};
use crate::model::Extension;

const INTERFACE: [&str; 4] = ["listen-port", "fwmark", "private-key", "peer"];
const PEER: [&str; 9] = [
    "peer",
    "remove",
    "preshared-key",
    "endpoint",
    "persistent-keepalive",
    "allowed-ips",
    "name",
    "relay",
    "hub",
];

/// The error for a key file that is too short, with wg's text.
pub const INVALID_LENGTH: &str = "Invalid length key in key file";

/// Reads the arguments after the interface in `wg set`. `read` reads key files: the first 44 bytes,
/// and the first byte after them that is not white space, if any.
pub fn parse_args(
    args: &[OsString],
    mut read: impl FnMut(&OsStr) -> Result<Zeroizing<Vec<u8>>, String>,
) -> Result<Settings, Error> {
    let mut settings = Settings::default();
    let mut args = args.iter();
    while let Some(word) = args.next() {
        let word = &*word.to_string_lossy();
        let known: &[&str] = match settings.peers.is_empty() {
            true => &INTERFACE,
            false => &PEER,
        };
        let Some(word) = known.iter().copied().find(|known| *known == word) else {
            let elsewhere = INTERFACE.contains(&word) || PEER.contains(&word);
            let hint = if elsewhere {
                None
            } else {
                near(word, known.iter().copied())
            };
            return Err(error(None, Reason::Argument(shown_word(word)), hint));
        };
        let value = match word {
            "remove" => OsStr::new(""),
            _ => match args.next() {
                Some(value) => value,
                None => return Err(error(None, Reason::Argument(word.into()), None)),
            },
        };
        let set = match settings.peers.last_mut() {
            _ if word == "peer" => add_peer(&mut settings, &value.to_string_lossy()),
            None => set_interface(&mut settings, word, value, &mut read),
            Some(peer) => set_peer(peer, word, value, &mut read),
        };
        set.map_err(|reason| error(Some(word), reason, None))?;
    }
    Ok(settings)
}

fn error(key: Option<&'static str>, reason: Reason, hint: Option<Hint>) -> Error {
    Error {
        position: Position::CommandLine,
        key,
        reason,
        hint,
    }
}

fn add_peer(settings: &mut Settings, text: &str) -> Result<(), Reason> {
    let public_key = PublicKey::from_base64(text)?;
    settings.peers.push(PeerSettings::new(public_key));
    Ok(())
}

fn set_interface(
    settings: &mut Settings,
    word: &str,
    value: &OsStr,
    read: &mut impl FnMut(&OsStr) -> Result<Zeroizing<Vec<u8>>, String>,
) -> Result<(), Reason> {
    let text = &value.to_string_lossy();
    match word {
        "listen-port" => settings.listen_port = Some(value::port(text)?),
        "fwmark" => settings.fwmark = Some(value::fwmark(text)?),
        _ => {
            let key = key_file(value, read, PrivateKey::from_base64)?;
            let zero = || PrivateKey::from_bytes([0; 32]);
            settings.private_key = Some(Box::new(key.unwrap_or_else(zero)));
        }
    }
    Ok(())
}

fn set_peer(
    peer: &mut PeerSettings,
    word: &str,
    value: &OsStr,
    read: &mut impl FnMut(&OsStr) -> Result<Zeroizing<Vec<u8>>, String>,
) -> Result<(), Reason> {
    let text = &value.to_string_lossy();
    match word {
        "remove" => peer.remove = true,
        "endpoint" => peer.endpoint = Some(value::endpoint(text)?),
        "persistent-keepalive" => {
            peer.persistent_keepalive = Some(value::persistent_keepalive(text)?);
        }
        "allowed-ips" => {
            let bare: String = text.chars().filter(|c| !is_space(*c)).collect();
            peer.allow(value::allowed_ips(&bare)?, 0);
        }
        "name" => {
            let name = match &**text {
                "" => None,
                text => Some(label(text)?),
            };
            peer.extend(Extension::Name(name));
        }
        "relay" => peer.extend(Extension::Relay(groups(text)?)),
        "hub" => peer.extend(Extension::Hub(switch(text)?)),
        _ => {
            let key = key_file(value, read, PresharedKey::from_base64)?;
            peer.preshared_key = Some(Box::new(key.unwrap_or_default()));
        }
    }
    Ok(())
}

/// The key in a file. None if the file is empty, like /dev/null.
fn key_file<K>(
    path: &OsStr,
    read: &mut impl FnMut(&OsStr) -> Result<Zeroizing<Vec<u8>>, String>,
    parse: fn(&str) -> Result<K, KeyError>,
) -> Result<Option<K>, Reason> {
    let bad = |why: &str| Reason::KeyFile(shown(&path.to_string_lossy()), why.into());
    let text = read(path).map_err(|error| bad(&error))?;
    match text.split_at_checked(44) {
        None if text.is_empty() => Ok(None),
        None => Err(bad(INVALID_LENGTH)),
        Some((_, rest)) if rest.iter().any(|b| !is_space(*b)) => {
            Err(bad("Found trailing character in key file"))
        }
        Some((key, _)) => {
            let key = str::from_utf8(key).map_err(|_| KeyError::Base64);
            let key = key.and_then(parse).map(Some);
            key.map_err(|error| bad(&Reason::Key(error).to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::model::Label;

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    /// Files whose content depends on their names.
    fn read(path: &OsStr) -> Result<Zeroizing<Vec<u8>>, String> {
        let text = match path.to_str().unwrap() {
            "key" => KEY.into(),
            "/dev/null" => String::new(),
            "short" => KEY[1..].into(),
            "long" => format!("{KEY}="),
            "bad" => KEY.replace('=', "x"),
            "blank" => format!("{}\n", &KEY[1..]),
            "latin1" => return Ok(Zeroizing::new(vec![0xe9; 44])),
            _ => return Err("No such file or directory".into()),
        };
        Ok(Zeroizing::new(text.into_bytes()))
    }

    fn parse(args: &[&str]) -> Result<Settings, Error> {
        let args: Vec<_> = args.iter().map(Into::into).collect();
        parse_args(&args, read)
    }

    #[test]
    fn every_argument() {
        let settings = parse(&[
            "listen-port",
            "51820",
            "fwmark",
            "0xca6c",
            "private-key",
            "key",
            "peer",
            KEY,
            "allowed-ips",
            "10.0.0.0/8",
            "preshared-key",
            "key",
            "endpoint",
            "192.0.2.1:55",
            "persistent-keepalive",
            "off",
            "name",
            "alice",
            "relay",
            "lab, office",
            "hub",
            "on",
            "peer",
            KEY,
            "remove",
        ])
        .unwrap();
        let public_key = PublicKey::from_base64(KEY).unwrap();
        assert_eq!(
            (settings.listen_port, settings.fwmark),
            (Some(51820), Some(51820))
        );
        assert_eq!(
            settings.private_key,
            Some(Box::new(PrivateKey::from_base64(KEY).unwrap()))
        );
        let [first, second] = &*settings.peers else {
            panic!()
        };
        assert_eq!(first.public_key, public_key);
        assert_eq!(
            first.preshared_key,
            Some(Box::new(PresharedKey::from_base64(KEY).unwrap()))
        );
        assert_eq!(first.endpoint.as_ref().unwrap().to_string(), "192.0.2.1:55");
        assert_eq!(first.persistent_keepalive, Some(0));
        assert!(first.replace_allowed_ips && first.allowed_ips.len() == 1);
        assert_eq!(first.name().map(Label::as_str), Some("alice"));
        let relay = Extension::Relay("lab,office".parse().unwrap());
        assert!(first.extensions.contains(&relay));
        assert!(first.extensions.contains(&Extension::Hub(true)));
        let removed = PeerSettings {
            remove: true,
            ..PeerSettings::new(public_key)
        };
        assert_eq!(second, &removed);
    }

    #[test]
    fn absent_arguments_change_nothing() {
        assert_eq!(parse(&[]), Ok(Settings::default()));
        let settings = parse(&["peer", KEY]).unwrap();
        let public_key = PublicKey::from_base64(KEY).unwrap();
        assert_eq!(settings.peers, [PeerSettings::new(public_key)]);
    }

    #[test]
    fn an_empty_file_removes_the_key() {
        let settings = parse(&[
            "private-key",
            "/dev/null",
            "peer",
            KEY,
            "preshared-key",
            "/dev/null",
        ])
        .unwrap();
        assert!(settings.private_key.is_some_and(|key| key.is_zero()));
        assert_eq!(settings.peers[0].preshared_key, Some(Box::default()));
    }

    #[test]
    fn every_error() {
        let key = "Key is not the correct length or format";
        for (args, expected) in [
            (
                &["listen-prt", "1"][..],
                "Invalid argument: listen-prt (did you mean `listen-port'?)",
            ),
            (
                &["Listen-Port", "1"],
                "Invalid argument: Listen-Port (did you mean `listen-port'?)",
            ),
            (&["bogus"], "Invalid argument: bogus"),
            (&[""], "Invalid argument: "),
            (&[KEY], "Invalid argument: (hidden)"),
            (&["listen-port"], "Invalid argument: listen-port"),
            (&["listen-port", "1", "fwmark"], "Invalid argument: fwmark"),
            (&["remove"], "Invalid argument: remove"),
            (&["peer"], "Invalid argument: peer"),
            (
                &["peer", KEY, "listen-port", "1"],
                "Invalid argument: listen-port",
            ),
            (&["peer", KEY, "endpoint"], "Invalid argument: endpoint"),
            (
                &["peer", KEY, "allowed-ip", "1.2.3.4"],
                "Invalid argument: allowed-ip (did you mean `allowed-ips'?)",
            ),
            (
                &["listen-port", ""],
                "listen-port: Unable to parse empty port",
            ),
            (
                &["listen-port", "99999"],
                "listen-port: Port is neither 0-65535 nor the name of a service: `99999'",
            ),
            (
                &["fwmark", "0x"],
                "fwmark: Fwmark is neither 0/off nor 0-0xffffffff: `0x'",
            ),
            (
                &["private-key", "gone"],
                "private-key: gone: No such file or directory",
            ),
            (
                &["private-key", KEY],
                "private-key: (hidden): No such file or directory",
            ),
            (
                &["private-key", "short"],
                "private-key: short: Invalid length key in key file",
            ),
            (
                &["private-key", "blank"],
                &format!("private-key: blank: {key}: not the base64 form of a 32-byte key"),
            ),
            (
                &["private-key", "long"],
                "private-key: long: Found trailing character in key file",
            ),
            (
                &["private-key", "bad"],
                &format!("private-key: bad: {key}: not the base64 form of a 32-byte key"),
            ),
            (
                &["private-key", "latin1"],
                &format!("private-key: latin1: {key}: not the base64 form of a 32-byte key"),
            ),
            (
                &["peer", KEY, "preshared-key", "short"],
                "preshared-key: short: Invalid length key in key file",
            ),
            (
                &["peer", &KEY[1..]],
                &format!("peer: {key}: a base64 key has 44 characters, not 43"),
            ),
            (
                &["peer", KEY, "endpoint", ""],
                "endpoint: Unable to parse empty endpoint",
            ),
            (
                &["peer", KEY, "name", "2"],
                "name: `2' is not a valid name: a name has 1 to 31 characters of a-z, 0-9 and `-', begins with a \
                         letter, and is not `localhost'",
            ),
            (
                &["peer", KEY, "relay", "lab,on"],
                "relay: `on' and `off' cannot be in a list of groups, and neither can other words for \
                 them, such as `yes'",
            ),
            (
                &["peer", KEY, "endpoint", "x"],
                "endpoint: Unable to find port of endpoint: `x'",
            ),
            (
                &["peer", KEY, "persistent-keepalive", "65536"],
                "persistent-keepalive: Persistent keepalive interval is neither 0/off nor 1-65535: `65536'",
            ),
            (
                &["peer", KEY, "allowed-ips", "1.2.3/24"],
                "allowed-ips: Unable to parse IP address: `1.2.3'",
            ),
            (
                &["peer", KEY, "allowed-ips", "1.2.3.4/33"],
                "allowed-ips: AllowedIP is not in the correct format: `1.2.3.4/33' (the prefix \
                 length of an IPv4 address is a number from 0 to 32)",
            ),
        ] {
            assert_eq!(parse(args).unwrap_err().to_string(), expected, "{args:?}");
        }
    }
}
