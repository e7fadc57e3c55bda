//! Moving to the background, like wireguard-go: the program creates the TUN and the control socket,
//! whose errors the user must see, starts itself again with both inherited, and exits.
//!
//! ```text
//! parent  creates TUN and listener -> Background::start -- waits ----------> exit 0, or
//!                                        |                    ^              exit 1 with message
//! child                     fds 3, 4 and 5 -> Parent::take -> ready() or failed(message)
//! ```
//!
//! The child sees `WG_TUN_FD=3 WG_UAPI_FD=4 WG_PROCESS_FOREGROUND=1`, as with wireguard-go, and
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

/// Environment variable with the number of the inherited TUN descriptor.
pub const TUN_FD: &str = "WG_TUN_FD";
/// Environment variable with the number of the inherited control socket, which is listening.
pub const UAPI_FD: &str = "WG_UAPI_FD";
/// Environment variable: `1` keeps the daemon in the foreground.
pub const FOREGROUND: &str = "WG_PROCESS_FOREGROUND";
/// Environment variable with the number of the pipe to the waiting parent.
pub const READY_FD: &str = "WG_READY_FD";

/// The first inherited descriptor in the child.
const FIRST: RawFd = 3;
/// The byte that the child sends when it is ready. Anything else is an error message.
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
    /// Keep standard output and standard error for the log, instead of /dev/null.
    pub keep_output: bool,
}

/// Why the background process did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process could not be started.
    #[error("cannot start in the background: {0}")]
    Start(#[from] io::Error),
    /// The process reported this message.
    #[error("{0}")]
    Failed(String),
    /// The process ended without a message.
    #[error("ended with {0} before it was ready")]
    Ended(std::process::ExitStatus),
}

impl Background<'_> {
    /// Starts this program again in a session of its own, and waits until it is ready.
    ///
    /// # Errors
    /// [`Error`]; no process remains then.
    pub fn start(&self) -> Result<(), Error> {
        let (mut parent, child) = io::pipe()?;
        let child = OwnedFd::from(child);
        // Copies with numbers above the target numbers, which are closed on exec.
        let sources = [
            self.tun.as_raw_fd(),
            self.uapi.as_raw_fd(),
            child.as_raw_fd(),
        ]
        .map(|fd| duplicate(fd, FIRST + 3));
        let [tun, uapi, ready] = sources;
        let sources = [tun?, uapi?, ready?];
        drop(child);
        // The target numbers must be occupied, or `Command` might use one of them for its own pipe.
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
                // SAFETY: both arguments are numbers, and nothing in the child owns the target
                // number.
                check(unsafe { libc::dup2(fd, target) })?;
            }
            // The child inherits no other descriptor of ours or our caller's. Before Linux 5.11 it
            // inherits those without close-on-exec.
            let (first, last) = (FIRST + 3, libc::c_uint::MAX);
            // SAFETY: the arguments are numbers; the call marks descriptors and closes none.
            unsafe {
                libc::syscall(
                    libc::SYS_close_range,
                    first,
                    last,
                    libc::CLOSE_RANGE_CLOEXEC,
                );
            }
            // SAFETY: the call has no arguments.
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

/// The waiting parent, seen from the child. Dropping it without a message counts as a failure.
#[derive(Debug)]
pub struct Parent(File);

impl Parent {
    /// The parent that [`READY_FD`] names, if there is one.
    ///
    /// # Errors
    /// Those of [`inherited`].
    pub fn take() -> io::Result<Option<Self>> {
        Ok(inherited(READY_FD)?.map(|fd| Parent(fd.into())))
    }

    /// Reports success, so that the parent exits with 0.
    pub fn ready(mut self) {
        // The parent may have ended; then nobody waits for the answer.
        let _ = self.0.write_all(&[READY]);
    }

    /// Reports a failure with this message. The caller must exit soon, because the parent waits for
    /// its end.
    pub fn failed(mut self, message: &str) {
        let _ = self.0.write_all(message.as_bytes());
    }
}

/// Takes over the inherited descriptor whose number is in the environment variable `name`. None if
/// the variable is not set. The descriptor is not inherited further.
///
/// # Errors
/// InvalidInput, with the name of the variable: not a number above 2, not open, or already taken.
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
        return bad("already in use");
    }
    // SAFETY: the call only checks whether the descriptor is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return bad("not an open descriptor");
    }
    taken.push(number);
    // SAFETY: the descriptor is open, and the environment says that it was passed to us. `TAKEN`
    // ensures that it gets only one owner.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// A copy with a number of at least `from`, which is closed on exec.
fn duplicate(fd: RawFd, from: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: both arguments are numbers, and the copy is a new descriptor.
    let copy = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, from) })?;
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
