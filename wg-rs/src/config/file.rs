//! A configuration file to settings.
//!
//! Line by line: what follows `#` is dropped, then all white space wherever it is, and what is left is
//! nothing, a section, or `Key=value`. Sections may come again, and of a key that does the last one
//! counts; allowed IPs add up. All that is wrong is found at once.

use std::sync::Arc;

use wg_crypto::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::error::{near, shown_word};
use super::value::is_space;
use super::{Endpoint, Error, Hint, PeerSettings, Reason, Settings, value};

const INTERFACE: &[&str] = &["PrivateKey", "ListenPort", "FwMark"];
const PEER: &[&str] = &[
    "PublicKey",
    "PresharedKey",
    "AllowedIPs",
    "Endpoint",
    "PersistentKeepalive",
];
const WG_QUICK: &[&str] = &[
    "Address",
    "DNS",
    "MTU",
    "Table",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
    "SaveConfig",
];

/// Whose file it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// That of `wg`.
    #[default]
    Wg,
    /// That of `wg-quick`, of which its own lines have been blanked: hints may be of those, and
    /// `AllowedIPs =` says that there are none.
    WgQuick,
}

/// Reads what `wg setconf` takes. `name` is what errors call the file; they are in the order of their
/// lines.
pub fn parse_file(name: &str, text: &[u8]) -> Result<Settings, Vec<Error>> {
    let (settings, errors) = read_file(name, text, Dialect::Wg);
    if errors.is_empty() {
        Ok(settings)
    } else {
        Err(errors)
    }
}

/// Reads what can be understood of a file, and says what cannot.
pub fn read_file(name: &str, text: &[u8], dialect: Dialect) -> (Settings, Vec<Error>) {
    let mut reader = Reader {
        dialect,
        settings: Settings {
            file: Some(Arc::from(name)),
            ..Settings::default()
        },
        section: Section::None,
        line: 0,
        errors: Vec::new(),
    };
    for line in text.split(|b| *b == b'\n') {
        reader.line += 1;
        reader.line(line);
    }
    reader.end_section();
    reader.errors.sort_by_key(|(line, _)| *line);
    let errors = reader.errors.into_iter().map(|(_, error)| error).collect();
    (reader.settings, errors)
}

enum Section {
    /// Before the first one.
    None,
    Interface,
    /// A peer whose `PublicKey` may be yet to come.
    Peer(PeerSettings, Option<PublicKey>),
    /// After an error that was reported: no more is said about what follows.
    Unknown,
}

struct Reader {
    dialect: Dialect,
    settings: Settings,
    section: Section,
    line: usize,
    errors: Vec<(usize, Error)>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) {
        let line = line.split(|b| *b == b'#').next().unwrap_or_default();
        let bare: Vec<u8> = line.iter().copied().filter(|b| !is_space(*b)).collect();
        let bare = Zeroizing::new(bare);
        match (str::from_utf8(&bare), &self.section) {
            (Ok(""), _) => {}
            (Ok(header), _) if header.starts_with('[') => {
                self.end_section();
                self.begin_section(header);
            }
            (_, Section::Unknown) => {}
            (_, Section::None) => {
                self.unrecognized(first_word(line), None);
                self.section = Section::Unknown;
            }
            (Ok(bare), _) => match bare.split_once('=') {
                Some((key, value)) if !value.is_empty() => self.assignment(key, value),
                Some((key, _)) if self.is_none(key) => self.assignment(key, ""),
                _ => self.unrecognized(first_word(line), None),
            },
            (Err(_), _) => self.unrecognized(first_word(line), None),
        }
    }

    fn begin_section(&mut self, header: &str) {
        const HEADERS: [&str; 2] = ["[Interface]", "[Peer]"];
        let known = HEADERS.into_iter().find(|h| h.eq_ignore_ascii_case(header));
        let meant = match known {
            Some(known) => Some(known),
            None => {
                let hint = near(header, HEADERS);
                self.unrecognized(header.as_bytes(), hint);
                // So that what is wrong in it is told as well.
                hint.and_then(|hint| match hint {
                    Hint::Near(header) => Some(header),
                    _ => None,
                })
            }
        };
        self.section = match meant {
            Some("[Interface]") => Section::Interface,
            Some(_) => {
                let nobody = PublicKey::from_bytes([0; 32]);
                let peer = PeerSettings {
                    replace_allowed_ips: true,
                    line: self.line,
                    ..PeerSettings::new(nobody)
                };
                Section::Peer(peer, None)
            }
            None => Section::Unknown,
        };
    }

    fn end_section(&mut self) {
        match std::mem::replace(&mut self.section, Section::None) {
            Section::Peer(peer, Some(public_key)) => {
                self.settings
                    .peers
                    .push(PeerSettings { public_key, ..peer });
            }
            Section::Peer(peer, None) if peer.public_key_line == 0 => {
                self.error(peer.line, None, Reason::NoPublicKey, None);
            }
            _ => {}
        }
    }

    /// Whether the key may stand there without a value.
    fn is_none(&self, key: &str) -> bool {
        self.dialect == Dialect::WgQuick && key.eq_ignore_ascii_case("AllowedIPs")
    }

    fn assignment(&mut self, key: &str, value: &str) {
        let (keys, others, other) = match self.section {
            Section::Interface => (INTERFACE, PEER, "Peer"),
            _ => (PEER, INTERFACE, "Interface"),
        };
        let find =
            |keys: &[&'static str]| keys.iter().copied().find(|k| k.eq_ignore_ascii_case(key));
        let Some(known) = find(keys) else {
            let of_wg_quick = find(WG_QUICK).is_some();
            let hint = match self.dialect {
                _ if find(others).is_some() => Some(Hint::Section(other)),
                Dialect::Wg if of_wg_quick => Some(Hint::WgQuick),
                Dialect::WgQuick if of_wg_quick => Some(Hint::Section("Interface")),
                Dialect::WgQuick if other == "Peer" => near(key, [keys, WG_QUICK].concat()),
                _ => near(key, keys.iter().copied()),
            };
            self.unrecognized(key.as_bytes(), hint);
            return;
        };
        let line = self.line;
        let set = match &mut self.section {
            Section::Interface => set_interface(&mut self.settings, known, value),
            Section::Peer(peer, public_key) => set_peer(peer, public_key, known, value, line),
            Section::None | Section::Unknown => Ok(()),
        };
        if let Err(reason) = set {
            self.error(line, Some(known), reason, None);
        }
    }

    fn unrecognized(&mut self, word: &[u8], hint: Option<Hint>) {
        let word = shown_word(&String::from_utf8_lossy(word));
        self.error(self.line, None, Reason::Line(word), hint);
    }

    fn error(
        &mut self,
        line: usize,
        key: Option<&'static str>,
        reason: Reason,
        hint: Option<Hint>,
    ) {
        let place = self.settings.place(line);
        let error = Error {
            place,
            key,
            reason,
            hint,
        };
        self.errors.push((line, error));
    }
}

