//! The arguments of `wg set` to settings.
//!
//! Words are exact. Those of the interface come before the first `peer`; behind one, words are about it.
//! Of one that comes again the last counts; allowed IPs add up.

use std::ffi::{OsStr, OsString};

use wg_crypto::{KeyError, PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::error::{near, shown, shown_word};
use super::value::is_space;
use super::{Error, Hint, PeerSettings, Place, Reason, Settings, value};

const INTERFACE: [&str; 4] = ["listen-port", "fwmark", "private-key", "peer"];
const PEER: [&str; 6] = [
    "peer",
    "remove",
    "preshared-key",
    "endpoint",
    "persistent-keepalive",
    "allowed-ips",
];

/// Reads what follows the interface in `wg set`. Keys are in files, which `read` reads: their first 44
/// bytes, and what follows these behind white space, if only its beginning.
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
        place: Place::CommandLine,
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
        _ => {
            let key = key_file(value, read, PresharedKey::from_base64)?;
            peer.preshared_key = Some(Box::new(key.unwrap_or_default()));
        }
    }
    Ok(())
}

/// The key in a file; `None` if it is empty, as /dev/null is.
fn key_file<K>(
    path: &OsStr,
    read: &mut impl FnMut(&OsStr) -> Result<Zeroizing<Vec<u8>>, String>,
    parse: fn(&str) -> Result<K, KeyError>,
) -> Result<Option<K>, Reason> {
    let bad = |why: &str| Reason::KeyFile(shown(&path.to_string_lossy()), why.into());
    let text = read(path).map_err(|error| bad(&error))?;
    match text.split_at_checked(44) {
        None if text.is_empty() => Ok(None),
        None => Err(bad("Invalid length key in key file")),
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
