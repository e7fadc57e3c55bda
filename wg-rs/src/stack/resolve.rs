//! Resolves host names, only through the tunnel: by UDP, and by TCP if the answer is too long (RFC 1035,
//! section 4.2; RFC 7766).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::driver::{Running, random};
use super::error::Error;
use super::stream::TcpStream;
use super::udp::UdpSocket;

/// How long to wait for an answer of one server, and how often each server is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
const DNS_PORT: u16 = 53;

/// What a tunnel resolves names by.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// The DNS servers.
    pub servers: Vec<IpAddr>,
    /// The search domains.
    pub search: Vec<String>,
    /// The names of the peers; no server is asked for these.
    pub peers: PeerNames,
}

/// The names of peers: those of `#@ Name`, in a domain of the interface.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerNames {
    /// The domain with a dot before it: `.wg0.internal`. Empty if there is none.
    pub domain: String,
    /// The addresses of each name.
    pub addresses: HashMap<String, Vec<IpAddr>>,
}

impl PeerNames {
    /// Returns the addresses of a peer, none if there is no such peer or it has none. `None` if the name is
    /// not in the domain.
    fn addresses_of(&self, name: &str) -> Option<&[IpAddr]> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let domain = Some(&self.domain).filter(|domain| !domain.is_empty())?;
        let peer = name.strip_suffix(domain.as_str())?;
        Some(self.addresses.get(peer).map_or(&[], Vec::as_slice))
    }
}

/// The answer of a server.
enum Answer {
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoName,
    /// The answer is longer than a datagram.
    Truncated,
}

