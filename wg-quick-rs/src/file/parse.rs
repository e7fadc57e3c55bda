//! A file of wg-quick(8), parsed.
//!
//! ```text
//! text ─► the keys of wg-quick in [Interface] ─► addresses, DNS, MTU, table, hooks, SaveConfig
//!      └► all other lines (blank lines in place of those keys) ─► wg_rs::config ─► settings
//! ```
//! All errors are found at once. An error never contains a key.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wg_rs::config::lines::{Line, Section, What, lines};
use wg_rs::config::{self, BYTE_ORDER_MARK, Dialect, Position, Settings, WG_QUICK, shown, value};

pub use wg_rs::config::Address;
use zeroize::Zeroizing;

use crate::file::name::{broken_rule, broken_rule_of_name, is_name};
use crate::file::repeated::repeated;
use crate::file::table::Table;

/// The folder of files that are given by their interface.
pub const FOLDER: &str = "/etc/wireguard";
/// The error of wg-quick for the name of a file.
const NOT_A_NAME: &str = "The config file must be a valid interface name, followed by .conf";

/// A config file, parsed.
#[derive(Debug, Default)]
pub struct File {
    /// Its path, with symbolic links resolved.
    pub path: PathBuf,
    /// The interface that it is for.
    pub interface: String,
    /// `Address`, in order.
    pub addresses: Vec<ConfigValue<Address>>,
    /// `DNS`.
    pub dns: Dns,
    /// `MTU`, in bytes; `up` computes one if there is none.
    pub mtu: Option<ConfigValue<u32>>,
    /// `Table`.
    pub table: Table,
    /// `PreUp`, `PostUp`, `PreDown`, `PostDown`.
    pub hooks: Hooks,
    /// `SaveConfig`.
    pub save_config: bool,
    /// Lines whose key an earlier line has too, although only one counts, each with a warning.
    pub repeated: Vec<ConfigValue<String>>,
    /// The settings for `wg`.
    pub settings: Settings,
    /// The lines for `wg`, as `strip` prints them.
    pub stripped: Zeroizing<Vec<u8>>,
}

/// A value and the line it stands on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigValue<T> {
    /// The line.
    pub line: usize,
    /// The value.
    pub value: T,
}

/// The words of `DNS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
}

/// A shell command: any bytes but NUL, as the file names in it need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook(Vec<u8>);

impl Hook {
    /// The command to run, with the interface in place of `%i`.
    pub fn command(&self, interface: &str) -> OsString {
        let mut command = Vec::with_capacity(self.0.len());
        let mut rest = &self.0[..];
        while let Some((byte, behind)) = rest.split_first() {
            rest = match rest.strip_prefix(b"%i") {
                Some(behind) => {
                    command.extend_from_slice(interface.as_bytes());
                    behind
                }
                None => {
                    command.push(*byte);
                    behind
                }
            };
        }
        OsString::from_vec(command)
    }

    /// Its text, to search for words. Bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

/// The shell commands of the four hooks, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Run after the interface was created, before anything else.
    pub pre_up: Vec<ConfigValue<Hook>>,
    /// Run at the end of `up`.
    pub post_up: Vec<ConfigValue<Hook>>,
    /// Run at the beginning of `down`.
    pub pre_down: Vec<ConfigValue<Hook>>,
    /// Run at the end of `down`.
    pub post_down: Vec<ConfigValue<Hook>>,
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// The line, from 1; `None` for the file as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            // These texts, which scripts know, contain the name of the file.
            None => f.write_str(&self.message),
        }
    }
}

impl Hooks {
    /// The hooks of a key, if it is one of the four.
    fn of(&mut self, key: &str) -> Option<&mut Vec<ConfigValue<Hook>>> {
        match key {
            "PreUp" => Some(&mut self.pre_up),
            "PostUp" => Some(&mut self.post_up),
            "PreDown" => Some(&mut self.pre_down),
            "PostDown" => Some(&mut self.post_down),
            _ => None,
        }
    }
}

