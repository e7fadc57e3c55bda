//! `wg-rs link`: creates, deletes, lists and moves interfaces.
//!
//! `add` reads and resolves all its input before it creates anything. If a step fails, the new
//! interface is deleted. Signals are delayed until a command is complete, because a link that is
//! only half moved has no addresses.

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
use super::netns;
use super::out::print;
use crate::backend::{Backends, Kind};
use crate::config::{self, Apply, Hint, value};
use crate::daemon::options::interface_name;
use crate::model::Change;
use crate::place::{self, BackendChoice, FoundInterface, ListedInterface, Namespace, reason};
use crate::sys::netlink::{self, LinkAddress, Netlink};
use crate::sys::netns::NetNs;
use crate::sys::secrets;

const NAMESPACES: &str = "\
Namespaces:
  NAME              a name of `ip netns', in /run/netns
  pid:N             the namespace of a process
  path:FILE         the namespace that a file refers to
  docker:CONTAINER  the namespace of a container, by its name or ID
  podman:CONTAINER
  init              the namespace of process 1";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    about = "Create, delete, list and move WireGuard interfaces",
    after_help = "Example:\n  wg-rs link add wg0 --netns docker:web --config wg0.conf --address 10.0.0.2/24 --up",
    disable_help_subcommand = true
)]
struct LinkArguments {
    #[command(subcommand)]
    command: LinkCommand,
}

#[derive(Debug, Subcommand)]
enum LinkCommand {
    /// Create an interface; its encrypted packets always leave from the current namespace
    #[command(after_help = format!("{NAMESPACES}\n\nExample:\n  \
        wg-rs link add wg0 --netns web --config wg0.conf --address 10.0.0.2/24 --up"))]
    Add(Add),
    /// Delete an interface of the current namespace
    #[command(
        visible_alias = "delete",
        after_help = "Example:\n  wg-rs link del wg0"
    )]
    Del {
        /// Name of the interface
        #[arg(value_name = "INTERFACE")]
        interface: String,
        /// Namespace of the interface, if not the current one
        #[arg(long, value_name = "NAMESPACE")]
        netns: Option<Namespace>,
    },
    /// List all interfaces: their backend, their namespace, and the namespace of their sockets
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  wg-rs link list --json"
    )]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Move an interface of the current namespace; it keeps its addresses, but not its routes
    #[command(after_help = format!("{NAMESPACES}\n\nExample:\n  wg-rs link move wg0 docker:web"))]
    Move {
        /// Name of the interface
        #[arg(value_name = "INTERFACE")]
        interface: String,
        /// Namespace to move it to
        #[arg(value_name = "NAMESPACE")]
        target: Namespace,
        /// Namespace of the interface, if not the current one
        #[arg(long, value_name = "NAMESPACE")]
        netns: Option<Namespace>,
    },
}

/// The definition of the command line, for completion scripts.
pub(super) fn command() -> clap::Command {
    LinkArguments::command()
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Name of the interface to create
    #[arg(value_name = "INTERFACE", value_parser = interface_name)]
    interface: String,
    /// Namespace to place it in, if not the current one
    #[arg(long, value_name = "NAMESPACE")]
    netns: Option<Namespace>,
    /// Backend to use
    #[arg(long, value_enum, default_value_t)]
    backend: BackendChoice,
    /// Configuration file, in the format of `setconf'
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Addresses to add, separated by commas; may be given several times
    #[arg(long, value_name = "ADDRESS[/PREFIX]", value_delimiter = ',', value_parser = address)]
    address: Vec<(IpAddr, u8)>,
    /// MTU: size of the largest packet, in bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
    /// Bring the link up
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
    let command = LinkArguments::command().bin_name(program);
    let link = command
        .try_get_matches_from(words.iter().chain(args))
        .and_then(|matches| LinkArguments::from_arg_matches(&matches));
    let link = match link {
        Ok(link) => link,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return print(error.to_string()),
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return complain(error.to_string().trim_end());
        }
        Err(error) => return complain(one_line(&error)),
    };
    let done = match link.command {
        LinkCommand::Add(add) => add.run(),
        LinkCommand::Del { interface, netns } => {
            delete(&interface, netns.as_ref()).map_err(|error| error.to_string())
        }
        LinkCommand::Move {
            interface,
            target,
            netns,
        } => move_to(&interface, &target, netns.as_ref()).map_err(|error| error.to_string()),
        LinkCommand::List { json } => match place::list() {
            Ok(listed) => {
                return print(if json {
                    as_json(&listed, public_key)
                } else {
                    table(&listed)
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

/// The message and the tips of clap, without the usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraphs = text.split("\n\n").enumerate();
    let said = paragraphs.filter(|(n, text)| *n == 0 || text.trim_start().starts_with("tip:"));
    let lines = said.flat_map(|(_, text)| text.lines()).map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    let line = lines.join(" ").replace(" tip: ", "; ");
    line.trim_start_matches("error: ").into()
}

fn delete(interface: &str, netns: Option<&Namespace>) -> Result<(), place::Error> {
    netns.map_or(Ok(()), netns::enter)?;
    let _uninterrupted = Uninterrupted::begin();
    place::find(interface)?.delete()
}

fn move_to(interface: &str, to: &Namespace, netns: Option<&Namespace>) -> Result<(), place::Error> {
    let target = to.open()?;
    netns.map_or(Ok(()), netns::enter)?;
    let _uninterrupted = Uninterrupted::begin();
    place::find(interface)?.move_to(to, target)
}

impl Add {
    fn run(&self) -> Result<(), String> {
        let changes = match &self.config {
            Some(file) => Some(self.changes(file)?),
            None => None,
        };
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
            Err(stuck) => format!("{trouble}; deleting it also failed: {stuck}"),
        })
    }

    fn finish(
        &self,
        link: &mut FoundInterface,
        changes: Option<&[Change]>,
        target: Option<(&Namespace, NetNs)>,
    ) -> Result<(), String> {
        if let Some(changes) = changes {
            // Configured in the namespace where it was created, because the kernel's interface is
            // there.
            Backends::new()
                .set_without_unknown(&self.interface, changes)
                .map_err(|error| {
                    let why = place::port_in_use(&self.interface, changes, &error);
                    let why = why.map(|why| format!("\n{why}")).unwrap_or_default();
                    format!("Unable to modify interface: {error}{why}")
                })?;
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
        // The link is set up first: an IPv6 address that was added before would be usable only
        // later.
        if self.up {
            netlink.set_up(link, true)?;
        }
        for &(ip, prefix) in &self.address {
            if ip.is_ipv6() {
                place::allow_ipv6(&self.interface);
            }
            netlink.add_address(&LinkAddress { link, ip, prefix })?;
        }
        Ok(())
    }

    /// Reads the configuration file and resolves its endpoints. Warnings are printed at once.
    fn changes(&self, file: &Path) -> Result<Vec<Change>, String> {
        let name = file.display().to_string();
        let text = secrets::read(file).map_err(|error| format!("{name}: {}", reason(&error)))?;
        let settings = config::parse_file(&name, &text).map_err(|errors| {
            let mut hints = errors.iter().map(|error| error.hint);
            if hints.any(|hint| hint == Some(Hint::WgQuick)) {
                return self.use_wg_quick(&name);
            }
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

    fn use_wg_quick(&self, file: &str) -> String {
        let netns = match &self.netns {
            Some(netns) => format!(" --netns {netns}"),
            None => String::new(),
        };
        format!(
            "{file} is a file for wg-quick: bring it up with `wg-quick-rs up {file}{netns}', or use \
             the output of `wg-quick-rs strip {file}'"
        )
    }
}

/// While this exists, signals that would end the program are delayed.
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

/// The public key of an interface; None if it has no key, or cannot be accessed from here.
fn public_key(link: &ListedInterface) -> Option<String> {
    let got = match link.backend {
        Kind::Userspace => Backends::new().get(&link.name),
        Kind::Kernel => {
            let namespace = link.lives_in.as_ref()?.open().ok()?;
            // A daemon in another namespace may have the same name.
            let get = || Backends::kernels().get(&link.name);
            namespace.run(get).ok()?
        }
    };
    Some(got.ok()?.private_key?.public_key().to_base64())
}

fn as_json(
    listed: &[ListedInterface],
    public_key: impl Fn(&ListedInterface) -> Option<String>,
) -> String {
    let namespace = |namespace: &Option<Namespace>| namespace.as_ref().map(ToString::to_string);
    let link = |link: &ListedInterface| {
        json!({
            "name": link.name,
            "backend": link.backend.as_str(),
            "publicKey": public_key(link),
            "livesIn": namespace(&link.lives_in),
            "bornIn": namespace(&link.born_in),
            "up": link.up,
            "pid": link.pid,
        })
    };
    let links: Vec<Value> = listed.iter().map(link).collect();
    format!("{:#}\n", Value::from(links))
}

fn table(listed: &[ListedInterface]) -> String {
    let unknown = || "-".to_owned();
    let namespace = |namespace: &Option<Namespace>| {
        namespace.as_ref().map_or_else(unknown, ToString::to_string)
    };
    let head = ["INTERFACE", "BACKEND", "LIVES IN", "BORN IN", "STATE"];
    let mut rows = vec![head.map(String::from)];
    rows.extend(listed.iter().map(|link| {
        let state = match link.up {
            Some(true) => "up".into(),
            Some(false) => "down".into(),
            None => unknown(),
        };
        [
            link.name.clone(),
            link.backend.as_str().into(),
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

    fn parse(args: &[&str]) -> Result<LinkArguments, String> {
        LinkArguments::try_parse_from([&["wg-rs link"], args].concat())
            .map_err(|error| one_line(&error))
    }

    #[test]
    fn the_command_line_definition_is_consistent() {
        LinkArguments::command().debug_assert();
    }

    #[test]
    fn all_options_of_add() {
        let args = "add wg0 --netns docker:web --backend kernel --config a.conf \
                    --address 10.0.0.2/24,fd00::2 --address 10.1.0.2 --mtu 1280 --up";
        let args: Vec<_> = args.split_whitespace().collect();
        let LinkCommand::Add(add) = parse(&args).unwrap().command else {
            panic!("not add");
        };
        assert_eq!(add.interface, "wg0");
        assert_eq!(add.netns, Some(Namespace::Docker("web".into())));
        assert_eq!(add.backend, BackendChoice::Kernel);
        let addresses = [("10.0.0.2", 24), ("fd00::2", 128), ("10.1.0.2", 32)];
        assert_eq!(
            add.address,
            addresses.map(|(ip, prefix)| (ip.parse().unwrap(), prefix))
        );
        assert_eq!((add.mtu, add.up), (Some(1280), true));
    }

    #[test]
    fn common_words_are_aliases() {
        let delete = parse(&["delete", "wg0", "--netns", "web"]).unwrap().command;
        assert!(
            matches!(&delete, LinkCommand::Del { netns: Some(Namespace::Named(name)), .. } if name == "web"),
            "{delete:?}"
        );
        let ls = parse(&["ls"]).unwrap().command;
        assert!(matches!(ls, LinkCommand::List { json: false }));
    }

    #[test]
    fn an_error_is_one_line() {
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
                "`pid:x' is not a network namespace: pid: must be followed by",
            ),
            (&["add", "wg0", "--backend", "go"], "invalid value 'go'"),
            (&["move", "wg0"], "not provided: <NAMESPACE>"),
            (&["list", "wg0"], "unexpected argument 'wg0' found"),
            (&["rename"], "unrecognized subcommand 'rename'"),
            (
                &["mov"],
                "unrecognized subcommand 'mov'; a similar subcommand exists: 'move'",
            ),
            (
                &["add", "wg0", "--adress", "10.0.0.1"],
                "unexpected argument '--adress' found; a similar argument exists: '--address'",
            ),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.contains(line), "{args:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(!error.starts_with("error"), "{error}");
        }
    }

    #[test]
    fn tables_are_aligned_and_json_has_every_field() {
        let listed = [
            ListedInterface {
                name: "wg0".into(),
                backend: Kind::Userspace,
                lives_in: Some(Namespace::Docker("web".into())),
                born_in: Some(Namespace::Init),
                up: Some(true),
                pid: Some(7),
            },
            ListedInterface {
                name: "a".into(),
                backend: Kind::Kernel,
                lives_in: None,
                born_in: None,
                up: Some(false),
                pid: None,
            },
        ];
        assert_eq!(
            table(&listed),
            "INTERFACE  BACKEND    LIVES IN    BORN IN  STATE\n\
             wg0        userspace  docker:web  init     up\n\
             a          kernel     -           -        down\n"
        );
        assert_eq!(table(&[]), "");
        let public_key = |link: &ListedInterface| (link.name == "wg0").then(|| "KEY".into());
        let read: Value = serde_json::from_str(&as_json(&listed, public_key)).unwrap();
        assert_eq!(
            read,
            json!([
                {"name": "wg0", "backend": "userspace", "publicKey": "KEY", "livesIn": "docker:web",
                 "bornIn": "init", "up": true, "pid": 7},
                {"name": "a", "backend": "kernel", "publicKey": null, "livesIn": null,
                 "bornIn": null, "up": false, "pid": null}
            ])
        );
    }
}
