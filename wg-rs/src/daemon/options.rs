//! The command line and the environment of `wireguard-rs`, including those of `wireguard-go`.

use std::ffi::OsString;
use std::str::FromStr;
use std::sync::LazyLock;

use clap::{Parser, ValueEnum};
use wg_crypto::AeadBackend;

use crate::sys::process::background;
use crate::sys::udp::segmentation_corrupts;
use crate::tunnel::timers;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "wireguard-rs",
    version = long_version(),
    disable_version_flag = true,
    about = "A WireGuard interface in userspace that behaves like the kernel module",
    after_help = "Example:\n  wireguard-rs wg0 && wg setconf wg0 /etc/wireguard/wg0.conf && ip link set wg0 up\n\n\
                  Returns when the interface and its UAPI socket exist. See wireguard-rs(8)."
)]
pub struct Options {
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,

    /// Turn offloads on or off: a comma-separated list of tso, uso, tunnels, gso and gro, each with
    /// =on or =off; or `off' to turn all of them off
    #[arg(
        long,
        value_name = "LIST",
        env = "WG_OFFLOAD",
        default_value = "",
        hide_default_value = true
    )]
    pub offload: Offloads,

    /// Threads per direction that help while packets are waiting [default: by the number of cores]
    #[arg(long, value_name = "N", env = "WG_WORKERS", value_parser = clap::value_parser!(u8).range(0..=64))]
    pub workers: Option<u8>,

    /// Whether seccomp and Landlock restrict the daemon once it runs
    #[arg(
        long,
        env = "WG_SANDBOX",
        default_value = "on",
        hide_default_value = true
    )]
    pub sandbox: Switch,

    /// Print the version, and how data is encrypted
    #[arg(short = 'V', short_alias = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,

    /// Name of the interface to create
    #[arg(value_name = "INTERFACE", value_parser = interface_name)]
    pub interface: String,
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// In use.
    On,
    /// Not in use.
    Off,
}

/// What a build with other timers says of itself.
pub const TEST_BUILD: &str =
    "TEST BUILD, NOT FOR USE: its timers are 20 times as fast as WireGuard's";

/// The version, and on the next line the AEAD that the daemon would use.
fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let version = env!("CARGO_PKG_VERSION");
        let aead = aead(|name| std::env::var_os(name));
        let aead = aead.map_or_else(|error| error, |aead| aead.to_string());
        let version = format!("{version}\nTransport AEAD: {aead}");
        match timers::SPEED {
            1 => version,
            _ => format!("{version}\n{TEST_BUILD}"),
        }
    });
    &TEXT
}

/// The AEAD that `WG_AEAD` selects. By default the fastest one that this CPU can run.
///
/// # Errors
/// The value is unknown, or this CPU cannot run the selected AEAD.
pub fn aead(var: impl Fn(&str) -> Option<OsString>) -> Result<AeadBackend, String> {
    let value = var("WG_AEAD").unwrap_or_default();
    match value.to_string_lossy().as_ref() {
        "" => Ok(AeadBackend::fastest()),
        "library" => Ok(AeadBackend::Library),
        "avx512" => AeadBackend::avx512()
            .ok_or_else(|| "WG_AEAD=avx512: this CPU lacks AVX-512 (IFMA, VBMI2)".into()),
        other => Err(format!(
            "WG_AEAD: `{other}' is neither `library' nor `avx512'"
        )),
    }
}

/// The offloads that may be used. Each is also tested, and disabled at run time if it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// TCP super-packets to and from the TUN device.
    pub tso: bool,
    /// UDP super-packets to and from the TUN device (Linux 6.2).
    pub uso: bool,
    /// TCP super-packets inside VXLAN or Geneve from the TUN device (Linux 6.17). Off by default: no rate
    /// was seen to rise, as the receiving end still takes the packets one by one.
    pub tunnels: bool,
    /// `UDP_SEGMENT` on the sockets. None: used unless this kernel is known to corrupt segments.
    pub gso: Option<bool>,
    /// `UDP_GRO` on the sockets.
    pub gro: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Offloads {
            tso: true,
            uso: true,
            tunnels: false,
            gso: None,
            gro: true,
        }
    }
}

