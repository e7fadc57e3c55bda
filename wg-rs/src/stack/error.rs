//! The errors of a tunnel in this process.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::config;
use crate::tunnel::config::ConfigError;

/// Why something about a tunnel failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration file cannot be read.
    #[error("{file}: {source}")]
    Unreadable {
        /// The path of the file, as it was given.
        file: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The configuration is wrong: one line of text for each fault.
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
    /// The name of a peer's endpoint cannot be resolved.
    #[error("{0}")]
    Endpoint(config::Error),
    /// There is no private key.
    #[error("the interface has no PrivateKey")]
    NoPrivateKey,
    /// There is no address to send from.
    #[error("the interface has no Address: its addresses inside of the tunnel must be given")]
    NoAddress,
    /// There are no two peers to relay between.
    #[error("there is nothing to relay: at least two peers need a line `#@ Relay = on'")]
    NothingToRelay,
    /// The MTU is too small for IP, or larger than the longest packet.
    #[error("MTU {0} is not between 576 (1280 with an IPv6 address) and 65440")]
    Mtu(u32),
    /// The tunnel cannot be configured, or its sockets cannot be opened.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A thread or a descriptor cannot be created.
    #[error("cannot start the tunnel: {0}")]
    Start(io::Error),
    /// No peer has the destination among its `AllowedIPs`.
    #[error("no peer has {0} among its AllowedIPs")]
    NoPeer(IpAddr),
    /// The peer of the destination has no endpoint yet.
    #[error(
        "the peer that has {0} among its AllowedIPs has no Endpoint, and has not sent any packet"
    )]
    NoEndpoint(IpAddr),
    /// The interface has no address of the destination's family.
    #[error("the interface has no address from which {0} can be reached")]
    NoSource(IpAddr),
    /// This cannot be a destination: the address is not a host's, or the port is 0.
    #[error("{0} is not the address of a host and a port")]
    NoDestination(SocketAddr),
    /// The other end refused the connection.
    #[error("{0}: connection refused")]
    Refused(SocketAddr),
    /// An ICMP error said that the destination cannot be reached.
    #[error("{0}: unreachable")]
    Unreachable(SocketAddr),
    /// The destination did not answer, although the tunnel is up.
    #[error("{0}: no answer")]
    NoAnswer(SocketAddr),
    /// The peer of the destination does not answer handshakes, so nothing can be sent to it. Its endpoint, or a
    /// key, may be wrong.
    #[error("{to}: no answer, because the peer at {endpoint} does not answer handshakes")]
    SilentPeer {
        /// The destination inside of the tunnel.
        to: SocketAddr,
        /// The peer's endpoint.
        endpoint: SocketAddr,
    },
    /// The port is in use inside of the tunnel.
    #[error("port {0} is in use inside of the tunnel")]
    PortInUse(u16),
    /// The address is not one of the interface's.
    #[error("{0} is not an address of the interface")]
    NotOurs(IpAddr),
    /// The maximum number of connections is reached.
    #[error("there are already {0} connections, the most that a tunnel can have")]
    TooMany(usize),
    /// The datagram does not fit the tunnel's MTU; it is not fragmented.
    #[error("a datagram of {len} bytes is longer than the {most} that fit the tunnel's MTU")]
    TooLong {
        /// The datagram's length in bytes.
        len: usize,
        /// The longest that fits, in bytes.
        most: usize,
    },
    /// A name cannot be resolved, as no DNS server is configured.
    #[error(
        "cannot resolve {0}: no DNS server is configured, and names are resolved only in the tunnel"
    )]
    NoResolver(String),
    /// This cannot be the name of a host.
    #[error("{0:?} is not a name of a host")]
    NoName(String),
    /// The DNS servers know no such name, or no address for it of the tunnel's address families.
    #[error("{0}: no such name, or it has no address that can be reached")]
    UnknownName(String),
    /// No DNS server answered.
    #[error("cannot resolve {0}: no DNS server answered through the tunnel")]
    Unresolved(String),
    /// The tunnel was closed.
    #[error("the tunnel is closed")]
    Closed,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            Error::Refused(_) => Kind::ConnectionRefused,
            Error::NoAnswer(_) | Error::SilentPeer { .. } | Error::Unresolved(_) => Kind::TimedOut,
            Error::Unreachable(_)
            | Error::NoPeer(_)
            | Error::NoEndpoint(_)
            | Error::NoSource(_) => Kind::HostUnreachable,
            Error::PortInUse(_) => Kind::AddrInUse,
            Error::NotOurs(_) => Kind::AddrNotAvailable,
            Error::UnknownName(_) | Error::NoResolver(_) => Kind::NotFound,
            Error::NoDestination(_) | Error::NoName(_) | Error::TooLong { .. } => {
                Kind::InvalidInput
            }
            Error::Closed => Kind::NotConnected,
            _ => Kind::Other,
        };
        io::Error::new(kind, error)
    }
}
