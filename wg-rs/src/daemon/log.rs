//! Log lines go to standard error; a daemon in the background sends them to syslog instead.
//!
//! A line that cannot be written at once is dropped: a full disk, or a reader that is gone or does
//! not read, must neither end nor delay a tunnel. syslog(3) may block, so a thread of its own calls it.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing::Level;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::options::LogLevel;
use crate::sys::syslog::{self, Severity};
use crate::sys::{self, poll};

/// Maximum number of messages that wait for syslog.
const QUEUE: usize = 1024;
/// How long the process waits at its end for the last messages.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The current log level, which can be changed.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();
/// The queue to syslog, if the log goes there.
static SYSLOG: OnceLock<SyncSender<ToWriter>> = OnceLock::new();

/// The destination of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDestination<'a> {
    /// Standard error.
    Stderr,
    /// Syslog; each message begins with this interface name.
    Syslog(&'a str),
}

/// The receiving end of the queue to syslog, until [`Queue::serve`].
#[must_use]
pub struct Queue(Option<Receiver<ToWriter>>);

enum ToWriter {
    Line(Severity, String),
    /// Answer here after all earlier messages were sent.
    Flush(SyncSender<()>),
}

/// Starts logging at this level.
pub fn start(level: LogLevel, destination: LogDestination<'_>) -> Queue {
    let (filter, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer()
        .with_target(false)
        // Otherwise a line that cannot be written would cause a panic.
        .log_internal_errors(false);
    let queue = match destination {
        LogDestination::Stderr => {
            let lines = lines.with_writer(|| Lines(io::stderr()));
            registry.with(lines).init();
            None
        }
        LogDestination::Syslog(interface) => {
            syslog::open();
            let (sender, receiver) = sync_channel(QUEUE);
            let writer = ToSyslog {
                prefix: format!("{interface}: "),
                queue: sender.clone(),
            };
            let _ = SYSLOG.set(sender);
            // Syslog adds the time and the severity.
            let lines = lines.with_writer(writer).without_time().with_level(false);
            registry.with(lines).init();
            Some(receiver)
        }
    };
    let _ = LEVEL.set(handle);
    Queue(queue)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Silent => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::WARN,
        LogLevel::Verbose => LevelFilter::DEBUG,
    }
}

/// Changes the log level.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        let _ = handle.reload(filter(level));
    }
}

/// Waits until all messages were sent, at most `LAST_WORDS`.
pub fn flush() {
    if let Some(queue) = SYSLOG.get() {
        let (done, waiter) = sync_channel(1);
        if queue.try_send(ToWriter::Flush(done)).is_ok() {
            let _ = waiter.recv_timeout(LAST_WORDS);
        }
    }
}

impl Queue {
    /// Sends waiting and future messages from a thread of its own, which inherits this thread's capabilities.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub fn serve(self) -> io::Result<()> {
        let Queue(Some(messages)) = self else {
            return Ok(());
        };
        let send = move || {
            for message in messages {
                match message {
                    ToWriter::Line(severity, line) => syslog::send(severity, &line),
                    ToWriter::Flush(done) => drop(done.try_send(())),
                }
            }
        };
        let thread = std::thread::Builder::new().name("wg-log".into());
        thread.spawn(send).map(drop)
    }
}

/// Turns each line into a message.
struct ToSyslog {
    prefix: String,
    queue: SyncSender<ToWriter>,
}

/// Writes a line with a severity.
struct SyslogLine<'a> {
    to: &'a ToSyslog,
    severity: Severity,
}

impl<'a> MakeWriter<'a> for ToSyslog {
    type Writer = SyslogLine<'a>;

    fn make_writer(&'a self) -> SyslogLine<'a> {
        SyslogLine {
            to: self,
            severity: Severity::Info,
        }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> SyslogLine<'a> {
        let severity = match *event.level() {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            Level::INFO => Severity::Info,
            _ => Severity::Debug,
        };
        SyslogLine { to: self, severity }
    }
}

impl Write for SyslogLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = sys::reason(&String::from_utf8_lossy(line));
        let line_of_interface = format!("{}{}", self.to.prefix, text.trim_end());
        let message = ToWriter::Line(self.severity, line_of_interface);
        let _ = self.to.queue.try_send(message);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
