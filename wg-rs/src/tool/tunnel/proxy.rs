//! One client of the proxy: SOCKS5 (RFC 1928) without authentication, or HTTP CONNECT (RFC 9110, section
//! 9.3.6), told apart by the first byte.
//!
//! No library fits: those for SOCKS servers open the sockets of a UDP ASSOCIATE and resolve names
//! themselves, outside the tunnel, and cannot serve HTTP on the same port.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::connection::join;
use super::datagrams::LONGEST_DATAGRAM;
use super::session::warn;
use super::specification::host_and_port;
use crate::stack::{Error, Tunnel};

/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(30);
/// The maximum length of the head of an HTTP request in bytes.
const LONGEST_HEAD: usize = 8 << 10;
/// Maximum number of names of one association whose addresses are remembered.
const MOST_NAMES: usize = 256;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const UDP_ASSOCIATE: u8 = 3;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Reply codes (RFC 1928, section 6).
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const NETWORK_UNREACHABLE: u8 = 3;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const NO_SUCH_COMMAND: u8 = 7;
const NO_SUCH_ADDRESS_TYPE: u8 = 8;

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
}

/// Serves a client until it or its destination ends.
pub(super) async fn serve(mut client: TcpStream, tunnel: Tunnel) {
    let _ = client.set_nodelay(true);
    let first = timeout(PATIENCE, client.read_u8()).await;
    // A client that breaks its connection is not an error of ours.
    let _ = match first {
        Ok(Ok(VERSION)) => socks(client, tunnel).await,
        Ok(Ok(byte)) if byte.is_ascii_uppercase() => http(client, byte, tunnel).await,
        _ => Ok(()),
    };
}

async fn socks(mut client: TcpStream, tunnel: Tunnel) -> io::Result<()> {
    let request = timeout(PATIENCE, async {
        let methods = client.read_u8().await?;
        let mut offered = vec![0; methods.into()];
        client.read_exact(&mut offered).await?;
        if !offered.contains(&NO_AUTHENTICATION) {
            client.write_all(&[VERSION, NO_METHOD]).await?;
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        client.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
        let mut head = [0; 4];
        client.read_exact(&mut head).await?;
        let [version, command, _, kind] = head;
        if version != VERSION {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let target = read_target(&mut client, kind).await?;
        Ok((command, target))
    });
    let (command, target) = request.await.map_err(io::Error::from)??;
    let Some(target) = target else {
        return client.write_all(&reply(NO_SUCH_ADDRESS_TYPE, None)).await;
    };
    match command {
        CONNECT => match connect(&tunnel, &target).await {
            Ok(stream) => {
                let bound = reply(SUCCEEDED, Some(stream.local_addr()));
                client.write_all(&bound).await?;
                join(client, stream).await;
                Ok(())
            }
            Err(error) => client.write_all(&reply(code(&error), None)).await,
        },
        UDP_ASSOCIATE => associate(client, tunnel).await,
        _ => client.write_all(&reply(NO_SUCH_COMMAND, None)).await,
    }
}

async fn connect(tunnel: &Tunnel, target: &Target) -> Result<crate::stack::TcpStream, Error> {
    let result = tunnel.connect_to(&target.host, target.port).await;
    result.inspect_err(|error| {
        let destination = host_and_port(&target.host, target.port);
        warn(format_args!("{destination}: {error}"));
    })
}

/// Reads a target. `None` if its address type is unknown.
async fn read_target(client: &mut TcpStream, kind: u8) -> io::Result<Option<Target>> {
    let host = match kind {
        IPV4 => {
            let mut address = [0; 4];
            client.read_exact(&mut address).await?;
            Ipv4Addr::from(address).to_string()
        }
        IPV6 => {
            let mut address = [0; 16];
            client.read_exact(&mut address).await?;
            Ipv6Addr::from(address).to_string()
        }
        NAME => {
            let len = client.read_u8().await?;
            let mut name = vec![0; len.into()];
            client.read_exact(&mut name).await?;
            // If it is not UTF-8 it is not a name either; resolving it fails with that error.
            String::from_utf8_lossy(&name).into_owned()
        }
        _ => return Ok(None),
    };
    let port = client.read_u16().await?;
    Ok(Some(Target { host, port }))
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Refused(_) => REFUSED,
        Error::NoPeer(_) | Error::NoEndpoint(_) | Error::NoSource(_) => NETWORK_UNREACHABLE,
        Error::Unreachable(_)
        | Error::NoAnswer(_)
        | Error::SilentPeer { .. }
        | Error::NoDestination(_)
        | Error::NoResolver(_)
        | Error::NoName(_)
        | Error::UnknownName(_)
        | Error::Unresolved(_) => HOST_UNREACHABLE,
        _ => GENERAL_FAILURE,
    }
}

/// Writes an address in the format of SOCKS.
fn write_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(IPV4);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(IPV6);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(address.port().to_be_bytes());
}

