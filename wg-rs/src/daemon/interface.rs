//! The running interface: the tunnel with its device, its sockets and its threads.
//!
//! ```text
//! socket, TUN thread  move data (datapath/readers.rs)
//! protocol thread     handshakes, events of the data path, timers (datapath/protocol.rs)
//! control thread      UAPI, link events, signals (control.rs)
//! ```
//!
//! The tunnel's owner (configuration, handshakes, timers) is protected by one lock. Only the
//! protocol thread and the control thread take it, never a thread that moves data.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use rand_core::{OsRng, TryRngCore};
use tokio::sync::Notify;
use wg_crypto::{AeadBackend, PublicKey};

use super::options::Offloads;
use crate::datapath::inbound::Delivery;
use crate::datapath::inbox::Inbox;
use crate::datapath::network::{Network, Parts};
use crate::datapath::now;
use crate::datapath::outbound::TunReader;
use crate::datapath::protocol::{Owner, Protocol};
use crate::datapath::readers::Readers;
use crate::datapath::sockets::Sockets;
use crate::model::status::Status;
use crate::model::{self, Wall};
use crate::sys::icmp::Undelivered;
use crate::sys::netns::NetNs;
use crate::sys::process::slice;
use crate::sys::tun::{Tun, TunOffloads};
use crate::tunnel::config::ConfigError;
use crate::tunnel::device::Device;
use crate::tunnel::drops::Drops;

/// A running tunnel. Dropping it stops its threads.
pub struct RunningInterface {
    shared: Arc<Protocol<Network>>,
    facts: Facts,
    /// Notified when the log level was changed.
    pub level_changed: Notify,
    protocol: Option<JoinHandle<()>>,
}

/// Properties that never change.
struct Facts {
    started: Wall,
    tun: Arc<Tun>,
    /// The inode of the sockets' namespace: the namespace of the thread that created this.
    socket_netns: Option<u64>,
    aead: AeadBackend,
    workers: usize,
}

fn inode(netns: &NetNs) -> Option<u64> {
    Some(netns.id().ok()?.inode())
}

