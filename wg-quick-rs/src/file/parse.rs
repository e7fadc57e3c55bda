//! A file of wg-quick(8), parsed.
//!
//! ```text
//! text ─► lines of [Interface] that are ours ─► addresses, DNS, MTU, table, hooks, SaveConfig
//!      └► all others, the ones taken blanked (line numbers stay) ─► wg_rs::config ─► settings
//! ```
//! All errors are found at once. Keys never show in one.

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
use wg_rs::config::{self, BYTE_ORDER_MARK, Dialect, Position, Settings, WG_QUICK, value};

pub use wg_rs::config::Address;
use zeroize::Zeroizing;

use crate::file::table::Table;

/// Where a file is looked for that is given by its interface only.
pub const FOLDER: &str = "/etc/wireguard";
/// Longest name of an interface.
const LONGEST_NAME: usize = 15;

/// The file.
#[derive(Debug, Default)]
pub struct File {
    /// Where it is, symbolic links resolved.
    pub path: PathBuf,
    /// The interface it is for.
    pub interface: String,
    /// `Address`, in order.
    pub addresses: Vec<ConfigValue<Address>>,
    /// `DNS`.
    pub dns: Dns,
    /// `MTU`; computed if there is none.
    pub mtu: Option<ConfigValue<u32>>,
    /// `Table`.
    pub table: Table,
    /// `PreUp`, `PostUp`, `PreDown`, `PostDown`.
    pub hooks: Hooks,
    /// `SaveConfig`.
    pub save_config: bool,
    /// What is for `wg`.
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

/// `DNS`, word by word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Servers.
    pub servers: Vec<String>,
    /// Domains to search.
    pub search: Vec<String>,
}

/// A line of shell: any bytes but NUL, for a file's name need not be text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook(Vec<u8>);

impl Hook {
    /// As it is run: `%i` is the interface.
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

    /// To look for words in; what is not UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

/// Lines of shell, each to be run at its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Once the interface exists, before anything else.
    pub pre_up: Vec<ConfigValue<Hook>>,
    /// When all is up.
    pub post_up: Vec<ConfigValue<Hook>>,
    /// While all is up still.
    pub pre_down: Vec<ConfigValue<Hook>>,
    /// When nothing is left.
    pub post_down: Vec<ConfigValue<Hook>>,
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file, as it was called.
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
            // Texts that scripts know name the file themselves.
            None => f.write_str(&self.message),
        }
    }
}

impl Hooks {
    /// Those of a key, if it is one of hooks.
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
    /// Neither a server nor a domain.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.search.is_empty()
    }
}

/// Where the file of an argument is, and which interface it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// As it was given, or in [`FOLDER`].
    pub path: PathBuf,
    /// The interface.
    pub interface: String,
}

impl Location {
    /// An argument that could be an interface's name always is one.
    ///
    /// # Errors
    /// There is no such file, or its name is not an interface's with `.conf` behind it.
    pub fn of(argument: &str) -> Result<Self, Error> {
        let path = if is_name(argument) {
            PathBuf::from(format!("{FOLDER}/{argument}.conf"))
        } else {
            PathBuf::from(argument)
        };
        let fail = |message: String| Error {
            file: path.to_string_lossy().into(),
            line: None,
            message,
        };
        if !path.exists() {
            let hint = meant(argument).unwrap_or_default();
            return Err(fail(format!("`{}' does not exist{hint}", path.display())));
        }
        let interface = path.to_str().and_then(|path| {
            let name = path.rsplit('/').next()?.strip_suffix(".conf")?;
            (is_name(name) && name != "." && name != "..").then_some(name)
        });
        match interface {
            Some(interface) => Ok(Location {
                interface: interface.into(),
                path,
            }),
            None => Err(fail(
                "The config file must be a valid interface name, followed by .conf".into(),
            )),
        }
    }

