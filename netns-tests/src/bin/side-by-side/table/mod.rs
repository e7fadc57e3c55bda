//! The table: every command and parameter, odd input, and bad input.

mod files;
mod keys;
mod set;
mod show;

use crate::case::Case;

/// All rows.
pub fn all() -> impl Iterator<Item = Case> {
    [show::TABLE, set::TABLE, files::TABLE, keys::TABLE]
        .into_iter()
        .flatten()
        .copied()
}

/// A reason for rows that differ.
pub const PORT: &str = "a port beyond 65535 is an error, not a wrap";