impl Offloads {
    /// Whether `UDP_SEGMENT` may be used.
    pub fn segments(&self) -> bool {
        self.gso.unwrap_or_else(|| !segmentation_corrupts())
    }

    /// A warning if `UDP_SEGMENT` is off although the user did not turn it off.
    pub fn warning(&self) -> Option<&'static str> {
        (self.gso.is_none() && !self.segments()).then_some(
            "this kernel (Linux 7.0 to 7.1.4) corrupts datagrams that are sent with UDP_SEGMENT, so \
             that is off and sending is slower; a newer kernel, or --offload gso=on, turns it on",
        )
    }
}

impl FromStr for Offloads {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let mut offloads = Offloads::default();
        for item in list
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (name, on) = match item.split_once('=') {
                Some((name, "on")) => (name, true),
                Some((name, "off")) => (name, false),
                None if item == "off" || item == "on" => ("all", item == "on"),
                _ => return Err(format!("`{item}' is not of the form NAME=on or NAME=off")),
            };
            match name {
                "tso" => offloads.tso = on,
                "uso" => offloads.uso = on,
                "tunnels" => offloads.tunnels = on,
                "gso" => offloads.gso = Some(on),
                "gro" => offloads.gro = on,
                "all" => {
                    offloads = Offloads {
                        tso: on,
                        uso: on,
                        tunnels: on,
                        gso: Some(on),
                        gro: on,
                    }
                }
                _ => {
                    return Err(format!(
                        "`{name}' is not one of tso, uso, tunnels, gso, gro"
                    ));
                }
            }
        }
        Ok(offloads)
    }
}

/// Checks a name: the kernel must accept it for a link (`dev_valid_name`), and it must be a valid
/// file name.
///
/// # Errors
/// What is wrong with the name.
pub fn interface_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > 15 {
        return Err("an interface name has 1 to 15 characters".into());
    }
    if name == "."
        || name == ".."
        || name.contains(['/', ':', '%'])
        || name.contains(char::is_whitespace)
    {
        return Err(
            "an interface name has no `/', `:', `%' or white space, and is not `.' or `..'".into(),
        );
    }
    Ok(name.into())
}

/// How much is logged: `LOG_LEVEL`, as in wireguard-go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing.
    Silent,
    /// Only failures and limitations. The default.
    Error,
    /// Also handshakes, peers and changes of the link.
    Verbose,
}

impl LogLevel {
    /// Returns the level with this name, if there is one.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "verbose" | "debug" => Some(LogLevel::Verbose),
            "error" => Some(LogLevel::Error),
            "silent" => Some(LogLevel::Silent),
            _ => None,
        }
    }
}

/// The environment variables that wireguard-go also has. `sys::process` reads those of inherited
/// descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `WG_PROCESS_FOREGROUND=1`.
    pub foreground: bool,
    /// `LOG_LEVEL`.
    pub log_level: LogLevel,
    /// A `LOG_LEVEL` that is none: wireguard-go, too, then logs errors. None in the background, where the
    /// parent has said so.
    pub unknown_level: Option<String>,
    /// Whether `LOG_LEVEL` is set: a background daemon then keeps its standard output and standard
    /// error.
    pub keep_stdio: bool,
    /// Whether this process was started in the background by a parent.
    pub in_background: bool,
}

impl Environment {
    /// Whether to log to syslog: a daemon in the background has no usable standard error, unless `LOG_LEVEL`
    /// requests it.
    pub fn logs_to_syslog(&self) -> bool {
        self.in_background && !self.keep_stdio
    }

