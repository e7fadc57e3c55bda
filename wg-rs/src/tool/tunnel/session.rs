//! Runs a tunnel for a verb: starts it from a file, watches its peers, and closes it in order after a signal.
//!
//! Output: on standard output where the program listens, when the tunnel is up, and its status after SIGUSR1;
//! on standard error failures, and which peers do not answer and why.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wg_crypto::PublicKey;

use super::super::context::{Context, complain};
use super::super::out::print;
use super::super::status::{print_own, why};
use crate::config;
use crate::model::status::{PeerStatus, Status};
use crate::place;
use crate::stack::{Config, Error, Tunnel};
use crate::sys;
use crate::sys::process::notify;
use crate::tunnel::config::ConfigError;

/// How often the peers are checked for answers.
const LOOK: Duration = Duration::from_millis(250);
/// How long connections may take to end when the program ends.
const CLOSING: Duration = Duration::from_secs(2);

/// The arguments of the verbs that have addresses in the tunnel.
#[derive(Debug, clap::Args)]
pub(super) struct TunnelArguments {
    /// File of `wg' or `wg-quick' that describes the tunnel
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// Addresses of this end of the tunnel, separated by commas, if the file has no `Address'
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub address: Vec<IpAddr>,
    /// DNS servers to ask through the tunnel, besides those of `DNS' in the file
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub dns: Vec<IpAddr>,
    /// MTU of the tunnel: size of its largest packet, in bytes
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Also listen on addresses that other machines can reach
    #[arg(long)]
    pub allow_remote: bool,
}

impl TunnelArguments {
    /// Starts the tunnel.
    ///
    /// # Errors
    /// A message that says what is wrong.
    pub fn start(&self) -> Result<Tunnel, String> {
        let mut config = Config::from_file(&self.file).map_err(|error| text(&error))?;
        for address in &self.address {
            config = config.address(*address);
        }
        for server in &self.dns {
            config = config.dns(*server);
        }
        if let Some(mtu) = self.mtu {
            config = config.mtu(mtu);
        }
        if !config.has_address() {
            return Err(format!(
                "{}: there is no Address in [Interface]; give it with --address",
                self.file.display()
            ));
        }
        Tunnel::start_by(config, config::look_up).map_err(|error| cannot_start(&self.file, &error))
    }

    /// Checks that listening on this address is allowed.
    ///
    /// # Errors
    /// A message that says why it is not allowed.
    pub fn check_address(&self, address: IpAddr) -> Result<(), String> {
        if address.is_loopback() || self.allow_remote {
            return Ok(());
        }
        Err(format!(
            "{address} can be reached by other machines, which could then use the tunnel; give \
             --allow-remote if that is wanted, or listen on 127.0.0.1 or ::1"
        ))
    }
}

/// The message for a tunnel of this file that cannot be started.
pub(super) fn cannot_start(file: &Path, error: &Error) -> String {
    let message = format!("{}: {}", file.display(), text(error));
    match error {
        // It names the file and the line itself.
        Error::Endpoint(_) => text(error),
        Error::Config(ConfigError::Bind { port, source })
            if source.kind() == io::ErrorKind::AddrInUse =>
        {
            let why = place::own_port_in_use(None, *port);
            format!("{message}\n{why}")
        }
        _ => message,
    }
}

/// Formats an error as a message.
pub(super) fn text(error: &impl Display) -> String {
    sys::reason(error)
}

/// Parses the arguments of a verb. For a help request or an error, prints the text and returns the exit
/// code instead.
pub(super) fn arguments<A: Parser + CommandFactory>(
    context: &Context,
    args: &[OsString],
) -> Result<A, ExitCode> {
    let program = format!("{} {}", context.program, context.verb.name);
    let words = [OsString::from(&program)];
    let command = A::command().bin_name(program);
    let parsed = command
        .try_get_matches_from(words.iter().chain(args))
        .and_then(|matches| A::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp => print(context.help()),
        _ => complain(error.to_string().trim_end()),
    })
}

/// Prints a line on standard output. Ignores failures, as the tunnel runs without a reader too.
pub(super) fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints a line on standard error. Ignores failures.
pub(super) fn warn(line: impl Display) {
    let _ = writeln!(io::stderr(), "{}", sys::reason(&line));
}

/// Lets `work` set up the listeners of the tunnel that was started from `file`, and runs until SIGINT or
/// SIGTERM.
pub(super) fn run<F>(
    file: &Path,
    tunnel: Result<Tunnel, String>,
    work: impl FnOnce(Tunnel) -> F,
) -> ExitCode
where
    F: Future<Output = Result<(), String>>,
{
    let tunnel = match tunnel {
        Ok(tunnel) => tunnel,
        Err(message) => return complain(message),
    };
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(format_args!("Unable to start: {error}")),
    };
    let done: Result<(), String> = runtime.block_on(async {
        let mut signals = Signals::new().map_err(|error| error.to_string())?;
        tokio::select! {
            done = work(tunnel.clone()) => done?,
            () = signals.next(|| ()) => return Ok(()),
        }
        if let Err(error) = notify::notify(notify::READY) {
            warn(format_args!(
                "Unable to notify the service manager: {error}"
            ));
        }
        let print_status = || {
            // The tunnel runs without a reader too.
            let _ = print_own(&mut io::stdout().lock(), &name, tunnel.status());
        };
        tokio::select! {
            never = watch(&tunnel) => match never {},
            () = signals.next(print_status) => {}
        }
        let _ = notify::notify(notify::STOPPING);
        tokio::select! {
            _ = tokio::time::timeout(CLOSING, tunnel.clone().close()) => {}
            // A second signal ends the wait.
            () = signals.next(|| ()) => {}
        }
        Ok(())
    });
    // This does not wait for names that are being resolved.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => complain(message),
    }
}

