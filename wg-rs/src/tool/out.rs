//! Standard output for texts that may contain keys: written directly to the descriptor, from a
//! buffer that never grows and is wiped.

use std::io::{self, Write};
use std::process::ExitCode;

use nix::errno::Errno;
use zeroize::{Zeroize, Zeroizing};

use super::context::complain;
use crate::backend;

/// Size of the buffer in bytes.
const CAPACITY: usize = 64 << 10;

/// A buffered writer to standard output, whose buffer is wiped.
pub(crate) struct Out(Zeroizing<Vec<u8>>);

impl Out {
    /// Creates a writer with an empty buffer.
    pub fn new() -> Self {
        Out(Zeroizing::new(Vec::with_capacity(CAPACITY)))
    }

    /// Writes the rest. Returns `status`, unless `written` or this call failed.
    pub fn finish(mut self, written: io::Result<()>, status: ExitCode) -> ExitCode {
        match written.and_then(|()| self.flush()) {
            Ok(()) => status,
            // The reader closed the pipe because it has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => status,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                complain(format_args!("Unable to write: {}", backend::Errno(errno)))
            }
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() == CAPACITY {
            self.flush()?;
        }
        let len = bytes.len().min(CAPACITY - self.0.len());
        self.0.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut rest = &self.0[..];
        let written = loop {
            if rest.is_empty() {
                break Ok(());
            }
            match nix::unistd::write(io::stdout(), rest) {
                Ok(len) => rest = &rest[len..],
                Err(Errno::EINTR) => {}
                Err(errno) => break Err(errno.into()),
            }
        };
        self.0.zeroize();
        written
    }
}

/// Writes a text to standard output.
pub(crate) fn print(text: impl AsRef<[u8]>) -> ExitCode {
    let mut out = Out::new();
    let written = out.write_all(text.as_ref());
    out.finish(written, ExitCode::SUCCESS)
}
