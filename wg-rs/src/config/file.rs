//! Reads a configuration file into settings.
//!
//! `lines` splits it into section headers, keys and values, in which all white space is removed; `#@`
//! lines are for `extensions`. Sections may be repeated. If a key is
//! repeated, its last value counts; allowed IPs are added up. All errors of a file are reported at
//! once.

use std::collections::HashMap;
use std::sync::Arc;

use wg_crypto::PublicKey;
use zeroize::Zeroizing;

use super::dialect::{INTERFACE, PEER, find};
use super::error::{near, shown_word};
use super::extensions::{self, Place};
use super::keys::{set_interface, set_peer};
use super::lines::{self, Line, What, lines, squeezed};
use super::value::is_space;
use super::{BYTE_ORDER_MARK, Dialect, Error, Hint, PeerSettings, Reason, Settings};
use crate::model::Label;

/// Reads a file for `wg setconf`. `name` is the file's name in errors.
///
/// # Errors
/// All errors of the file, in the order of the lines.
pub fn parse_file(name: &str, text: &[u8]) -> Result<Settings, Vec<Error>> {
    let (settings, errors) = read_file(name, text, Dialect::Wg);
    if errors.is_empty() {
        Ok(settings)
    } else {
        Err(errors)
    }
}

/// Reads the valid parts of a file, and returns the errors of the rest.
pub fn read_file(name: &str, text: &[u8], dialect: Dialect) -> (Settings, Vec<Error>) {
    let mut reader = Reader {
        dialect,
        settings: Settings {
            file: Some(Arc::from(name)),
            ..Settings::default()
        },
        section: OpenSection::None,
        line: 0,
        errors: Vec::new(),
    };
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    for line in lines(text) {
        reader.line = line.number;
        reader.line(&line);
    }
    reader.end_section();
    reader.check_names();
    reader.errors.sort_by_key(|(line, _)| *line);
    let errors = reader.errors.into_iter().map(|(_, error)| error).collect();
    (reader.settings, errors)
}

enum OpenSection {
    /// Before the first section.
    None,
    Interface,
    /// A peer whose `PublicKey` may follow.
    Peer(PeerSettings, Option<PublicKey>),
    /// After a reported error: the lines that follow cause no further errors.
    Unknown,
}

struct Reader {
    dialect: Dialect,
    settings: Settings,
    section: OpenSection,
    line: usize,
    errors: Vec<(usize, Error)>,
}

impl Reader {
    fn line(&mut self, line: &Line) {
        if let Some(text) = extensions::text_of(line.raw) {
            self.extension(text);
            return;
        }
        let plain = line.plain();
        match (&line.what, &self.section) {
            (What::Blank | What::Comment | What::Disabled, _) => {}
            (What::Head(lines::Section::Disabled), _) => {}
            (What::Head(_), _) => {
                self.end_section();
                self.begin_section(&squeezed(plain));
            }
            (_, OpenSection::Unknown) => {}
            (what, OpenSection::None) => {
                let hint = match what {
                    What::Key(..) => Hint::NoSection,
                    _ => match self.hint_without_equals(plain) {
                        hint @ (Hint::Comment | Hint::Form) => hint,
                        _ => Hint::NoSection,
                    },
                };
                self.unrecognized(first_word(plain), Some(hint));
                self.section = OpenSection::Unknown;
            }
            (What::Key(key, value), _) if str::from_utf8(plain).is_ok() => {
                let value = Zeroizing::new(squeezed(&line.raw[value.clone()]));
                self.assignment(&squeezed(&line.raw[key.clone()]), &value);
            }
            (What::Key(..), _) => self.unrecognized(first_word(plain), None),
            (What::Other, _) => {
                let hint = self.hint_without_equals(plain);
                self.unrecognized(first_word(plain), Some(hint));
            }
        }
    }

    fn hint_without_equals(&self, line: &[u8]) -> Hint {
        let in_peer = matches!(self.section, OpenSection::Peer(..));
        let word = String::from_utf8_lossy(first_word(line));
        self.dialect.hint_without_equals(&word, in_peer)
    }

    fn extension(&mut self, text: &[u8]) {
        let place = match &mut self.section {
            OpenSection::Interface => Place::Interface(&mut self.settings),
            OpenSection::Peer(peer, _) => Place::Peer(peer),
            OpenSection::None => Place::Nowhere,
            OpenSection::Unknown => return,
        };
        if let Err((key, reason, hint)) = extensions::read(text, self.line, place) {
            self.error(self.line, key, reason, hint);
        }
    }

