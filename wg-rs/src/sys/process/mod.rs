//! The daemon's own process: leaving the foreground, giving up rights, telling systemd, clocks.
//!
//! (SIGPIPE is ignored by Rust's runtime already: a client that hangs up is an EPIPE.)

pub mod background;
pub mod clock;
pub mod confine;
pub mod notify;
