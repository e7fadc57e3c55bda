//! An attacker that is a peer.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use crate::arena::{Arena, FORBIDDEN_PORT, HONEST_PORT, INSIDE, INSIDER, SERVER};
use crate::packets::{Random, ipv4_udp, malformed};

/// A session with the server.
struct Session {
    tunnel: Tunn,
    socket: UdpSocket,
}

impl Session {
    fn start(arena: &Arena) -> io::Result<Session> {
        let own = StaticSecret::from(arena.insider_keys.private.0);
        let server = PublicKey::from(arena.server_keys.public.0);
        let mut tunnel = Tunn::new(own, server, None, None, 1, None);
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(SERVER)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        for _ in 0..10 {
            let (mut message, mut reply, mut answer) = ([0; 148], [0; 2048], [0; 2048]);
            if let TunnResult::WriteToNetwork(initiation) =
                tunnel.format_handshake_initiation(&mut message, true)
            {
                socket.send(initiation)?;
            }
            let Ok(len) = socket.recv(&mut reply) else {
                continue;
            };
            // A keepalive, which confirms the session.
            if let TunnResult::WriteToNetwork(keepalive) =
                tunnel.decapsulate(None, &reply[..len], &mut answer)
            {
                socket.send(keepalive)?;
                return Ok(Session { tunnel, socket });
            }
        }
        Err(io::Error::other("the attacker has no session"))
    }

    /// Sends inner packets until the attack ends.
    fn flood(mut self, arena: &Arena, mut next: impl FnMut() -> Vec<u8>) -> io::Result<()> {
        let start = Instant::now();
        let mut datagram = [0; 4096];
        let mut done = 0_u64;
        while !arena.stop.load(Relaxed) {
            for _ in 0..64 {
                if let TunnResult::WriteToNetwork(datagram) =
                    self.tunnel.encapsulate(&next(), &mut datagram)
                {
                    // A full queue, or an ICMP error about an earlier datagram.
                    let _ = self.socket.send(datagram);
                }
                done += 1;
            }
            arena.sent.store(done, Relaxed);
            let due = Duration::from_secs_f64(done as f64 / f64::from(arena.pace.rate));
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        Ok(())
    }
}

/// Inner packets with the sources of others. Some of the packets are honest, which shows that the
/// session works.
pub fn sources(arena: &Arena) -> io::Result<()> {
    let others = [
        [10, 77, 0, 1],
        INSIDE.octets(),
        [10, 77, 1, 1],
        [10, 77, 2, 2],
        [127, 0, 0, 1],
        [8, 8, 8, 8],
        [224, 0, 0, 1],
        [255, 255, 255, 255],
        [0, 0, 0, 0],
        [192, 0, 2, 1],
    ];
    let packet = |from: Ipv4Addr, port: u16| {
        ipv4_udp(
            SocketAddrV4::new(from, 7),
            SocketAddrV4::new(INSIDE, port),
            b"attack",
        )
    };
    let honest = packet(INSIDER, HONEST_PORT);
    let forbidden = others.map(|from| packet(from.into(), FORBIDDEN_PORT));
    let mut turn = 0;
    Session::start(arena)?.flood(arena, || {
        turn += 1;
        match turn % 16 {
            0 => honest.clone(),
            _ => forbidden[turn % others.len()].clone(),
        }
    })
}

/// Inner packets that are malformed. Those that still have a right version, length and source are
/// delivered, by every implementation.
pub fn packets(arena: &Arena) -> io::Result<()> {
    let right = ipv4_udp(
        SocketAddrV4::new(INSIDER, 7),
        SocketAddrV4::new(INSIDE, HONEST_PORT),
        &[0x5a; 100],
    );
    let mut random = Random::new();
    Session::start(arena)?.flood(arena, || malformed(&right, &mut random))
}
