//! The protocol in simulation. Names say the rule, or whose fault must not be ours: the projects'
//! issues by number.

mod config;
mod data;
mod handshake;
mod load;
mod rekey;
mod secrets;
mod soak;
mod threads;
mod timers;
