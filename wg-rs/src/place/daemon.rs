//! The daemon of an interface: starts it, finds it by its socket, and waits until it has ended.
//!
//! ```text
//! connection to the socket ─► its other end (sock_diag) ─► the process that holds it ─► its TUN ─► the link
//! ```
//! So a daemon's link is found in any namespace, whoever moved it, and no other process can be
//! mistaken for the daemon.

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::error::{Error, reason};
use crate::sys::netlink::diag::peer_inode;
use crate::sys::netlink::{Events, NetlinkEvent};
use crate::sys::netns::NetNs;
use crate::sys::poll;
use crate::sys::process::background;
use crate::sys::process::notify;
use crate::sys::process::other::{self, Process};
use crate::sys::tun;
use crate::uapi::{self, RUN_DIR};

/// The program to start.
const PROGRAM: &str = "wireguard-rs";
/// How long a daemon may run after its link was deleted.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a daemon may take to accept a connection.
const ACCEPTANCE: Duration = Duration::from_secs(1);
/// How long it may take from removing the socket until the link is gone. Some daemons check their
/// socket only now and then, or never.
const PROMPT: Duration = Duration::from_millis(100);

/// A running daemon and its link.
#[derive(Debug)]
pub(super) struct RunningDaemon {
    pub pid: u32,
    /// The link's current name.
    pub link: String,
    /// The link's current namespace.
    pub netns: NetNs,
    /// The namespace of the daemon and its sockets. None if this process may not read it.
    pub born_in: Option<NetNs>,
}

/// Starts wireguard-rs, which creates the link `name` in the calling thread's namespace. Returns
/// when the daemon serves.
///
/// # Errors
/// [`Error::Create`]: the daemon's message, or that it is not installed.
pub(super) fn start(name: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Create {
        name: name.into(),
        reason,
    };
    let mut command = Command::new(program());
    command.arg("--").arg(name).stdin(Stdio::null());
    // The program must return when the daemon serves. Variables that were meant for this process
    // are removed.
    for variable in [
        background::FOREGROUND,
        background::TUN_FD,
        background::UAPI_FD,
        background::READY_FD,
        notify::VARIABLE,
    ] {
        command.env_remove(variable);
    }
    // With LOG_LEVEL the daemon keeps our output for its log, including its errors.
    let logs = env::var_os("LOG_LEVEL").is_some_and(|level| !level.is_empty());
    if !logs {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    }
    let output = command
        .spawn()
        .and_then(|child| child.wait_with_output())
        .map_err(|error| failed(format!("cannot run {PROGRAM}: {}", reason(&error))))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().last().unwrap_or_default();
    let said = said
        .strip_prefix(&format!("{PROGRAM}: {name}: "))
        .unwrap_or(said);
    Err(failed(match said {
        "" => format!("{PROGRAM} ended with {}", output.status),
        said => said.into(),
    }))
}

/// The daemon next to this program, or the one on PATH.
fn program() -> PathBuf {
    let sibling = env::current_exe().ok().and_then(|this| {
        let sibling = this.with_file_name(PROGRAM);
        sibling.is_file().then_some(sibling)
    });
    sibling.unwrap_or_else(|| PROGRAM.into())
}

/// The path of the interface's socket.
pub fn socket(name: &str) -> PathBuf {
    uapi::socket_in(Path::new(RUN_DIR), name)
}

/// Finds the daemon that answers at the interface's socket: the process that holds the other end of
/// a connection to it. (The process that first listened may have passed the socket on. A path
/// proves nothing, because anybody may have files and sockets of this name somewhere.)
///
/// # Errors
/// [`Error::Hidden`]: permission is denied, or the process is not visible from here;
/// [`Error::NoLink`].
pub(super) fn find(name: &str) -> Result<RunningDaemon, Error> {
    let hidden = |reason: String| Error::Hidden {
        name: name.into(),
        reason,
    };
    let connection = Connection::open(name).map_err(|error| hidden(reason(&error)))?;
    let mut no_permission = false;
    for pid in connection.processes() {
        match of_process(pid, &connection, name) {
            Ok(Some(Some(daemon))) => return Ok(daemon),
            Ok(Some(None)) => {
                let name = name.into();
                return Err(Error::NoLink { name, pid });
            }
            Err(error) if Some(pid) == connection.listener => {
                no_permission = error.kind() == ErrorKind::PermissionDenied;
            }
            Ok(None) | Err(_) => {}
        }
    }
    Err(hidden(if no_permission {
        "no permission to inspect its daemon".into()
    } else {
        "the process of its daemon is not visible from here".into()
    }))
}

/// The ID of the process that answers at the interface's socket. None if there is no such process,
/// or it is not visible. It is known even if nobody may inspect the process's TUN, as in some
/// containers.
pub fn pid(name: &str) -> Option<u32> {
    let connection = Connection::open(name).ok()?;
    connection.processes().find(|pid| {
        let process = Process::open(*pid);
        process.is_ok_and(|process| connection.is_with(&process).unwrap_or(false))
    })
}