fn reply(code: u8, bound: Option<SocketAddr>) -> Vec<u8> {
    let mut bytes = vec![VERSION, code, 0];
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    write_address(&mut bytes, bound.unwrap_or(nowhere));
    bytes
}

/// Forwards datagrams of the client until its connection ends (RFC 1928, section 7).
async fn associate(mut client: TcpStream, tunnel: Tunnel) -> io::Result<()> {
    let (own, theirs) = (client.local_addr()?.ip(), client.peer_addr()?.ip());
    let outside = UdpSocket::bind((own, 0)).await?;
    let inside = match tunnel.bind_udp(0) {
        Ok(inside) => inside,
        Err(error) => return client.write_all(&reply(code(&error), None)).await,
    };
    let bound = reply(SUCCEEDED, Some(outside.local_addr()?));
    client.write_all(&bound).await?;
    let mut names: HashMap<String, IpAddr> = HashMap::new();
    let mut sender: Option<SocketAddr> = None;
    let mut datagram = vec![0; LONGEST_DATAGRAM];
    let mut rest = [0; 64];
    loop {
        tokio::select! {
            // Data on this connection is ignored; its end ends the association.
            read = client.read(&mut rest) => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => {}
            },
            received = outside.recv_from(&mut datagram) => {
                let Ok((len, from)) = received else { continue };
                // Only the client may use this port: its address, and the first port that sends from there.
                if from.ip() != theirs || sender.is_some_and(|sender| sender != from) {
                    continue;
                }
                sender = Some(from);
                let Some((target, payload)) = parse_datagram(&datagram[..len]) else { continue };
                let Some(ip) = address_of(&tunnel, &mut names, target.host).await else { continue };
                // A datagram that cannot be sent is lost.
                let _ = inside.send_to(payload, (ip, target.port).into()).await;
            }
            answer = inside.recv_from() => {
                let Ok((payload, from)) = answer else { return Ok(()) };
                if let Some(client) = sender {
                    let mut bytes = vec![0; 3];
                    write_address(&mut bytes, from);
                    bytes.extend(payload);
                    let _ = outside.send_to(&bytes, client).await;
                }
            }
        }
    }
}

async fn address_of(
    tunnel: &Tunnel,
    names: &mut HashMap<String, IpAddr>,
    host: String,
) -> Option<IpAddr> {
    if let Some(ip) = names.get(&host) {
        return Some(*ip);
    }
    match tunnel.resolve(&host).await {
        Ok(addresses) => {
            if names.len() >= MOST_NAMES {
                names.clear();
            }
            names.insert(host, addresses[0]);
            Some(addresses[0])
        }
        Err(error) => {
            warn(error);
            None
        }
    }
}

/// Returns the target and the payload of a client's datagram. `None` if it is malformed or a fragment.
fn parse_datagram(bytes: &[u8]) -> Option<(Target, &[u8])> {
    let ([_, _, 0, kind], rest) = bytes.split_first_chunk::<4>()? else {
        return None;
    };
    let (host, rest) = match *kind {
        IPV4 => {
            let (address, rest) = rest.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*address).to_string(), rest)
        }
        IPV6 => {
            let (address, rest) = rest.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*address).to_string(), rest)
        }
        NAME => {
            let (len, rest) = rest.split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*len))?;
            (str::from_utf8(name).ok()?.to_owned(), rest)
        }
        _ => return None,
    };
    let (port, payload) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    Some((Target { host, port }, payload))
}