impl Resolver {
    /// Returns the addresses of a name, at least one, of the tunnel's address families.
    pub async fn resolve(&self, running: &Arc<Running>, name: &str) -> Result<Vec<IpAddr>, Error> {
        if let Some(addresses) = self.peers.addresses_of(name) {
            return match addresses {
                [] => Err(Error::UnknownName(name.to_owned())),
                some => Ok(some.to_vec()),
            };
        }
        if self.servers.is_empty() {
            return Err(Error::NoResolver(name.to_owned()));
        }
        if name.is_empty() || name.len() > 253 || !name.is_ascii() {
            return Err(Error::NoName(name.to_owned()));
        }
        let absolute = name.strip_suffix('.');
        let mut names = vec![absolute.unwrap_or(name).to_owned()];
        if absolute.is_none() {
            let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
            // As with `ndots:1`: a name without a dot is tried in the search domains first.
            let at = usize::from(name.contains('.'));
            names.splice(at..at, searched);
        }
        let mut missing = false;
        for name in &names {
            match self.resolve_one(running, name).await {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                Ok(_) => missing = true,
                Err(Error::Unresolved(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(if missing {
            Error::UnknownName(name.to_owned())
        } else {
            Error::Unresolved(name.to_owned())
        })
    }

    /// Returns the addresses of one full name; none if the name does not exist or has no address.
    async fn resolve_one(&self, running: &Arc<Running>, name: &str) -> Result<Vec<IpAddr>, Error> {
        let has = |v4: bool| {
            let addresses = running.host.addresses();
            addresses.iter().any(|address| address.is_ipv4() == v4)
        };
        let (v4, v6) = tokio::join!(
            self.ask_if(has(true), running, name, TYPE::A),
            self.ask_if(has(false), running, name, TYPE::AAAA),
        );
        match (v4, v6) {
            (Ok(v4), Ok(v6)) => Ok(v4.into_iter().chain(v6).collect()),
            // The addresses of one family are enough if the other cannot be resolved.
            (Ok(some), Err(_)) | (Err(_), Ok(some)) if !some.is_empty() => Ok(some),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    async fn ask_if(
        &self,
        wanted: bool,
        running: &Arc<Running>,
        name: &str,
        kind: TYPE,
    ) -> Result<Vec<IpAddr>, Error> {
        if !wanted {
            return Ok(Vec::new());
        }
        let mut error = Error::Unresolved(name.to_owned());
        for server in { self.servers.iter() }
            .cycle()
            .take(self.servers.len() * ROUNDS)
        {
            let server = SocketAddr::new(*server, DNS_PORT);
            match ask(running, server, name, kind).await {
                Ok(addresses) => return Ok(addresses),
                Err(Error::Unresolved(_)) => {}
                Err(other) => error = other,
            }
        }
        Err(error)
    }
}

/// Asks a server, again by TCP if its answer is too long. No addresses: there is no such name.
async fn ask(
    running: &Arc<Running>,
    server: SocketAddr,
    name: &str,
    kind: TYPE,
) -> Result<Vec<IpAddr>, Error> {
    let id = random() as u16;
    let question = question(id, name, kind).ok_or_else(|| Error::NoName(name.to_owned()))?;
    // The port is random too, so that an attacker cannot guess what a valid answer needs (RFC 5452).
    let (port, mailbox) = running.host.bind(0)?;
    let socket = UdpSocket::new(port, mailbox, running.clone());
    socket.send_to(&question, server).await?;
    let unresolved = || Error::Unresolved(name.to_owned());
    let answered = timeout(PATIENCE, async {
        loop {
            let (bytes, from) = socket.recv_from().await?;
            if from == server
                && let Some(answer) = answer(&bytes, id, name, kind)
            {
                return Ok::<_, Error>(answer);
            }
        }
    });
    match answered.await.map_err(|_| unresolved())?? {
        Answer::Addresses(addresses) => return Ok(addresses),
        Answer::NoName => return Ok(Vec::new()),
        Answer::Truncated => {}
    }
    let exchange = async {
        let stream = TcpStream::new(running.host.connect(server)?, running.clone());
        stream.established().await?;
        exchange(stream, &question).await.map_err(|_| unresolved())
    };
    let bytes = timeout(2 * PATIENCE, exchange)
        .await
        .map_err(|_| unresolved())??;
    match answer(&bytes, id, name, kind) {
        Some(Answer::Addresses(addresses)) => Ok(addresses),
        Some(Answer::NoName) => Ok(Vec::new()),
        Some(Answer::Truncated) | None => Err(unresolved()),
    }
}

/// Asks by TCP, where each message follows its length.
async fn exchange(mut stream: TcpStream, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut message = (question.len() as u16).to_be_bytes().to_vec();
    message.extend_from_slice(question);
    stream.write_all(&message).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; len.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn question(id: u16, name: &str, kind: TYPE) -> Option<Vec<u8>> {
    let name = Name::new(name).ok()?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = Question::new(name, kind.into(), CLASS::IN.into(), false);
    packet.questions.push(question);
    packet.build_bytes_vec().ok()
}

/// Reads the answer to this question. `None` if the message does not answer it, or the server failed.
fn answer(bytes: &[u8], id: u16, name: &str, kind: TYPE) -> Option<Answer> {
    let packet = Packet::parse(bytes).ok()?;
    let [asked] = packet.questions.as_slice() else {
        return None;
    };
    let is_ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && asked.qname.to_string().eq_ignore_ascii_case(name)
        && asked.qtype == kind.into();
    if !is_ours {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Answer::Truncated);
    }
    match packet.rcode() {
        simple_dns::RCODE::NoError => {}
        simple_dns::RCODE::NameError => return Some(Answer::NoName),
        _ => return None,
    }
    let addresses = packet.answers.iter().filter_map(|record| {
        let address: IpAddr = match &record.rdata {
            RData::A(a) => std::net::Ipv4Addr::from_bits(a.address).into(),
            RData::AAAA(aaaa) => std::net::Ipv6Addr::from_bits(aaaa.address).into(),
            _ => return None,
        };
        Some(address)
    });
    Some(Answer::Addresses(addresses.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates an answer to a question for `vpn.example`, with these flags and one address.
    fn told(question: &[u8], flags: [u8; 2]) -> Vec<u8> {
        let mut told = question.to_vec();
        (told[2], told[3], told[7]) = (flags[0], flags[1], 1);
        told.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x09");
        told
    }

    #[test]
    fn only_the_answer_to_the_question_is_believed() {
        let asked = question(7, "vpn.example", TYPE::A).unwrap();
        let read = |bytes: &[u8], id, name| answer(bytes, id, name, TYPE::A);
        assert!(read(&asked, 7, "vpn.example").is_none(), "the question");
        let good = told(&asked, [0x81, 0x80]);
        let Some(Answer::Addresses(addresses)) = read(&good, 7, "VPN.example") else {
            panic!("no answer");
        };
        assert_eq!(addresses, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert!(
            read(&good, 8, "vpn.example").is_none(),
            "another question's"
        );
        assert!(read(&good, 7, "xpn.example").is_none(), "of another name");
        assert!(answer(&good, 7, "vpn.example", TYPE::AAAA).is_none());
        let truncated = read(&told(&asked, [0x83, 0x80]), 7, "vpn.example");
        assert!(matches!(truncated, Some(Answer::Truncated)));
        let missing = read(&told(&asked, [0x81, 0x83]), 7, "vpn.example");
        assert!(matches!(missing, Some(Answer::NoName)));
        let failed = read(&told(&asked, [0x81, 0x82]), 7, "vpn.example");
        assert!(failed.is_none(), "another server may know");
        for len in 0..good.len() {
            assert!(read(&good[..len], 7, "vpn.example").is_none(), "{len}");
        }
    }

    #[test]
    fn names_of_peers_are_only_in_their_domain() {
        let ours: IpAddr = "10.9.0.3".parse().unwrap();
        let names = PeerNames {
            domain: ".wg0.internal".into(),
            addresses: [("bob".to_owned(), vec![ours])].into(),
        };
        assert_eq!(names.addresses_of("Bob.WG0.internal."), Some(&[ours][..]));
        assert_eq!(names.addresses_of("carol.wg0.internal"), Some(&[][..]));
        for other in ["bob", "bob.wg1.internal", "wg0.internal", ""] {
            assert_eq!(names.addresses_of(other), None, "{other}");
        }
        assert_eq!(PeerNames::default().addresses_of("bob.example"), None);
    }

    #[test]
    fn an_invalid_name_is_not_asked_for() {
        for name in ["", &"x".repeat(64)] {
            assert!(
                name.is_empty() || question(1, name, TYPE::A).is_none(),
                "{name}"
            );
        }
    }
}