impl Dns {
    /// Whether there is neither a server nor a domain.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.search.is_empty()
    }
}

/// The path of a file, and the interface that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The path that was given, or the one in [`FOLDER`].
    pub path: PathBuf,
    /// The interface.
    pub interface: String,
}

fn path_of(argument: &str) -> PathBuf {
    match is_name(argument) {
        true => PathBuf::from(format!("{FOLDER}/{argument}.conf")),
        false => PathBuf::from(argument),
    }
}

impl Location {
    /// An argument that can be the name of an interface is always taken for one.
    ///
    /// # Errors
    /// There is no such file, or its name is not the name of an interface followed by `.conf`.
    pub fn of(argument: &str) -> Result<Self, Error> {
        let path = path_of(argument);
        if !path.exists() {
            let hint = meant(argument).unwrap_or_default();
            return Err(Error {
                file: path.to_string_lossy().into(),
                line: None,
                message: format!("`{}' does not exist{hint}", path.display()),
            });
        }
        Self::at(path)
    }

    /// The same for a file that need not exist.
    ///
    /// # Errors
    /// Its name is not the name of an interface followed by `.conf`.
    pub fn of_new(argument: &str) -> Result<Self, Error> {
        Self::at(path_of(argument))
    }

    fn at(path: PathBuf) -> Result<Self, Error> {
        let interface = path.to_str().and_then(|path| {
            let name = path.rsplit('/').next()?.strip_suffix(".conf")?;
            (is_name(name) && name != "." && name != "..").then_some(name)
        });
        match interface {
            Some(interface) => Ok(Location {
                interface: interface.into(),
                path,
            }),
            None => Err(Error {
                file: path.to_string_lossy().into(),
                line: None,
                message: format!("{NOT_A_NAME}\n{}", broken_rule(&path)),
            }),
        }
    }

    /// The resolved path of the file, if everyone may read it and enter its folder.
    pub fn world_accessible(&self) -> Option<PathBuf> {
        let path = fs::canonicalize(&self.path).ok()?;
        let mode = |path: &Path| fs::metadata(path).as_ref().map_or(0, mode);
        (mode(&path) & mode(path.parent()?) & 0o007 != 0).then_some(path)
    }

    /// What could be parsed of the file, and the errors in the rest.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_leniently(&self) -> Result<(File, Vec<Error>), Error> {
        let name: Arc<str> = self.path.to_string_lossy().into();
        let read = || -> io::Result<_> {
            let path = fs::canonicalize(&self.path)?;
            let text = Zeroizing::new(fs::read(&path)?);
            Ok((path, text))
        };
        let (path, text) = read().map_err(|error| Error {
            message: format!("{name}: {error}"),
            file: name.clone(),
            line: None,
        })?;
        let (mut file, errors) = parse(&name, &self.interface, &text);
        file.path = path;
        Ok((file, errors))
    }
}

/// A hint for a name that ends with `.conf`, if a file has that name, and for a name that cannot be an
/// interface's and so was taken for a path.
fn meant(argument: &str) -> Option<String> {
    let Some(name) = argument.strip_suffix(".conf") else {
        let rule = broken_rule_of_name(argument).filter(|_| !argument.contains('/'))?;
        return Some(format!("\n{rule}"));
    };
    if Path::new(argument).exists() {
        Some(format!(
            "; for the file in this directory, write `./{argument}'"
        ))
    } else if Path::new(FOLDER).join(argument).exists() {
        Some(format!("; for `{FOLDER}/{argument}', write `{name}'"))
    } else {
        None
    }
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode()
}

