//! Splits a stream of bytes into lines; the caller does the reading. Lines may contain secrets, so
//! bytes are wiped after use.

use zeroize::{Zeroize, Zeroizing};

/// Longer than any line of the protocol: the longest lines are keys with 80 bytes, and endpoints
/// with a scope.
pub(super) const MAX_LINE: usize = 512;

/// A line without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UapiLine<'a> {
    Text(&'a [u8]),
    /// A line with more than [`MAX_LINE`] bytes, which were discarded.
    TooLong,
}

/// The bytes that are not yet processed are `bytes[start..end]`. Call [`LineBuffer::step`] for each
/// line; when it returns false, read into [`LineBuffer::space`] and report the length to
/// [`LineBuffer::filled`].
pub(super) struct LineBuffer {
    bytes: Zeroizing<Vec<u8>>,
    /// The current line is `bytes[line..start - 1]`.
    line: usize,
    start: usize,
    end: usize,
    /// Whether the beginning of the line at `start` was discarded because the line is too long.
    cut: bool,
    too_long: bool,
}

impl LineBuffer {
    /// A buffer of `size` bytes, which must be more than [`MAX_LINE`].
    pub(super) fn new(size: usize) -> Self {
        debug_assert!(size > MAX_LINE);
        let bytes = Zeroizing::new(vec![0; size]);
        LineBuffer {
            bytes,
            line: 0,
            start: 0,
            end: 0,
            cut: false,
            too_long: false,
        }
    }

    /// Goes to the next complete line, if there is one.
    pub(super) fn step(&mut self) -> bool {
        match self.bytes[self.start..self.end]
            .iter()
            .position(|b| *b == b'\n')
        {
            Some(len) => {
                self.line = self.start;
                self.start += len + 1;
                self.too_long = std::mem::take(&mut self.cut) || len > MAX_LINE;
                true
            }
            None => {
                if self.end - self.start > MAX_LINE {
                    self.cut = true;
                    self.start = self.end;
                }
                false
            }
        }
    }

    /// The current line.
    pub(super) fn line(&self) -> UapiLine<'_> {
        if self.too_long {
            UapiLine::TooLong
        } else {
            UapiLine::Text(&self.bytes[self.line..self.start - 1])
        }
    }

    /// Wipes used bytes. Returns the space to read into, which is never empty after `step` returned
    /// false.
    pub(super) fn space(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.end);
        self.bytes.copy_within(start..end, 0);
        self.bytes[end - start..end].zeroize();
        (self.line, self.start, self.end) = (0, 0, end - start);
        &mut self.bytes[end - start..]
    }

    /// Reports that `len` bytes were read into `space`; 0 means the end of the stream, at which a
    /// last line without a newline counts as a line.
    pub(super) fn filled(&mut self, len: usize) {
        self.end += len;
        if len == 0 && (self.start < self.end || self.cut) {
            // There is space, because `step` has found no newline.
            self.bytes[self.end] = b'\n';
            self.end += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The lines of `input`, which arrives in pieces of the given sizes, repeatedly.
    fn lines(input: &[u8], pieces: &[usize]) -> Vec<Option<Vec<u8>>> {
        let mut buffer = LineBuffer::new(MAX_LINE + 9);
        let (mut rest, mut found) = (input, Vec::new());
        for piece in pieces.iter().cycle() {
            while buffer.step() {
                found.push(match buffer.line() {
                    UapiLine::Text(line) => Some(line.to_vec()),
                    UapiLine::TooLong => None,
                });
            }
            let space = buffer.space();
            let len = rest.len().min(*piece).min(space.len());
            space[..len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            buffer.filled(len);
            if len == 0 {
                let last = buffer.step().then(|| match buffer.line() {
                    UapiLine::Text(line) => Some(line.to_vec()),
                    UapiLine::TooLong => None,
                });
                assert!(!buffer.step());
                found.extend(last);
                break;
            }
        }
        found
    }

    #[test]
    fn long_lines_are_discarded_and_the_next_is_complete() {
        let text = |s: &str| Some(s.as_bytes().to_vec());
        for len in [MAX_LINE + 1, MAX_LINE + 8, MAX_LINE + 9, 5 * MAX_LINE] {
            let input = format!("a=b\n{}\n\nc=d", "x".repeat(len));
            assert_eq!(
                lines(input.as_bytes(), &[100]),
                [text("a=b"), None, text(""), text("c=d")]
            );
            assert_eq!(lines("x".repeat(len).as_bytes(), &[7]), [None]);
        }
        assert_eq!(
            lines("x".repeat(MAX_LINE).as_bytes(), &[7]),
            [text(&"x".repeat(MAX_LINE))]
        );
        assert!(lines(b"", &[1]).is_empty());
        assert_eq!(lines(b"\n", &[1]), [text("")]);
    }

    #[test]
    fn used_bytes_are_wiped() {
        let mut buffer = LineBuffer::new(1024);
        buffer.space()[..14].copy_from_slice(b"secret\nand mor");
        buffer.filled(14);
        assert!(buffer.step() && !buffer.step());
        buffer.space();
        assert_eq!(buffer.bytes[..8], *b"and mor\0");
        assert!(buffer.bytes[8..].iter().all(|b| *b == 0));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            input in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..2000),
            pieces in prop::collection::vec(1usize..700, 1..9),
        ) {
            let mut whole: Vec<_> = input.split(|b| *b == b'\n').map(|l| Some(l.to_vec())).collect();
            if whole.last() == Some(&Some(vec![])) {
                whole.pop();
            }
            prop_assert_eq!(lines(&input, &pieces), whole);
        }
    }
}
