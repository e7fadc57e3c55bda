//! What a file means for this host: which interface, routes, rules, MTU and endpoints.
//!
//! Code belongs here if more than one verb needs it to choose its steps: it reads the state of the host
//! and what `up` recorded.

pub mod ask;
pub mod beside;
pub mod default_route;
pub mod endpoint;
pub mod find;
pub mod hooks;
pub mod ipv6;
pub mod loops;
pub mod mtu;
pub mod network;
pub mod ours;
pub mod routes;
