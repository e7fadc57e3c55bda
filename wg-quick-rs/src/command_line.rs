//! The command line: which verb, on which file. One definition serves arguments, help and completions.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::ArgValueCompleter;
use nix::sys::prctl;
use nix::unistd::geteuid;
use wg_rs::config::value;
use wg_rs::model::{AllowedIp, Label};
use wg_rs::place::Namespace;

use crate::completions::{self, Shell};
use crate::file::own_endpoint::OwnEndpoint;
use crate::file::roster::Who;
use crate::file::{Address, Location, is_name};
use crate::steps::console;
use crate::verbs::people::{add, list, remove, switch};
use crate::verbs::{check, down, init, qr, reload, reresolve, save, strip, up};

/// Sets up WireGuard tunnels by their config files.
#[derive(Debug, Parser)]
#[command(
    name = "wg-quick-rs",
    version,
    disable_version_flag = true,
    about = "Sets up WireGuard tunnels by their config files",
    after_help = FILE_HELP,
    help_expected = true
)]
pub struct Arguments {
    /// Print the version
    #[arg(short = 'V', short_alias = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring a tunnel up
    Up {
        #[command(flatten)]
        file: OneFile,
        /// Namespace for the tunnel to live in: a name of `ip netns', pid:N, path:FILE,
        /// docker:CONTAINER, podman:CONTAINER or init
        #[arg(long, add = ArgValueCompleter::new(completions::namespaces))]
        netns: Option<Namespace>,
    },
    /// Take a tunnel down
    Down(RunningFile),
    /// Write the state of a running tunnel into its file
    Save(RunningFile),
    /// Print the part of a file that wg(8) reads
    Strip(OneFile),
    /// Apply a changed file to its running tunnel
    Reload(RunningFile),
    /// Report errors and likely mistakes in files
    Check {
        /// Config files, or interfaces for /etc/wireguard/INTERFACE.conf
        #[arg(
            value_name = "CONFIG_FILE|INTERFACE",
            required = true,
            allow_hyphen_values = true,
            value_parser = file,
            add = ArgValueCompleter::new(completions::files)
        )]
        files: Vec<String>,
    },
    /// Look up host names of endpoints again, for peers that do not answer
    Reresolve {
        /// Config files or interfaces (default: all running tunnels)
        #[arg(
            value_name = "CONFIG_FILE|INTERFACE",
            allow_hyphen_values = true,
            value_parser = file,
            add = ArgValueCompleter::new(completions::running)
        )]
        files: Vec<String>,
    },
    /// Show a file as a QR code for a phone
    Qr(OneFile),
    /// Write the file of a new server
    Init {
        /// Interface for /etc/wireguard/INTERFACE.conf, or the path of a file
        #[arg(
            value_name = "CONFIG_FILE|INTERFACE",
            default_value = "wg0",
            allow_hyphen_values = true,
            value_parser = file
        )]
        file: String,
        /// Addresses of the server with prefix lengths (default: in unused private networks)
        #[arg(long, value_name = "ADDRESS/PREFIX", value_delimiter = ',', value_parser = init::address)]
        address: Vec<Address>,
        /// UDP port to listen on
        #[arg(long, default_value_t = 51820, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// Endpoint of the server for clients: a name or an address, and the port if it differs from --port
        #[arg(long, value_name = "HOST[:PORT]")]
        endpoint: Option<OwnEndpoint>,
        /// Let clients reach the Internet through the server
        #[arg(long)]
        nat: bool,
    },
    /// Add a client to a server, and print its config file
    Add {
        #[command(flatten)]
        file: OneFile,
        /// Name of the client: a-z, 0-9 and `-'
        name: Label,
        /// Send all traffic of the client through the tunnel
        #[arg(long, conflicts_with = "allowed_ips")]
        full_tunnel: bool,
        /// Networks that the client reaches through the tunnel (default: the server's networks)
        #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
        allowed_ips: Vec<AllowedIp>,
        /// Name servers for the client, and domains to search
        #[arg(long, value_name = "ADDRESS|DOMAIN", value_delimiter = ',', value_parser = add::dns)]
        dns: Vec<String>,
        /// Endpoint of the server for this client (default: the one in the server's file)
        #[arg(long, value_name = "HOST[:PORT]")]
        endpoint: Option<OwnEndpoint>,
        /// Write the client's file to FILE, and print only its QR code
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Make new keys for an existing client
        #[arg(long)]
        replace: bool,
    },
    /// Remove a client from a server
    Remove(OnePeer),
    /// Shut a client out, until it is enabled again
    Disable(OnePeer),
    /// Let a client in again
    Enable(OnePeer),
    /// List the clients of a server
    List {
        #[command(flatten)]
        file: OneFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a shell completion script
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// The file of a tunnel, running or not.
#[derive(Debug, clap::Args)]
struct OneFile {
    /// Config file, or an interface for /etc/wireguard/INTERFACE.conf
    #[arg(
        value_name = "CONFIG_FILE|INTERFACE",
        allow_hyphen_values = true,
        value_parser = file,
        add = ArgValueCompleter::new(completions::files)
    )]
    file: String,
}

