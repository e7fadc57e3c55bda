//! The tools' end of the configuration protocol. Blocking.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

use super::lines::{Line, LineBuffer};
use super::text::{GetParser, ReplyError, print_change};
use super::types::{Change, Interface};

/// Bytes read or written at a time.
const CHUNK: usize = 64 << 10;
/// More than any one change takes.
const LONGEST: usize = 128;

/// A connection to a daemon, for any number of requests.
pub struct Client {
    stream: UnixStream,
    lines: LineBuffer,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon cannot be talked to.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It refused, or its answer makes no sense.
    #[error(transparent)]
    Reply(#[from] ReplyError),
}

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Client::new(UnixStream::connect(path)?))
    }

    /// Talks over `stream`.
    pub fn new(stream: UnixStream) -> Self {
        Client {
            stream,
            lines: LineBuffer::new(CHUNK),
        }
    }

    /// What is configured, and its state.
    pub fn get(&mut self) -> Result<Interface, ClientError> {
        self.stream.write_all(b"get=1\n\n")?;
        self.reply()
    }

    /// Makes changes, in their order.
    pub fn set(&mut self, changes: &[Change]) -> Result<(), ClientError> {
        // Never grown, so nothing of it stays behind elsewhere.
        let mut out = Zeroizing::new(Vec::with_capacity(CHUNK));
        out.extend_from_slice(b"set=1\n");
        for change in changes {
            if out.len() > CHUNK - LONGEST {
                self.stream.write_all(&out)?;
                out.zeroize();
            }
            print_change(change, &mut out);
        }
        out.push(b'\n');
        self.stream.write_all(&out)?;
        self.reply()?;
        Ok(())
    }

    fn reply(&mut self) -> Result<Interface, ClientError> {
        let mut parser = GetParser::default();
        loop {
            while !self.lines.step() {
                match self.stream.read(self.lines.space()) {
                    Ok(0) => return Err(ReplyError::Incomplete.into()),
                    Ok(len) => self.lines.filled(len),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match self.lines.line() {
                Line::Text(b"") => return Ok(parser.finish()?),
                Line::Text(line) => parser.line(line)?,
                Line::TooLong => return Err(parser.too_long().into()),
            }
        }
    }
}