/// SIGINT, SIGTERM and SIGUSR1.
struct Signals(Signal, Signal, Signal);

impl Signals {
    fn new() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        let user = signal(SignalKind::user_defined1())?;
        Ok(Signals(interrupt, terminate, user))
    }

    /// Waits for SIGINT or SIGTERM. Calls `tell` for each SIGUSR1.
    async fn next(&mut self, tell: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.0.recv() => return,
                _ = self.1.recv() => return,
                _ = self.2.recv() => tell(),
            }
        }
    }
}

/// Reports when peers begin or cease to answer.
async fn watch(tunnel: &Tunnel) -> Infallible {
    let mut told: HashMap<PublicKey, bool> = HashMap::new();
    tunnel.greet();
    loop {
        for (key, answers) in tunnel.answers() {
            let before = told.insert(key, answers);
            if before == Some(answers) {
                continue;
            }
            let status = tunnel.status();
            let peer = status.peers.iter().find(|peer| peer.peer.public_key == key);
            match peer.map(|peer| line(&status, peer, before, answers)) {
                Some(line) if answers => say(line),
                Some(line) => warn(line),
                None => {}
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The message for a peer that now answers or does not; `before` is what was reported last.
fn line(status: &Status, peer: &PeerStatus, before: Option<bool>, answers: bool) -> String {
    let key = &peer.peer.public_key;
    let name = peer.name().map(|name| format!(" ({name})"));
    let name = name.unwrap_or_default();
    let at = peer.peer.endpoint.map(|endpoint| format!(" at {endpoint}"));
    let at = at.unwrap_or_default();
    match (answers, before) {
        (true, None) => format!("The tunnel is up: peer {key}{name}{at} answers"),
        (true, Some(_)) => format!("The tunnel is up: peer {key}{name}{at} answers again"),
        (false, None) => {
            let why = why(status, peer);
            format!("Peer {key}{name}{at} does not answer: {why}")
        }
        (false, Some(_)) => {
            let why = why(status, peer);
            format!("Peer {key}{name}{at} no longer answers: {why}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Dialect;
    use crate::model::Peer;
    use crate::model::status::Unanswered;

    #[test]
    fn a_tunnel_that_cannot_be_started() {
        let file = Path::new("a.conf");
        let (_, mut errors) = config::read_file("a.conf", b"[Interface]\nx=1\n", Dialect::Wg);
        let wrong = Error::Endpoint(errors.remove(0));
        assert_eq!(
            cannot_start(file, &wrong),
            "a.conf:2: Line unrecognized: `x'"
        );
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let taken = |kind: io::ErrorKind| {
            let source = kind.into();
            cannot_start(file, &Error::Config(ConfigError::Bind { port, source }))
        };
        let lines = taken(io::ErrorKind::AddrInUse);
        let lines: Vec<_> = lines.lines().collect();
        assert!(lines[0].starts_with(&format!("a.conf: cannot listen on port {port}: ")));
        assert!(lines[1].starts_with(&format!("UDP port {port} is already used by ")));
        assert_eq!(taken(io::ErrorKind::PermissionDenied).lines().count(), 1);
    }

    #[test]
    fn messages_name_the_peer_and_the_cause() {
        let mut peer = PeerStatus::new(Peer::new(PublicKey::from_bytes([1; 32])));
        peer.peer.endpoint = Some(([192, 0, 2, 1], 51820).into());
        peer.peer.extensions.name = "bob".parse().ok();
        let status = Status::default();
        let key = peer.peer.public_key;
        let bob = format!("eer {key} (bob) at 192.0.2.1:51820");
        let up = line(&status, &peer, None, true);
        assert_eq!(up, format!("The tunnel is up: p{bob} answers"));
        let again = line(&status, &peer, Some(false), true);
        assert_eq!(again, format!("{up} again"));
        peer.unanswered = Some(Unanswered {
            count: 2,
            age: Duration::from_secs(6),
        });
        let silent = line(&status, &peer, None, false);
        let cause = "2 handshakes sent to 192.0.2.1:51820, no answer in 6 s: ";
        let start = format!("P{bob} does not answer: {cause}");
        assert!(silent.starts_with(&start), "{silent}");
        let gone = line(&status, &peer, Some(true), false);
        let start = format!("P{bob} no longer answers: {cause}");
        assert!(gone.starts_with(&start), "{gone}");
    }
}
