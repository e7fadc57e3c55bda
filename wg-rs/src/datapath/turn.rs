//! What a reader found in one turn.

/// Whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing at all.
    Nothing,
    /// Something, and it took all there was.
    Drained,
    /// More than it may take at a time.
    More,
    /// Nothing but errors: it is to be left alone for a while.
    Failing,
}