impl RunningInterface {
    /// Starts a tunnel over `tun`, with this AEAD backend and this number of workers per direction.
    /// The link is still down. `tun_gone` is called when the TUN device can no longer be read.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        tun: Arc<Tun>,
        backend: AeadBackend,
        offloads: Offloads,
        workers: usize,
        tun_gone: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let facts = Facts {
            started: Wall::now(),
            tun: tun.clone(),
            socket_netns: NetNs::current().ok().as_ref().and_then(inode),
            aead: backend,
            workers,
        };
        let device = Device::new(Box::new(OsRng.unwrap_err()), backend);
        let plane = device.plane().clone();
        let inbox = Arc::new(Inbox::new()?);
        let sockets = Arc::new(Sockets::default());
        plane.set_waker(Box::new({
            let inbox = inbox.clone();
            move || inbox.notify()
        }));
        let tun_reader = TunReader::new(plane.clone(), tun.clone(), sockets.clone(), workers)?;
        let network = Network::new(Parts {
            plane: plane.clone(),
            sockets: sockets.clone(),
            readers: Box::new(Readers::start(
                tun.clone(),
                tun_reader,
                sockets.clone(),
                tun_gone,
            )?),
            inbox: inbox.clone(),
            delivery: Arc::new(Delivery::new(tun)),
            gso: offloads.segments(),
            gro: offloads.gro,
            workers,
        });
        let shared = Arc::new(Protocol::new(device, network, sockets, inbox));
        let protocol = std::thread::Builder::new()
            .name("wg-protocol".into())
            .spawn({
                let shared = shared.clone();
                move || {
                    // A flood of handshakes must not take the cores from the packets of peers.
                    if let Err(error) = slice::lower_priority() {
                        tracing::debug!(%error, "the protocol thread has the usual priority");
                    }
                    shared.run();
                }
            })?;
        Ok(RunningInterface {
            shared,
            facts,
            level_changed: Notify::new(),
            protocol: Some(protocol),
        })
    }

    /// Applies a `set`. If a change fails, the changes before it remain applied, as the protocol
    /// requires.
    ///
    /// # Errors
    /// The error of the first change that failed.
    pub fn set(&self, changes: &[model::Change]) -> Result<(), ConfigError> {
        let mut owner = self.shared.owner();
        let Owner { device, network } = &mut *owner;
        let result = device.set(changes, network, now());
        drop(owner);
        // There may be messages to send, and deadlines may have changed.
        self.shared.inbox.notify();
        result
    }

    /// The counters of dropped packets.
    pub fn drops(&self) -> &Drops {
        self.shared.plane.drops()
    }

    /// Configuration and state, for a `get`.
    pub fn get(&self) -> model::Interface {
        self.shared.informed_owner().device.get()
    }

    /// The status, for a `status`.
    pub fn status(&self) -> Status {
        let status = self.shared.informed_owner().device.status(now());
        let Facts {
            started,
            tun,
            socket_netns,
            aead,
            workers,
        } = &self.facts;
        let link_netns = tun.netns().ok().map(NetNs::from);
        Status {
            version: Some(env!("CARGO_PKG_VERSION").into()),
            started: Some(*started),
            link_netns: link_netns.as_ref().and_then(inode),
            socket_netns: *socket_netns,
            offloads: Some(self.offloads()),
            aead: Some(aead.to_string()),
            workers: u32::try_from(*workers).ok(),
            ..status
        }
    }

    /// Records ICMP reports about datagrams that did not arrive.
    pub fn undelivered(&self, errors: &[Undelivered]) {
        let mut owner = self.shared.owner();
        for error in errors {
            owner.device.undelivered(error, now());
        }
    }

    /// The addresses of the peers that it relays for and has a session with. None if it relays for
    /// nobody.
    pub fn clients(&self) -> Option<Vec<(PublicKey, SocketAddr)>> {
        self.shared.plane.relay()?;
        Some(self.shared.owner().device.clients(now()))
    }

    /// Sets where such peers were before the daemon was started.
    pub fn clients_were_at(&self, addresses: impl Iterator<Item = (PublicKey, SocketAddr)>) {
        self.shared
            .owner()
            .device
            .clients_were_at(addresses.collect());
    }

    /// The offloads in use, by name.
    fn offloads(&self) -> String {
        let TunOffloads {
            tso, uso, tunnels, ..
        } = self.facts.tun.offloads();
        let sockets = || self.shared.sockets.each();
        let offloads = [
            ("tso", tso),
            ("uso", uso),
            ("tunnels", tunnels),
            ("gso", sockets().any(|socket| socket.features().gso)),
            ("gro", sockets().any(|socket| socket.features().gro)),
        ];
        let used = offloads.iter().filter(|(_, used)| *used);
        used.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
    }

    /// Whether the link is up and the sockets are open.
    pub fn is_up(&self) -> bool {
        self.shared.plane.is_up()
    }

    /// Must be called when the link is up: opens the sockets if they are not open.
    ///
    /// # Errors
    /// Another program uses the port. A later `set` tries again.
    pub fn up(&self) -> Result<(), ConfigError> {
        let mut owner = self.shared.owner();
        let Owner { device, network } = &mut *owner;
        let result = device.up(network);
        drop(owner);
        self.shared.inbox.notify();
        result
    }

    /// Must be called when the link is down: closes the sockets and ends the sessions.
    pub fn down(&self) {
        let mut owner = self.shared.owner();
        let Owner { device, network } = &mut *owner;
        device.down(network);
    }

    /// Must be called when the machine may be a copy of another machine that still runs: sessions
    /// that both have must no longer be used for sending.
    pub fn copied(&self) {
        tracing::info!("the machine may be a copy: its sessions are no longer used for sending");
        self.shared.owner().device.end_sending();
    }

    /// Must be called when the machine has resumed after being suspended.
    pub fn resumed(&self) {
        tracing::info!("the machine has resumed");
        self.shared.owner().device.end_outlasted(now());
    }

    /// Sets the link's MTU.
    pub fn set_mtu(&self, mtu: u32) {
        self.shared.plane.set_mtu(mtu as usize);
    }
}

impl Drop for RunningInterface {
    fn drop(&mut self) {
        self.down();
        self.shared.inbox.close();
        if let Some(thread) = self.protocol.take() {
            let _ = thread.join();
        }
    }
}
