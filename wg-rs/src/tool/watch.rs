//! `--watch`: refreshes every second, until a signal arrives or the reader closes the pipe.
//!
//! On a terminal, each frame is drawn over the previous one and truncated to the size of the
//! screen. Elsewhere the frames follow one another, separated by an empty line.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use zeroize::Zeroizing;

use super::context::complain;
use super::out::Out;
use crate::sys::terminal::{Size, size};

const PERIOD: Duration = Duration::from_secs(1);

/// Shows one frame after another. `frame` returns an exit status instead of a frame to end the loop. On a
/// `screen`, each frame is drawn over the previous one; elsewhere the frames follow one another.
pub(super) fn run(
    screen: bool,
    mut frame: impl FnMut() -> Result<io::Result<Zeroizing<Vec<u8>>>, ExitCode>,
) -> ExitCode {
    let signals = match signals() {
        Ok(signals) => signals,
        Err(error) => return complain(format_args!("Unable to catch signals: {error}")),
    };
    let mut first = true;
    loop {
        let composed = match frame() {
            Ok(composed) => composed,
            Err(status) => return status,
        };
        let mut out = Out::new();
        let drawn = composed.and_then(|frame| match size(io::stdout()) {
            Some(size) if screen => draw(&mut out, &frame, size, first),
            _ => {
                if !first && screen {
                    writeln!(out)?;
                }
                out.write_all(&frame)
            }
        });
        let readers = drawn
            .and_then(|()| out.flush())
            .and_then(|()| wait(&signals));
        match readers {
            Ok(true) => first = false,
            Ok(false) => return ExitCode::SUCCESS,
            Err(error) => return out.finish(Err(error), ExitCode::SUCCESS),
        }
    }
}

/// Blocks the signals that end the program. They are read from the returned descriptor.
fn signals() -> io::Result<SignalFd> {
    let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?)
}

/// Waits for one period. False if a signal arrived or the reader closed the pipe.
fn wait(signals: &SignalFd) -> io::Result<bool> {
    let stdout = io::stdout();
    let mut fds = [
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(stdout.as_fd(), PollFlags::empty()),
    ];
    let timeout = PollTimeout::try_from(PERIOD).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut fds, timeout)? == 0)
}

/// Draws `frame` over the screen, from the upper left corner. Text that does not fit is left out,
/// and the last row is left for the cursor.
fn draw(out: &mut impl Write, frame: &[u8], size: Size, first: bool) -> io::Result<()> {
    write!(out, "{}", if first { "\x1b[H\x1b[2J" } else { "\x1b[H" })?;
    let mut rows = usize::from(size.rows).saturating_sub(1);
    for line in frame.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let needed = width(line)
            .div_ceil(usize::from(size.columns).max(1))
            .max(1);
        if needed > rows {
            break;
        }
        rows -= needed;
        out.write_all(line)?;
        write!(out, "\x1b[K\r\n")?;
    }
    write!(out, "\x1b[0m\x1b[J")
}

/// The number of columns that a line needs, without its escape sequences.
fn width(line: &[u8]) -> usize {
    let mut escape = false;
    let shown = line.iter().filter(|byte| match (escape, **byte) {
        (false, b'\x1b') => {
            escape = true;
            false
        }
        (false, _) => true,
        (true, byte) => {
            escape = !byte.is_ascii_alphabetic();
            false
        }
    });
    shown.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(frame: &str, rows: u16, columns: u16) -> String {
        let mut out = Vec::new();
        draw(&mut out, frame.as_bytes(), Size { rows, columns }, false).unwrap();
        String::from_utf8(out).unwrap().replace('\x1b', "^")
    }

    #[test]
    fn escape_sequences_need_no_columns() {
        assert_eq!(width(b""), 0);
        assert_eq!(width(b"\x1b[32m\x1b[1minterface\x1b[0m: x"), 12);
    }

    #[test]
    fn a_frame_is_truncated_to_the_terminal() {
        assert_eq!(drawn("a\nb\n", 24, 80), "^[Ha^[K\r\nb^[K\r\n^[0m^[J");
        assert_eq!(drawn("a\nb\nc\n", 3, 80), "^[Ha^[K\r\nb^[K\r\n^[0m^[J");
        // The first line takes two rows of a narrow one.
        assert_eq!(drawn("abcd\nb\nc\n", 4, 2), "^[Habcd^[K\r\nb^[K\r\n^[0m^[J");
        assert_eq!(drawn("\na\n", 3, 80), "^[H^[K\r\na^[K\r\n^[0m^[J");
        assert_eq!(drawn("a\n", 0, 0), "^[H^[0m^[J");
    }
}