    /// A name stands for one peer.
    fn check_names(&mut self) {
        let mut named: HashMap<&Label, &PeerSettings> = HashMap::new();
        let mut taken = Vec::new();
        for peer in &self.settings.peers {
            let Some(name) = peer.name() else { continue };
            match named.get(name) {
                Some(first) if first.public_key != peer.public_key => {
                    taken.push((peer.line, Reason::NameTaken(name.clone(), first.line)));
                }
                Some(_) => {}
                None => drop(named.insert(name, peer)),
            }
        }
        for (line, reason) in taken {
            self.error(line, Some("Name"), reason, None);
        }
    }

    fn begin_section(&mut self, header: &str) {
        const HEADERS: [&str; 2] = ["[Interface]", "[Peer]"];
        let known = HEADERS.into_iter().find(|h| h.eq_ignore_ascii_case(header));
        let meant = match known {
            Some(known) => Some(known),
            None => {
                let hint = near(header, HEADERS);
                self.unrecognized(header.as_bytes(), hint.or(Some(Hint::Sections)));
                // Reads it as this section, so that errors in it are reported too.
                hint.and_then(|hint| match hint {
                    Hint::Near(header) => Some(header),
                    _ => None,
                })
            }
        };
        self.section = match meant {
            Some("[Interface]") => OpenSection::Interface,
            Some(_) => {
                let nobody = PublicKey::from_bytes([0; 32]);
                let peer = PeerSettings {
                    replace_allowed_ips: true,
                    line: self.line,
                    ..PeerSettings::new(nobody)
                };
                OpenSection::Peer(peer, None)
            }
            None => OpenSection::Unknown,
        };
    }

    fn end_section(&mut self) {
        match std::mem::replace(&mut self.section, OpenSection::None) {
            OpenSection::Peer(peer, Some(public_key)) => {
                self.settings
                    .peers
                    .push(PeerSettings { public_key, ..peer });
            }
            OpenSection::Peer(peer, None) if peer.public_key_line == 0 => {
                self.error(peer.line, None, Reason::NoPublicKey, None);
            }
            _ => {}
        }
    }

