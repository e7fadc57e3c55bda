//! Looks up names outside of a tunnel, by packets that take the same way as the tunnel's own.
//!
//! While a tunnel is up, the system asks the name server that the tunnel brought. That server is usually
//! reached through the tunnel, so nobody answers while the tunnel does not work. Here packets with the
//! tunnel's mark ask the servers that were configured before, and the tunnel's too, if there is a way to
//! it outside of the tunnel.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use rand_core::{OsRng, TryRngCore};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, Question, TYPE};
use wg_rs::config::ConfigEndpoint;
use wg_rs::sys::resolve::ResolveError;

use crate::file::Dns;
use crate::steps::dns::DnsSettings;
use crate::steps::state::State;

/// How long to wait for one server.
const PATIENCE: Duration = Duration::from_secs(2);
/// The port of name servers.
const PORT: u16 = 53;
/// Room for an answer over UDP, bytes: some servers send more than the 512 of RFC 1035, section 4.2.1.
const LONGEST: usize = 4096;
/// Files with the name servers of the system and of systemd-resolved; and the folders where Debian's
/// resolvconf and openresolv keep those of each interface.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
const FOLDERS: [&str; 2] = ["/run/resolvconf/interface", "/run/resolvconf/interfaces"];

/// Reaches name servers outside a tunnel.
#[derive(Clone, Debug)]
pub struct Around {
    /// The mark of packets that take this way.
    mark: u32,
    /// The name servers from before the tunnel was up.
    former: Vec<IpAddr>,
}

impl Around {
    /// The way for packets with this mark; `state` is the record of the tunnel.
    pub fn new(mark: u32, state: Option<&State>) -> Self {
        let resolver = state.and_then(|state| state.dns.as_ref());
        let texts = resolver.map_or_else(Vec::new, DnsSettings::former);
        let servers = |text: &[u8]| of_resolv_conf(&String::from_utf8_lossy(text));
        Around {
            mark,
            former: texts.into_iter().flat_map(servers).collect(),
        }
    }

    /// Returns the addresses of an endpoint, at least one, those with a route first. This asks the system, and
    /// if it has no answer, the servers outside the tunnel.
    ///
    /// # Errors
    /// The system's error, if there is no answer at all.
    pub fn addresses(&self, endpoint: &ConfigEndpoint) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut addresses = endpoint.addresses().or_else(|failure| {
            Some(self.by_servers(endpoint))
                .filter(|addresses| !addresses.is_empty())
                .ok_or(failure)
        })?;
        addresses.sort_by_key(|address| !self.reaches(*address));
        Ok(addresses)
    }

    /// Whether there is a route to an address.
    pub fn reaches(&self, to: SocketAddr) -> bool {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let try_it = || -> io::Result<()> {
            let socket = UdpSocket::bind((any, 0))?;
            setsockopt(&socket, sockopt::Mark, &self.mark)?;
            socket.connect(to)
        };
        try_it().is_ok()
    }

    /// The addresses from the first server that answers; empty if no server does.
    fn by_servers(&self, endpoint: &ConfigEndpoint) -> Vec<SocketAddr> {
        let found = self.servers().into_iter().map(|server| {
            let server = SocketAddr::new(server, PORT);
            let of = |kind| ask(server, &endpoint.host, kind, self.mark).unwrap_or_default();
            let found = [of(TYPE::AAAA), of(TYPE::A)].concat();
            let found = found
                .into_iter()
                .map(|ip| SocketAddr::new(ip, endpoint.port));
            found.collect::<Vec<_>>()
        });
        found
            .into_iter()
            .find(|found| !found.is_empty())
            .unwrap_or_default()
    }

    /// All name servers that this host knows: first those from before the tunnel, then those of other
    /// interfaces.
    fn servers(&self) -> Vec<IpAddr> {
        let folders = FOLDERS.iter().flat_map(fs::read_dir).flatten().flatten();
        let records = folders.map(|record| record.path());
        let files = records.chain(FILES.map(PathBuf::from));
        let texts = files.filter_map(|file| fs::read_to_string(file).ok());
        let now = texts.flat_map(|text| of_resolv_conf(&text));
        let mut servers: Vec<IpAddr> = Vec::new();
        for server in self.former.iter().copied().chain(now) {
            // A server on this host asks the same servers as the system does.
            if !server.is_loopback() && !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers
    }
}

