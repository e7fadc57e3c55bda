//! Hosts in network namespaces, WireGuard interfaces on them by any implementation, and traffic
//! between them: what the tests, the benchmark and the demo of this crate are made of.
//!
//! Nothing of the workspace is linked in: the daemon under test is a program like the others.
//! Needed are root and /dev/net/tun, and no tool: namespaces, links and routes are made with
//! netlink, daemons are configured over their UAPI socket, pings are raw sockets. Where a test is
//! about a stock tool, that tool is a [`requirement`](require).

#![forbid(unsafe_code)]

pub mod binaries;
mod config;
pub mod containers;
mod daemon;
mod icmp;
mod keys;
mod lab;
mod name_server;
mod nat;
pub mod netlink;
mod paced;
pub mod process;
pub mod quick;
mod sniff;
mod state;
mod traffic;
mod trials;
mod tunnel;
mod uapi;
pub mod vm;
mod wait;

pub use config::{Config, InterfaceState, PeerConfig, PeerState};
pub use daemon::{Daemon, PATIENCE, Via, Wg, ready};
pub use icmp::{Icmp, Ping, Pinged};
pub use keys::{Key, Keys};
pub use lab::{Host, Lab, SOCKETS};
pub use name_server::NameServer;
pub use nat::Nat;
pub use paced::{Count, Paced};
pub use process::Proc;
pub use sniff::{SeenPacket, Sniffer};
pub use state::{Differences, HostState};
pub use traffic::{Load, Transfer, transfer};
pub use trials::rekey;
pub use tunnel::{End, Family, Hosts, Plan, Tunnel, ping_all};
pub use uapi::Uapi;
pub use wait::{require, skipped, until};
