//! The daemon of an interface: starts it, finds it by its socket, and waits until it has ended.
//!
//! ```text
//! connection to the socket ─► its other end (sock_diag) ─► the process that holds it ─► its TUN ─► the link
//! ```
//! So a daemon's link is found wherever it was moved and whoever moved it, and nobody else can pass for it.

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
use crate::sys::netlink::{Event, Events};
use crate::sys::netns::NetNs;
use crate::sys::poll;
use crate::sys::process::background;
use crate::sys::process::notify;
use crate::sys::process::other::{self, Process};
use crate::sys::tun;
use crate::uapi::{self, RUN_DIR};

/// The daemon that is started.
const PROGRAM: &str = "wireguard-rs";
/// How long a daemon whose link was deleted may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a daemon may take to accept a connection.
const ACCEPTANCE: Duration = Duration::from_secs(1);
/// How long it may take until the link is gone after the socket was removed. Some daemons look for their
/// socket only now and then, or never.
const PROMPT: Duration = Duration::from_millis(100);

/// A running daemon and its link.
#[derive(Debug)]
pub(super) struct Daemon {
    pub pid: u32,
    /// What the link is called now.
    pub link: String,
    /// Where the link is now.
    pub netns: NetNs,
    /// Where the daemon is, and its sockets with it. `None`: it may not be known.
    pub born_in: Option<NetNs>,
}

/// Starts wireguard-rs, which makes the link `name` in the calling thread's namespace; returns when
/// it serves.
///
/// # Errors
/// [`Error::Create`]: what the daemon printed, or that it is not installed.
pub(super) fn start(name: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Create {
        name: name.into(),
        reason,
    };
    let mut command = Command::new(program());
    command.arg("--").arg(name).stdin(Stdio::null());
    // It must return when it serves; what this process was given for its own start is not for it.
    for variable in [
        background::FOREGROUND,
        background::TUN_FD,
        background::UAPI_FD,
        background::READY_FD,
        notify::VARIABLE,
    ] {
        command.env_remove(variable);
    }
    // With LOG_LEVEL it keeps our output and logs there, its errors too.
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

/// The daemon in the folder of this program, else the one on PATH.
fn program() -> PathBuf {
    let sibling = env::current_exe().ok().and_then(|this| {
        let sibling = this.with_file_name(PROGRAM);
        sibling.is_file().then_some(sibling)
    });
    sibling.unwrap_or_else(|| PROGRAM.into())
}

/// The socket of the interface `name`.
pub fn socket(name: &str) -> PathBuf {
    uapi::socket_in(Path::new(RUN_DIR), name)
}

/// Finds the daemon that answers at the socket of `name`: the process that holds the other end of a
/// connection to it. (Who listened first may have handed the socket on; a path tells nothing, for everybody
/// may have files and sockets of that name somewhere.)
///
/// # Errors
/// [`Error::Hidden`]: no permission, or the process cannot be seen from here; [`Error::NoLink`].
pub(super) fn find(name: &str) -> Result<Daemon, Error> {
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
        "no permission to look at its daemon".into()
    } else {
        "its daemon is not among the processes that can be seen from here".into()
    }))
}

/// The ID of the process that answers at the socket of `name`. `None` if nobody does, or it cannot be
/// seen. Where nobody may ask for its TUN, as in some
/// containers, this is known all the same.
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
    /// The process that listened.
    listener: Option<u32>,
    /// The other end, as /proc has it. `None`: the kernel lacks unix_diag.
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

    /// Those that may hold the other end, the likeliest first. Without unix_diag it must be the one that
    /// listened.
    fn processes(&self) -> impl Iterator<Item = u32> {
        let others =
            other::ids().filter(|pid| Some(*pid) != self.listener && self.other_end.is_some());
        self.listener.into_iter().chain(others)
    }

    /// Whether this process holds the other end, as far as that can be known.
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
/// TimedOut: nobody accepted it.
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

/// `None` if this process does not hold the other end of the connection; else its link for `name`, if it
/// has one.
fn of_process(pid: u32, to: &Connection, name: &str) -> io::Result<Option<Option<Daemon>>> {
    let process = Process::open(pid)?;
    if !to.is_with(&process)? {
        return Ok(None);
    }
    let mut links = tun::held_by(&process)?;
    let link = links.iter().position(|(link, _)| link == name);
    // Its only one, if it was renamed.
    let link = link.or((links.len() == 1).then_some(0));
    Ok(Some(link.map(|link| {
        let (link, netns) = links.swap_remove(link);
        Daemon {
            pid,
            link,
            netns,
            born_in: process.netns().ok(),
        }
    })))
}

/// A daemon that is about to end, and a connection to it, which closes when it does.
#[derive(Debug)]
pub struct Ending {
    name: String,
    socket: PathBuf,
    stream: Option<UnixStream>,
}

impl Ending {
    /// To be called before its link is deleted.
    pub fn of(name: &str) -> Self {
        let socket = socket(name);
        let stream = UnixStream::connect(&socket).ok();
        Ending {
            name: name.into(),
            socket,
            stream,
        }
    }

    /// Removes its socket: this ends a daemon, and its link with it. Returns true when the link is gone from
    /// the namespace where `links` listens; false if there was no daemon, or it does not watch its socket: then
    /// the link still has to be deleted.
    ///
    /// A process that deletes a link waits until all CPUs have released it (rcu_barrier, about 20 ms), long
    /// after it is gone for everybody else. This way the daemon waits, and not the caller.
    pub fn by_socket(&self, mut links: Events) -> bool {
        if self.stream.is_none() || fs::remove_file(&self.socket).is_err() {
            return false;
        }
        let deadline = Instant::now() + PROMPT;
        loop {
            match links.recv() {
                Ok(Event::LinkGone {
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

    /// Waits until it has closed its connections and its socket is gone, for five seconds at most.
    pub fn wait(self) {
        let _ = self.ended();
    }

    /// As [`Ending::wait`]; returns whether it has ended.
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
