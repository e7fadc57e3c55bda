//! Processes. The daemon's own: leaving the foreground, giving up rights, telling systemd, clocks. And
//! others, looked into.
//!
//! (SIGPIPE is ignored by Rust's runtime already: a client that hangs up is an EPIPE.)

pub mod background;
pub mod clock;
pub mod confine;
pub mod notify;
pub mod other;
