//! The size of a terminal.

use std::os::fd::{AsFd, AsRawFd};

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// The size of the terminal that `fd` refers to. None if `fd` is not a terminal, or if its size is
/// unknown.
pub fn size(fd: impl AsFd) -> Option<Size> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: fills the structure it is given and keeps no pointer to it.
    super::check(unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) }).ok()?;
    (size.ws_row != 0 && size.ws_col != 0).then_some(Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_have_no_size() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(size(file), None);
    }
}
