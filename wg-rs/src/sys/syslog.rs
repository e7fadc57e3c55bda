//! syslog(3) of the C library, which reaches the journal as well as any syslog daemon.

use std::ffi::{CStr, CString, c_int};

/// The program name of the messages.
const PROGRAM: &CStr = c"wireguard-rs";

/// The severity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something failed.
    Error,
    /// Something works only in part.
    Warning,
    /// Something happened.
    Info,
    /// Details for debugging.
    Debug,
}

impl Severity {
    fn priority(self) -> c_int {
        match self {
            Severity::Error => libc::LOG_ERR,
            Severity::Warning => libc::LOG_WARNING,
            Severity::Info => libc::LOG_INFO,
            Severity::Debug => libc::LOG_DEBUG,
        }
    }
}

/// Opens the connection: later messages have the facility `daemon` and this process's ID. Reads the
/// time zone, for the times of messages. Must be called while the process may read files and connect
/// to a syslog daemon of any kind.
pub fn open() {
    let options = libc::LOG_PID | libc::LOG_NDELAY;
    // SAFETY: the C library keeps the pointer, which is to a constant.
    unsafe { libc::openlog(PROGRAM.as_ptr(), options, libc::LOG_DAEMON) };
    let mut time = std::mem::MaybeUninit::uninit();
    // SAFETY: the call reads one time and writes the structure, which nobody reads.
    unsafe { libc::localtime_r(&0, time.as_mut_ptr()) };
}

/// Sends a message of one line. Waits while the syslog daemon does not read. Without a syslog daemon, the
/// message is lost.
pub fn send(severity: Severity, line: &str) {
    let Ok(line) = CString::new(line.replace('\0', " ")) else {
        return;
    };
    // SAFETY: the format takes one string, and both end in a zero byte.
    unsafe { libc::syslog(severity.priority(), c"%s".as_ptr(), line.as_ptr()) };
}
