//! Why a command failed, and its exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use wg_rs::sys::netlink;

use crate::file::File;
use crate::steps::signals;

/// Why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something did not work; the message says what.
    Message(String),
    /// The hook at this position ended with this code; it has printed the reason itself.
    Hook(String, i32),
    /// This signal arrived.
    Signal(i32),
    /// Everything was printed already; only the exit code is left.
    Told(i32),
}

impl Failure {
    /// Creates a failure with this message.
    pub fn new(message: impl fmt::Display) -> Self {
        Failure::Message(message.to_string())
    }

    /// The same failure, with the file, the line and the key before its message.
    pub fn at(self, file: &File, line: usize, key: &str) -> Self {
        match self {
            Failure::Message(message) => {
                Failure::Message(format!("{}: {message}", position(file, line, key)))
            }
            failure => failure,
        }
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(u8::try_from(self.number()).unwrap_or(1))
    }

    fn number(&self) -> i32 {
        match self {
            Failure::Message(_) => 1,
            Failure::Hook(_, code) | Failure::Told(code) => *code,
            Failure::Signal(signal) => 128 + signal,
        }
    }

    /// The same failure, after it was printed.
    pub fn told(&self) -> Self {
        Failure::Told(self.number())
    }
}

/// The position of a key in a file, as errors begin with it.
pub fn position(file: &File, line: usize, key: &str) -> String {
    format!("{}:{line}: {key}", file.path.display())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Message(message) => f.write_str(message),
            Failure::Hook(line, code) => write!(f, "{line}: exit code {code}"),
            Failure::Signal(signal) => write!(f, "ended by {}", signals::name(*signal)),
            Failure::Told(code) => write!(f, "exit code {code}"),
        }
    }
}

impl From<netlink::Error> for Failure {
    fn from(error: netlink::Error) -> Self {
        Failure::new(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::new(error)
    }
}
