//! Where a peer is.

use std::net::{IpAddr, SocketAddr};

/// The address of a peer, and the local address to send from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The peer's address. Its flow information is always zero.
    pub addr: SocketAddr,
    /// The local address that the peer last sent to, if it can still be used.
    pub src: Option<Source>,
}

/// A local address, and the link that packets for it arrive on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// Our address.
    pub ip: IpAddr,
    /// Index of the link.
    pub ifindex: u32,
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, src: None }
    }
}
