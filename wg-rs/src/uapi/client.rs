//! The client side of the configuration protocol, for tools and tests. Blocking.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use zeroize::{Zeroize, Zeroizing};

use super::lines::{LineBuffer, UapiLine};
use super::text::{ReplyContent, ReplyError, ReplyParser, print_change};
use crate::model::status::Status;
use crate::model::{Change, Interface};

/// Most bytes in one read or write.
const CHUNK: usize = 64 << 10;
/// More bytes than any change takes.
const LONGEST: usize = 320;

/// How long a connection, a part of a request or a reply may wait for the daemon. With a hundred
/// thousand peers a daemon needs less than a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a daemon, for any number of requests.
pub struct Client {
    stream: UnixStream,
    lines: LineBuffer,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon cannot be reached. ETIMEDOUT: the daemon exists but does not respond.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The daemon refused the request, or its reply is invalid.
    #[error(transparent)]
    Reply(#[from] ReplyError),
}

impl Client {
    /// Connects to the socket at `path`. All requests have a timeout.
    ///
    /// # Errors
    /// ETIMEDOUT: nobody accepts the connection.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Client::new(connect(path)?))
    }

    /// Uses `stream` with its timeouts.
    pub fn new(stream: UnixStream) -> Self {
        Client {
            stream,
            lines: LineBuffer::new(CHUNK),
        }
    }

    /// Requests configuration and state.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&mut self) -> Result<Interface, ClientError> {
        self.write(b"get=1\n\n")?;
        self.reply()
    }

    /// Requests the status. None if the daemon does not know this request; it may then have closed
    /// the connection.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn status(&mut self) -> Result<Option<Status>, ClientError> {
        self.ask_newer("status=1\n\n")
    }

    /// Sets the daemon's log level. False if the daemon does not know this request, or the level.
    ///
    /// # Errors
    /// Those of the other requests.
    pub fn log(&mut self, level: &str) -> Result<bool, ClientError> {
        let reply: Option<Interface> = self.ask_newer(&format!("log={level}\n\n"))?;
        Ok(reply.is_some())
    }

    /// Makes a request that other daemons and older versions do not know. None if this one refuses it, or
    /// closes the connection.
    fn ask_newer<C: ReplyContent>(&mut self, request: &str) -> Result<Option<C>, ClientError> {
        let reply = self.write(request.as_bytes()).map_err(ClientError::from);
        match reply.and_then(|()| self.reply()) {
            Ok(content) => Ok(Some(content)),
            Err(ClientError::Reply(ReplyError::Incomplete | ReplyError::Refused(_))) => Ok(None),
            Err(ClientError::Io(error)) if is_closed(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Requests changes, which the daemon makes in their order.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set(&mut self, changes: &[Change]) -> Result<(), ClientError> {
        // The buffer never grows, because growing would leave a copy behind.
        let mut out = Zeroizing::new(Vec::with_capacity(CHUNK));
        out.extend_from_slice(b"set=1\n");
        for change in changes {
            if out.len() > CHUNK - LONGEST {
                self.write(&out)?;
                out.zeroize();
            }
            print_change(change, &mut out);
        }
        out.push(b'\n');
        self.write(&out)?;
        self.reply::<Interface>()?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).map_err(timed_out)
    }

    fn reply<C: ReplyContent>(&mut self) -> Result<C, ClientError> {
        let mut parser = ReplyParser::default();
        loop {
            while !self.lines.step() {
                match self.stream.read(self.lines.space()) {
                    Ok(0) => return Err(ReplyError::Incomplete.into()),
                    Ok(len) => self.lines.filled(len),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(timed_out(error).into()),
                }
            }
            match self.lines.line() {
                UapiLine::Text(b"") => return Ok(parser.finish()?),
                UapiLine::Text(line) => parser.line(line)?,
                UapiLine::TooLong => return Err(parser.too_long().into()),
            }
        }
    }
}

/// Connects to the socket at `path`, and sets timeouts.
///
/// # Errors
/// ETIMEDOUT: nobody accepts the connection.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    connect_within(path, PATIENCE)
}

fn connect_within(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let (unix, stream) = (AddressFamily::Unix, SockType::Stream);
    let stream = UnixStream::from(socket::socket(unix, stream, SockFlag::SOCK_CLOEXEC, None)?);
    // Set before connecting, because that waits too if the queue is full.
    stream.set_write_timeout(Some(patience))?;
    stream.set_read_timeout(Some(patience))?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)
        .map_err(|errno| timed_out(errno.into()))?;
    Ok(stream)
}

/// Whether the other end closed the connection with unread input.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// A socket's timeout is reported like a nonblocking socket without data; this makes it ETIMEDOUT.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::from_raw_os_error(libc::ETIMEDOUT),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uapi::socket::tests::TempDir;
    use nix::sys::socket::Backlog;
    use std::os::unix::net::UnixListener;

    const SHORT: Duration = Duration::from_millis(20);

    fn errno<T>(result: Result<T, ClientError>) -> Option<i32> {
        match result {
            Err(ClientError::Io(error)) => error.raw_os_error(),
            _ => None,
        }
    }

    #[test]
    fn a_daemon_that_does_not_respond_times_out() {
        let temp = TempDir::new();
        let listener = UnixListener::bind(temp.socket()).unwrap();
        let stream = connect(&temp.socket()).unwrap();
        assert_eq!(stream.read_timeout().unwrap(), Some(PATIENCE));
        assert_eq!(stream.write_timeout().unwrap(), Some(PATIENCE));

        let mut client = Client::new(connect_within(&temp.socket(), SHORT).unwrap());
        assert_eq!(errno(client.get()), Some(libc::ETIMEDOUT));
        let mut client = Client::new(connect_within(&temp.socket(), SHORT).unwrap());
        let more_than_its_buffer = vec![Change::FwMark(1); 1 << 20];
        assert_eq!(
            errno(client.set(&more_than_its_buffer)),
            Some(libc::ETIMEDOUT)
        );

        // One connection more than those that wait is not even queued.
        socket::listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let error = connect_within(&temp.socket(), SHORT).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    }
}