/// Parses the text of a file that errors call `name`. Returns what could be parsed, and the errors in
/// the rest, in the order of lines.
pub fn parse(name: &str, interface: &str, text: &[u8]) -> (File, Vec<Error>) {
    let mut reader = Reader {
        name: name.into(),
        file: File {
            interface: interface.into(),
            // Allocated once: a buffer with keys is not copied as it grows.
            stripped: Zeroizing::new(Vec::with_capacity(text.len() + 2)),
            ..File::default()
        },
        errors: Vec::new(),
    };
    let mut blanked = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    let mut section = Section::Other;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    for line in lines(text) {
        if let What::Head(head) = line.what
            && head != Section::Disabled
        {
            section = head;
        }
        let taken = match section {
            Section::Interface => reader.take(&line),
            Section::Peer => is_empty_allowed_ips(&line),
            Section::Disabled | Section::Other => false,
        };
        if !taken {
            let text = line.raw.trim_ascii();
            blanked.extend_from_slice(text);
            reader.file.stripped.extend_from_slice(text);
            reader.file.stripped.push(b'\n');
        }
        blanked.push(b'\n');
    }
    let repeated = repeated(text).into_iter();
    reader.file.repeated = repeated
        .map(|(line, value)| ConfigValue { line, value })
        .collect();
    let (settings, errors) = config::read_file(name, &blanked, Dialect::WgQuick);
    reader.file.settings = settings;
    reader.errors.extend(errors.into_iter().map(Error::from));
    // A stable sort: errors of one line stay in the order in which they were found.
    reader.errors.sort_by_key(|error| error.line);
    (reader.file, reader.errors)
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        let whole = error.to_string();
        let (file, line) = match &error.position {
            Position::Line { file, line } => (file.clone(), Some(*line)),
            Position::CommandLine => ("".into(), None),
        };
        let message = whole
            .strip_prefix(&error.position.to_string())
            .unwrap_or(&whole)
            .into();
        Error {
            file,
            line,
            message,
        }
    }
}

/// Whether the line is `AllowedIPs =` without a value, which `wg` would refuse.
fn is_empty_allowed_ips(line: &Line) -> bool {
    matches!(&line.what, What::Key(key, value)
        if value.is_empty() && line.raw[key.clone()].eq_ignore_ascii_case(b"AllowedIPs"))
}

struct Reader {
    name: Arc<str>,
    file: File,
    errors: Vec<Error>,
}

impl Reader {
    /// Reads a line of `[Interface]` if its key is one of wg-quick's. Returns whether it is.
    fn take(&mut self, line: &Line) -> bool {
        let number = line.number;
        let (key, value) = match &line.what {
            What::Key(key, value) => (&line.raw[key.clone()], Some(&line.raw[value.clone()])),
            What::Other => (line.plain(), None),
            What::Blank | What::Comment | What::Head(_) | What::Disabled => return false,
        };
        let Some(key) = WG_QUICK
            .iter()
            .find(|ours| key.eq_ignore_ascii_case(ours.as_bytes()))
        else {
            return false;
        };
        let Some(value) = value else {
            self.wrong(number, format!("{key}: `=' and a value are missing"));
            return true;
        };
        if let Some(hooks) = self.file.hooks.of(key) {
            // NUL bytes are dropped, as bash does.
            let value: Vec<u8> = value.iter().copied().filter(|b| *b != 0).collect();
            if !value.is_empty() {
                let value = Hook(value);
                hooks.push(ConfigValue {
                    line: number,
                    value,
                });
            }
            return true;
        }
        match str::from_utf8(value) {
            Ok(value) => {
                if let Err(message) = self.value(key, value.trim(), number) {
                    self.wrong(number, format!("{key}: {message}"));
                }
            }
            Err(_) => self.wrong(number, format!("{key}: not UTF-8 text")),
        }
        true
    }

    fn wrong(&mut self, line: usize, message: String) {
        self.errors.push(Error {
            file: self.name.clone(),
            line: Some(line),
            message,
        });
    }

