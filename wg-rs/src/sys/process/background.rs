//! Leaving the foreground, as wireguard-go does: the program makes what can fail visibly (TUN
//! and control socket), then starts itself again with both inherited, and returns.
//!
//! ```text
//! parent  makes TUN and listener -> Background::start ---- waits ----------> exit 0, or
//!                                        |                    ^              exit 1 with message
//! child                     fds 3, 4 and 5 -> Parent::take -> ready() or failed(message)
//! ```
//!
//! The child sees `WG_TUN_FD=3 WG_UAPI_FD=4 WG_PROCESS_FOREGROUND=1`, as wireguard-go's does, and
//! `WG_READY_FD=5`, a pipe to the parent.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::sys::check;

/// Names the inherited TUN.
pub const TUN_FD: &str = "WG_TUN_FD";
/// Names the inherited control socket, which listens.
pub const UAPI_FD: &str = "WG_UAPI_FD";
/// `1` says not to leave the foreground.
pub const FOREGROUND: &str = "WG_PROCESS_FOREGROUND";
/// Names the pipe to the parent that waits.
pub const READY_FD: &str = "WG_READY_FD";

/// Where in the child the inherited descriptors begin.
const FIRST: RawFd = 3;
/// What the child says when all is well; anything else is a message.
const READY: u8 = 0;

/// How to start the process in the background.
#[derive(Debug)]
pub struct Background<'a> {
    /// Arguments, without the program's name.
    pub args: &'a [OsString],
    /// The TUN, inherited as [`TUN_FD`].
    pub tun: BorrowedFd<'a>,
    /// The control socket, inherited as [`UAPI_FD`].
    pub uapi: BorrowedFd<'a>,
    /// Keep standard output and error, to log there, instead of /dev/null.
    pub keep_output: bool,
}

/// Why there is no process in the background.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("cannot start in the background: {0}")]
    Start(#[from] io::Error),
    /// It said so.
    #[error("{0}")]
    Failed(String),
    /// It ended without a word.
    #[error("ended with {0} before it was ready")]
    Ended(std::process::ExitStatus),
}

impl Background<'_> {
    /// Starts this program anew, in a session of its own, and waits until it is ready.
    ///
    /// # Errors
    /// [`Error`]; then no process is left.
    pub fn start(&self) -> Result<(), Error> {
        let (mut parent, child) = io::pipe()?;
        let child = OwnedFd::from(child);
        // Out of the way of their targets, and marked to be closed on exec.
        let sources = [
            self.tun.as_raw_fd(),
            self.uapi.as_raw_fd(),
            child.as_raw_fd(),
        ]
        .map(|fd| duplicate(fd, FIRST + 3));
        let [tun, uapi, ready] = sources;
        let sources = [tun?, uapi?, ready?];
        drop(child);
        // The target numbers must be taken, or `Command` might use one for its own pipe.
        let mut fillers = Vec::new();
        while fillers.len() < sources.len() {
            let filler = duplicate(sources[0].as_raw_fd(), FIRST)?;
            if filler.as_raw_fd() >= FIRST + 3 {
                break;
            }
            fillers.push(filler);
        }
        let raw = sources.each_ref().map(AsRawFd::as_raw_fd);
        let into_place = move || {
            for (fd, target) in raw.into_iter().zip(FIRST..) {
                // SAFETY: both are numbers; the child has no owner of the target's.
                check(unsafe { libc::dup2(fd, target) })?;
            }
            // Nothing else of ours or our caller's is passed on. Before Linux 5.11 what they left
            // open is.
            let (first, last) = (FIRST + 3, libc::c_uint::MAX);
            // SAFETY: only numbers; a descriptor is marked, none is closed.
            unsafe {
                libc::syscall(
                    libc::SYS_close_range,
                    first,
                    last,
                    libc::CLOSE_RANGE_CLOEXEC,
                );
            }
            // SAFETY: no arguments.
            check(unsafe { libc::setsid() }).map(drop)
        };
        let output = || {
            if self.keep_output {
                Stdio::inherit()
            } else {
                Stdio::null()
            }
        };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(self.args)
            .env(TUN_FD, FIRST.to_string())
            .env(UAPI_FD, (FIRST + 1).to_string())
            .env(READY_FD, (FIRST + 2).to_string())
            .env(FOREGROUND, "1")
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output());
        // SAFETY: between fork and exec only dup2, close_range and setsid run, which are
        // async-signal-safe and do not allocate.
        unsafe { command.pre_exec(into_place) };
        let mut child = command.spawn()?;
        drop(command);
        drop(fillers);
        drop(sources);

        let mut said = Vec::new();
        let mut first = [0; 1];
        match parent.read(&mut first)? {
            1 if first == [READY] => return Ok(()),
            1 => said.extend_from_slice(&first),
            _ => {}
        }
        parent.read_to_end(&mut said)?;
        let status = child.wait()?;
        match String::from_utf8_lossy(&said).trim() {
            "" => Err(Error::Ended(status)),
            message => Err(Error::Failed(message.into())),
        }
    }
}

/// The waiting parent, as the child sees it. Dropping it without a word counts as a failure.
#[derive(Debug)]
pub struct Parent(File);

impl Parent {
    /// The parent that [`READY_FD`] names, if there is one.
    ///
    /// # Errors
    /// As [`inherited`].
    pub fn take() -> io::Result<Option<Self>> {
        Ok(inherited(READY_FD)?.map(|fd| Parent(fd.into())))
    }

    /// Lets the parent return.
    pub fn ready(mut self) {
        // A parent that did not wait needs no answer.
        let _ = self.0.write_all(&[READY]);
    }

    /// Lets the parent fail with this message. The caller ends soon: the parent waits for that.
    pub fn failed(mut self, message: &str) {
        let _ = self.0.write_all(message.as_bytes());
    }
}

/// Takes over the inherited descriptor whose number the environment has under `name`; `None`
/// when there is no such variable. It will not be inherited further.
///
/// # Errors
/// InvalidInput, naming the variable: not a number above 2, not open, or taken before.
pub fn inherited(name: &str) -> io::Result<Option<OwnedFd>> {
    match std::env::var_os(name) {
        Some(value) => take(name, &value).map(Some),
        None => Ok(None),
    }
}

fn take(name: &str, value: &OsStr) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    let bad = |what: &str| {
        let message = format!("{name}={} is {what}", value.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    };
    let number = value.to_str().and_then(|text| text.parse::<RawFd>().ok());
    let Some(number) = number.filter(|number| *number >= FIRST) else {
        return bad("not the number of an inherited descriptor");
    };
    let mut taken = TAKEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if taken.contains(&number) {
        return bad("in use already");
    }
    // SAFETY: only asks whether a descriptor of this number is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return bad("not an open descriptor");
    }
    taken.push(number);
    // SAFETY: open, and by the environment's word inherited for us to own; `TAKEN` sees to it
    // that it is handed out once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// A copy numbered `from` or above, closed on exec.
fn duplicate(fd: RawFd, from: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: both are numbers, and the copy's is new.
    let copy = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, from) })?;
    // SAFETY: just opened, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
