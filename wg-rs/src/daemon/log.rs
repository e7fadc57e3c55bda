//! The log: lines on standard error.
//!
//! A line that cannot be written at once is dropped. A full disk, a reader that is gone and one that
//! does not read are no reason to end a tunnel, nor to hold it up.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use tracing::Level;

use super::options::LogLevel;
use crate::sys::{self, poll};

/// Logs from now on, as much as `level` says.
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
        // It would report a line that cannot be written by a panic.
        .log_internal_errors(false)
        .init();
}

/// Takes a line at a time.
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
    fn a_line_for_a_full_disk_or_a_reader_that_is_gone_is_dropped() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        Lines(full).write_all(LINE).unwrap();
        let (read, write) = io::pipe().unwrap();
        drop(read);
        Lines(write).write_all(LINE).unwrap();
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up() {
        let (_read, write) = io::pipe().unwrap();
        let mut lines = Lines(write);
        // Several times what a pipe holds.
        for _ in 0..1000 {
            lines.write_all(LINE).unwrap();
        }
    }
}
