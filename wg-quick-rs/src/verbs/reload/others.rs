//! What others set, hooks and people: it is said, and not touched.

use std::fmt::Display;

use crate::steps::console;

/// Says what is not the file's, and so not touched.
pub fn left(what: impl Display, why: &str) {
    console::note(format_args!("{what} is left as it is{why}."));
}

/// Why.
pub const BY_A_HOOK: &str = ": a hook sets it";
