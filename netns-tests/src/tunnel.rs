//! The usual topology: two hosts, a cable between them, and a tunnel over the cable.
//!
//! `eth0` of a is 192.0.2.1 and 2001:db8::1, of b …2; inside the tunnel a is 10.77.0.1 and
//! fd77::1, b …2. Both interfaces are `wg0`, both listen on 51820.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::wait::PATIENCE;
use crate::{Config, Daemon, Host, Key, Keys, Lab, PeerConfig, Ping, Via, Wg, transfer};

/// IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The address of host `number` inside the tunnels: 10.77.0.1, fd77::1.
    pub fn inside(self, number: u8) -> IpAddr {
        match self {
            Family::V4 => [10, 77, 0, number].into(),
            Family::V6 => [0xfd77, 0, 0, 0, 0, 0, 0, number.into()].into(),
        }
    }
}

/// The tunnel to build.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The implementations of a and b.
    pub daemons: [Daemon; 2],
    /// Family of the endpoints.
    pub outer: Family,
    /// Whether a preshared key is used.
    pub preshared: bool,
    /// How they are configured.
    pub via: Via,
    /// MTU of the cable.
    pub cable_mtu: u32,
    /// MTU of the tunnel.
    pub mtu: u32,
    /// Whether b is configured with a's endpoint; otherwise b learns it from a's first packet.
    pub both_endpoints: bool,
    /// The port of b's host to which a sends, if something there passes its datagrams on to b.
    pub through: Option<u16>,
    /// Persistent keepalive of a, seconds.
    pub keepalive: Option<u16>,
}

impl Plan {
    /// A tunnel over IPv4, without a preshared key, with the usual MTU.
    pub fn new(a: &Daemon, b: &Daemon) -> Plan {
        Plan {
            daemons: [a.clone(), b.clone()],
            outer: Family::V4,
            preshared: false,
            via: Via::Uapi,
            cable_mtu: 1500,
            mtu: 1420,
            both_endpoints: true,
            through: None,
            keepalive: None,
        }
    }
}

/// One end of the tunnel.
#[derive(Debug)]
pub struct End {
    /// Its interface.
    pub wg: Wg,
    /// Its host.
    pub host: Host,
    /// Its keys.
    pub keys: Keys,
    /// 1 for a, 2 for b: the last number in each of its addresses.
    pub number: u8,
}

impl End {
    /// UDP port of both ends.
    pub const PORT: u16 = 51820;

    /// Its address on the cable.
    pub fn outer(&self, family: Family) -> IpAddr {
        outer(family, self.number)
    }

    /// Its address in the tunnel.
    pub fn inner(&self, family: Family) -> IpAddr {
        family.inside(self.number)
    }

    /// Its endpoint, as the peer needs it.
    pub fn endpoint(&self, family: Family) -> SocketAddr {
        (self.outer(family), End::PORT).into()
    }
}

fn outer(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => [192, 0, 2, number].into(),
        Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()].into(),
    }
}

/// Two hosts and a tunnel between them. The ends are dropped before the lab.
#[derive(Debug)]
pub struct Tunnel {
    /// The end that is configured with the endpoint of the other.
    pub a: End,
    /// The other end.
    pub b: End,
    /// Preshared key.
    pub preshared: Option<Key>,
    /// Owner of the hosts.
    pub lab: Lab,
}

impl Tunnel {
    /// Builds the tunnel, configured and up; no packet has passed yet.
    pub fn new(plan: &Plan) -> io::Result<Tunnel> {
        Tunnel::between(Hosts::new(plan.cable_mtu)?, plan)
    }