/// A peer in the file of a tunnel.
#[derive(Debug, clap::Args)]
struct OnePeer {
    #[command(flatten)]
    file: OneFile,
    /// Name or public key of the client
    #[arg(value_name = "NAME|PUBLIC_KEY", value_parser = who)]
    peer: Who,
}

/// The file of a running tunnel.
#[derive(Debug, clap::Args)]
struct RunningFile {
    /// Config file, or an interface for /etc/wireguard/INTERFACE.conf
    #[arg(
        value_name = "CONFIG_FILE|INTERFACE",
        allow_hyphen_values = true,
        value_parser = file,
        add = ArgValueCompleter::new(completions::running)
    )]
    file: String,
}

const FILE_HELP: &str = "\
CONFIG_FILE is a configuration file, whose filename is the interface name
followed by `.conf'. Otherwise, INTERFACE is an interface name, with
configuration found at /etc/wireguard/INTERFACE.conf. The file holds what
wg(8)'s `setconf' reads, and in the [Interface] section also:

- Address: addresses of the interface, each with an optional prefix length.
- DNS: name servers and search domains while the interface is up.
- MTU: the MTU of the interface; by default it fits the paths to the peers.
- Table: the routing table for the routes. `auto' (the default): the main table,
  and for default routes a table of their own. `off': no routes.
- PreUp, PostUp, PreDown, PostDown: commands that bash(1), or else sh(1), runs
  before and after `up' and `down'. `%i' stands for the interface.
- SaveConfig: if `true', `down' writes the current settings into the file.

See wg-quick-rs(8) for more, and examples.";

/// Accepts a name that begins with `-', but not one that begins with `--': that is a mistyped option.
fn file(text: &str) -> Result<String, String> {
    if text.starts_with("--") {
        return Err("there is no such option".into());
    }
    Ok(text.into())
}

/// A network of `--allowed-ips`.
fn network(text: &str) -> Result<AllowedIp, String> {
    let network = value::allowed_ip(text).map_err(|reason| reason.to_string())?;
    Ok(network.0)
}

fn who(text: &str) -> Result<Who, String> {
    let who = text.parse();
    who.map_err(|rule| format!("neither a name nor a public key: {rule}"))
}

/// Runs `wg-quick-rs`.
pub fn main() -> ExitCode {
    // This process holds keys: it must not write a core dump.
    let _ = prctl::set_dumpable(false);
    if let Some(code) = completions::answer(Arguments::command) {
        return code;
    }
    let parsed = Arguments::command()
        .bin_name(console::program())
        .try_get_matches()
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    match parsed {
        Ok(arguments) => run(arguments.verb),
        Err(error) => {
            // If standard error is closed, the error cannot be shown.
            let _ = error.print();
            // Like wg-quick, which has one exit code for all errors.
            ExitCode::from(u8::from(error.exit_code() != 0))
        }
    }
}

fn run(verb: Verb) -> ExitCode {
    match &verb {
        Verb::Up {
            file: OneFile { file },
            netns,
        } => as_root(|| at(file, |location| up::up(location, netns.as_ref()))),
        Verb::Down(RunningFile { file }) => as_root(|| at(file, down::down)),
        Verb::Reload(RunningFile { file }) => as_root(|| at(file, reload::reload)),
        Verb::Save(RunningFile { file }) => as_root(|| at(file, save::save)),
        Verb::Strip(OneFile { file }) => as_root(|| at(file, strip::strip)),
        Verb::Check { files } => as_reader(files, || check::run(files)),
        Verb::Qr(OneFile { file }) => as_reader(std::slice::from_ref(file), || qr::run(file)),
        Verb::Init {
            file,
            address,
            port,
            endpoint,
            nat,
        } => as_root_if(is_name(file), || {
            init::run(&init::InitArguments {
                file,
                addresses: address,
                port: *port,
                endpoint: endpoint.as_ref(),
                nat: *nat,
            })
        }),
        Verb::Add {
            file: OneFile { file },
            name,
            full_tunnel,
            allowed_ips,
            dns,
            endpoint,
            output,
            replace,
        } => as_root(|| {
            let request = add::AddArguments {
                name,
                full_tunnel: *full_tunnel,
                allowed_ips,
                dns,
                endpoint: endpoint.as_ref(),
                output: output.as_ref(),
                replace: *replace,
            };
            at(file, |location| add::run(location, &request))
        }),
        Verb::Remove(OnePeer { file, peer }) => {
            as_root(|| at(&file.file, |location| remove::run(location, peer)))
        }
        Verb::Disable(OnePeer { file, peer }) => {
            as_root(|| at(&file.file, |location| switch::run(location, peer, false)))
        }
        Verb::Enable(OnePeer { file, peer }) => {
            as_root(|| at(&file.file, |location| switch::run(location, peer, true)))
        }
        Verb::List {
            file: OneFile { file },
            json,
        } => as_root(|| at(file, |location| list::run(location, *json))),
        Verb::Completions { shell } => completions::print(*shell),
        Verb::Reresolve { files } => as_root(|| reresolve::run(files)),
    }
}

