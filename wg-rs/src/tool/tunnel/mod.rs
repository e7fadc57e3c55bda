//! The verbs that run a tunnel in this process, without root: `forward` and `socks`.

mod connection;
mod datagrams;
pub(super) mod forward;
mod proxy;
mod session;
pub(super) mod socks;
mod specification;
