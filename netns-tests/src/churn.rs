//! A client of the UAPI socket that adds, changes and removes peers, and knows what they must look like.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::IpAddr;

use crate::{Config, Host, Key, PeerConfig, Uapi};

/// Networks of a client, which move between its peers.
const NETWORKS: usize = 40;

/// Makes a peer for place `n`: its key, and what shall be set when it is added, such as its endpoint.
type Make = Box<dyn FnMut(usize) -> io::Result<PeerConfig> + Send>;

/// The client of an interface `wg0`. Nobody else may change its peers.
pub struct Churn {
    number: u8,
    host: Host,
    dice: Dice,
    make: Make,
    places: Vec<Place>,
    connection: Option<Uapi>,
}

struct Place {
    /// The peer, or the last one that was here.
    peer: PeerConfig,
    present: bool,
}

impl fmt::Debug for Churn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} of {}", self.number, self.host.name())
    }
}

impl Churn {
    /// A client with places for `peers`, of which it has added none. Clients with different numbers have
    /// different networks: `number` is the second byte of their addresses in 10.0.0.0/8.
    pub fn new(
        number: u8,
        host: &Host,
        peers: usize,
        mut make: impl FnMut(usize) -> io::Result<PeerConfig> + Send + 'static,
    ) -> io::Result<Churn> {
        let place = |peer| Place {
            peer,
            present: false,
        };
        let places: io::Result<_> = (0..peers).map(|n| make(n).map(place)).collect();
        Ok(Churn {
            number,
            host: host.clone(),
            dice: Dice::new(),
            places: places?,
            make: Box::new(make),
            connection: None,
        })
    }

    /// An address in one of its networks, which may belong to a peer or to none.
    pub fn address(number: u8, dice: &mut Dice) -> IpAddr {
        [10, number, dice.roll(NETWORKS) as u8, 1].into()
    }

    /// Adds all its peers.
    pub fn fill(&mut self) -> io::Result<()> {
        let peers = 0..self.places.len();
        let changes: io::Result<_> = peers.map(|n| self.setting(n)).collect();
        self.set(changes?)
    }

    /// Adds, changes or removes one of its peers.
    pub fn change(&mut self) -> io::Result<()> {
        let n = self.dice.roll(self.places.len());
        let change = match self.places[n].present && self.dice.roll(3) == 0 {
            true => self.removal(n),
            false => self.setting(n)?,
        };
        self.set(vec![change])
    }

    fn removal(&mut self, n: usize) -> PeerConfig {
        let place = &mut self.places[n];
        place.present = false;
        PeerConfig::removed(place.peer.public_key)
    }

    fn setting(&mut self, n: usize) -> io::Result<PeerConfig> {
        // A peer that comes back may be the same or another one.
        if !self.places[n].present && self.dice.roll(2) == 0 {
            self.places[n].peer = (self.make)(n)?;
        }
        let mut change = PeerConfig::new(self.places[n].peer.public_key);
        let count = self.dice.roll(4);
        let network =
            |dice: &mut Dice| ([10, self.number, dice.roll(NETWORKS) as u8, 0].into(), 24);
        // A network moves to the peer that got it last.
        let taken: HashSet<_> = (0..count).map(|_| network(&mut self.dice)).collect();
        for place in &mut self.places {
            let networks = &mut place.peer.allowed_ips;
            networks.retain(|network| !taken.contains(network));
        }
        change.endpoint = self.places[n].peer.endpoint;
        change.keepalive = Some(self.dice.roll(3) as u16);
        change.preshared_key = Some(match self.dice.roll(4) {
            0 => Key::random(),
            _ => Key([0; 32]),
        });
        change.replace_allowed_ips = true;
        change.allowed_ips = taken.into_iter().collect();
        self.places[n] = Place {
            peer: change.clone(),
            present: true,
        };
        Ok(change)
    }

    fn set(&mut self, peers: Vec<PeerConfig>) -> io::Result<()> {
        let mut connection = self.connection()?;
        connection.set(&Config {
            peers,
            ..Config::default()
        })?;
        self.keep(connection);
        Ok(())
    }

    /// Compares all its peers with what the interface says of them.
    pub fn check(&mut self) -> io::Result<()> {
        let mut connection = self.connection()?;
        let state = connection.get()?;
        self.keep(connection);
        for place in &self.places {
            let key = place.peer.public_key;
            let found = state.peers.iter().find(|peer| peer.public_key == Some(key));
            assert_eq!(found.is_some(), place.present, "{key}");
            if let Some(found) = found {
                let wanted = &place.peer;
                let networks: HashSet<_> = found.allowed_ips.iter().collect();
                assert_eq!(networks, wanted.allowed_ips.iter().collect(), "{key}");
                assert_eq!(Some(found.keepalive), wanted.keepalive, "{key}");
                let preshared = wanted.preshared_key.filter(|key| *key != Key([0; 32]));
                assert_eq!(found.preshared_key, preshared, "{key}");
            }
        }
        Ok(())
    }

    /// The connection of the last request, or a new one.
    fn connection(&mut self) -> io::Result<Uapi> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Uapi::connect(&self.host, "wg0"),
        }
    }

    fn keep(&mut self, connection: Uapi) {
        self.connection = Some(connection).filter(|_| self.dice.roll(4) > 0);
    }
}

/// Numbers that look random.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice with a random seed.
    #[expect(clippy::new_without_default, reason = "a default would not be random")]
    pub fn new() -> Dice {
        let seed = Key::random().0;
        Dice(u64::from_le_bytes(*seed.first_chunk().expect("a key is longer")) | 1)
    }

    /// A number below `limit`.
    pub fn roll(&mut self, limit: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