fn set_interface(settings: &mut Settings, key: &str, text: &str) -> Result<(), Reason> {
    match key {
        "PrivateKey" => settings.private_key = Some(Box::new(PrivateKey::from_base64(text)?)),
        "ListenPort" => settings.listen_port = Some(value::port(text)?),
        _ => settings.fwmark = Some(value::fwmark(text)?),
    }
    Ok(())
}

fn set_peer(
    peer: &mut PeerSettings,
    public_key: &mut Option<PublicKey>,
    key: &str,
    text: &str,
    line: usize,
) -> Result<(), Reason> {
    match key {
        "PublicKey" => {
            peer.public_key_line = line;
            *public_key = Some(PublicKey::from_base64(text)?);
        }
        "PresharedKey" => peer.preshared_key = Some(Box::new(PresharedKey::from_base64(text)?)),
        "AllowedIPs" => peer.allow(value::allowed_ips(text)?, line),
        "Endpoint" => {
            peer.endpoint = Some(Endpoint {
                line,
                ..value::endpoint(text)?
            });
        }
        _ => peer.persistent_keepalive = Some(value::persistent_keepalive(text)?),
    }
    Ok(())
}

/// What the line begins with, up to white space or its first `=`.
fn first_word(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_start();
    let end = line.iter().position(|b| is_space(*b) || *b == b'=');
    &line[..end.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    const OTHER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn parse(text: &str) -> Settings {
        parse_file("wg0.conf", text.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn public(text: &str) -> PublicKey {
        PublicKey::from_base64(text).unwrap()
    }

    #[test]
    fn the_file_of_the_manual() {
        let settings = parse(&format!(
            "[Interface]\nPrivateKey = {KEY}\nListenPort = 51820\n\n\
             [Peer]\nPublicKey = {OTHER}\nEndpoint = 192.95.5.67:1234\n\
             AllowedIPs = 10.192.122.3/32, 10.192.124.1/24\nAllowedIPs=fd00::/8\n"
        ));
        assert_eq!(
            settings.private_key,
            Some(Box::new(PrivateKey::from_base64(KEY).unwrap()))
        );
        assert_eq!((settings.listen_port, settings.fwmark), (Some(51820), None));
        let [peer] = &*settings.peers else { panic!() };
        assert_eq!(peer.public_key, public(OTHER));
        assert_eq!((peer.line, peer.public_key_line), (5, 6));
        let ips: Vec<_> = peer
            .allowed_ips
            .iter()
            .map(|ip| (ip.ip.to_string(), ip.line))
            .collect();
        assert_eq!(
            ips,
            [
                ("10.192.122.3/32".into(), 8),
                ("10.192.124.0/24".into(), 8),
                ("fd00::/8".into(), 9)
            ]
        );
        assert!(peer.replace_allowed_ips);
        assert_eq!(
            peer.endpoint,
            Some(Endpoint {
                host: "192.95.5.67".into(),
                port: 1234,
                line: 7
            })
        );
        let warnings: Vec<_> = settings.warnings().collect();
        assert_eq!(
            warnings,
            ["wg0.conf:8: Warning: AllowedIP has nonzero host part: 10.192.124.1/24"]
        );
    }

    #[test]
    fn errors_are_found_all_at_once_and_in_order() {
        let text = format!(
            "[Interface]\nListenPrt = 1\nPrivateKey = short\n[Peer]\nEndpoint = nowhere\n\
             [Peer]\nPublicKey = {KEY}\nDNS = 1.1.1.1\n"
        );
        let errors = parse_file("wg0.conf", text.as_bytes()).unwrap_err();
        let lines: Vec<_> = errors
            .iter()
            .map(|error| match &error.place {
                Place::Line { line, .. } => *line,
                Place::CommandLine => 0,
            })
            .collect();
        assert_eq!(lines, [2, 3, 4, 5, 8]);
        assert_eq!(
            errors[0].to_string(),
            "wg0.conf:2: Line unrecognized: `ListenPrt' (did you mean `ListenPort'?)"
        );
    }
}
