//! A tunnel in this process: the library's public interface.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use wg_crypto::PublicKey;

use super::config::Config;
use super::driver::Running;
use super::error::Error;
use super::listener::TcpListener;
use super::resolve::Resolver;
use super::stream::TcpStream;
use super::udp::UdpSocket;
use crate::config::{Apply, ConfigEndpoint, Reason, Retries};
use crate::model::status::Status;
use crate::model::{Change, Peer};

/// A tunnel that runs in this process, without a network interface and without any privilege.
///
/// Clones share the same tunnel. It ends when its last clone, connection, listener and socket have been
/// dropped. [`Tunnel::close`] ends it earlier, and waits until it has ended.
#[derive(Clone)]
pub struct Tunnel {
    running: Arc<Running>,
    resolver: Arc<Resolver>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Starts the tunnel that a file of `wg` or `wg-quick` describes. [`Config`] lists the lines that are
    /// used.
    ///
    /// Blocks while the names of endpoints are resolved, by the system.
    ///
    /// # Errors
    /// Those of [`Config::from_file`] and [`Tunnel::start`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::start(Config::from_file(path)?)
    }

    /// Starts a tunnel.
    ///
    /// Blocks while the names of endpoints are resolved, by the system.
    ///
    /// # Errors
    /// The configuration is incomplete or wrong, an endpoint's name cannot be resolved, or the tunnel's UDP
    /// port is in use.
    pub fn start(config: Config) -> Result<Self, Error> {
        Self::start_by(config, |endpoint| {
            endpoint.resolve(Retries(Some(0)), &mut |_, _| false)
        })
    }

    /// Starts a tunnel that only relays: it passes on the packets of peers that share a group of `#@ Relay`,
    /// and cannot read them. It has no address, so there is nothing to connect to or to listen on.
    ///
    /// # Errors
    /// Those of [`Tunnel::start`], except [`Error::NoAddress`]. [`Error::NothingToRelay`].
    pub fn relay(config: Config) -> Result<Self, Error> {
        Self::relay_by(config, |endpoint| {
            endpoint.resolve(Retries(Some(0)), &mut |_, _| false)
        })
    }

    /// As [`Tunnel::relay`], but resolves endpoints by `resolve`.
    pub(crate) fn relay_by(
        mut config: Config,
        resolve: impl FnMut(&ConfigEndpoint) -> Result<SocketAddr, Reason>,
    ) -> Result<Self, Error> {
        if !config.relays() {
            return Err(Error::NothingToRelay);
        }
        config.addresses.clear();
        Self::run(config, resolve)
    }

    /// As [`Tunnel::start`], but resolves endpoints by `resolve`.
    pub(crate) fn start_by(
        config: Config,
        resolve: impl FnMut(&ConfigEndpoint) -> Result<SocketAddr, Reason>,
    ) -> Result<Self, Error> {
        if !config.has_address() {
            return Err(Error::NoAddress);
        }
        Self::run(config, resolve)
    }

    fn run(
        config: Config,
        resolve: impl FnMut(&ConfigEndpoint) -> Result<SocketAddr, Reason>,
    ) -> Result<Self, Error> {
        let mtu = config.checked_mtu()?;
        let peers = config.peer_names();
        let names = config.endpoint_names();
        let Config {
            settings,
            addresses,
            servers,
            search,
            ..
        } = config;
        if { settings.private_key.as_ref() }.is_none_or(|key| key.is_zero()) {
            return Err(Error::NoPrivateKey);
        }
        let changes = settings.changes(Apply::SetConf, resolve);
        let mut changes = changes.map_err(Error::Endpoint)?;
        changes.retain(|change| !matches!(change, Change::FwMark(_)));
        let running = Running::start(addresses, mtu, &changes, names)?;
        Ok(Tunnel {
            running: Arc::new(running),
            resolver: Arc::new(Resolver {
                servers,
                search,
                peers,
            }),
        })
    }

    /// The UDP port from which encrypted packets are sent.
    pub fn listen_port(&self) -> u16 {
        self.running.get().listen_port
    }

    /// The addresses of this end.
    pub fn addresses(&self) -> &[IpAddr] {
        self.running.host.addresses()
    }

    /// Connects to an address and port behind a peer.
    ///
    /// # Errors
    /// [`Error::NoPeer`], [`Error::NoEndpoint`] and [`Error::NoSource`] at once, if the tunnel cannot reach
    /// the address; [`Error::Refused`]; [`Error::Unreachable`]; [`Error::NoAnswer`] or [`Error::SilentPeer`] after half a
    /// minute.
    pub async fn connect(&self, to: SocketAddr) -> Result<TcpStream, Error> {
        let flow = self.running.host.connect(to)?;
        let stream = TcpStream::new(flow, self.running.clone());
        stream.established().await?;
        Ok(stream)
    }

    /// Connects to a port of a host, given by name or address. A name is resolved by [`Tunnel::resolve`], and
    /// its addresses are tried one after the other.
    ///
    /// # Errors
    /// Those of [`Tunnel::resolve`], and those of [`Tunnel::connect`] for the last address.
    pub async fn connect_to(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let mut result = Err(Error::UnknownName(host.to_owned()));
        for address in self.resolve(host).await? {
            result = self.connect((address, port).into()).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Returns the addresses of a host, at least one. An address is returned as it is.
    ///
    /// In a tunnel from the file `wg0.conf`, a peer with the line `#@ Name = bob` has the name
    /// `bob.wg0.internal`: those of its allowed IPs that are single addresses. Every other name is resolved
    /// only by the DNS servers of the configuration, through the tunnel.
    ///
    /// # Errors
    /// [`Error::NoResolver`], [`Error::UnknownName`], [`Error::Unresolved`], [`Error::NoName`]
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        match host.parse() {
            Ok(address) => Ok(vec![address]),
            Err(_) => self.resolver.resolve(&self.running, host).await,
        }
    }

    /// Listens for connections to a port of this end (0: any free one).
    ///
    /// # Errors
    /// [`Error::PortInUse`], [`Error::Closed`]
    pub fn listen(&self, port: u16) -> Result<TcpListener, Error> {
        self.listen_on(None, port)
    }

    /// As [`Tunnel::listen`], but at only one address of this end.
    ///
    /// # Errors
    /// [`Error::NotOurs`], [`Error::PortInUse`], [`Error::Closed`]
    pub fn listen_at(&self, address: SocketAddr) -> Result<TcpListener, Error> {
        self.listen_on(Some(address.ip()), address.port())
    }

    fn listen_on(&self, address: Option<IpAddr>, port: u16) -> Result<TcpListener, Error> {
        let (port, backlog) = self.running.host.listen(address, port)?;
        Ok(TcpListener::new(port, backlog, self.running.clone()))
    }

    /// Opens a UDP port of this end (0: any free one), to send and receive datagrams.
    ///
    /// # Errors
    /// [`Error::PortInUse`], [`Error::Closed`]
    pub fn bind_udp(&self, port: u16) -> Result<UdpSocket, Error> {
        let (port, mailbox) = self.running.host.bind(port)?;
        Ok(UdpSocket::new(port, mailbox, self.running.clone()))
    }

    /// Returns the peers with their state: endpoint, latest handshake, bytes sent and received.
    pub fn peers(&self) -> Vec<Peer> {
        self.running.get().peers
    }

    /// The status of the tunnel and its peers.
    pub(crate) fn status(&self) -> Status {
        self.running.status()
    }

    /// The peers that answer and those that do not, without the peers of which nothing is known.
    pub(crate) fn answers(&self) -> Vec<(PublicKey, bool)> {
        self.running.answers()
    }

    /// Begins a handshake with each peer that has an endpoint. Without this, the first packet to a peer begins
    /// one.
    pub fn greet(&self) {
        self.running.greet();
    }

    /// Returns the reasons for which packets were dropped, each with the number of packets.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        self.running.drops()
    }

    /// Ends the tunnel: nothing new may begin, data that was written to connections is sent, and they are
    /// closed. Returns when that is done, or after ten seconds; connections that are still open then break.
    pub async fn close(self) {
        self.running.host.close();
        self.running.host.ended().await;
    }
}
