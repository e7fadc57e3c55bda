//! The progress of the measurements: a line that grows.

use std::io::{self, Write};

/// A line that is not finished. It is finished by the next line, by an error, or when this is dropped,
/// so that nothing else is printed on it.
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

    /// Prints text. Ignores failures, as the measurements can go on.
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
    fn a_line_ends_before_anything_else_is_printed() {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out);
        progress.begin("round 1:");
        progress.add(" tcp1");
        progress.begin("round 2:");
        progress.end();
        progress.end();
        progress.begin("round 3:");
        // An error that leaves the function drops it too.
        drop(progress);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "round 1: tcp1\nround 2:\nround 3:\n"
        );
    }
}