/// A connection to a daemon.
struct Connection {
    /// Keeps the other end open.
    _stream: UnixStream,
    /// The process that called listen.
    listener: Option<u32>,
    /// The other end, as shown in /proc. None if the kernel lacks unix_diag.
    other_end: Option<PathBuf>,
}

impl Connection {
    fn open(name: &str) -> io::Result<Self> {
        let stream = UnixStream::connect(socket(name))?;
        let listener = getsockopt(&stream, PeerCredentials).map(|peer| peer.pid());
        let listener = listener.ok().and_then(|pid| u32::try_from(pid).ok());
        let other_end = match accepted(&stream) {
            Ok(inode) => Some(PathBuf::from(format!("socket:[{inode}]"))),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Connection {
            _stream: stream,
            listener: listener.filter(|pid| *pid > 0),
            other_end,
        })
    }

    /// Processes that may hold the other end, the most likely first. Without unix_diag, only the
    /// process that called listen.
    fn processes(&self) -> impl Iterator<Item = u32> {
        let others =
            other::ids().filter(|pid| Some(*pid) != self.listener && self.other_end.is_some());
        self.listener.into_iter().chain(others)
    }

    /// Whether this process holds the other end, as far as this can be determined.
    fn is_with(&self, process: &Process) -> io::Result<bool> {
        let Some(other_end) = &self.other_end else {
            return Ok(true);
        };
        let descriptors = process.descriptors()?;
        Ok(descriptors
            .iter()
            .any(|(_, leads_to)| leads_to == other_end))
    }
}

/// The inode of the socket that accepted this connection.
///
/// # Errors
/// TimedOut: the connection was not accepted.
fn accepted(stream: &UnixStream) -> io::Result<u32> {
    let deadline = Instant::now() + ACCEPTANCE;
    let mut pause = Duration::from_micros(100);
    loop {
        if let Some(inode) = peer_inode(stream)? {
            return Ok(inode);
        }
        if Instant::now() >= deadline {
            let message = "its daemon does not answer";
            return Err(io::Error::new(ErrorKind::TimedOut, message));
        }
        thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_millis(20));
    }
}

/// None if this process does not hold the other end of the connection; otherwise the process's link
/// for `name`, if it has one.
fn of_process(pid: u32, to: &Connection, name: &str) -> io::Result<Option<Option<RunningDaemon>>> {
    let process = Process::open(pid)?;
    if !to.is_with(&process)? {
        return Ok(None);
    }
    let mut links = tun::held_by(&process)?;
    let link = links.iter().position(|(link, _)| link == name);
    // If the link was renamed, the process's only link.
    let link = link.or((links.len() == 1).then_some(0));
    Ok(Some(link.map(|link| {
        let (link, netns) = links.swap_remove(link);
        RunningDaemon {
            pid,
            link,
            netns,
            born_in: process.netns().ok(),
        }
    })))
}

/// A daemon that is about to end, and a connection to it that closes when it ends.
#[derive(Debug)]
pub struct Ending {
    name: String,
    socket: PathBuf,
    stream: Option<UnixStream>,
}

impl Ending {
    /// Must be called before the daemon's link is deleted.
    pub fn of(name: &str) -> Self {
        let socket = socket(name);
        let stream = UnixStream::connect(&socket).ok();
        Ending {
            name: name.into(),
            socket,
            stream,
        }
    }

    /// Removes the socket, which ends the daemon and deletes its link. Returns true when the link
    /// has disappeared from the namespace of `links`. Returns false if there was no daemon, or if
    /// the daemon does not watch its socket; then the link must still be deleted.
    ///
    /// A process that deletes a link waits until all CPUs have released it (rcu_barrier, about 20
    /// ms), although the link is already gone for others. In this way the daemon waits, and not the
    /// caller.
    pub fn by_socket(&self, mut links: Events) -> bool {
        if self.stream.is_none() || fs::remove_file(&self.socket).is_err() {
            return false;
        }
        let deadline = Instant::now() + PROMPT;
        loop {
            match links.recv() {
                Ok(NetlinkEvent::LinkGone {
                    netns: None,
                    moved_to: None,
                    name,
                    ..
                }) if name == self.name => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || poll::wait([links.as_fd()], Some(left)).is_err() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Waits until the daemon has closed its connections and its socket is gone, for at most five
    /// seconds.
    pub fn wait(self) {
        let _ = self.ended();
    }

    /// Like [`Ending::wait`]; returns whether the daemon has ended.
    pub(super) fn ended(self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        if let Some(mut stream) = self.stream {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = stream.read(&mut [0]);
        }
        while self.socket.exists() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }
}
