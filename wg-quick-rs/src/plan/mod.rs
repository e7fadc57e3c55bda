//! What a file means for this host: which interface, routes, rules, MTU and endpoints.
//!
//! Here belongs what looks at the host, or at what was recorded, to choose the steps of more than
//! one verb.

pub mod ask;
pub mod beside;
pub mod default_route;
pub mod endpoint;
pub mod find;
pub mod hooks;
pub mod ipv6;
pub mod loops;
pub mod mtu;
pub mod ours;
pub mod routes;