    fn assignment(&mut self, key: &str, value: &str) {
        let in_peer = matches!(self.section, OpenSection::Peer(..));
        let Some(known) = find(key, if in_peer { PEER } else { INTERFACE }) else {
            let hint = self.dialect.hint(key, in_peer);
            self.unrecognized(key.as_bytes(), hint);
            return;
        };
        let line = self.line;
        let can_be_empty = self.dialect == Dialect::WgQuick && known == "AllowedIPs";
        if value.is_empty() && !can_be_empty {
            let reason = Reason::Line(format!("{known}="));
            self.error(line, None, reason, Some(Hint::NoValue));
            return;
        }
        let set = match &mut self.section {
            OpenSection::Interface => set_interface(&mut self.settings, known, value),
            OpenSection::Peer(peer, public_key) => set_peer(peer, public_key, known, value, line),
            OpenSection::None | OpenSection::Unknown => Ok(()),
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
        let position = self.settings.position(line);
        let error = Error {
            position,
            key,
            reason,
            hint,
        };
        self.errors.push((line, error));
    }
}

/// The beginning of a line, up to white space or a separator between key and value.
fn first_word(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_start();
    let end = line
        .iter()
        .position(|b| is_space(*b) || matches!(b, b'=' | b':'));
    &line[..end.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigEndpoint, Position, first_error};
    use wg_crypto::PrivateKey;

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    const OTHER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn parse(text: &str) -> Settings {
        parse_file("wg0.conf", text.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn public(text: &str) -> PublicKey {
        PublicKey::from_base64(text).unwrap()
    }

    #[test]
    fn the_example_of_the_manual() {
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
            Some(ConfigEndpoint {
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

    /// The settings without the positions.
    fn bare(text: &str) -> Settings {
        let mut settings = parse(text);
        settings.file = None;
        for peer in &mut settings.peers {
            (peer.line, peer.public_key_line) = (0, 0);
            peer.allowed_ips.iter_mut().for_each(|ip| ip.line = 0);
            peer.endpoint
                .iter_mut()
                .for_each(|endpoint| endpoint.line = 0);
        }
        settings
    }

    #[test]
    fn unusual_forms_that_mean_the_same() {
        let plain = format!(
            "[Interface]\nListenPort=51820\nFwMark=7\n[Peer]\nPublicKey={KEY}\n\
             AllowedIPs=10.0.0.0/8,11.0.0.0/8\nEndpoint=192.0.2.1:55\nPersistentKeepalive=0\n"
        );
        for odd in [
            plain.replace('\n', "\r\n"),
            plain.replace('\n', " # comment [Peer] = # \n\n \t\n#\n"),
            plain
                .replace('=', " \t= \x0b\x0c")
                .replace(KEY, &format!("{KEY} ")),
            plain.replace("192.0.2.1:55", "192.0.2 .1 : 5 5"),
            plain.replace("51820", "5 1 8 2 0").replace(',', " , "),
            plain.replace(KEY, &KEY.replace('+', " + ")),
            plain
                .replace("[Peer]", " [ P E E R ] ")
                .replace("[Interface]", "[interface]"),
            plain
                .replace("ListenPort", "LISTEN port")
                .replace("AllowedIPs", "allowedips"),
            plain.replace(",11", "\nAllowedIPs=11"),
            plain.replace("=7", "=off\nFwMark=0x7"),
            plain.replace("Keepalive=0", "Keepalive=25\nPersistentKeepalive=OFF"),
            plain.replace("PublicKey", &format!("PublicKey={OTHER}\nPublicKey")),
            plain.replace("ListenPort=51820\n", "") + "[Interface]\nListenPort=1\nListenPort=51820",
            plain.trim_end().to_owned() + "#\u{fc}",
            format!("\u{feff}{plain}"),
        ] {
            assert_eq!(bare(&odd), bare(&plain), "{odd}");
        }
        let latin1 = [plain.as_bytes(), b"# caf\xe9\n"].concat();
        assert!(parse_file("wg0.conf", &latin1).is_ok());
    }

    #[test]
    fn an_empty_file_gives_empty_settings() {
        for text in ["", "\n", "#", "[Interface]", "[interface]\n[INTERFACE]"] {
            assert_eq!(bare(text), Settings::default());
        }
    }

    #[test]
    fn repeated_peers_are_not_merged() {
        let settings = parse(&format!(
            "[Peer]\nPublicKey={KEY}\nAllowedIPs=1.0.0.0/8\n[Peer]\nPublicKey={OTHER}\n\
             [Peer]\nAllowedIPs=2.0.0.0/8\nPublicKey={KEY}\n"
        ));
        let peers: Vec<_> = settings
            .peers
            .iter()
            .map(|peer| (peer.public_key, peer.line, peer.public_key_line))
            .collect();
        assert_eq!(
            peers,
            [
                (public(KEY), 1, 2),
                (public(OTHER), 4, 5),
                (public(KEY), 6, 8)
            ]
        );
        assert!(settings.peers.iter().all(|peer| peer.replace_allowed_ips));
    }

    #[test]
    fn the_last_allowed_ips_decide_whether_to_replace() {
        for (lines, replace) in [
            ("", true),
            ("AllowedIPs=1.0.0.0/8", true),
            ("AllowedIPs=+1.0.0.0/8", false),
            ("AllowedIPs=1.0.0.0/8\nAllowedIPs=-2.0.0.0/8", false),
            ("AllowedIPs=-1.0.0.0/8\nAllowedIPs=2.0.0.0/8", true),
        ] {
            let settings = parse(&format!("[Peer]\nPublicKey={KEY}\n{lines}\n"));
            assert_eq!(settings.peers[0].replace_allowed_ips, replace, "{lines}");
        }
    }

    #[test]
    fn zero_keys_are_kept() {
        let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let settings = parse(&format!(
            "[Interface]\nPrivateKey={zero}\n[Peer]\nPublicKey={zero}\nPresharedKey={zero}\n"
        ));
        assert!(settings.private_key.is_some_and(|key| key.is_zero()));
        let [peer] = &*settings.peers else { panic!() };
        assert!(peer.public_key.is_zero() && peer.preshared_key == Some(Box::default()));
    }

    #[test]
    fn every_error() {
        let short = &KEY[1..];
        let spare = &KEY.replace("mk=", "ml=");
        let long = "x".repeat(100);
        let key = "Key is not the correct length or format";
        for (text, expected) in [
            ("I\nJc=4", "2: Line unrecognized: `Jc'"),
            (
                "[Peer]\nEndpoint=1.2.3.4:5",
                "1: A peer is missing a public key",
            ),
            (
                "I\nListenPort=65536",
                "2: ListenPort: Port is neither 0-65535 nor the name of a service: `65536'",
            ),
            (
                "I\nFwMark=0XF",
                "2: FwMark: Fwmark is neither 0/off nor 0-0xffffffff: `0XF'",
            ),
            (
                "P\nPersistentKeepalive=65536",
                "3: PersistentKeepalive: Persistent keepalive interval is neither 0/off nor 1-65535: `65536'",
            ),
            (
                "P\nAllowedIPs=1.2.3.4,",
                "3: AllowedIPs: Unable to parse IP address: `'",
            ),
            (
                "P\nAllowedIPs=10.0.0.0/33",
                "3: AllowedIPs: AllowedIP is not in the correct format: `10.0.0.0/33' (the prefix length \
                 of an IPv4 address is a number from 0 to 32)",
            ),
            (
                "P\nEndpoint=[::1",
                "3: Endpoint: Unable to find matching brace of endpoint: `[::1'",
            ),
            (
                "P\nEndpoint=vpn.example",
                "3: Endpoint: Unable to find port of endpoint: `vpn.example'",
            ),
            (
                "P\nEndpoint=vpn.example:99999",
                "3: Endpoint: Port is neither 0-65535 nor the name of a service: `99999'",
            ),
            (
                &format!("P\nEndpoint={long}"),
                &format!(
                    "3: Endpoint: Unable to find port of endpoint: `{}'",
                    "(hidden)"
                ),
            ),
            (
                &format!("I\nPrivateKey={short}"),
                &format!("2: PrivateKey: {key}: a base64 key has 44 characters, not 43"),
            ),
            (
                &format!("P\nPresharedKey={spare}"),
                &format!("3: PresharedKey: {key}: not the base64 form of a 32-byte key"),
            ),
            (
                &format!("[Peer]\nPublicKey={short}"),
                &format!("2: PublicKey: {key}: a base64 key has 44 characters, not 43"),
            ),
        ] {
            assert_eq!(
                first_error(text, Dialect::Wg),
                format!("f:{expected}"),
                "{text}"
            );
        }
        let (_, errors) = read_file("f", b"[Interface]\n\xe9=1", Dialect::Wg);
        assert_eq!(errors[0].to_string(), "f:2: Line unrecognized: `\u{fffd}'");
    }

    #[test]
    fn errors_contain_no_key() {
        let secret = "oJ7v3VvCvK1kG0hS4mWvQW3t0C2kz3zQmJ5cJz9R8E4=";
        let (half, rest) = secret.split_at(22);
        for text in [
            format!("[Interface]\nPrivateKye={secret}"),
            format!("[Interface]\nPrivateKey={secret}x"),
            format!("[Interface]\nPrivateKey {secret}"),
            format!("[Interface]\nPrivateKey:{secret}"),
            format!("[Interface]\nPrivateKey={half}\n{rest}"),
            format!("[Interface]\nPrivateKey=\n{secret}"),
            format!("[Interface]\n{secret}"),
            format!("[Interface]\nListenPort={secret}\nFwMark={secret}"),
            format!("{secret}\n"),
            format!("[{secret}]\n[{secret}"),
            format!("[Peer]\nPresharedKey='{secret}'\nEndpoint={secret}:1\nAllowedIPs={secret}/"),
            format!("[Peer]\nEndpoint={secret}\nPersistentKeepalive={secret}"),
            format!("[Interface]\n\u{e9}{secret}\n"),
        ] {
            for dialect in [Dialect::Wg, Dialect::WgQuick] {
                let (_, errors) = read_file("f", text.as_bytes(), dialect);
                assert!(!errors.is_empty(), "{text}");
                for error in errors {
                    let said = format!("{error} {error:?}");
                    for piece in 0..secret.len() - 9 {
                        let piece = &secret[piece..piece + 9];
                        assert!(!said.contains(piece), "{said} of {text}");
                    }
                }
            }
        }
    }

    #[test]
    fn all_errors_are_reported_in_order() {
        let text = format!(
            "[Interface]\nListenPrt = 1\nPrivateKey = short\n[Peer]\nEndpoint = nowhere\n\
             [Peer]\nPublicKey = {KEY}\nDNS = 1.1.1.1\n"
        );
        let errors = parse_file("wg0.conf", text.as_bytes()).unwrap_err();
        let lines: Vec<_> = errors
            .iter()
            .map(|error| match &error.position {
                Position::Line { line, .. } => *line,
                Position::CommandLine => 0,
            })
            .collect();
        assert_eq!(lines, [2, 3, 4, 5, 8]);
        assert_eq!(
            errors[0].to_string(),
            "wg0.conf:2: Line unrecognized: `ListenPrt' (did you mean `ListenPort'?)"
        );
    }
}
