//! A NAT box in a thread: datagrams from inside leave from a separate port for each inner address.
//! Answers are passed back as long as the mapping exists; each packet from inside renews it. The box can
//! also mark what it passes on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::Host;

/// A running NAT box; dropping it stops it.
#[derive(Debug)]
pub struct Nat {
    /// The address to which hosts inside send.
    pub inside: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Mapping {
    outside: UdpSocket,
    renewed: Instant,
}

impl Nat {
    /// Listens in `host` on `inside` (its port may be 0) and passes datagrams to `server`. A mapping
    /// that is not renewed for `lifetime` is removed, and its port closed.
    pub fn start(
        host: &Host,
        inside: SocketAddr,
        server: SocketAddr,
        lifetime: Duration,
    ) -> io::Result<Nat> {
        Nat::marking(host, inside, server, lifetime, 0)
    }

    /// As [`Nat::start`]; what it passes on has this TOS or traffic class.
    pub fn marking(
        host: &Host,
        inside: SocketAddr,
        server: SocketAddr,
        lifetime: Duration,
        tos: u8,
    ) -> io::Result<Nat> {
        let socket = host.run(|| open(inside, tos))?;
        let inside = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = host.thread(move || {
            let mut mappings = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                mappings.retain(|_, mapping: &mut Mapping| mapping.renewed.elapsed() < lifetime);
                if !pass(&socket, server, tos, &mut mappings).unwrap_or(false) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Ok(Nat {
            inside,
            stop,
            thread: Some(thread),
        })
    }
}

fn open(address: SocketAddr, tos: u8) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    match address {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4Tos, &tos.into())?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6TClass, &tos.into())?,
    }
    Ok(socket)
}

/// Passes on what waits on any socket. Returns whether there was anything.
fn pass(
    socket: &UdpSocket,
    server: SocketAddr,
    tos: u8,
    mappings: &mut HashMap<SocketAddr, Mapping>,
) -> io::Result<bool> {
    let mut busy = false;
    let mut datagram = [0; 65536];
    while let Ok((len, from)) = socket.recv_from(&mut datagram) {
        busy = true;
        let mapping = match mappings.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let outside = open(unspecified(server), tos)?;
                outside.connect(server)?;
                new.insert(Mapping {
                    outside,
                    renewed: Instant::now(),
                })
            }
        };
        mapping.renewed = Instant::now();
        mapping.outside.send(&datagram[..len])?;
    }
    for (inner, mapping) in mappings {
        while let Ok(len) = mapping.outside.recv(&mut datagram) {
            busy = true;
            socket.send_to(&datagram[..len], inner)?;
        }
    }
    Ok(busy)
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
