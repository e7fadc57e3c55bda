//! The conversation with one client.
//!
//! It repeats: read a request line and its body, send a reply, until the client closes. The handler is called only
//! with a complete request, and a reply is made from a snapshot. A `set` with an invalid line changes nothing.
//! Errnos are negative in replies to `set` and positive in replies to `get`, because `wg` understands only that.

use std::io;

use nix::errno::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tracing::debug;
use zeroize::{Zeroize, Zeroizing};

use super::lines::{LineBuffer, UapiLine};
use super::text::{ReplyContent, ReplyPrinter, SetParser};
use crate::model::status::Status;
use crate::model::{Change, Interface};

/// Most bytes in one read.
const READ: usize = 16 << 10;
/// Most bytes in one write.
const WRITE: usize = 64 << 10;

/// The object that is configured through the socket.
pub trait Handler: Send + Sync + 'static {
    /// Returns a snapshot of configuration and state.
    fn get(&self) -> Result<Interface, Errno>;

    /// Returns a snapshot of the status.
    fn status(&self) -> Result<Status, Errno>;

    /// Sets the log level with this name.
    fn log(&self, level: &str) -> Result<(), Errno>;

    /// Applies the changes in their order. If one fails, those before it may remain applied.
    fn set(&self, changes: Vec<Change>) -> Result<(), Errno>;
}

/// A request without a body.
enum Question {
    Get,
    Status,
    /// Set the log level with this name.
    Log(String),
}

/// The prefix of a request that sets the log level.
const LOG: &[u8] = b"log=";

/// A connection to a client.
pub(super) struct Connection {
    stream: UnixStream,
    lines: LineBuffer,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        let lines = LineBuffer::new(READ);
        Connection { stream, lines }
    }

    /// Answers requests until the client closes the connection or sends an invalid request.
    pub(super) async fn converse(mut self, handler: &impl Handler) -> io::Result<()> {
        loop {
            let question = match self.line().await? {
                Some(UapiLine::Text(b"get=1")) => Question::Get,
                Some(UapiLine::Text(b"status=1")) => Question::Status,
                Some(UapiLine::Text(line)) if line.starts_with(LOG) => {
                    Question::Log(String::from_utf8_lossy(&line[LOG.len()..]).into_owned())
                }
                Some(UapiLine::Text(b"set=1")) => {
                    let result = self.set(handler).await?;
                    self.end(-(result.err().map_or(0, |errno| errno as i32)))
                        .await?;
                    continue;
                }
                Some(UapiLine::Text(_) | UapiLine::TooLong) | None => return Ok(()),
            };
            match self.line().await? {
                Some(UapiLine::Text(b"")) => self.answer(handler, question).await?,
                Some(_) => return self.end(Errno::EINVAL as i32).await,
                None => return Ok(()),
            }
        }
    }

    async fn answer(&mut self, handler: &impl Handler, question: Question) -> io::Result<()> {
        let refused = match question {
            Question::Get => match handler.get() {
                Ok(interface) => return self.print(&interface).await,
                Err(errno) => errno as i32,
            },
            Question::Status => match handler.status() {
                Ok(status) => return self.print(&status).await,
                Err(errno) => errno as i32,
            },
            Question::Log(level) => handler.log(&level).err().map_or(0, |errno| errno as i32),
        };
        self.end(refused).await
    }

    /// Reads the body of a `set` to its end, even if a line is invalid, and then applies it.
    async fn set(&mut self, handler: &impl Handler) -> io::Result<Result<(), Errno>> {
        let mut parser = SetParser::default();
        let mut bad = None;
        loop {
            let read = match self.line().await? {
                Some(UapiLine::Text(b"")) | None => break,
                Some(_) if bad.is_some() => continue,
                Some(UapiLine::Text(line)) => parser.line(line),
                Some(UapiLine::TooLong) => Err(parser.too_long()),
            };
            bad = read.err();
        }
        if let Some(bad) = bad {
            debug!(%bad, "refused an invalid set request");
            return Ok(Err(bad.errno()));
        }
        Ok(handler.set(parser.finish()))
    }

    /// Writes a reply in pieces.
    async fn print<C: ReplyContent>(&mut self, content: &C) -> io::Result<()> {
        // Pieces with keys never make the buffer grow, because growing would leave a copy behind.
        let mut out = Zeroizing::new(Vec::with_capacity(WRITE + C::STEP));
        let mut printer = ReplyPrinter::new(content);
        loop {
            let more = printer.print(&mut out, WRITE);
            self.stream.write_all(&out).await?;
            if !more {
                return Ok(());
            }
            out.zeroize();
        }
    }

    /// A reply that consists of an errno.
    async fn end(&mut self, errno: i32) -> io::Result<()> {
        self.stream
            .write_all(format!("errno={errno}\n\n").as_bytes())
            .await
    }

    /// The next line. None if the client has closed its side.
    async fn line(&mut self) -> io::Result<Option<UapiLine<'_>>> {
        let mut ended = false;
        while !self.lines.step() {
            if ended {
                return Ok(None);
            }
            let len = self.stream.read(self.lines.space()).await?;
            self.lines.filled(len);
            ended = len == 0;
        }
        Ok(Some(self.lines.line()))
    }
}
