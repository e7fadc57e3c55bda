//! Pings over raw sockets, one request at a time, and the ICMP errors that a host receives.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::Host;

static NEXT_IDENT: AtomicU16 = AtomicU16::new(1);

/// The requests to send.
#[derive(Debug, Clone)]
pub struct Ping {
    /// Destination.
    pub to: IpAddr,
    /// Source address, if it is given.
    pub from: Option<IpAddr>,
    /// Number of requests.
    pub count: usize,
    /// Bytes after the ICMP header.
    pub payload: usize,
    /// Pause between an answer and the next request.
    pub interval: Duration,
    /// A request counts as lost after this time.
    pub timeout: Duration,
}

impl Ping {
    /// Ten requests of 56 bytes, without pauses.
    pub fn to(to: impl Into<IpAddr>) -> Ping {
        Ping {
            to: to.into(),
            from: None,
            count: 10,
            payload: 56,
            interval: Duration::ZERO,
            timeout: Duration::from_secs(5),
        }
    }
}

/// The result of the requests.
#[derive(Debug, Clone, Default)]
pub struct Pinged {
    /// Number of requests sent.
    pub sent: usize,
    /// Round-trip times of the answered requests, in order.
    pub rtts: Vec<Duration>,
    /// The times at which the lost ones were sent, since the start.
    pub lost_at: Vec<Duration>,
}

impl Pinged {
    /// Number of requests answered.
    pub fn received(&self) -> usize {
        self.rtts.len()
    }

    /// Number of requests lost.
    pub fn lost(&self) -> usize {
        self.lost_at.len()
    }
}

impl Host {
    /// Sends pings from this host.
    pub fn ping(&self, ping: &Ping) -> io::Result<Pinged> {
        self.ping_while(ping, |sent| sent < ping.count)
    }

    /// Sends pings as long as `more(requests so far)` is true, whatever the count.
    pub fn ping_while(
        &self,
        ping: &Ping,
        mut more: impl FnMut(usize) -> bool + Send,
    ) -> io::Result<Pinged> {
        self.run(|| {
            let mut echo = Echo::open(ping)?;
            let mut done = Pinged::default();
            let start = Instant::now();
            while more(done.sent) {
                done.sent += 1;
                let at = start.elapsed();
                match echo.round_trip(ping.timeout)? {
                    Some(rtt) => done.rtts.push(rtt),
                    None => done.lost_at.push(at),
                }
                if !ping.interval.is_zero() {
                    std::thread::sleep(ping.interval);
                }
            }
            Ok(done)
        })
    }

    /// Sends pings until one is answered, for example to wait for a tunnel.
    pub fn reach(&self, to: impl Into<IpAddr>, limit: Duration) -> io::Result<()> {
        let to = to.into();
        let start = Instant::now();
        let ping = Ping {
            timeout: Duration::from_millis(250),
            ..Ping::to(to)
        };
        self.run(|| {
            let mut echo = Echo::open(&ping)?;
            while start.elapsed() < limit {
                if echo.round_trip(ping.timeout)?.is_some() {
                    return Ok(());
                }
            }
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} had no answer from {to} in {limit:?}", self.name()),
            ))
        })
    }

    /// Listens for ICMP messages of one family to this host.
    pub fn icmp(&self, v6: bool) -> io::Result<Icmp> {
        self.run(|| Icmp::open(v6))
    }
}

/// A raw ICMP socket, which receives every ICMP message of its family to its host.
#[derive(Debug)]
pub struct Icmp {
    fd: OwnedFd,
    v6: bool,
}

impl Icmp {
    fn open(v6: bool) -> io::Result<Icmp> {
        let (family, protocol) = match v6 {
            false => (AddressFamily::Inet, SockProtocol::Icmp),
            true => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        Ok(Icmp { fd, v6 })
    }

    /// Waits for the first message for which `wanted(type, code, rest)` returns a value.
    pub fn wait<T>(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(u8, u8, &[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let start = Instant::now();
        let mut packet = [0; 65536];
        while start.elapsed() < limit {
            let len = match recv(self.fd.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                other => other?,
            };
            // An IPv4 raw socket also returns the IP header.
            let header = if self.v6 {
                0
            } else {
                usize::from(packet[0] & 15) * 4
            };
            if let Some(message @ [kind, code, ..]) = packet[..len].get(header..)
                && let Some(found) = wanted(*kind, *code, &message[2..])
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

struct Echo {
    icmp: Icmp,
    to: SockaddrStorage,
    request: Vec<u8>,
    ident: u16,
    sequence: u16,
}

impl Echo {
    fn open(ping: &Ping) -> io::Result<Echo> {
        let icmp = Icmp::open(ping.to.is_ipv6())?;
        if let Some(from) = ping.from {
            bind(
                icmp.fd.as_raw_fd(),
                &SockaddrStorage::from(std::net::SocketAddr::new(from, 0)),
            )?;
        }
        Ok(Echo {
            icmp,
            to: SockaddrStorage::from(std::net::SocketAddr::new(ping.to, 0)),
            request: vec![0xa5; 8 + ping.payload],
            ident: NEXT_IDENT.fetch_add(1, Ordering::Relaxed),
            sequence: 0,
        })
    }

    /// Sends one request. `None` if it is not answered in time or cannot be sent.
    fn round_trip(&mut self, timeout: Duration) -> io::Result<Option<Duration>> {
        self.sequence = self.sequence.wrapping_add(1);
        let (request_type, reply_type) = if self.icmp.v6 { (128, 129) } else { (8, 0) };
        self.request[..4].copy_from_slice(&[request_type, 0, 0, 0]);
        self.request[4..6].copy_from_slice(&self.ident.to_be_bytes());
        self.request[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        if !self.icmp.v6 {
            let checksum = checksum(&self.request);
            self.request[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        let start = Instant::now();
        if sendto(
            self.icmp.fd.as_raw_fd(),
            &self.request,
            &self.to,
            MsgFlags::empty(),
        )
        .is_err()
        {
            // There is no route yet, or the link is down: the request counts as lost, after the same
            // time.
            std::thread::sleep(Duration::from_millis(20));
            return Ok(None);
        }
        let expected = &self.request[4..];
        self.icmp.wait(timeout, |kind, _, rest| {
            (kind == reply_type && rest.get(2..) == Some(expected)).then(|| start.elapsed())
        })
    }
}

/// RFC 1071; the buffer's own checksum field must be zero.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
