//! A client of the UAPI socket: it exchanges text, or gets and sets typed values.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::{Config, Host, InterfaceState, SOCKETS};

/// A connection to an interface's UAPI socket.
#[derive(Debug)]
pub struct Uapi(BufReader<UnixStream>);

impl Uapi {
    /// Connects to the socket of `interface` in `host`.
    pub fn connect(host: &Host, interface: &str) -> io::Result<Uapi> {
        let stream = host.run(|| UnixStream::connect(format!("{SOCKETS}/{interface}.sock")))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Uapi(BufReader::new(stream)))
    }

    /// Sends text.
    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.get_mut().write_all(text.as_bytes())
    }

    /// Closes the sending half.
    pub fn half_close(&mut self) -> io::Result<()> {
        self.0.get_ref().shutdown(std::net::Shutdown::Write)
    }

    /// Reads one answer, up to its empty line. It is an error if the connection is closed before.
    pub fn answer(&mut self) -> io::Result<String> {
        let mut text = String::new();
        while !text.ends_with("\n\n") {
            if self.0.read_line(&mut text)? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("connection closed after {text:?}"),
                ));
            }
        }
        Ok(text)
    }

    /// Sends text and reads one answer. A daemon may answer with an error, and close the connection,
    /// before it has read everything.
    pub fn ask(&mut self, text: &str) -> io::Result<String> {
        match self.send(text) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.answer().map_err(|_| error)
            }
            sent => sent.and_then(|()| self.answer()),
        }
    }

    /// Reads the state of the interface.
    pub fn get(&mut self) -> io::Result<InterfaceState> {
        InterfaceState::from_uapi(&self.ask("get=1\n\n")?)
    }

    /// Applies a configuration; the daemon's errno is the error.
    pub fn set(&mut self, config: &Config) -> io::Result<()> {
        InterfaceState::from_uapi(&self.ask(&config.uapi())?).map(|_| ())
    }
}
