//! The log: lines on standard error.
//!
//! A line that cannot be written at once is dropped: a full disk, or a reader that is gone or does
//! not read, must neither end nor delay a tunnel.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use tracing::Level;

use super::options::LogLevel;
use crate::sys::{self, poll};

/// Starts the log with this level.
pub fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Silent => return,
        LogLevel::Error => Level::WARN,
        LogLevel::Verbose => Level::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Lines(io::stderr()))
        .with_target(false)
        // Otherwise it would panic about a line that cannot be written.
        .log_internal_errors(false)
        .init();
}

/// Writes one line per call.
struct Lines<W>(W);

impl<W: Write + AsFd> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if poll::wait_writable(self.0.as_fd(), Duration::ZERO)? {
            let text = sys::reason(&String::from_utf8_lossy(line));
            let _ = self.0.write(text.as_bytes());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    const LINE: &[u8] = &[b'x'; 1000];

    #[test]
    fn a_line_is_written() {
        let (mut read, write) = io::pipe().unwrap();
        Lines(write).write_all(b"a line (os error 2)\n").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a line\n");
    }

    #[test]
    fn lines_for_a_full_disk_or_a_closed_pipe_are_dropped() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        Lines(full).write_all(LINE).unwrap();
        let (read, write) = io::pipe().unwrap();
        drop(read);
        Lines(write).write_all(LINE).unwrap();
    }

    #[test]
    fn a_reader_that_does_not_read_causes_no_delay() {
        let (_read, write) = io::pipe().unwrap();
        let mut lines = Lines(write);
        // Several times the capacity of a pipe.
        for _ in 0..1000 {
            lines.write_all(LINE).unwrap();
        }
    }
}
