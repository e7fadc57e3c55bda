//! Hosts in network namespaces, WireGuard interfaces on them by any implementation, and traffic between
//! them. The tests, the benchmark and the demo of this crate are built on it.
//!
//! No other crate of the workspace is linked in: the daemon under test is a program like any other.
//! The crate needs root and /dev/net/tun, but no tools: it uses netlink for namespaces, links and
//! routes, the UAPI socket for daemons, and raw sockets for pings. A test of a stock tool
//! [`require`]s that tool.

#![forbid(unsafe_code)]

mod beat;
pub mod binaries;
mod churn;
mod config;
pub mod containers;
mod copier;
mod crew;
mod daemon;
pub mod debian;
mod flood;
mod icmp;
mod keys;
mod lab;
mod name_server;
mod nat;
pub mod netlink;
mod outcome;
mod paced;
pub mod process;
pub mod quick;
mod router;
mod sniff;
mod spokes;
mod state;
mod tap;
mod traffic;
pub mod trials;
mod tunnel;
mod uapi;
pub mod vm;
mod wait;
pub mod way;

pub use beat::Beat;
pub use churn::{Churn, Dice};
pub use config::{Config, InterfaceState, PeerConfig, PeerState};
pub use copier::Copier;
pub use crew::Crew;
pub use daemon::{Daemon, Via, Wg, ready};
pub use flood::{Flood, initiations};
pub use icmp::{Icmp, Ping, Pinged};
pub use keys::{Key, Keys};
pub use lab::{Host, Lab, SOCKETS};
pub use name_server::NameServer;
pub use nat::Nat;
pub use outcome::{exit_code, median};
pub use paced::{Count, Datagrams, Paced};
pub use process::Proc;
pub use router::{Branch, Internet, NatKind};
pub use sniff::{SeenPacket, Sniffer};
pub use spokes::{By, Spokes};
pub use state::{Differences, HostState};
pub use tap::{Datagram, Tap};
pub use traffic::{Load, Transfer, transfer};
pub use trials::{Trial, Verdict, rekey};
pub use tunnel::{End, Family, Hosts, Plan, Tunnel, ping_all};
pub use uapi::Uapi;
pub use wait::{PATIENCE, require, skipped, until};
