//! `wg-rs link`: interfaces made, deleted, listed and moved.
//!
//! `add` reads and resolves all it is given before it makes anything; a step that fails takes back
//! what was made. A signal waits until what was begun is done: a link halfway has no addresses.

use std::ffi::OsString;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};

use super::context::{Context, complain};
use super::out::print;
use crate::backend::{Backends, Kind};
use crate::config::{self, Apply, value};
use crate::daemon::options::interface_name;
use crate::place::{self, Backend, Located, Namespace, Placed, reason};
use crate::sys::netlink::{self, Address, Netlink};
use crate::sys::netns::NetNs;
use crate::sys::secrets;
use crate::uapi::types::Change;

const NAMESPACES: &str = "\
Namespaces:
  NAME              as `ip netns' knows it, in /run/netns
  pid:N             that of a process
  path:FILE         the one a file stands for
  docker:CONTAINER  that of a container, by its name or id
  podman:CONTAINER
  init              that of process 1";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    about = "Makes, deletes, lists and moves WireGuard interfaces",
    after_help = "Example:\n  wg-rs link add wg0 --netns docker:web --config wg0.conf --address 10.0.0.2/24 --up",
    disable_help_subcommand = true
)]
struct Link {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Creates an interface, whose encrypted traffic leaves from here wherever it is placed
    #[command(after_help = format!("{NAMESPACES}\n\nExample:\n  \
        wg-rs link add wg0 --netns web --config wg0.conf --address 10.0.0.2/24 --up"))]
    Add(Add),
    /// Deletes an interface, wherever it lives, or in the namespace given with --netns
    #[command(after_help = "Example:\n  wg-rs link del wg0")]
    Del {
        /// Which
        #[arg(value_name = "INTERFACE")]
        interface: String,
    },
    /// Lists all interfaces: who keeps them, where they live, where their sockets were born
    #[command(after_help = "Example:\n  wg-rs link list --json")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Moves an interface, found as by del; its addresses go with it, routes over it do not
    #[command(after_help = format!("{NAMESPACES}\n\nExample:\n  wg-rs link move wg0 init"))]
    Move {
        /// Which
        #[arg(value_name = "INTERFACE")]
        interface: String,
        /// Where to
        #[arg(value_name = "NAMESPACE")]
        netns: Namespace,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Name of the interface to create
    #[arg(value_name = "INTERFACE", value_parser = interface_name)]
    interface: String,
    /// Where it is to live, if not here
    #[arg(long, value_name = "NAMESPACE")]
    netns: Option<Namespace>,
    /// Who is to keep it
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// File with its configuration, as for `setconf'
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its addresses, separated by commas; may be given several times
    #[arg(long, value_name = "ADDRESS[/PREFIX]", value_delimiter = ',', value_parser = address)]
    address: Vec<(IpAddr, u8)>,
    /// Largest packet, in bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
    /// Set it up
    #[arg(long)]
    up: bool,
}

fn address(text: &str) -> Result<(IpAddr, u8), String> {
    let address = value::address(text).map_err(|reason| reason.to_string())?;
    Ok((address.ip, address.prefix))
}

/// Runs `wg-rs link`.
pub(crate) fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let program = format!("{} link", context.program);
    let words = [OsString::from(&program)];
    let command = Link::command().bin_name(program);
    let link = command
        .try_get_matches_from(words.iter().chain(args))
        .and_then(|matches| Link::from_arg_matches(&matches));
    let link = match link {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return print(error.to_string()),
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return complain(error.to_string().trim_end());
        }
        Err(error) => return complain(one_line(&error)),
    };
    let done = match link.deed {
        Deed::Add(add) => add.run(),
        Deed::Del { interface } => delete(context, &interface).map_err(|error| error.to_string()),
        Deed::Move { interface, netns } => {
            move_to(context, &interface, &netns).map_err(|error| error.to_string())
        }
        Deed::List { json } => match place::list() {
            Ok(placed) => {
                return print(if json {
                    as_json(&placed)
                } else {
                    table(&placed)
                });
            }
            Err(error) => Err(format!("Unable to list interfaces: {error}")),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => complain(message),
    }
}

