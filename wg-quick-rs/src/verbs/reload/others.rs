//! Settings that hooks or the user made: `reload` reports them and leaves them as they are.

use std::fmt::Display;

use crate::steps::console;

/// Reports a setting that is left as it is because it does not come from the file.
pub fn left(what: impl Display, why: &str) {
    console::note(format_args!("{what} is left as it is{why}."));
}

/// The reason if a hook made the setting.
pub const BY_A_HOOK: &str = ": a hook sets it";
