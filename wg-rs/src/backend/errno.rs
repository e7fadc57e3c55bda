//! The kernel's errors, with wg's texts.

use std::fmt;
use std::io;

/// An errno with the text that `wg` prints: `No such device`. The [`io::Error`]s of this folder
/// contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = io::Error::from_raw_os_error(self.0).to_string();
        let suffix = format!(" (os error {})", self.0);
        f.write_str(text.strip_suffix(&suffix).unwrap_or(&text))
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        io::Error::new(io::Error::from_raw_os_error(errno.0).kind(), errno)
    }
}

/// The errno of an error from this folder or from a system call.
pub fn errno(error: &io::Error) -> Option<i32> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    error
        .raw_os_error()
        .or_else(|| inner.map(|Errno(errno)| *errno))
}

/// The same error with wg's text, if it has an errno.
pub(super) fn with_wgs_text(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => Errno(errno).into(),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_wgs_texts() {
        for (code, text) in [
            (libc::ENODEV, "No such device"),
            (libc::EOPNOTSUPP, "Operation not supported"),
            (libc::EPROTONOSUPPORT, "Protocol not supported"),
            (libc::ENAMETOOLONG, "File name too long"),
            (libc::EACCES, "Permission denied"),
            (libc::EPERM, "Operation not permitted"),
            (libc::EPROTO, "Protocol error"),
            (libc::EADDRINUSE, "Address already in use"),
        ] {
            let error = io::Error::from(Errno(code));
            assert_eq!(error.to_string(), text);
            assert_eq!(errno(&error), Some(code));
        }
        assert_eq!(errno(&io::Error::from_raw_os_error(7)), Some(7));
        assert_eq!(errno(&io::Error::other("else")), None);
    }
}
