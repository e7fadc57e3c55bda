//! Reads the lines of any reply: those of the interface, then those of each peer, then the errno.

use std::io;
use std::str;

use wg_crypto::PublicKey;

use super::{number, split};

/// Why a reply cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The daemon refused the request with this errno, as a positive number.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    /// A line that is not `key=value`, is too long, or has an invalid value.
    #[error("line {line} of the reply: invalid {key}")]
    BadLine {
        /// The line, starting at 1.
        line: usize,
        /// The key, or `line` if the line has none.
        key: &'static str,
    },
    /// The reply has no errno.
    #[error("the reply ended early")]
    Incomplete,
}

/// What a reply contains.
pub trait Content: Default {
    /// Begins the next peer.
    fn begin_peer(&mut self, key: PublicKey);

    /// Reads a line of the interface, or of the last peer if there is one. Unknown keys are ignored, and
    /// so are known keys in the wrong place. If the value is invalid, the key's name is the error.
    fn line(&mut self, key: &[u8], value: &str) -> Result<(), &'static str>;
}

/// Collects the lines of a reply.
#[derive(Default)]
pub struct ReplyParser<C> {
    content: C,
    lines: usize,
    errno: Option<i32>,
}

impl<C: Content> ReplyParser<C> {
    /// Adds the next line, without its newline. The empty line at the end must not be passed in.
    ///
    /// # Errors
    /// The line is invalid.
    pub fn line(&mut self, line: &[u8]) -> Result<(), ReplyError> {
        self.lines += 1;
        let (key, value) = split(line).ok_or_else(|| self.bad("line"))?;
        // A value that is not UTF-8 is as invalid as an empty one.
        let value = str::from_utf8(value).unwrap_or_default();
        match key {
            b"errno" => {
                let digits = value.strip_prefix('-').unwrap_or(value);
                self.errno = Some(number(digits).ok_or_else(|| self.bad("errno"))?);
            }
            b"public_key" => {
                let key = PublicKey::from_hex(value).map_err(|_| self.bad("public_key"))?;
                self.content.begin_peer(key);
            }
            _ => (self.content.line(key, value)).map_err(|key| self.bad(key))?,
        }
        Ok(())
    }

    /// The error for a next line that was too long to be kept.
    pub fn too_long(&mut self) -> ReplyError {
        self.lines += 1;
        self.bad("line")
    }

    /// Returns the content after the empty line.
    ///
    /// # Errors
    /// The request was refused, or the reply is incomplete.
    pub fn finish(self) -> Result<C, ReplyError> {
        match self.errno {
            Some(0) => Ok(self.content),
            Some(errno) => Err(ReplyError::Refused(errno)),
            None => Err(ReplyError::Incomplete),
        }
    }

    fn bad(&self, key: &'static str) -> ReplyError {
        ReplyError::BadLine {
            line: self.lines,
            key,
        }
    }
}

/// Stores `value` if it is valid; otherwise returns the key's name as the error.
pub(super) fn store<T>(
    place: &mut T,
    value: Option<T>,
    key: &'static str,
) -> Result<(), &'static str> {
    *place = value.ok_or(key)?;
    Ok(())
}