fn of_resolv_conf(text: &str) -> Vec<IpAddr> {
    Dns::of_resolv_conf(text).addresses()
}

/// Asks a server for the addresses of one kind that a name has.
fn ask(server: SocketAddr, name: &str, kind: TYPE, mark: u32) -> io::Result<Vec<IpAddr>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    setsockopt(&socket, sockopt::Mark, &mark)?;
    // A connected socket receives only this server's answers.
    socket.connect(server)?;
    let id = OsRng
        .try_next_u32()
        .map_err(|error| io::Error::other(error.to_string()))? as u16;
    socket.send(&question(id, name, kind)?)?;
    let end = Instant::now() + PATIENCE;
    let mut buffer = vec![0; LONGEST];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let len = socket.recv(&mut buffer)?;
        if let Some(found) = answer(&buffer[..len], id) {
            return Ok(found);
        }
    }
}

fn question(id: u16, name: &str, kind: TYPE) -> io::Result<Vec<u8>> {
    let name = Name::new(name).map_err(io::Error::other)?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(simple_dns::PacketFlag::RECURSION_DESIRED);
    let question = Question::new(name, kind.into(), CLASS::IN.into(), false);
    packet.questions.push(question);
    packet.build_bytes_vec().map_err(io::Error::other)
}

/// The addresses in the answer to the question `id`; `None` if it is anything else.
fn answer(bytes: &[u8], id: u16) -> Option<Vec<IpAddr>> {
    let packet = Packet::parse(bytes).ok()?;
    if packet.id() != id || !packet.has_flags(simple_dns::PacketFlag::RESPONSE) {
        return None;
    }
    let found = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::A(a) => Some(Ipv4Addr::from_bits(a.address).into()),
            RData::AAAA(aaaa) => Some(Ipv6Addr::from_bits(aaaa.address).into()),
            _ => None,
        });
    Some(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_route_is_not_reached() {
        let around = Around::new(0, None);
        assert!(around.reaches("127.0.0.1:9".parse().unwrap()));
        assert!(!around.reaches("255.255.255.255:9".parse().unwrap()));
    }

    #[test]
    fn name_servers_of_a_file() {
        let text = "# x\nsearch a b\nnameserver 192.0.2.1\nnameserver\tfd00::1 # y\nnameserver z\n";
        let want: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(of_resolv_conf(text), want);
    }

    #[test]
    fn questions_and_answers() {
        let question = question(7, "vpn.example", TYPE::A).unwrap();
        let plain = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03vpn\x07example\0\0\x01\0\x01";
        assert_eq!(question, plain);
        assert_eq!(answer(&question, 7), None);
        let mut told = question.clone();
        // An answer (RFC 1035, section 4.1.1), with one record whose name is that of the question.
        (told[2], told[3], told[7]) = (0x81, 0x80, 1);
        told.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x09");
        let want: IpAddr = "192.0.2.9".parse().unwrap();
        assert_eq!(answer(&told, 7), Some(vec![want]));
        assert_eq!(answer(&told, 8), None);
        for len in 0..told.len() {
            assert_eq!(answer(&told[..len], 7), None, "{len}");
        }
    }

    #[test]
    fn a_servers_answer_is_taken_and_other_datagrams_are_ignored() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 512];
                let (len, from) = server.recv_from(&mut buffer).unwrap();
                let mut told = buffer[..len].to_vec();
                (told[2], told[3], told[7]) = (0x81, 0x80, 1);
                told.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x09");
                server.send_to(b"nonsense", from).unwrap();
                server.send_to(&told, from).unwrap();
            });
            let found = ask(at, "vpn.example", TYPE::A, 0).unwrap();
            assert_eq!(found, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        });
    }
}
