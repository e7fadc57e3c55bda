//! The daemon's own process (background, capabilities, systemd, clocks), and information about
//! other processes.
//!
//! Rust's runtime ignores SIGPIPE, so a client that hangs up causes EPIPE.

pub mod background;
pub(crate) mod clock;
pub mod confine;
pub mod notify;
pub(crate) mod other;