    /// Reads the variables through `var`.
    pub fn read(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| var(name).map(|value| value.to_string_lossy().into_owned());
        let level = text("LOG_LEVEL").filter(|value| !value.is_empty());
        let known = level.as_deref().and_then(LogLevel::of_name);
        let in_background = var(background::READY_FD).is_some();
        Environment {
            foreground: text(background::FOREGROUND).as_deref() == Some("1"),
            log_level: known.unwrap_or(LogLevel::Error),
            keep_stdio: level.is_some(),
            unknown_level: level.filter(|_| known.is_none() && !in_background),
            in_background,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offload_list() {
        let all = Offloads::default();
        assert_eq!("".parse(), Ok(all));
        assert_eq!(
            "uso=off,gso=off".parse(),
            Ok(Offloads {
                uso: false,
                gso: Some(false),
                ..all
            })
        );
        let none = Offloads {
            tso: false,
            uso: false,
            tunnels: false,
            gso: Some(false),
            gro: false,
        };
        assert_eq!("off".parse(), Ok(none));
        assert_eq!("off, gro=on".parse(), Ok(Offloads { gro: true, ..none }));
        let tunnels = "tunnels=on".parse();
        assert!(!all.tunnels);
        assert_eq!(
            tunnels,
            Ok(Offloads {
                tunnels: true,
                ..all
            })
        );
        let on: Offloads = "gso=on".parse().unwrap();
        assert!(on.segments(), "on any kernel");
        assert!(on.warning().is_none() && none.warning().is_none());
        assert_eq!(all.segments(), all.warning().is_none());
        for bad in ["tso", "tso=maybe", "lro=off", "=off"] {
            assert!(bad.parse::<Offloads>().is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names() {
        for good in ["wg0", "a", "fifteen-chars-x", "wg_0=+.-"] {
            assert!(interface_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a:b",
            "wg%d",
            "sixteen-chars-xx",
        ] {
            assert!(interface_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn aead_of_the_environment() {
        let aead = |value: Option<&str>| {
            aead(|name| {
                assert_eq!(name, "WG_AEAD");
                value.map(OsString::from)
            })
        };
        assert_eq!(aead(None), Ok(AeadBackend::fastest()));
        assert_eq!(aead(Some("")), Ok(AeadBackend::fastest()));
        assert_eq!(aead(Some("library")), Ok(AeadBackend::Library));
        match AeadBackend::avx512() {
            Some(ours) => {
                assert_eq!(AeadBackend::fastest(), ours);
                assert_eq!(aead(Some("avx512")), Ok(ours));
            }
            None => assert!(aead(Some("avx512")).unwrap_err().contains("CPU")),
        }
        assert!(aead(Some("AVX512")).unwrap_err().contains("`AVX512'"));
    }

    #[test]
    fn command_line() {
        let parse = |args: &[&str]| Options::try_parse_from([&["wireguard-rs"], args].concat());
        assert!(parse(&["-f", "wg0"]).is_ok_and(|o| o.foreground && o.interface == "wg0"));
        assert!(parse(&["--foreground", "wg0"]).is_ok_and(|o| o.foreground));
        assert!(parse(&["wg0"]).is_ok_and(|o| !o.foreground && o.workers.is_none()));
        assert!(parse(&["wg0"]).is_ok_and(|o| o.sandbox == Switch::On));
        assert!(parse(&["--sandbox", "off", "wg0"]).is_ok_and(|o| o.sandbox == Switch::Off));
        assert!(parse(&["--sandbox", "no", "wg0"]).is_err());
        assert!(parse(&[]).is_err());
        assert!(parse(&["wg0", "wg1"]).is_err());
        for word in ["-v", "-V", "--version"] {
            let text = parse(&[word]).unwrap_err().to_string();
            assert!(
                text.starts_with("wireguard-rs ") && text.contains("AEAD"),
                "{text}"
            );
        }
    }

    #[test]
    fn environment_of_wireguard_go() {
        let read = |pairs: &[(&str, &str)]| {
            let find = |name: &str| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.into())
            };
            Environment::read(find)
        };
        let none = read(&[]);
        assert_eq!(
            (none.foreground, none.keep_stdio, none.log_level),
            (false, false, LogLevel::Error)
        );
        let some = read(&[("WG_PROCESS_FOREGROUND", "1"), ("LOG_LEVEL", "debug")]);
        assert_eq!(
            (some.foreground, some.keep_stdio, some.log_level),
            (true, true, LogLevel::Verbose)
        );
        assert_eq!((none.unknown_level, some.unknown_level), (None, None));
        let loud = read(&[("LOG_LEVEL", "loud")]);
        assert_eq!(
            (loud.log_level, loud.unknown_level.as_deref()),
            (LogLevel::Error, Some("loud"))
        );
        let child = read(&[("LOG_LEVEL", "loud"), (background::READY_FD, "3")]);
        assert_eq!(child.unknown_level, None);
    }
}