/// What clap has to say, without usage and tips.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let said = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").into()
}

fn delete(context: &Context, interface: &str) -> Result<(), place::Error> {
    let link = context.interfaces.locate(interface)?;
    let _uninterrupted = Uninterrupted::begin();
    link.delete()
}

fn move_to(context: &Context, interface: &str, netns: &Namespace) -> Result<(), place::Error> {
    let target = netns.open()?;
    let mut link = context.interfaces.locate(interface)?;
    let _uninterrupted = Uninterrupted::begin();
    link.move_to(netns, target)
}

impl Add {
    fn run(&self) -> Result<(), String> {
        let changes = self.config.as_deref().map(changes).transpose()?;
        let target = match &self.netns {
            Some(namespace) => Some((
                namespace,
                namespace.open().map_err(|error| error.to_string())?,
            )),
            None => None,
        };
        let _uninterrupted = Uninterrupted::begin();
        let mut link =
            place::create(&self.interface, self.backend).map_err(|error| error.to_string())?;
        let Err(trouble) = self.finish(&mut link, changes.as_deref(), target) else {
            return Ok(());
        };
        Err(match link.delete() {
            Ok(()) => trouble,
            Err(stuck) => format!("{trouble}; and then: {stuck}"),
        })
    }

    fn finish(
        &self,
        link: &mut Located,
        changes: Option<&[Change]>,
        target: Option<(&Namespace, NetNs)>,
    ) -> Result<(), String> {
        if let Some(changes) = changes {
            // Where it was born: that is where the kernel's is to be found.
            Backends::new()
                .set(&self.interface, changes)
                .map_err(|error| format!("Unable to modify interface: {error}"))?;
        }
        if let Some((namespace, target)) = target {
            link.move_to(namespace, target)
                .map_err(|error| error.to_string())?;
        }
        link.run(|| self.set_up())
            .map_err(|error| reason(&error))?
            .map_err(|error| reason(&error))
    }

    fn set_up(&self) -> Result<(), netlink::Error> {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(&self.interface)?.index;
        if let Some(mtu) = self.mtu {
            netlink.set_mtu(link, mtu)?;
        }
        // Up before it has addresses: an IPv6 one given before serves only some time after.
        if self.up {
            netlink.set_up(link, true)?;
        }
        for &(ip, prefix) in &self.address {
            if ip.is_ipv6() {
                place::allow_ipv6(&self.interface);
            }
            netlink.add_address(&Address { link, ip, prefix })?;
        }
        Ok(())
    }
}

/// Reads a configuration file and looks up its endpoints. Warnings are said at once.
fn changes(file: &Path) -> Result<Vec<Change>, String> {
    let name = file.display().to_string();
    let text = secrets::read(file).map_err(|error| format!("{name}: {}", reason(&error)))?;
    let settings = config::parse_file(&name, &text).map_err(|errors| {
        let first = errors.first().map(ToString::to_string);
        first.unwrap_or_default()
    })?;
    for warning in settings.warnings() {
        complain(warning);
    }
    settings
        .changes(Apply::SetConf, config::look_up)
        .map_err(|error| error.to_string())
}

/// While this is held, the signals by which a user ends a program wait.
struct Uninterrupted(SigSet);

impl Uninterrupted {
    fn begin() -> Self {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        let before = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
        let _ = signals.thread_block();
        Uninterrupted(before)
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        let _ = self.0.thread_set_mask();
    }
}

fn backend(kind: Kind) -> &'static str {
    match kind {
        Kind::Userspace => "userspace",
        Kind::Kernel => "kernel",
    }
}

fn as_json(placed: &[Placed]) -> String {
    let namespace = |namespace: &Option<Namespace>| namespace.as_ref().map(ToString::to_string);
    let link = |link: &Placed| {
        json!({
            "name": link.name,
            "backend": backend(link.backend),
            "livesIn": namespace(&link.lives_in),
            "bornIn": namespace(&link.born_in),
            "up": link.up,
            "pid": link.pid,
        })
    };
    let links: Vec<Value> = placed.iter().map(link).collect();
    format!("{:#}\n", Value::from(links))
}