    /// The resolved path of a file that everyone may read, in a folder that everyone may enter.
    pub fn world_accessible(&self) -> Option<PathBuf> {
        let path = fs::canonicalize(&self.path).ok()?;
        let mode = |path: &Path| fs::metadata(path).as_ref().map_or(0, mode);
        (mode(&path) & mode(path.parent()?) & 0o007 != 0).then_some(path)
    }

    /// What can be understood of it, and what is wrong with the rest.
    ///
    /// # Errors
    /// It cannot be read.
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

/// What to say instead of a name that ends with `.conf`, if that is the name of a file.
fn meant(argument: &str) -> Option<String> {
    let name = argument.strip_suffix(".conf")?;
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

/// Whether `text` can be an interface's name for wg-quick.
pub fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b);
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(allowed)
}

/// Parses the text of a file that errors call `name`: what can be understood, and what is wrong
/// with the rest, in the order of lines.
pub fn parse(name: &str, interface: &str, text: &[u8]) -> (File, Vec<Error>) {
    let mut reader = Reader {
        name: name.into(),
        file: File {
            interface: interface.into(),
            // All there will be: what holds keys is not moved about.
            stripped: Zeroizing::new(Vec::with_capacity(text.len() + 2)),
            ..File::default()
        },
        errors: Vec::new(),
    };
    let mut blanked = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    let mut section = Section::Other;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    for (line, number) in text.split(|b| *b == b'\n').zip(1..) {
        let line = line.trim_ascii();
        let bare = before_comment(line);
        if bare.starts_with(b"[") {
            section = Section::of(bare);
        }
        let taken = match section {
            Section::Interface => reader.take(line, number),
            Section::Peer => is_empty_allowed_ips(bare),
            Section::Other => false,
        };
        if !taken {
            blanked.extend_from_slice(line);
            reader.file.stripped.extend_from_slice(line);
            reader.file.stripped.push(b'\n');
        }
        blanked.push(b'\n');
    }
    let (settings, errors) = config::read_file(name, &blanked, Dialect::WgQuick);
    reader.file.settings = settings;
    reader.errors.extend(errors.into_iter().map(Error::from));
    // Stable: of one line, in the order found.
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

enum Section {
    Interface,
    Peer,
    Other,
}

impl Section {
    fn of(bare: &[u8]) -> Self {
        let tight: Vec<u8> = bare
            .iter()
            .copied()
            .filter(|b| !b.is_ascii_whitespace())
            .collect();
        if tight.eq_ignore_ascii_case(b"[Interface]") {
            Section::Interface
        } else if tight.eq_ignore_ascii_case(b"[Peer]") {
            Section::Peer
        } else {
            Section::Other
        }
    }
}

/// It says that there are none, and `wg` would not understand.
fn is_empty_allowed_ips(bare: &[u8]) -> bool {
    let key = bare.strip_suffix(b"=").map(<[u8]>::trim_ascii_end);
    key.is_some_and(|key| key.eq_ignore_ascii_case(b"AllowedIPs"))
}

fn before_comment(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|b| *b == b'#').unwrap_or(line.len());
    line[..end].trim_ascii_end()
}

struct Reader {
    name: Arc<str>,
    file: File,
    errors: Vec<Error>,
}

impl Reader {
    /// Takes a line of `[Interface]` if it is one of ours.
    fn take(&mut self, line: &[u8], number: usize) -> bool {
        let bare = before_comment(line);
        let equals = bare.iter().position(|b| *b == b'=');
        let key = bare[..equals.unwrap_or(bare.len())].trim_ascii_end();
        let Some(key) = WG_QUICK
            .iter()
            .find(|ours| key.eq_ignore_ascii_case(ours.as_bytes()))
        else {
            return false;
        };
        let Some(equals) = equals else {
            self.wrong(number, format!("{key}: `=' and a value are missing"));
            return true;
        };
        if let Some(hooks) = self.file.hooks.of(key) {
            // A `#` may mean something to a shell. As bash reads a line: without NULs.
            let value = line[equals + 1..].trim_ascii().iter().copied();
            let value: Vec<u8> = value.filter(|b| *b != 0).collect();
            if !value.is_empty() {
                let value = Hook(value);
                hooks.push(ConfigValue {
                    line: number,
                    value,
                });
            }
            return true;
        }
        match str::from_utf8(&bare[equals + 1..]) {
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
                        .map_err(|_| format!("`{text}' is not a number of bytes"))
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
                    _ => return Err(format!("`{value}' is neither true nor false")),
                };
            }
        }
        Ok(())
    }
}

