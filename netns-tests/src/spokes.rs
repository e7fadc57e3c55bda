//! Two hosts, and a hub between them with a cable to each.
//!
//! ```text
//! a eth0 192.0.2.1 ── 192.0.2.3 hub 198.51.100.3 ── 198.51.100.2 eth0 b       IPv4
//!        2001:db8:1::1      …:1::3      …:2::3              2001:db8:2::2     IPv6
//! ```
//! Inside, a is 10.77.0.1 and fd77::1, b is …2, and the hub …3.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::copier::Copier;
use crate::netlink::Route;
use crate::{Config, Daemon, End, Family, Host, Key, Keys, Lab, PATIENCE, PeerConfig, Via, Wg};

/// How a and b reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By the hub's kernel, which forwards the datagrams of their tunnel.
    Forwarding,
    /// By the hub's daemon, which relays their tunnel.
    Relay,
    /// By a program on the hub that copies the datagrams of their tunnel (IPv4 outside), and does nothing else.
    Copying,
    /// By a tunnel of each with the hub, whose kernel forwards between the two.
    Routing,
}

/// The hosts and their tunnels, which are up; a has reached b.
#[derive(Debug)]
pub struct Spokes {
    /// a and b.
    pub ends: [Host; 2],
    /// The hub.
    pub hub: Host,
    /// Keys of a, b and the hub.
    pub keys: [Keys; 3],
    /// The interfaces of a and b, and of the hub if it has one.
    pub tunnels: Vec<Wg>,
    /// The program on the hub that copies, if they reach each other by it.
    pub copier: Option<Copier>,
    /// Owner of the hosts.
    pub lab: Lab,
}

impl Spokes {
    /// Creates the hosts, with this implementation at a and at b, and `wireguard-rs` on the hub.
    pub fn new(ends: [&Daemon; 2], by: By, outer: Family, psk: Option<Key>) -> io::Result<Spokes> {
        let lab = Lab::new()?;
        let (a, hub, b) = (lab.host("a")?, lab.host("hub")?, lab.host("b")?);
        hub.write("/proc/sys/net/ipv4/ip_forward", "1")?;
        for (host, link, n) in [(&a, "a", 1), (&b, "b", 2)] {
            lab.cable((host, "eth0"), (&hub, link), 1500)?;
            for family in Family::ALL {
                host.address("eth0", outside(family, n, n), prefix(family))?;
                hub.address(link, outside(family, n, 3), prefix(family))?;
            }
            let gateway = outside(Family::V4, n, 3);
            host.run(|| Route::via([0, 0, 0, 0].into(), 0, gateway, "eth0").add())?;
        }
        let keys = [Keys::generate(), Keys::generate(), Keys::generate()];
        let mut spokes = Spokes {
            ends: [a, b],
            hub,
            keys,
            tunnels: Vec::new(),
            copier: None,
            lab,
        };
        for (daemon, n) in ends.into_iter().zip(1..) {
            spokes.start_end(daemon, n, by, outer, psk)?;
        }
        match by {
            By::Forwarding => {}
            By::Copying => spokes.copier = Some(Copier::start(&spokes.hub, End::PORT)?),
            By::Relay | By::Routing => {
                spokes.start_hub(by)?;
                // The hub relays only for peers whose endpoints it knows.
                for host in &spokes.ends {
                    host.reach(Family::V4.inside(3), PATIENCE)?;
                }
            }
        }
        let [a, _] = &spokes.ends;
        a.reach(Family::V4.inside(2), PATIENCE)?;
        Ok(spokes)
    }

    fn start_end(
        &mut self,
        daemon: &Daemon,
        n: u8,
        by: By,
        outer: Family,
        psk: Option<Key>,
    ) -> io::Result<()> {
        let [mine, other] = [n, 3 - n].map(|n| self.keys[usize::from(n) - 1]);
        let at_hub: SocketAddr = (outside(outer, n, 3), End::PORT).into();
        let to_hub = PeerConfig::new(self.keys[2].public).at(at_hub).keepalive(5);
        let mut to_other = allow(PeerConfig::new(other.public), 3 - n);
        to_other.preshared_key = psk;
        let config = Config::new(&mine, End::PORT);
        let config = match by {
            By::Forwarding => config.peer(to_other.at((outside(outer, 3 - n, 3 - n), End::PORT))),
            By::Relay => config.peer(allow(to_hub, 3)).peer(to_other.at(at_hub)),
            // Both must send before either can be reached.
            By::Copying => config.peer(to_other.at(at_hub).keepalive(1)),
            By::Routing => config.peer(to_hub.allow(Family::V4.inside(0), 24)),
        };
        let host = self.ends[usize::from(n) - 1].clone();
        self.start(daemon, &host, &config, n)
    }

    fn start_hub(&mut self, by: By) -> io::Result<()> {
        let mut config = Config::new(&self.keys[2], End::PORT);
        for n in [1, 2] {
            let peer = allow(PeerConfig::new(self.keys[usize::from(n) - 1].public), n);
            config = config.peer(match by {
                By::Relay => peer.relayed("lab"),
                _ => peer,
            });
        }
        let hub = self.hub.clone();
        self.start(&Daemon::ours()?, &hub, &config, 3)
    }

    fn start(&mut self, daemon: &Daemon, host: &Host, config: &Config, n: u8) -> io::Result<()> {
        let wg = daemon.start(host, "wg0", Via::Uapi)?;
        wg.set(config)?;
        let addresses = Family::ALL.map(|family| match family {
            Family::V4 => (family.inside(n), 24),
            Family::V6 => (family.inside(n), 64),
        });
        wg.up(1420, &addresses)?;
        self.tunnels.push(wg);
        Ok(())
    }
}

fn allow(peer: PeerConfig, n: u8) -> PeerConfig {
    peer.allow(Family::V4.inside(n), 32)
        .allow(Family::V6.inside(n), 128)
}

fn prefix(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// The address of host `n` on the cable of a (1) or b (2).
fn outside(family: Family, cable: u8, n: u8) -> IpAddr {
    match (family, cable) {
        (Family::V4, 1) => [192, 0, 2, n].into(),
        (Family::V4, _) => [198, 51, 100, n].into(),
        (Family::V6, cable) => [0x2001, 0xdb8, cable.into(), 0, 0, 0, 0, n.into()].into(),
    }
}