fn table(placed: &[Placed]) -> String {
    let unknown = || "-".to_owned();
    let namespace = |namespace: &Option<Namespace>| {
        namespace.as_ref().map_or_else(unknown, ToString::to_string)
    };
    let head = ["INTERFACE", "BACKEND", "LIVES IN", "BORN IN", "STATE"];
    let mut rows = vec![head.map(String::from)];
    rows.extend(placed.iter().map(|link| {
        let state = match link.up {
            Some(true) => "up".into(),
            Some(false) => "down".into(),
            None => unknown(),
        };
        [
            link.name.clone(),
            backend(link.backend).into(),
            namespace(&link.lives_in),
            namespace(&link.born_in),
            state,
        ]
    }));
    if rows.len() == 1 {
        return String::new();
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..head.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Link, String> {
        Link::try_parse_from([&["wg-rs link"], args].concat()).map_err(|error| one_line(&error))
    }

    #[test]
    fn the_command_line_is_sound() {
        Link::command().debug_assert();
    }

    #[test]
    fn everything_that_add_takes() {
        let args = "add wg0 --netns docker:web --backend kernel --config a.conf \
                    --address 10.0.0.2/24,fd00::2 --address 10.1.0.2 --mtu 1280 --up";
        let args: Vec<_> = args.split_whitespace().collect();
        let Deed::Add(add) = parse(&args).unwrap().deed else {
            panic!("not add");
        };
        assert_eq!(add.interface, "wg0");
        assert_eq!(add.netns, Some(Namespace::Docker("web".into())));
        assert_eq!(add.backend, Backend::Kernel);
        let addresses = [("10.0.0.2", 24), ("fd00::2", 128), ("10.1.0.2", 32)];
        assert_eq!(
            add.address,
            addresses.map(|(ip, prefix)| (ip.parse().unwrap(), prefix))
        );
        assert_eq!((add.mtu, add.up), (Some(1280), true));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (args, line) in [
            (
                &["add"][..],
                "the following required arguments were not provided: <INTERFACE>",
            ),
            (
                &["add", "a/b"],
                "invalid value 'a/b' for '<INTERFACE>': an interface name has no",
            ),
            (
                &["add", "wg0", "--address", "10.0.0.2/33"],
                "is not an IP address with an optional prefix length",
            ),
            (
                &["add", "wg0", "--address", "wg1"],
                "is not an IP address with an optional prefix length",
            ),
            (&["add", "wg0", "--mtu", "9"], "9 is not in 68..=65535"),
            (
                &["add", "wg0", "--netns", "pid:x"],
                "`pid:x' is no namespace: after pid: comes",
            ),
            (&["add", "wg0", "--backend", "go"], "invalid value 'go'"),
            (&["move", "wg0"], "not provided: <NAMESPACE>"),
            (&["list", "wg0"], "unexpected argument 'wg0' found"),
            (&["rename"], "unrecognized subcommand 'rename'"),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.contains(line), "{args:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(!error.starts_with("error"), "{error}");
        }
    }

    #[test]
    fn tables_line_up_and_json_has_every_field() {
        let placed = [
            Placed {
                name: "wg0".into(),
                backend: Kind::Userspace,
                lives_in: Some(Namespace::Docker("web".into())),
                born_in: Some(Namespace::Init),
                up: Some(true),
                pid: Some(7),
            },
            Placed {
                name: "a".into(),
                backend: Kind::Kernel,
                lives_in: None,
                born_in: None,
                up: Some(false),
                pid: None,
            },
        ];
        assert_eq!(
            table(&placed),
            "INTERFACE  BACKEND    LIVES IN    BORN IN  STATE\n\
             wg0        userspace  docker:web  init     up\n\
             a          kernel     -           -        down\n"
        );
        assert_eq!(table(&[]), "");
        let read: Value = serde_json::from_str(&as_json(&placed)).unwrap();
        assert_eq!(
            read,
            json!([
                {"name": "wg0", "backend": "userspace", "livesIn": "docker:web",
                 "bornIn": "init", "up": true, "pid": 7},
                {"name": "a", "backend": "kernel", "livesIn": null,
                 "bornIn": null, "up": false, "pid": null}
            ])
        );
    }
}