    fn value(&mut self, key: &str, value: &str, line: usize) -> Result<(), String> {
        let file = &mut self.file;
        match key {
            "Address" => {
                for word in words(value) {
                    let value = value::address(word).map_err(|reason| reason.to_string())?;
                    file.addresses.push(ConfigValue { line, value });
                }
            }
            "DNS" => {
                for word in words(value) {
                    // The words are shown and passed to programs, and this may be a key.
                    if word.contains('=') {
                        return Err(format!(
                            "`{}' is neither an address nor a domain",
                            shown(word)
                        ));
                    }
                    let list = if is_server(word) {
                        &mut file.dns.servers
                    } else {
                        &mut file.dns.search
                    };
                    list.push(word.into());
                }
            }
            "MTU" => {
                let number = |text: &str| {
                    text.parse()
                        .map_err(|_| format!("`{}' is not a number of bytes", shown(text)))
                };
                file.mtu = match value {
                    "" => None,
                    value => Some(ConfigValue {
                        line,
                        value: number(value)?,
                    }),
                };
            }
            "Table" => file.table = value.parse()?,
            _ => {
                file.save_config = match value {
                    _ if value.eq_ignore_ascii_case("true") => true,
                    _ if value.eq_ignore_ascii_case("false") => false,
                    _ => return Err(format!("`{}' is neither true nor false", shown(value))),
                };
            }
        }
        Ok(())
    }
}

