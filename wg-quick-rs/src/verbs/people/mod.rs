//! The clients of a server, by name: `add`, `remove`, `disable`, `enable`, `list`.
//!
//! ```text
//! the interface's lock ─► the file read, and edited ─► replaced ─► the running interface changed
//!                                                        └ put back if that is refused ┘
//! ```
//! So two at once do not give out one address, and file and interface never differ by a failure.

pub mod add;
mod change;
mod client;
pub mod list;
pub mod remove;
pub mod switch;
