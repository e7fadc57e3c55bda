//! WireGuard in userspace for Linux: the library behind `wireguard-rs`, `wg-rs` and `wg-quick-rs`.
//!
//! The tunnel:
//! - [`tunnel`]: the protocol, sans-IO: takes `now` and bytes, gives bytes, deadlines and events.
//! - [`datapath`]: the hot path: bursts, workers, ordering, segmentation and coalescing.
//! - [`daemon`]: what wires these together into `wireguard-rs`.
//!
//! The tools:
//! - [`config`]: the configuration file and the arguments of `wg set`.
//! - [`backend`]: whom the tools talk to: a daemon's socket, or the kernel.
//! - [`place`]: interfaces made, found and moved, in network namespaces and containers.
//! - [`tool`]: the `wg-rs` command.
//!
//! Both:
//! - [`model`]: an interface, its peers and their networks, and changes of them.
//! - [`sys`]: Linux, as safe functions. The only unsafe code of the workspace.
//! - [`uapi`]: the configuration protocol that `wg` speaks, both ends.

#![deny(unsafe_code)]

pub mod backend;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod model;
pub mod place;
#[allow(unsafe_code)]
pub mod sys;
pub mod tool;
pub mod tunnel;
pub mod uapi;
