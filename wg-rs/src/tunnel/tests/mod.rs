//! The protocol in simulation. A test is named after the rule that it checks, or after the issue of
//! another project whose fault it rules out.

use std::net::SocketAddr;

use wg_crypto::PublicKey;

use super::sim::Sim;

mod clocks;
mod config;
mod data;
mod ecn;
mod handshake;
mod hub_clients;
mod hub_frames;
mod hub_hellos;
mod hub_liveness;
mod hub_scale;
mod load;
mod private_key;
mod rekey;
mod relay;
mod relay_attacks;
mod roaming;
mod secrets;
mod soak;
mod status;
mod threads;
mod timers;

/// An address that no host has.
fn elsewhere() -> SocketAddr {
    "203.0.113.9:9999".parse().unwrap()
}

/// A public key that belongs to no host.
fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

/// The public keys of the peers of `host`, in the order in which the device lists them.
fn keys(sim: &Sim, host: usize) -> Vec<PublicKey> {
    sim.hosts[host]
        .device
        .get()
        .peers
        .iter()
        .map(|peer| peer.public_key)
        .collect()
}
