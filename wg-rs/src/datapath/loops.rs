//! Detects our own datagrams that come back.
//!
//! A route to a peer's endpoint that leads through the interface itself sends each datagram around
//! again, and each time it gets longer: one ping becomes a storm. So a packet from the TUN is
//! dropped if it is a datagram that we sent to the endpoint that it would be sent to again.
//!
//! A datagram is ours if it is UDP from our port to that endpoint, and contains one of our indices.
//! The index is needed because another host behind this one may have a tunnel to the same server,
//! from the same port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::ip::{self, Header, be16};
use super::sockets::Sockets;
use crate::tunnel::peer::Peer;
use crate::tunnel::plane::Plane;

/// Most endpoints that are reported.
const MOST_TOLD: usize = 16;

/// Detects loops, and reports each endpoint once.
pub struct Loops {
    sockets: Arc<Sockets>,
    told: Vec<SocketAddr>,
}

impl Loops {
    /// Detects datagrams that were sent with these sockets.
    pub fn new(sockets: Arc<Sockets>) -> Self {
        Loops {
            sockets,
            told: Vec::new(),
        }
    }

    /// Whether `packet`, which is routed to `peer`, is a datagram that we sent to this peer.
    pub fn is_ours(&mut self, plane: &Plane, packet: &[u8], peer: &Peer) -> bool {
        let Some(datagram) = Datagram::parse(packet) else {
            return false;
        };
        // The ports are compared first, because that needs no lock.
        if datagram.from_port != self.sockets.port() {
            return false;
        }
        let Some(endpoint) = peer.endpoint().map(|endpoint| endpoint.addr) else {
            return false;
        };
        let is_there = (endpoint.ip(), endpoint.port()) == (datagram.to.ip(), datagram.to.port());
        if !is_there || !plane.is_message_to(peer, datagram.payload) {
            return false;
        }
        self.tell(endpoint);
        true
    }

    fn tell(&mut self, endpoint: SocketAddr) {
        if self.told.len() < MOST_TOLD && !self.told.contains(&endpoint) {
            self.told.push(endpoint);
            tracing::error!(
                "routing loop: the route to the endpoint {endpoint} leads into this interface, so \
                 what is sent to that peer comes back and is dropped. Route {} another way, or set \
                 a fwmark and a rule for it",
                endpoint.ip()
            );
        }
    }
}

/// A UDP datagram or its first fragment.
struct Datagram<'a> {
    from_port: u16,
    to: SocketAddr,
    payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let header = Header::parse(packet)?;
        if header.protocol != ip::UDP || header.fragment.is_some_and(|offset| offset != 0) {
            return None;
        }
        let (udp, payload) = packet[header.transport..].split_at_checked(ip::UDP_LEN)?;
        let addresses = header.addresses(packet);
        let to: IpAddr = if header.v6 {
            Ipv6Addr::from(*addresses.last_chunk()?).into()
        } else {
            Ipv4Addr::from(*addresses.last_chunk()?).into()
        };
        Some(Datagram {
            from_port: be16(udp, 0),
            to: (to, be16(udp, 2)).into(),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::sim::{DATA, INITIATION, SECOND, Sim};

    /// `datagram` as a packet from the TUN.
    fn packet(from_port: u16, to: SocketAddr, datagram: &[u8]) -> Vec<u8> {
        let SocketAddr::V4(to) = to else {
            panic!("IPv4 only")
        };
        let len = 28 + datagram.len() as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(len.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, ip::UDP, 0, 0, 192, 0, 2, 1]);
        packet.extend(to.ip().octets());
        packet.extend(from_port.to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend((len - 20).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(datagram);
        packet
    }

    #[test]
    fn only_what_we_sent_to_that_endpoint_is_ours() {
        let mut sim = Sim::pair();
        sim.send(0, 1, 7);
        sim.run(SECOND);
        let data = sim.last(0, DATA).bytes.clone();
        let initiation = sim.last(0, INITIATION).bytes.clone();
        let plane = sim.hosts[0].device.plane().clone();
        let peer = sim.hosts[0].first();
        let to = peer.endpoint().unwrap().addr;
        let mut loops = Loops::new(Arc::new(Sockets::on_port(51820)));
        let mut is_ours = |packet: &[u8]| loops.is_ours(&plane, packet, &peer);

        assert!(is_ours(&packet(51820, to, &data)));
        assert!(is_ours(&packet(51820, to, &initiation)));
        let mut fragment = packet(51820, to, &data);
        fragment[6] = 0x20;
        assert!(is_ours(&fragment), "the first fragment");

        assert!(
            !is_ours(&packet(51821, to, &data)),
            "another tunnel on this host"
        );
        assert!(!is_ours(&packet(
            51820,
            "192.0.2.2:9".parse().unwrap(),
            &data
        )));
        assert!(!is_ours(&packet(
            51820,
            "192.0.2.9:51820".parse().unwrap(),
            &data
        )));
        for message in [&data, &initiation] {
            let mut other = (*message).clone();
            other[4] ^= 1;
            assert!(
                !is_ours(&packet(51820, to, &other)),
                "a message of another host"
            );
        }
        assert!(!is_ours(&packet(51820, to, b"not a WireGuard message")));
        fragment[7] = 1;
        assert!(!is_ours(&fragment), "a later fragment");
        let mut tcp = packet(51820, to, &data);
        tcp[9] = ip::TCP;
        assert!(!is_ours(&tcp));
        let whole = packet(51820, to, &data);
        for len in 0..30 {
            assert!(!is_ours(&whole[..len]));
        }
        assert_eq!(loops.told, [to], "reported once");
    }
}
