//! Runs a tunnel for a verb: starts it from a file, watches its peers, and closes it in order after a signal.
//!
//! Output: on standard output where the program listens and when the tunnel is up; on standard error
//! failures, and which peers do not answer and why.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wg_crypto::PublicKey;

use super::super::context::{Context, complain};
use super::super::out::print;
use crate::config;
use crate::model::Peer;
use crate::stack::{Config, Tunnel};
use crate::sys;
use crate::sys::process::{clock, notify};
use crate::tunnel::timers::REJECT_AFTER_TIME;

/// How often the peers are checked for answers.
const LOOK: Duration = Duration::from_millis(250);
/// A peer that has not answered for this time is reported: a handshake and its first retransmission.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long connections may take to end when the program ends.
const CLOSING: Duration = Duration::from_secs(2);

/// The arguments of both verbs.
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
        Tunnel::start_by(config, config::look_up)
            .map_err(|error| format!("{}: {}", self.file.display(), text(&error)))
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
        ErrorKind::DisplayHelp => print(error.to_string()),
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

/// Starts the tunnel, lets `work` set up the listeners, and runs until SIGINT or SIGTERM.
pub(super) fn run<F>(arguments: &TunnelArguments, work: impl FnOnce(Tunnel) -> F) -> ExitCode
where
    F: Future<Output = Result<(), String>>,
{
    let tunnel = match arguments.start() {
        Ok(tunnel) => tunnel,
        Err(message) => return complain(message),
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(format_args!("Unable to start: {error}")),
    };
    let done: Result<(), String> = runtime.block_on(async {
        let mut signals = Signals::new().map_err(|error| error.to_string())?;
        tokio::select! {
            done = work(tunnel.clone()) => done?,
            () = signals.next() => return Ok(()),
        }
        if let Err(error) = notify::notify(notify::READY) {
            warn(format_args!(
                "Unable to notify the service manager: {error}"
            ));
        }
        tokio::select! {
            never = watch(&tunnel) => match never {},
            () = signals.next() => {}
        }
        let _ = notify::notify(notify::STOPPING);
        tokio::select! {
            _ = tokio::time::timeout(CLOSING, tunnel.close()) => {}
            // A second signal ends the wait.
            () = signals.next() => {}
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

struct Signals(Signal, Signal);

impl Signals {
    fn new() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Signals(interrupt, signal(SignalKind::terminate())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// The last reported state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Up,
    Silent,
}

/// The state of the watch on one peer.
struct Watched {
    told: Told,
    /// When the peer was first found to owe an answer; `None` if it owes none.
    owing: Option<Instant>,
    /// Bytes that had been sent to the peer when its session was last good.
    sent: u64,
}

/// Reports when peers begin or cease to answer.
async fn watch(tunnel: &Tunnel) -> std::convert::Infallible {
    let mut watched: HashMap<PublicKey, Watched> = HashMap::new();
    let mut before = tunnel.drops();
    tunnel.greet();
    loop {
        let now = Instant::now();
        for peer in tunnel.peers() {
            let entry = watched.entry(peer.public_key).or_insert(Watched {
                told: Told::Nothing,
                owing: None,
                sent: 0,
            });
            let Some(line) = entry.look(&peer, now) else {
                continue;
            };
            if entry.told == Told::Up {
                say(line);
            } else {
                let after = tunnel.drops();
                warn(line + &why(&before, &after));
                before = after;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Watched {
    /// Returns the message to print, if the state has changed.
    fn look(&mut self, peer: &Peer, now: Instant) -> Option<String> {
        let endpoint = peer.endpoint?;
        let age = peer.last_handshake.map(|then| {
            let wall = clock::wall().as_secs();
            wall.saturating_sub(then.secs)
        });
        let key = &peer.public_key;
        if age.is_some_and(|age| age < REJECT_AFTER_TIME.as_secs()) {
            self.owing = None;
            self.sent = peer.tx_bytes;
            if self.told == Told::Up {
                return None;
            }
            let again = if self.told == Told::Silent {
                " again"
            } else {
                ""
            };
            self.told = Told::Up;
            return Some(format!(
                "The tunnel is up: peer {key} at {endpoint} answers{again}"
            ));
        }
        // While nothing is sent there need not be a session, and no answer is due.
        if age.is_some() && peer.tx_bytes == self.sent {
            return None;
        }
        let since = *self.owing.get_or_insert(now);
        if self.told == Told::Silent || now.duration_since(since) < PATIENCE {
            return None;
        }
        self.told = Told::Silent;
        Some(match age {
            None => format!("Peer {key} at {endpoint} does not answer"),
            Some(age) => format!(
                "Peer {key} at {endpoint} no longer answers; its latest handshake was {age} seconds ago"
            ),
        })
    }
}

/// Explains why a peer may not answer, by the packets dropped meanwhile.
fn why(before: &[(&'static str, u64)], after: &[(&'static str, u64)]) -> String {
    let mut text = String::new();
    for (reason, count) in after {
        let earlier = before.iter().find(|(known, _)| known == reason);
        let new = count - earlier.map_or(0, |(_, count)| *count);
        if new > 0 {
            let separator = if text.is_empty() { ": " } else { ", " };
            let _ = write!(text, "{separator}{reason} ({new} packets)");
        }
    }
    if text.is_empty() {
        text.push_str(
            ": nothing came back. Check its Endpoint, the public keys at both ends, and that firewalls \
             let UDP through",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Wall;

    #[test]
    fn each_change_is_reported_once() {
        let mut watched = Watched {
            told: Told::Nothing,
            owing: None,
            sent: 0,
        };
        let start = Instant::now();
        let mut peer = Peer::new(PublicKey::from_bytes([1; 32]));
        assert_eq!(watched.look(&peer, start), None, "it has no endpoint");
        peer.endpoint = Some(([192, 0, 2, 1], 51820).into());
        assert_eq!(watched.look(&peer, start), None);
        let later = start + PATIENCE;
        let line = watched.look(&peer, later).unwrap();
        assert!(
            line.ends_with("at 192.0.2.1:51820 does not answer"),
            "{line}"
        );
        assert_eq!(watched.look(&peer, later + PATIENCE), None);
        let ago = |secs| {
            let secs = clock::wall().as_secs() - secs;
            Some(Wall { secs, nanos: 0 })
        };
        peer.last_handshake = ago(1);
        peer.tx_bytes = 100;
        let line = watched.look(&peer, later).unwrap();
        assert!(line.ends_with("answers again"), "{line}");
        peer.last_handshake = ago(REJECT_AFTER_TIME.as_secs() + 1);
        assert_eq!(watched.look(&peer, later), None, "nothing was sent");
        peer.tx_bytes = 248;
        assert_eq!(watched.look(&peer, later), None);
        let line = watched.look(&peer, later + PATIENCE).unwrap();
        assert!(line.contains("no longer answers"), "{line}");
    }

    #[test]
    fn packets_dropped_meanwhile_are_the_reason() {
        assert!(why(&[("a", 1)], &[("a", 1)]).contains("nothing came back"));
        assert_eq!(
            why(&[("a", 1)], &[("a", 3), ("b", 1)]),
            ": a (2 packets), b (1 packets)"
        );
    }
}
