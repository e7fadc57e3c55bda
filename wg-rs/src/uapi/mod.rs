//! The configuration protocol of userspace WireGuard, as `wg` speaks it: text over a unix socket in
//! `/var/run/wireguard` (<https://www.wireguard.com/xplatform/>).
//!
//! - [`text`]: an interface and changes of it ([`crate::model`]) as lines of text, and back.
//! - [`socket`]: the socket file. [`server`]: the daemon's end. [`client`]: the end of tools and tests.

pub mod client;
mod lines;
pub mod server;
pub mod socket;
pub mod text;

use std::path::{Path, PathBuf};

/// Where `wg` looks for `<interface>.sock`.
pub const RUN_DIR: &str = "/var/run/wireguard";
/// What follows the interface's name in that of its socket.
pub const SUFFIX: &str = ".sock";

/// Where in `dir` the socket of `interface` is.
pub fn socket_in(dir: &Path, interface: &str) -> PathBuf {
    dir.join(format!("{interface}{SUFFIX}"))
}