/// Whether a word of `DNS` is taken for a server, and not for a domain to search.
pub fn is_server(word: &str) -> bool {
    word.contains(':') || word.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn words(value: &str) -> impl Iterator<Item = &str> {
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
    fn everything_of_ours() {
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
    fn a_byte_order_mark_is_not_seen() {
        let file = good("\u{feff}[Interface]\nMTU = 1300\nListenPort = 1\n");
        assert_eq!(file.mtu.map(|mtu| (mtu.line, mtu.value)), Some((2, 1300)));
        assert_eq!(&**file.stripped, b"[Interface]\nListenPort = 1\n");
    }

    #[test]
    fn hooks_are_bytes() {
        let text = b"[Interface]\nPostUp = touch /tmp/caf\xe9-%i%i%\0%\n";
        let (file, errors) = parse("wg0.conf", "wg0", text);
        assert_eq!(errors, []);
        let hook = &file.hooks.post_up[0].value;
        let command = hook.command("wg0").into_vec();
        assert_eq!(command, b"touch /tmp/caf\xe9-wg0wg0%%");
        assert_eq!(hook.text(), "touch /tmp/caf\u{fffd}-%i%i%%");
    }

    #[test]
    fn later_ones_count_and_empty_ones_say_nothing() {
        let file =
            good("[Interface]\nMTU=1300\nMTU=\nTable=5\nTable=auto\nDNS=\nAddress=\nPreUp=\n");
        assert_eq!(file.mtu, None);
        assert_eq!(file.table, Table::Auto);
        assert!(file.dns.is_empty() && file.addresses.is_empty() && file.hooks == Hooks::default());
    }

    #[test]
    fn no_allowed_ips_is_said_kindly() {
        let text =
            "[Peer]\nPublicKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nAllowedIPs =\n";
        let file = good(text);
        assert!(file.settings.peers[0].allowed_ips.is_empty());
        assert!(!file.stripped.ends_with(b"AllowedIPs =\n"));
    }

    #[test]
    fn all_errors_with_their_lines() {
        let text = "[Interface]\nAddress = 10.0.0.1/33\nMTU = big\nSaveConfig = maybe\nFoo = 1\nDNS\n\
                    Table = no-such-table\n[Peer]\nAddress = 10.0.0.2\n";
        let (_, errors) = parse("wg0.conf", "wg0", text.as_bytes());
        let lines: Vec<_> = errors.iter().filter_map(|error| error.line).collect();
        for line in [2, 3, 4, 5, 6, 7, 9] {
            assert!(lines.contains(&line), "{line} in {errors:?}");
        }
        assert_eq!(
            errors[0].to_string(),
            "wg0.conf:2: Address: `10.0.0.1/33' is not an IP address with an optional prefix length"
        );
        assert_eq!(
            errors[2].to_string(),
            "wg0.conf:4: SaveConfig: `maybe' is neither true nor false"
        );
    }

    #[test]
    fn names_and_paths() {
        assert!(is_name("wg0") && is_name("a_=+.-b") && is_name("fifteen-chars-x"));
        assert!(!is_name("") && !is_name("sixteen-chars-xx") && !is_name("a/b") && !is_name("a b"));
        let error = Location::of("no-such-tunnel").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`/etc/wireguard/no-such-tunnel.conf' does not exist"
        );
        let error = Location::of("/dev/null").unwrap_err();
        assert_eq!(
            error.to_string(),
            "The config file must be a valid interface name, followed by .conf"
        );
    }
}
