//! syslog(3) of the C library, which reaches the journal as well as any syslog daemon.

use std::ffi::{CStr, CString, c_int};

/// As which program messages are sent.
const PROGRAM: &CStr = c"wireguard-rs";

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something failed.
    Error,
    /// Something works only in part.
    Warning,
    /// Something happened.
    Info,
    /// For whoever looks for a fault.
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

/// What is sent from now on is sent as a daemon's, with its process ID.
pub fn open() {
    // SAFETY: the C library keeps the pointer, which is to a constant.
    unsafe { libc::openlog(PROGRAM.as_ptr(), libc::LOG_PID, libc::LOG_DAEMON) };
}

/// Sends a message of one line. Waits as long as whoever reads does not; if nobody does, it is lost.
pub fn send(severity: Severity, line: &str) {
    let Ok(line) = CString::new(line.replace('\0', " ")) else {
        return;
    };
    // SAFETY: the format takes one string, and both end in a zero byte.
    unsafe { libc::syslog(severity.priority(), c"%s".as_ptr(), line.as_ptr()) };
}
