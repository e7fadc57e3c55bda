//! The daemon behind an interface: started, found by its socket, and seen to end.
//!
//! A socket tells which process listens on it, a process's TUN which link is its own and where that
//! is by now. So a daemon's link is found wherever it was moved and whoever moved it.

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::error::{Error, reason};
use crate::sys::netlink::{Event, Events};
use crate::sys::netns::NetNs;
use crate::sys::poll;
use crate::sys::process::background;
use crate::sys::tun;
use crate::uapi::{self, RUN_DIR};

/// Our daemon.
const PROGRAM: &str = "wireguard-rs";
/// How long a daemon whose link was deleted may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one whose socket was removed may take until its link is gone. Some look for their socket
/// only now and then, or never.
const PROMPT: Duration = Duration::from_millis(100);

/// A running daemon and its link.
#[derive(Debug)]
pub(super) struct Daemon {
    pub pid: u32,
    /// What the link is called now.
    pub link: String,
    /// Where the link is now.
    pub netns: NetNs,
}

/// Starts our daemon, which makes the link `name` in the calling thread's namespace; returns when
/// it serves.
///
/// # Errors
/// What it said; or that it is not there.
pub(super) fn start(name: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Create {
        name: name.into(),
        reason,
    };
    let mut command = Command::new(program());
    command.arg("--").arg(name).stdin(Stdio::null());
    // It is to return when it serves, and what this process inherited is not for it.
    for variable in [
        background::FOREGROUND,
        background::TUN_FD,
        background::UAPI_FD,
        background::READY_FD,
        "NOTIFY_SOCKET",
    ] {
        command.env_remove(variable);
    }
    // With LOG_LEVEL it keeps its output, to log there, also what is wrong.
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

/// The one that came with this program, else the one on PATH.
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

/// Finds the daemon that answers at the socket of `name`.
///
/// # Errors
/// No permission; or the process is not to be seen from here.
pub(super) fn find(name: &str) -> Result<Daemon, Error> {
    let hidden = |reason: String| Error::Hidden {
        name: name.into(),
        reason,
    };
    let stream = UnixStream::connect(socket(name)).map_err(|error| hidden(reason(&error)))?;
    let listener = getsockopt(&stream, PeerCredentials).map(|peer| peer.pid());
    let listener = listener.ok().and_then(|pid| u32::try_from(pid).ok());
    let listener = listener.filter(|pid| *pid > 0);
    let others = processes().filter(|pid| Some(*pid) != listener && sees_socket(*pid, name));
    let mut trouble = None;
    let mut likely = Vec::new();
    // Who listened first may have handed the socket on and be gone, and its number be another's.
    for pid in listener.into_iter().chain(others) {
        let listens = listens(pid, name);
        match of_process(pid, name, listens) {
            Ok(Some(daemon)) if listens => return Ok(daemon),
            Ok(Some(daemon)) => likely.push(daemon),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if Some(pid) == listener => trouble = Some(reason(&error)),
            Err(_) => {}
        }
    }
    match (likely.pop(), likely.is_empty()) {
        (Some(daemon), true) => Ok(daemon),
        (Some(_), false) => Err(hidden("several processes have a link of this name".into())),
        (None, _) => Err(hidden(
            trouble.unwrap_or_else(|| "no process has its link".into()),
        )),
    }
}

/// The link that this process has for `name`, if it has one.
fn of_process(pid: u32, name: &str, listens: bool) -> io::Result<Option<Daemon>> {
    let mut links = tun::held_by(pid)?;
    let ours = links.iter().position(|(link, _)| link == name);
    // The daemon's only one, if it was renamed. Anybody else's is anything.
    let ours = ours.or((listens && links.len() == 1).then_some(0));
    Ok(ours.map(|ours| {
        let (link, netns) = links.swap_remove(ours);
        Daemon { pid, link, netns }
    }))
}

/// Whether this process holds the socket that listens for `name`.
fn listens(pid: u32, name: &str) -> bool {
    // Of its own network namespace: that is where a daemon makes its socket.
    let sockets = fs::read(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let sockets = String::from_utf8_lossy(&sockets);
    let held: Vec<_> = sockets
        .lines()
        .filter_map(|line| listening_inode(line, name))
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect();
    if held.is_empty() {
        return false;
    }
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    let mut descriptors = descriptors.into_iter().flatten().flatten();
    descriptors.any(|entry| fs::read_link(entry.path()).is_ok_and(|file| held.contains(&file)))
}

/// The inode in a line of /proc/net/unix, if that is of a socket that listens for `name`.
fn listening_inode<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    // Num RefCount Protocol Flags Type St Inode Path
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let [_, _, _, flags, _, _, inode, path] = fields[..] else {
        return None;
    };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    // Links in the path are the process's, and the folder goes by several names.
    let folder = Path::new(RUN_DIR).file_name()?;
    let ours = Path::new(path).ends_with(uapi::socket_in(Path::new(folder), name));
    (flags & ACCEPTS_CONNECTIONS != 0 && ours).then_some(inode)
}

/// Flag of a socket that listens (__SO_ACCEPTCON of linux/net.h).
const ACCEPTS_CONNECTIONS: u32 = 0x0001_0000;

/// Whether the socket of `name` is the same file to this process as to us.
fn sees_socket(pid: u32, name: &str) -> bool {
    // A link in the path (/var/run is one) would lead out of the root of the process.
    let Ok(here) = socket(name).canonicalize() else {
        return false;
    };
    let there = PathBuf::from(format!("/proc/{pid}/root{}", here.display()));
    let id = |path: &Path| fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((id(&here), id(&there)), (Ok(here), Ok(there)) if here == there)
}

/// All processes, by number.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A daemon about to end: a connection to it, which closes when it does.
#[derive(Debug)]
pub struct Ending {
    name: String,
    socket: PathBuf,
    stream: Option<UnixStream>,
}

impl Ending {
    /// Before its link is deleted.
    pub fn of(name: &str) -> Self {
        let socket = socket(name);
        let stream = UnixStream::connect(&socket).ok();
        Ending {
            name: name.into(),
            socket,
            stream,
        }
    }

    /// Removes its socket: with that a daemon ends, and its link with it. Returns when the link is
    /// gone from its namespace, where `links` is listening. False: nobody listened at the socket, or
    /// not for its end, and the link is still to be deleted.
    ///
    /// Whoever deletes a link has to wait until every CPU has forgotten it (rcu_barrier, some 20 ms),
    /// long after it is gone for everybody else. This way that is the daemon.
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

    /// Waits until it closed its connections and its socket is gone. One that takes longer than
    /// five seconds is left to itself.
    pub fn wait(self) {
        let _ = self.ended();
    }

    /// As [`Ending::wait`]: whether it ended.
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
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_socket_that_listens_counts() {
        let line =
            "0000000000000000: 00000002 00000000 00010000 0001 01 5711 /run/wireguard/wg0.sock";
        assert_eq!(listening_inode(line, "wg0"), Some("5711"));
        assert_eq!(listening_inode(line, "wg"), None);
        let accepted = line.replace("00010000", "00000000");
        assert_eq!(listening_inode(&accepted, "wg0"), None);
        let elsewhere = line.replace("wireguard", "openvpn");
        assert_eq!(listening_inode(&elsewhere, "wg0"), None);
        let head = "Num       RefCount Protocol Flags    Type St Inode Path";
        assert_eq!(listening_inode(head, "wg0"), None);
    }
}
