//! WireGuard in userspace for Linux: the library behind `wireguard-rs`.
//!
//! - [`tunnel`]: the protocol, sans-IO: takes `now` and bytes, gives bytes, deadlines and events.
//! - [`datapath`]: the hot path: bursts, workers, ordering, segmentation and coalescing.
//! - [`sys`]: Linux, as safe functions. The only unsafe code of the workspace.
//! - [`uapi`]: the configuration protocol that `wg` speaks, both ends.

#![deny(unsafe_code)]

pub mod daemon;
pub mod datapath;
#[allow(unsafe_code)]
pub mod sys;
pub mod tunnel;
pub mod uapi;
