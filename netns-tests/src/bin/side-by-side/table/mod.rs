//! The table: every command and parameter, the oddities, bad input.

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

/// Why a row departs.
pub const PORT: &str = "a port beyond 65535 is an error, not a wrap";
