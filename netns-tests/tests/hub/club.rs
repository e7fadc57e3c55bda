//! A hub, and members behind NATs.

use std::io;
use std::net::SocketAddr;

use netns_tests::{
    Config, Daemon, End, Family, Host, Internet, Key, Keys, NatKind, PATIENCE, PeerConfig, Uapi,
    Via, Wg, ping_all, transfer,
};

/// A hub and members behind NATs, each with a session with the hub.
pub struct Club {
    pub members: Vec<Member>,
    pub hub: Wg,
    pub keys: Keys,
    pub psk: Key,
    pub net: Internet,
}

pub struct Member {
    pub wg: Wg,
    pub host: Host,
    pub keys: Keys,
    pub n: u8,
}

/// Inside the tunnel the hub is .1, and the members are .2 and following.
pub fn allow(peer: PeerConfig, n: u8) -> PeerConfig {
    peer.allow(Family::V4.inside(n), 32)
        .allow(Family::V6.inside(n), 128)
}

pub fn up(wg: &Wg, n: u8) -> io::Result<()> {
    wg.up(
        1420,
        &[(Family::V4.inside(n), 24), (Family::V6.inside(n), 64)],
    )
}

impl Club {
    /// Creates members behind NATs of these kinds, each with a session with the hub.
    pub fn new(daemons: &[&Daemon], kinds: &[NatKind], outer: Family) -> io::Result<Club> {
        let net = Internet::new(kinds)?;
        let (keys, psk) = (Keys::generate(), Key::random());
        let of_members: Vec<Keys> = daemons.iter().map(|_| Keys::generate()).collect();
        let hub = Daemon::ours()?.start(&net.hub, "wg0", Via::Uapi)?;
        hub.set(&of_hub(&keys, &of_members))?;
        up(&hub, 1)?;
        let at: SocketAddr = (Internet::hub(outer), End::PORT).into();
        let mut members = Vec::new();
        for (i, daemon) in daemons.iter().enumerate() {
            let (host, n) = (net.branches[i].host.clone(), i as u8 + 2);
            let wg = daemon.start(&host, "wg0", Via::Uapi)?;
            let mut config = Config::new(&of_members[i], End::PORT)
                .peer(allow(PeerConfig::new(keys.public), 1).at(at).keepalive(5));
            for (other, m) in of_members.iter().zip(2u8..).filter(|(_, m)| *m != n) {
                config = config.peer(
                    allow(PeerConfig::new(other.public), m)
                        .at(at)
                        .preshared(psk),
                );
            }
            wg.set(&config)?;
            up(&wg, n)?;
            host.reach(Family::V4.inside(1), PATIENCE)?;
            members.push(Member {
                wg,
                host,
                keys: of_members[i],
                n,
            });
        }
        Ok(Club {
            members,
            hub,
            keys,
            psk,
            net,
        })
    }

    /// The hub's public key.
    pub fn hub_key(&self) -> Key {
        self.keys.public
    }

    /// Adds the hub's drop counters to an error.
    pub fn explain(&self, error: io::Error) -> io::Error {
        let status =
            Uapi::connect(&self.net.hub, "wg0").and_then(|mut hub| hub.ask("status=1\n\n"));
        let status = status.unwrap_or_default();
        let drops = status
            .lines()
            .filter(|line| line.starts_with("drop_") && !line.ends_with("=0"));
        let drops = drops.collect::<Vec<_>>().join(", ");
        io::Error::new(error.kind(), format!("{error}; the hub: {drops}"))
    }

    /// Creates two members behind routers of the usual kind.
    pub fn of_two(a: &Daemon, b: &Daemon, outer: Family) -> io::Result<Club> {
        Club::new(
            &[a, b],
            &[NatKind::PortRestricted, NatKind::Symmetric],
            outer,
        )
    }

    /// Each member pings the other, and sends it `bytes` bytes.
    pub fn talk(&self, bytes: u64) -> io::Result<()> {
        for (here, there) in [(0, 1), (1, 0)] {
            let (here, there) = (&self.members[here], &self.members[there]);
            here.host.reach(Family::V4.inside(there.n), PATIENCE)?;
            for family in Family::ALL {
                ping_all(&here.host, family.inside(there.n), 10)?;
                let to = (&there.host, family.inside(there.n));
                transfer(&here.host, to, bytes, |_| ())?;
            }
        }
        Ok(())
    }
}

pub fn of_hub(keys: &Keys, members: &[Keys]) -> Config {
    let mut config = Config::new(keys, End::PORT);
    for (member, n) in members.iter().zip(2..) {
        config = config.peer(allow(PeerConfig::new(member.public), n).relayed("lab"));
    }
    config
}
