//! Other Rust programs configure WireGuard with the library `wireguard-uapi`. Here it sets, reads and
//! watches `wireguard-rs` over its socket and, in the virtual machine, the kernel's module over
//! netlink. The same requests must have the same answers.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use netns_tests::{
    Daemon, Family, Host, Hosts, Keys, Lab, PATIENCE, SOCKETS, Via, Wg, ping_all, until, vm,
};
use wireguard_uapi::get::{self, AllowedIp};
use wireguard_uapi::set as netlink;
use wireguard_uapi::xplatform::Client;
use wireguard_uapi::xplatform::set::{self, Device, Peer};
use wireguard_uapi::{DeviceInterface, RouteSocket, WgSocket};

const NAME: &str = "wg0";
const PORT: u16 = 51820;

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// The client of the library for an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The client for `wireguard-rs`.
    Socket,
    /// The client for the kernel's module.
    Netlink,
}

impl Over {
    fn start(self, host: &Host) -> io::Result<Wg> {
        match self {
            Over::Socket => Daemon::ours()?.start(host, NAME, Via::Uapi),
            Over::Netlink => Daemon::kernel(host)?.start(host, NAME, Via::StockWg),
        }
    }

    fn set(self, host: &Host, device: Device) -> io::Result<()> {
        host.run(|| match self {
            Over::Socket => client().set(device).map_err(other),
            Over::Netlink => {
                let mut socket = WgSocket::connect().map_err(other)?;
                socket.set_device(for_netlink(&device)).map_err(other)
            }
        })
    }

    fn get(self, host: &Host) -> io::Result<get::Device> {
        host.run(|| match self {
            Over::Socket => client().get().map_err(other),
            Over::Netlink => {
                let mut socket = WgSocket::connect().map_err(other)?;
                let name = DeviceInterface::from_name(NAME);
                socket.get_device(name).map_err(other)
            }
        })
    }

    /// The only peer.
    fn peer(self, host: &Host) -> io::Result<get::Peer> {
        let mut peers = self.get(host)?.peers;
        assert_eq!(peers.len(), 1, "{peers:?}");
        Ok(peers.remove(0))
    }
}

fn client() -> Client<String> {
    Client::create(format!("{SOCKETS}/{NAME}.sock"))
}

/// The same request in the types of the netlink client.
fn for_netlink(device: &Device) -> netlink::Device<'_> {
    let mut request = netlink::Device::from_ifname(NAME);
    if device.replace_peers == Some(true) {
        request.flags.push(netlink::WgDeviceF::ReplacePeers);
    }
    request.private_key = device.private_key.as_ref();
    request.listen_port = device.listen_port;
    request.fwmark = device.fwmark;
    request.peers = device.peers.iter().map(for_netlink_peer).collect();
    request
}

fn for_netlink_peer(peer: &Peer) -> netlink::Peer<'_> {
    let mut request = netlink::Peer::from_public_key(&peer.public_key);
    let flags = [
        (peer.remove, netlink::WgPeerF::RemoveMe),
        (peer.update_only, netlink::WgPeerF::UpdateOnly),
        (
            peer.replace_allowed_ips,
            netlink::WgPeerF::ReplaceAllowedIps,
        ),
    ];
    let set = |(is_set, flag)| (is_set == Some(true)).then_some(flag);
    request.flags = flags.into_iter().filter_map(set).collect();
    request.preshared_key = peer.preshared_key.as_ref();
    request.endpoint = peer.endpoint.as_ref();
    request.persistent_keepalive_interval = peer.persistent_keepalive_interval;
    let networks = peer.allowed_ips.iter();
    request.allowed_ips = networks
        .map(|ip| netlink::AllowedIp {
            ipaddr: &ip.ipaddr,
            cidr_mask: Some(ip.cidr_mask),
        })
        .collect();
    request
}

/// The addresses of host `n` in the tunnel.
fn inner(n: usize) -> [(IpAddr, u8); 2] {
    let last = n as u8 + 1;
    [(Family::V4.inside(last), 24), (Family::V6.inside(last), 64)]
}

/// The addresses of host `n` as allowed IPs, to be set.
fn allowed(n: usize) -> Vec<set::AllowedIp> {
    let one = |(ipaddr, _): (IpAddr, u8)| set::AllowedIp {
        ipaddr,
        cidr_mask: if ipaddr.is_ipv4() { 32 } else { 128 },
    };
    inner(n).map(one).into()
}

fn as_read(networks: &[set::AllowedIp]) -> Vec<AllowedIp> {
    let one = |ip: &set::AllowedIp| AllowedIp {
        family: if ip.ipaddr.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        } as u16,
        ipaddr: ip.ipaddr,
        cidr_mask: ip.cidr_mask,
    };
    networks.iter().map(one).collect()
}

