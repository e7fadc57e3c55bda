//! The protocol without I/O: bytes and the time go in; bytes, deadlines and events come out.
//!
//! - [`device`], [`config`]: the owner: configuration, handshakes, timers. An `entry` is its part
//!   of a peer; the peers share a `schedule`, `pending` handshakes and `outgoing` messages.
//! - `plane`, [`peer`], [`keypair`], [`index`]: the part that the owner shares with the data
//!   path, without locks.
//! - [`send`], [`receive`]: the data path's part of the protocol, over bursts.
//! - `hub`, `relay`: what is relayed between peers: the owner's part, and the data path's.

pub mod allowed_ips;
mod by_hubs;
mod calls;
pub mod config;
mod cookies;
pub mod device;
mod dialog;
pub(crate) mod drops;
mod endpoint;
mod entry;
pub mod frame;
mod handshake;
pub(crate) mod hub;
mod hubs;
pub mod index;
pub mod ingress;
pub mod keypair;
mod liveness;
pub(crate) mod messages;
mod networks;
pub(crate) mod outgoing;
pub(crate) mod pace;
pub mod peer;
mod peers;
mod pending;
pub(crate) mod plane;
pub(crate) mod ratelimiter;
pub mod receive;
pub(crate) mod relay;
mod relayed;
mod routes;
mod schedule;
pub mod send;
mod staged;
mod status;
pub mod time;
pub(crate) mod timers;
mod transmit;
mod trouble;
pub mod way;

#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;
