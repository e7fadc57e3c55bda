//! WireGuard in userspace for Linux: the library behind `wireguard-rs`, `wg-rs` and `wg-quick-rs`.
//!
//! - `stack` (a feature, on by default): tunnels in the process itself, with a TCP/IP stack of their own.
//!
//! What `wg-quick-rs`, or another program that manages interfaces, uses:
//! - [`config`]: the configuration file and the arguments of `wg set`.
//! - [`model`]: an interface, its peers and their networks, and changes of them.
//! - [`backend`]: access to interfaces: over a daemon's socket, or over netlink for the kernel module.
//! - [`place`]: creates, finds and moves interfaces, in network namespaces and containers.
//! - [`uapi`]: the configuration protocol that `wg` uses, both sides.
//! - [`units`]: numbers of bytes for people.
//! - [`sys`]: safe functions over Linux. Except for vectors in `wg-crypto`, all unsafe code is here.
//!
//! The programs:
//! - [`daemon`]: `wireguard-rs`, which connects the tunnel with its device and its configuration.
//! - [`tool`]: `wg-rs`, the `wg` command.
//!
//! The tunnel, whose parts are public only for benchmarks, fuzz targets and tests of this workspace:
//! - [`tunnel`]: the protocol without I/O: the time and bytes go in; bytes and deadlines come out.
//! - [`datapath`]: the hot path: bursts, workers, order, segmentation and coalescing.

#![deny(unsafe_code)]

pub mod backend;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod model;
pub mod place;
#[cfg(feature = "stack")]
pub mod stack;
mod sync;
#[allow(unsafe_code)]
pub mod sys;
pub mod tool;
pub mod tunnel;
pub mod uapi;
pub mod units;
