//! Records every IP packet on the links of a host, by a packet socket.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::Host;

/// An IP packet that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeenPacket {
    /// Source address.
    pub from: IpAddr,
    /// Destination address.
    pub to: IpAddr,
    /// IP protocol (17 is UDP, 58 ICMPv6; 0 are hop-by-hop options, as in MLD).
    pub protocol: u8,
    /// Destination port of UDP and TCP; for other protocols the bytes in its place.
    pub port: u16,
}

/// Records packets until it is dropped.
#[derive(Debug)]
pub struct Sniffer {
    seen: Arc<Mutex<Vec<SeenPacket>>>,
    found: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// Records on all links of the host, also what the host itself sends.
    pub fn start(host: &Host) -> io::Result<Sniffer> {
        Sniffer::look_for(host, &[])
    }

    /// As [`Sniffer::start`], looking in each packet for these bytes, if there are any.
    pub fn look_for(host: &Host, bytes: &[u8]) -> io::Result<Sniffer> {
        let bytes = bytes.to_vec();
        let socket = host.run(|| {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
        })?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
        setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (sink, stopped) = (seen.clone(), stop.clone());
        let found = Arc::new(AtomicBool::new(false));
        let finds = found.clone();
        let thread = std::thread::spawn(move || {
            let mut frame = [0; 65536];
            while !stopped.load(Relaxed) {
                match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                    Ok(len) => {
                        let mut windows = frame[..len].windows(bytes.len().max(1));
                        if !bytes.is_empty() && windows.any(|window| window == bytes) {
                            finds.store(true, Relaxed);
                        }
                        let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                        sink.extend(packet(&frame[..len]));
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Sniffer {
            seen,
            found,
            stop,
            thread: Some(thread),
        })
    }

    /// Whether any packet had the bytes that it looks for.
    pub fn found(&self) -> bool {
        self.found.load(Relaxed)
    }

    /// The packets since the last call.
    pub fn take(&self) -> Vec<SeenPacket> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Parses an Ethernet frame; `None` if it is not IP.
fn packet(frame: &[u8]) -> Option<SeenPacket> {
    let (header, packet) = frame.split_at_checked(14)?;
    let address = |at: usize, len: usize| -> Option<IpAddr> {
        let bytes = packet.get(at..at + len)?;
        match len {
            4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
            _ => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        }
    };
    let (from, to, protocol, payload) = match header[12..] {
        [0x08, 0x00] => {
            let length = usize::from(packet.first()? & 15) * 4;
            (address(12, 4)?, address(16, 4)?, *packet.get(9)?, length)
        }
        [0x86, 0xdd] => (address(8, 16)?, address(24, 16)?, *packet.get(6)?, 40),
        _ => return None,
    };
    let port = packet
        .get(payload + 2..payload + 4)
        .map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
    Some(SeenPacket {
        from,
        to,
        protocol,
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Hosts, PATIENCE, until};

    #[test]
    fn datagrams_are_seen_at_the_far_end() -> io::Result<()> {
        let hosts = Hosts::new(1500)?;
        let sniffer = Sniffer::start(&hosts.hosts[1])?;
        let target = hosts.address(1, Family::V4);
        hosts.hosts[0].run(|| -> io::Result<()> {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"x", (target, 9)).map(|_| ())
        })?;
        until(PATIENCE, "the datagram", || {
            let found = sniffer.take().into_iter().find(|seen| {
                (seen.to, seen.protocol, seen.port) == (target, 17, 9)
                    && seen.from == hosts.address(0, Family::V4)
            });
            Ok(found.map(|_| ()))
        })
    }
}
