//! What hooks and people set: it is reported, and left as it is.

use std::fmt::Display;

use crate::steps::console;

/// Reports what is left as it is, since it does not come from the file.
pub fn left(what: impl Display, why: &str) {
    console::note(format_args!("{what} is left as it is{why}."));
}

/// The reason where a hook sets it.
pub const BY_A_HOOK: &str = ": a hook sets it";