/// Whether a word of `DNS` is taken for a server and not for a search domain.
pub fn is_server(word: &str) -> bool {
    word.contains(':') || word.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// The words of a list, which commas and white space separate.
pub fn words(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(text: &str) -> File {
        let (file, errors) = parse("wg0.conf", "wg0", text.as_bytes());
        assert_eq!(errors, [], "{text}");
        file
    }

    fn values<T: Clone>(list: &[ConfigValue<T>]) -> Vec<T> {
        list.iter().map(|located| located.value.clone()).collect()
    }

    #[test]
    fn all_keys_of_wg_quick() {
        let file = good(
            "[Interface]\r\n\
             address = 10.0.0.1/24 , fd00::1/64 # two\r\n\
             Address=10.1.0.1\r\n\
             DNS = 1.1.1.1, example.org, fd00::53\r\n\
             MTU = 1280\n  TABLE = Off\n\
             PreUp = echo 1 # not a comment\n\
             PostUp = a=b; echo \"$a\"\nPostUp = second\nPreDown = c\nPostDown = d\n\
             #PostDown = no\n\
             SaveConfig = TRUE\n\
             ListenPort = 7\n",
        );
        assert_eq!(
            values(&file.addresses)
                .iter()
                .map(Address::to_string)
                .collect::<Vec<_>>(),
            ["10.0.0.1/24", "fd00::1/64", "10.1.0.1/32"]
        );
        assert_eq!(file.addresses[2].line, 3);
        assert_eq!(file.dns.servers, ["1.1.1.1", "fd00::53"]);
        assert_eq!(file.dns.search, ["example.org"]);
        assert_eq!(
            file.mtu,
            Some(ConfigValue {
                line: 5,
                value: 1280
            })
        );
        assert_eq!(file.table, Table::Off);
        let texts = |hooks: &[ConfigValue<Hook>]| -> Vec<String> {
            let texts = hooks.iter().map(|hook| hook.value.text().into_owned());
            texts.collect()
        };
        assert_eq!(texts(&file.hooks.pre_up), ["echo 1 # not a comment"]);
        assert_eq!(texts(&file.hooks.post_up), ["a=b; echo \"$a\"", "second"]);
        assert_eq!(texts(&file.hooks.pre_down), ["c"]);
        assert_eq!(texts(&file.hooks.post_down), ["d"]);
        assert!(file.save_config);
        assert_eq!(file.settings.listen_port, Some(7));
        let stripped = str::from_utf8(&file.stripped).unwrap();
        assert_eq!(stripped, "[Interface]\n#PostDown = no\nListenPort = 7\n");
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        let file = good("\u{feff}[Interface]\nMTU = 1300\nListenPort = 1\n");
        assert_eq!(file.mtu.map(|mtu| (mtu.line, mtu.value)), Some((2, 1300)));
        assert_eq!(&**file.stripped, b"[Interface]\nListenPort = 1\n");
    }

    #[test]
    fn hooks_may_contain_any_bytes() {
        let text = b"[Interface]\nPostUp = touch /tmp/caf\xe9-%i%i%\0%\n";
        let (file, errors) = parse("wg0.conf", "wg0", text);
        assert_eq!(errors, []);
        let hook = &file.hooks.post_up[0].value;
        let command = hook.command("wg0").into_vec();
        assert_eq!(command, b"touch /tmp/caf\xe9-wg0wg0%%");
        assert_eq!(hook.text(), "touch /tmp/caf\u{fffd}-%i%i%%");
    }

    #[test]
    fn the_last_value_counts_and_an_empty_one_resets() {
        let file =
            good("[Interface]\nMTU=1300\nMTU=\nTable=5\nTable=auto\nDNS=\nAddress=\nPreUp=\n");
        assert_eq!(file.mtu, None);
        assert_eq!(file.table, Table::Auto);
        assert!(file.dns.is_empty() && file.addresses.is_empty() && file.hooks == Hooks::default());
    }

    #[test]
    fn an_empty_allowed_ips_is_accepted() {
        let text =
            "[Peer]\nPublicKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nAllowedIPs =\n";
        let file = good(text);
        assert!(file.settings.peers[0].allowed_ips.is_empty());
        assert!(!file.stripped.ends_with(b"AllowedIPs =\n"));
    }

    #[test]
    fn all_errors_are_found_with_their_lines() {
        let text = "[Interface]\nAddress = 10.0.0.1/33\nMTU = big\nSaveConfig = maybe\nFoo = 1\nDNS\n\
                    Table = no-such-table\n[Peer]\nAddress = 10.0.0.2\n";
        let (_, errors) = parse("wg0.conf", "wg0", text.as_bytes());
        let lines: Vec<_> = errors.iter().filter_map(|error| error.line).collect();
        for line in [2, 3, 4, 5, 6, 7, 9] {
            assert!(lines.contains(&line), "{line} in {errors:?}");
        }
        assert_eq!(
            errors[0].to_string(),
            "wg0.conf:2: Address: `10.0.0.1/33' is not an IP address with an optional prefix length (the \
             prefix length of an IPv4 address is a number from 0 to 32)"
        );
        assert_eq!(
            errors[2].to_string(),
            "wg0.conf:4: SaveConfig: `maybe' is neither true nor false"
        );
    }

    #[test]
    fn a_key_in_the_wrong_place_is_not_shown() {
        let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        for name in ["MTU", "Table", "SaveConfig", "DNS", "Address"] {
            let text = format!("[Interface]\n{name} = {key}\n");
            let (_, errors) = parse("wg0.conf", "wg0", text.as_bytes());
            assert_eq!(errors.len(), 1, "{name}");
            let error = errors[0].to_string();
            assert!(
                error.starts_with(&format!("wg0.conf:2: {name}: ")),
                "{error}"
            );
            assert!(!error.contains("yAnz"), "{error}");
        }
    }

    #[test]
    fn names_and_paths() {
        let error = Location::of("no-such-tunnel").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`/etc/wireguard/no-such-tunnel.conf' does not exist"
        );
        let new = Location::of_new("no-such-tunnel").unwrap();
        assert_eq!(new.interface, "no-such-tunnel");
        assert!(Location::of_new("./..conf").is_err());
        let error = Location::of("/dev/null").unwrap_err();
        assert_eq!(
            error.to_string(),
            "The config file must be a valid interface name, followed by .conf\n\
             `/dev/null' does not end with `.conf'"
        );
        let error = Location::of("the-tunnel-of-alice").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`the-tunnel-of-alice' does not exist\n\
             `the-tunnel-of-alice' has 19 characters: the name of an interface has at most 15"
        );
    }
}
