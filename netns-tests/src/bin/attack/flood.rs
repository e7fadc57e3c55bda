//! Datagrams of an attacker that is not a peer.

use std::io::{self, IoSlice};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use netns_tests::{Tap, initiations};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg,
    socket,
};
use nix::time::{ClockId, clock_gettime};

use crate::arena::{Arena, SERVER};
use crate::packets::{Random, ipv4_udp};

/// Datagrams in one call.
const BATCH: usize = 64;
/// Different handshake messages that are prepared.
const PREPARED: usize = 2048;

/// Sends batches at the arena's pace until the attack ends. `next` fills a batch.
fn send(
    arena: &Arena,
    socket: &impl AsRawFd,
    mut next: impl FnMut(&mut Vec<Vec<u8>>),
) -> io::Result<()> {
    let to = SockaddrIn::from(SERVER);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let to = vec![Some(to); BATCH];
    let start = Instant::now();
    let mut batch = Vec::new();
    let mut done = 0;
    while !arena.stop.load(Relaxed) {
        next(&mut batch);
        let slices: Vec<_> = batch
            .iter()
            .map(|datagram| [IoSlice::new(datagram)])
            .collect();
        let to = &to[..slices.len()];
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &slices,
            to,
            [],
            MsgFlags::empty(),
        );
        match sent {
            Ok(sent) => done += sent.count() as u64,
            // A full queue, or an ICMP error about an earlier datagram.
            Err(Errno::ENOBUFS | Errno::ECONNREFUSED | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        arena.sent.store(done, Relaxed);
        let cpu = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
        arena.cpu.store(cpu.as_nanos() as u64, Relaxed);
        let due = Duration::from_secs_f64(done as f64 / f64::from(arena.pace.rate));
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(())
}

fn sender() -> io::Result<UdpSocket> {
    UdpSocket::bind("0.0.0.0:0")
}

/// Random datagrams.
pub fn random(arena: &Arena) -> io::Result<()> {
    let mut random = Random::new();
    send(arena, &sender()?, |batch| {
        batch.resize_with(BATCH, Vec::new);
        for datagram in batch {
            datagram.resize(random.below(1400), 0);
            random.fill(datagram);
        }
    })
}

/// Initiations with a valid mac1 from one address.
pub fn handshakes(arena: &Arena) -> io::Result<()> {
    let messages = initiations(arena.server_keys.public, PREPARED)?;
    let mut turns = messages.chunks(BATCH).cycle();
    send(arena, &sender()?, |batch| {
        batch.clear();
        batch.extend_from_slice(turns.next().expect("it is endless"));
    })
}

/// A socket that sends IPv4 packets with their headers.
pub fn raw() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Raw,
    )?)
}

/// Initiations with a valid mac1, each from another address.
pub fn spoofed(arena: &Arena) -> io::Result<()> {
    let mut random = Random::new();
    let messages = initiations(arena.server_keys.public, PREPARED)?;
    let packets: Vec<_> = messages
        .iter()
        .map(|message| {
            ipv4_udp(
                SocketAddrV4::new([100, 64, 0, 0].into(), 9),
                SERVER,
                message,
            )
        })
        .collect();
    let mut turns = packets.chunks(BATCH).cycle();
    send(arena, &raw()?, |batch| {
        batch.clear();
        batch.extend_from_slice(turns.next().expect("it is endless"));
        for packet in batch {
            // The kernel computes the checksum of the header, and there is none of UDP.
            let [a, b, c, d, ..] = random.next().to_be_bytes();
            packet[12..16].copy_from_slice(&[100, 64 | a & 63, b, c]);
            packet[20] = 128 | d;
        }
    })
}

/// Sends what was captured, and returns cookie replies to the server.
pub fn replay(arena: &Arena) -> io::Result<()> {
    let socket = sender()?;
    socket.set_nonblocking(true)?;
    // Makes the server send cookie replies.
    let initiations = initiations(arena.server_keys.public, PREPARED)?;
    let mut random = Random::new();
    let mut cookies: Vec<Vec<u8>> = Vec::new();
    send(arena, &socket, |batch| {
        let mut reply = [0; 2048];
        while let Ok(len) = socket.recv(&mut reply) {
            if cookies.len() < 1000 {
                cookies.push(reply[..len].to_vec());
            }
        }
        batch.clear();
        while batch.len() < BATCH {
            let kinds = [&arena.captured, &initiations, &cookies];
            let kind = kinds[random.below(3)];
            if let Some(datagram) = kind.get(random.below(kind.len().max(1))) {
                batch.push(datagram.clone());
            }
        }
    })
}

/// Messages of every type and length.
pub fn lengths(arena: &Arena) -> io::Result<()> {
    let mut random = Random::new();
    let mut real = arena.captured.clone();
    real.extend(initiations(arena.server_keys.public, PREPARED)?);
    let mut turn = 0;
    send(arena, &sender()?, |batch| {
        batch.resize_with(BATCH, Vec::new);
        for datagram in batch {
            turn += 1;
            let len = turn % 1473;
            datagram.clear();
            if random.below(2) == 0 {
                datagram.extend_from_slice(&real[random.below(real.len())]);
                datagram.resize(len, 0);
                continue;
            }
            datagram.resize(len, 0);
            random.fill(datagram);
            let kind = [0, 1, 2, 3, 4, 5, 6, 255][random.below(8)];
            let head = len.min(4);
            datagram[..head].copy_from_slice(&[kind, 0, 0, 0][..head]);
        }
    })
}

/// What was seen of a handshake with the server and of the traffic after it.
pub fn captured(tap: &Tap) -> io::Result<Vec<Vec<u8>>> {
    let mut datagrams = tap.take()?;
    datagrams.retain(|seen| seen.to.port() == SERVER.port() && !seen.payload.is_empty());
    let has = |kind| datagrams.iter().any(|seen| seen.is_message(kind));
    if !(has(1) && has(2) && has(4)) {
        return Err(io::Error::other("no handshake was captured"));
    }
    Ok(datagrams.into_iter().map(|seen| seen.payload).collect())
}
