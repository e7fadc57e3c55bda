//! The daemon's own process (background, capabilities and other
//! restrictions, systemd, clocks), and information about
//! other processes.
//!
//! Rust's runtime ignores SIGPIPE, so a client that hangs up causes EPIPE.

pub mod background;
pub(crate) mod clock;
pub mod confine;
#[cfg(feature = "stack")]
pub(crate) mod memory;
pub mod notify;
pub(crate) mod other;
pub(crate) mod sandbox;
pub(crate) mod slice;
