//! Very many peers on one host, which are boringtun's: each answers initiations, and takes what it is sent.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use netns_tests::{Crew, Host, Key, Keys, PeerConfig};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

/// Peers behind one port. Each looks at what arrives there until one takes it, so there are few.
const BEHIND_A_PORT: usize = 20;
const MILLISECONDS: u16 = 100;

/// The peers, in places with numbers.
#[derive(Clone)]
pub struct Crowd {
    address: IpAddr,
    hub: Key,
    ports: Arc<Vec<Port>>,
    answered: Arc<AtomicU64>,
}

struct Port {
    socket: UdpSocket,
    peers: Mutex<Vec<Tunn>>,
}

impl Crowd {
    /// This number of peers of `hub`, at an address of `host`, served by a thread of `crew`.
    pub fn start(
        crew: &mut Crew,
        host: &Host,
        address: IpAddr,
        hub: Key,
        peers: usize,
    ) -> io::Result<Crowd> {
        let port = || -> io::Result<Port> {
            let socket = host.run(|| UdpSocket::bind((address, 0)))?;
            // A busy machine may stop this program for a moment.
            setsockopt(&socket, sockopt::RcvBufForce, &(1 << 20))?;
            socket.set_nonblocking(true)?;
            let peers = (0..BEHIND_A_PORT).map(|n| new_peer(hub, n).0).collect();
            Ok(Port {
                socket,
                peers: Mutex::new(peers),
            })
        };
        let ports: io::Result<Vec<Port>> =
            (0..peers.div_ceil(BEHIND_A_PORT)).map(|_| port()).collect();
        let crowd = Crowd {
            address,
            hub,
            ports: Arc::new(ports?),
            answered: Arc::default(),
        };
        let serving = crowd.clone();
        crew.repeat("crowd", Duration::ZERO, move || serving.serve());
        Ok(crowd)
    }

    /// Replaces the peer of a place by another one, and returns its settings.
    pub fn replace(&self, place: usize) -> io::Result<PeerConfig> {
        let port = &self.ports[place / BEHIND_A_PORT];
        let n = place % BEHIND_A_PORT;
        let (peer, key) = new_peer(self.hub, n);
        port.lock()[n] = peer;
        let number = port.socket.local_addr()?.port();
        Ok(PeerConfig::new(key).at((self.address, number)))
    }

    /// The number of initiations that were answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Answers what has arrived, or what arrives within a moment.
    fn serve(&self) -> io::Result<()> {
        let sockets = self.ports.iter().map(|port| port.socket.as_fd());
        let wait = |socket| PollFd::new(socket, PollFlags::POLLIN);
        let mut ready: Vec<PollFd<'_>> = sockets.map(wait).collect();
        poll(&mut ready, PollTimeout::from(MILLISECONDS))?;
        for (port, ready) in self.ports.iter().zip(&ready) {
            if ready.any() == Some(true) {
                self.answered.fetch_add(port.answer()?, Relaxed);
            }
        }
        Ok(())
    }
}

impl Port {
    fn lock(&self) -> MutexGuard<'_, Vec<Tunn>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all datagrams that wait, and returns how many were answered.
    fn answer(&self) -> io::Result<u64> {
        let (mut buffer, mut reply) = ([0; 2048], [0; 2048]);
        let mut answered = 0;
        loop {
            let (len, from) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answered),
                Err(error) => return Err(error),
            };
            for peer in &mut *self.lock() {
                match peer.decapsulate(Some(from.ip()), &buffer[..len], &mut reply) {
                    TunnResult::WriteToNetwork(reply) => {
                        self.socket.send_to(reply, from)?;
                        answered += 1;
                        break;
                    }
                    TunnResult::Err(_) => {}
                    _ => break,
                }
            }
        }
    }
}

/// Peer `n` behind a port, and its public key.
fn new_peer(hub: Key, n: usize) -> (Tunn, Key) {
    let keys = Keys::generate();
    let private = StaticSecret::from(keys.private.0);
    // It never answers with a cookie.
    let limiter = RateLimiter::new(&PublicKey::from(keys.public.0), u64::MAX);
    let (hub, limiter) = (PublicKey::from(hub.0), Some(Arc::new(limiter)));
    let peer = Tunn::new(private, hub, None, None, n as u32, limiter);
    (peer, keys.public)
}
