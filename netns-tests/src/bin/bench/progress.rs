//! What is said while measurements are taken: a line that grows, for whoever waits.

use std::io::{self, Write};

/// A line under way. It ends with the next one, with an error, or when this is dropped, so that
/// nothing else is ever printed behind it.
pub struct Progress<W: Write> {
    out: W,
    is_open: bool,
}

impl<W: Write> Progress<W> {
    pub fn new(out: W) -> Self {
        Progress {
            out,
            is_open: false,
        }
    }

    /// Begins a line.
    pub fn begin(&mut self, text: &str) {
        self.end();
        self.print(text);
        self.is_open = true;
    }

    /// Adds to the line.
    pub fn add(&mut self, text: &str) {
        self.print(text);
    }

    /// Ends the line, if there is one.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.print("\n");
        }
    }

    /// Progress that cannot be shown is no reason to stop.
    fn print(&mut self, text: &str) {
        let _: io::Result<()> = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_before_anything_else_is_said() {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out);
        progress.begin("round 1:");
        progress.add(" tcp1");
        progress.begin("round 2:");
        progress.end();
        progress.end();
        progress.begin("round 3:");
        // As an error leaves the function that has it.
        drop(progress);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "round 1: tcp1\nround 2:\nround 3:\n"
        );
    }
}