/// Runs `work`, as root if one of `files` can be read only by root.
fn as_reader(files: &[String], work: impl FnOnce() -> ExitCode) -> ExitCode {
    as_root_if(files.iter().any(|file| is_name(file)), work)
}

fn as_root_if(needed: bool, work: impl FnOnce() -> ExitCode) -> ExitCode {
    if needed { as_root(work) } else { work() }
}

/// Runs `work` with the location of a file.
fn at(argument: &str, work: impl FnOnce(&Location) -> ExitCode) -> ExitCode {
    match Location::of(argument) {
        Ok(location) => {
            console::warn_of_readers(&location);
            work(&location)
        }
        Err(error) => {
            console::error(error);
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` as root: if needed, by sudo with the same arguments.
fn as_root(work: impl FnOnce() -> ExitCode) -> ExitCode {
    if geteuid().is_root() {
        return work();
    }
    let prompt = format!(
        "{} must be run as root. Please enter the password for %u to continue: ",
        console::program()
    );
    let run = || -> io::Result<()> {
        let itself = env::current_exe()?;
        let arguments = env::args_os().skip(1);
        let mut sudo = Command::new("sudo");
        sudo.args(["-p", &prompt, "--"])
            .arg(itself)
            .args(arguments.collect::<Vec<OsString>>());
        Err(sudo.exec())
    };
    if let Err(error) = run() {
        console::error(format_args!(
            "must be run as root, and sudo cannot be run: {error}"
        ));
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["wg-quick-rs"].iter().chain(words))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn files_and_namespaces() {
        for words in [
            &["up", "wg0"][..],
            &["up", "-w"],
            &["up", "--", "-w"],
            &["up", "wg0", "--netns", "docker:web"],
            &["up", "--netns=pid:7", "wg0"],
            &["down", "-f"],
            &["check", "wg0", "./wg1.conf", "-w"],
            &["reresolve"],
            &["reresolve", "wg0"],
            &["completions", "zsh"],
            &["init"],
            &[
                "init",
                "wg1",
                "--address",
                "10.0.0.1/24,fd00::1/64",
                "--nat",
            ],
            &[
                "add",
                "wg0",
                "alice",
                "--full-tunnel",
                "--dns",
                "10.0.0.1,example.com",
            ],
            &[
                "add",
                "wg0",
                "alice",
                "--allowed-ips",
                "10.0.0.0/8,fd00::/8",
            ],
            &["add", "wg0", "--replace", "alice"],
            &[
                "remove",
                "wg0",
                "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
            ],
            &["list", "wg0", "--json"],
        ] {
            assert!(parse(words).is_ok(), "{words:?}");
        }
        for words in [
            &["up"][..],
            &["up", "wg0", "wg1"],
            &["up", "--what", "wg0"],
            &["down", "--what"],
            &["up", "wg0", "--netns", "pid:x"],
            &["check"],
            &["completions", "elvish"],
            &["away", "wg0"],
            &["init", "--port", "0"],
            &["init", "--address", "10.0.0.0/24"],
            &["add", "wg0"],
            &["add", "wg0", "Alice"],
            &["add", "wg0", "alice", "--dns", "10.0.0"],
            &[
                "add",
                "wg0",
                "alice",
                "--full-tunnel",
                "--allowed-ips",
                "10.0.0.0/8",
            ],
            &["remove", "wg0", "Alice"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        let help = |words: &[&str]| parse(words).unwrap_err().kind();
        assert_eq!(help(&["down", "--help"]), ErrorKind::DisplayHelp);
        assert_eq!(help(&["check", "--help"]), ErrorKind::DisplayHelp);
        assert_eq!(help(&["help"]), ErrorKind::DisplayHelp);
        for word in ["-v", "-V", "--version"] {
            assert_eq!(help(&[word]), ErrorKind::DisplayVersion);
        }
    }
}