fn sets_reads_and_watches(clients: [Over; 2]) -> io::Result<()> {
    let hosts = Hosts::new(1500)?;
    let [a, _] = &hosts.hosts;
    let keys = [Keys::generate(), Keys::generate()];
    let psk = Keys::generate().private.0;
    let mut interfaces = Vec::new();
    for (n, client) in clients.into_iter().enumerate() {
        let (host, there) = (&hosts.hosts[n], 1 - n);
        interfaces.push(client.start(host)?);
        let endpoint = (hosts.address(there, Family::V4), PORT).into();
        let peer = Peer::from_public_key(keys[there].public.0)
            .preshared_key(psk)
            .endpoint(endpoint)
            .persistent_keepalive_interval(25)
            .allowed_ips(allowed(there));
        let device = Device {
            private_key: Some(keys[n].private.0),
            listen_port: Some(PORT),
            fwmark: Some(7),
            replace_peers: Some(true),
            peers: vec![peer],
        };
        client.set(host, device)?;

        let device = client.get(host)?;
        assert_eq!(device.private_key, Some(keys[n].private.0));
        assert_eq!((device.listen_port, device.fwmark), (PORT, 7));
        let peer = client.peer(host)?;
        assert_eq!(peer.public_key, keys[there].public.0);
        assert_eq!(peer.preshared_key, psk);
        assert_eq!(peer.endpoint, Some(endpoint));
        assert_eq!(peer.persistent_keepalive_interval, 25);
        assert_eq!(peer.protocol_version, 1);
        let mut networks = peer.allowed_ips;
        networks.sort_by_key(|network| network.ipaddr);
        assert_eq!(networks, as_read(&allowed(there)));
        assert_eq!(peer.last_handshake_time, Duration::ZERO);
    }

    // The counters follow the traffic.
    for (n, interface) in interfaces.iter().enumerate() {
        interface.up(1420, &inner(n))?;
    }
    let mut heard = 0;
    for (address, _) in inner(1) {
        a.reach(address, PATIENCE)?;
        ping_all(a, address, 5)?;
        let peer = until(PATIENCE, "more traffic to be counted", || {
            let peer = clients[0].peer(a)?;
            Ok((peer.rx_bytes >= heard + 5 * 64).then_some(peer))
        })?;
        assert!(peer.last_handshake_time > Duration::ZERO);
        assert!(peer.tx_bytes >= 5 * 64);
        heard = peer.rx_bytes;
    }

    // A peer that exists is changed; a change of a peer that does not exist has no effect.
    let known = keys[1].public.0;
    let first = vec![allowed(1).remove(0)];
    let update = Peer::from_public_key(known)
        .update_only(true)
        .preshared_key([0; 32])
        .persistent_keepalive_interval(0)
        .replace_allowed_ips(true)
        .allowed_ips(first.clone());
    let unknown = Peer::from_public_key(Keys::generate().public.0).update_only(true);
    let change = Device {
        fwmark: Some(0),
        peers: vec![update, unknown],
        ..Device::default()
    };
    clients[0].set(a, change)?;
    assert_eq!(clients[0].get(a)?.fwmark, 0);
    let peer = clients[0].peer(a)?;
    assert_eq!(peer.public_key, known);
    assert_eq!(peer.preshared_key, [0; 32]);
    assert_eq!(peer.persistent_keepalive_interval, 0);
    assert_eq!(peer.allowed_ips, as_read(&first));

    // A port in use is refused, and the former one is kept.
    let taken = a.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    let port = Device {
        listen_port: Some(taken.local_addr()?.port()),
        ..Device::default()
    };
    let refused = clients[0].set(a, port);
    assert!(refused.is_err(), "a port in use was set");

    let removal = Device {
        peers: vec![Peer::from_public_key(known).remove(true)],
        ..Device::default()
    };
    clients[0].set(a, removal)?;
    assert!(clients[0].get(a)?.peers.is_empty());
    Ok(())
}

#[test]
fn with_our_daemon() -> io::Result<()> {
    sets_reads_and_watches([Over::Socket; 2])
}

#[test]
fn with_the_kernels_module() {
    vm::inside(|| {
        sets_reads_and_watches([Over::Netlink, Over::Socket])?;
        // The library also creates and finds interfaces of the kernel.
        let lab = Lab::new()?;
        let host = lab.host("alone")?;
        let names = host.run(|| {
            let mut socket = RouteSocket::connect().map_err(other)?;
            socket.add_device("wg7").map_err(other)?;
            let names = socket.list_device_names().map_err(other)?;
            socket.del_device("wg7").map_err(other)?;
            Ok::<_, io::Error>((names, socket.list_device_names().map_err(other)?))
        })?;
        assert_eq!(names, (vec!["wg7".to_owned()], Vec::new()));
        Ok(())
    });
}
