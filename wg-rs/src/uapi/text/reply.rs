//! Prints and reads a reply with content: the lines of the interface, then those of each peer, each with its
//! networks, then the errno and an empty line.

use std::io::{self, Write};
use std::str;

use wg_crypto::PublicKey;

use super::{number, split};
use crate::model::AllowedIp;

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
pub trait ReplyContent: Default {
    /// The most bytes that one step of printing usually appends.
    const STEP: usize;

    /// Appends the lines of the interface, in steps that are counted from 0. Returns false, and appends
    /// nothing, after the last step.
    fn print_device(&self, step: usize, out: &mut Vec<u8>) -> io::Result<bool>;

    /// Appends the lines of a peer, except for its networks.
    fn print_peer(&self, peer: usize, out: &mut Vec<u8>) -> io::Result<()>;

    /// The networks of a peer. `None` if there are fewer peers.
    fn allowed_ips(&self, peer: usize) -> Option<&[AllowedIp]>;

    /// Begins the next peer.
    fn begin_peer(&mut self, key: PublicKey);

    /// Reads a line of the interface, or of the last peer if there is one. Unknown keys are ignored, and
    /// so are known keys in the wrong place. If the value is invalid, the key's name is the error.
    fn line(&mut self, key: &[u8], value: &str) -> Result<(), &'static str>;
}

/// Prints a reply in pieces, so that a large one needs no large buffer.
pub struct ReplyPrinter<'a, C> {
    content: &'a C,
    next: Next,
}

enum Next {
    Device(usize),
    Peer(usize),
    AllowedIp(usize, usize),
    Done,
}

impl<'a, C: ReplyContent> ReplyPrinter<'a, C> {
    /// Starts at the beginning of `content`.
    pub fn new(content: &'a C) -> Self {
        ReplyPrinter {
            content,
            next: Next::Device(0),
        }
    }

    /// Appends lines to `out` until it has `enough` bytes, and usually at most [`ReplyContent::STEP`] more.
    /// Returns whether anything remains to be printed.
    pub fn print(&mut self, out: &mut Vec<u8>, enough: usize) -> bool {
        while out.len() < enough && !matches!(self.next, Next::Done) {
            // Writing to a Vec cannot fail.
            let _ = self.step(out);
        }
        !matches!(self.next, Next::Done)
    }

    fn step(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.next = match self.next {
            Next::Device(step) => match self.content.print_device(step, out)? {
                true => Next::Device(step + 1),
                false => Next::Peer(0),
            },
            Next::Peer(i) if self.content.allowed_ips(i).is_some() => {
                self.content.print_peer(i, out)?;
                Next::AllowedIp(i, 0)
            }
            Next::AllowedIp(i, j) => {
                let ips = self.content.allowed_ips(i).unwrap_or_default();
                match ips.get(j) {
                    Some(ip) => {
                        writeln!(out, "allowed_ip={ip}")?;
                        Next::AllowedIp(i, j + 1)
                    }
                    None => Next::Peer(i + 1),
                }
            }
            Next::Peer(_) => {
                out.extend_from_slice(b"errno=0\n\n");
                Next::Done
            }
            Next::Done => Next::Done,
        };
        Ok(())
    }
}

/// Collects the lines of a reply.
#[derive(Default)]
pub struct ReplyParser<C> {
    content: C,
    lines: usize,
    errno: Option<i32>,
}

impl<C: ReplyContent> ReplyParser<C> {
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

/// Like [`store`], for a field that is None until its line is read.
pub(super) fn fill<T>(
    place: &mut Option<T>,
    value: Option<T>,
    key: &'static str,
) -> Result<(), &'static str> {
    store(place, value.map(Some), key)
}
