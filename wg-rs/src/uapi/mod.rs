//! The configuration protocol of userspace WireGuard, which `wg` uses: text over a UNIX socket in
//! `/var/run/wireguard` (<https://www.wireguard.com/xplatform/>).
//!
//! - [`text`]: converts interfaces and changes ([`crate::model`]) to lines of text and back.
//! - `socket`: the socket file. `server`: the daemon's side. [`client`]: the side of tools and
//!   tests.

pub mod client;
mod connection;
mod lines;
pub(crate) mod server;
pub(crate) mod socket;
pub mod text;
mod watch;

use std::path::{Path, PathBuf};

/// The folder in which `wg` looks for `<interface>.sock`.
pub const RUN_DIR: &str = "/var/run/wireguard";
/// The suffix of a socket's name.
pub const SUFFIX: &str = ".sock";

/// The path of the interface's socket in `dir`.
pub fn socket_in(dir: &Path, interface: &str) -> PathBuf {
    dir.join(format!("{interface}{SUFFIX}"))
}
