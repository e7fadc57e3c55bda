//! The verbs that run a tunnel in this process, without root: `forward`, `socks` and `relay`.

mod connection;
mod datagrams;
pub(super) mod forward;
mod proxy;
pub(super) mod relay;
mod session;
pub(super) mod socks;
mod specification;