async fn http(mut client: TcpStream, first: u8, tunnel: Tunnel) -> io::Result<()> {
    let head = timeout(PATIENCE, async {
        // Reads byte by byte, as the bytes after the head are for the destination.
        let mut head = vec![first];
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == LONGEST_HEAD {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            head.push(client.read_u8().await?);
        }
        Ok(head)
    });
    let head = head.await.map_err(io::Error::from)??;
    let (status, text) = match parse_connect(&head) {
        Ok(target) => match connect(&tunnel, &target).await {
            Ok(stream) => {
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
                join(client, stream).await;
                return Ok(());
            }
            Err(error @ (Error::NoAnswer(_) | Error::SilentPeer { .. })) => {
                ("504 Gateway Timeout", error.to_string())
            }
            Err(error) => ("502 Bad Gateway", error.to_string()),
        },
        Err(refusal) => refusal,
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}\n",
        text.len() + 1
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}

/// Returns the target of a request, or the status and the reason of its refusal.
fn parse_connect(head: &[u8]) -> Result<Target, (&'static str, String)> {
    let bad = |text: &str| ("400 Bad Request", text.to_owned());
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| bad("not an HTTP request"))?;
    let mut words = line.split(' ');
    let (method, authority) = (words.next(), words.next());
    if method != Some("CONNECT") {
        let text = "only CONNECT and SOCKS5 are supported".to_owned();
        return Err(("405 Method Not Allowed", text));
    }
    let authority = authority.unwrap_or_default();
    let (host, port) = authority
        .rsplit_once(':')
        .ok_or_else(|| bad("the port is missing"))?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']'),
        None => Some(host).filter(|host| !host.is_empty() && !host.contains(':')),
    };
    let host = host.ok_or_else(|| bad("not a host and a port"))?.to_owned();
    let port = port.parse().map_err(|_| bad("not a port"))?;
    Ok(Target { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn datagrams_of_a_client_are_parsed() {
        let parse = |bytes: &[u8]| parse_datagram(bytes).map(|(to, rest)| (to, rest.to_vec()));
        let v4 = b"\0\0\0\x01\x0a\x09\0\x01\0\x35hello";
        assert_eq!(parse(v4), Some((target("10.9.0.1", 53), b"hello".to_vec())));
        let name = b"\0\0\0\x03\x03dns\0\x35";
        assert_eq!(parse(name), Some((target("dns", 53), Vec::new())));
        let mut v6 = b"\0\0\0\x04".to_vec();
        write_address(&mut v6, "[fd09::1]:53".parse().unwrap());
        v6.remove(4);
        assert_eq!(parse(&v6), Some((target("fd09::1", 53), Vec::new())));
        for len in 0..10 {
            assert_eq!(parse(&v4[..len]), None, "{len}");
        }
        assert_eq!(
            parse(b"\0\0\x01\x01\x0a\x09\0\x01\0\x35x"),
            None,
            "a fragment"
        );
        assert_eq!(parse(b"\0\0\0\x02\x0a\x09\0\x01\0\x35x"), None);
    }

    #[test]
    fn http_requests_are_parsed() {
        let parse = |line: &str| parse_connect(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
        let told = parse("CONNECT intranet.example:443 HTTP/1.1");
        assert_eq!(told, Ok(target("intranet.example", 443)));
        assert_eq!(
            parse("CONNECT [fd09::1]:443 HTTP/1.1"),
            Ok(target("fd09::1", 443))
        );
        for (line, status) in [
            (
                "GET http://intranet.example/ HTTP/1.1",
                "405 Method Not Allowed",
            ),
            ("CONNECT intranet.example HTTP/1.1", "400 Bad Request"),
            ("CONNECT fd09::1:443 HTTP/1.1", "400 Bad Request"),
            ("CONNECT a:99999 HTTP/1.1", "400 Bad Request"),
            ("CONNECT :1 HTTP/1.1", "400 Bad Request"),
            ("CONNECT", "400 Bad Request"),
        ] {
            assert_eq!(parse(line).unwrap_err().0, status, "{line}");
        }
    }

    #[test]
    fn replies() {
        assert_eq!(reply(REFUSED, None), b"\x05\x05\0\x01\0\0\0\0\0\0");
        let bound = reply(SUCCEEDED, Some("[::1]:258".parse().unwrap()));
        assert_eq!(bound[..4], [5, 0, 0, 4]);
        assert_eq!(
            bound[4..],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2]
        );
    }
}