    /// As [`Tunnel::new`], between hosts that exist.
    pub fn between(hosts: Hosts, plan: &Plan) -> io::Result<Tunnel> {
        let Hosts { hosts, lab } = hosts;
        let keys = [Keys::generate(), Keys::generate()];
        let preshared = plan.preshared.then(Key::random);
        let end = |n: usize| -> io::Result<End> {
            let number = n as u8 + 1;
            let host = hosts[n].clone();
            let wg = plan.daemons[n].start(&host, "wg0", plan.via)?;
            let mut peer = PeerConfig::new(keys[1 - n].public)
                .allow(Family::V4.inside(3 - number), 32)
                .allow(Family::V6.inside(3 - number), 128);
            peer.preshared_key = preshared;
            if n == 0 || plan.both_endpoints {
                let port = plan.through.filter(|_| n == 0).unwrap_or(End::PORT);
                peer.endpoint = Some((outer(plan.outer, 3 - number), port).into());
            }
            if n == 0 {
                peer.keepalive = plan.keepalive;
            }
            wg.set(&Config::new(&keys[n], End::PORT).peer(peer))?;
            let addresses = [
                (Family::V4.inside(number), 24),
                (Family::V6.inside(number), 64),
            ];
            wg.up(plan.mtu, &addresses)?;
            Ok(End {
                wg,
                host,
                keys: keys[n],
                number,
            })
        };
        let (a, b) = (end(0)?, end(1)?);
        Ok(Tunnel {
            a,
            b,
            preshared,
            lab,
        })
    }

    /// Builds the tunnel, and waits for the first answer through it.
    pub fn established(plan: &Plan) -> io::Result<Tunnel> {
        let tunnel = Tunnel::new(plan)?;
        tunnel.a.host.reach(tunnel.b.inner(Family::V4), PATIENCE)?;
        Ok(tunnel)
    }

    /// Both ends, each as (here, there).
    pub fn ways(&self) -> [(&End, &End); 2] {
        [(&self.a, &self.b), (&self.b, &self.a)]
    }

    /// Sends ten pings in each direction in this family; none may be lost.
    pub fn ping_both_ways(&self, family: Family) -> io::Result<()> {
        for (here, there) in self.ways() {
            ping_all(&here.host, there.inner(family), 10)?;
        }
        Ok(())
    }

    /// Makes a checked TCP transfer of `bytes` in each direction, one after the other.
    pub fn transfer_both_ways(&self, family: Family, bytes: u64) -> io::Result<()> {
        for (here, there) in self.ways() {
            transfer(
                &here.host,
                (&there.host, there.inner(family)),
                bytes,
                |_| (),
            )?;
        }
        Ok(())
    }
}

/// Sends pings; it is an error if one is lost.
pub fn ping_all(from: &Host, to: IpAddr, count: usize) -> io::Result<()> {
    let done = from.ping(&Ping {
        count,
        ..Ping::to(to)
    })?;
    match done.lost() {
        0 => Ok(()),
        lost => {
            let text = format!(
                "{lost} of {count} pings from {} to {to} were lost",
                from.name()
            );
            Err(io::Error::other(text))
        }
    }
}

/// Two hosts and their cable, without a tunnel: the upper limit in the benchmark.
#[derive(Debug)]
pub struct Hosts {
    /// a and b.
    pub hosts: [Host; 2],
    /// Their owner.
    pub lab: Lab,
}

impl Hosts {
    /// Two hosts with their addresses on the cable.
    pub fn new(cable_mtu: u32) -> io::Result<Hosts> {
        let lab = Lab::new()?;
        let hosts = [lab.host("a")?, lab.host("b")?];
        lab.cable((&hosts[0], "eth0"), (&hosts[1], "eth0"), cable_mtu)?;
        for (host, number) in hosts.iter().zip(1..) {
            host.address("eth0", outer(Family::V4, number), 24)?;
            if ipv6() {
                host.address("eth0", outer(Family::V6, number), 64)?;
            }
        }
        Ok(Hosts { hosts, lab })
    }

    /// Address of a host (0 or 1) on the cable.
    pub fn address(&self, n: usize, family: Family) -> IpAddr {
        outer(family, n as u8 + 1)
    }
}

/// Whether this machine's kernel has IPv6.
fn ipv6() -> bool {
    std::fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}
