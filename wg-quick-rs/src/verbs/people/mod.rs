//! The clients of a server, by name: `add`, `remove`, `disable`, `enable`, `list`.
//!
//! ```text
//! lock of the interface ─► read and edit the file ─► replace it ─► change the running interface
//!                                                        └ restored if that fails ─────┘
//! ```
//! So two commands at the same time never assign the same address, and the file and the interface stay
//! equal also after a failure.

pub mod add;
mod change;
mod client;
pub mod list;
pub mod remove;
pub mod switch;
