//! The fewest changes that turn one configuration into another. What is equal in both is not set again,
//! so sessions, counters and packets under way are not disturbed.
//!
//! The changes have two parts: first come additions, last removals; routes change in between. Adding a
//! network to a peer takes it from its former peer in the same moment.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use wg_crypto::key::PublicKey;
use wg_rs::config::{PeerSettings, Settings};
use wg_rs::model::{AllowedIp, Change, Interface, Peer};

/// The changes from one configuration to another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What is new or different.
    pub more: Vec<Change>,
    /// What is removed: networks first, then peers.
    pub less: Vec<Change>,
}

impl Difference {
    /// The changes that turn `from` into `to`.
    pub fn new(from: &Interface, to: &Interface) -> Self {
        let mut difference = Difference::default();
        let Difference { more, less } = &mut difference;
        if from.private_key != to.private_key {
            more.push(Change::PrivateKey(to.private_key.clone().map(Box::new)));
        }
        if from.listen_port != to.listen_port {
            more.push(Change::ListenPort(to.listen_port));
        }
        if from.fwmark != to.fwmark {
            // The rules for a mark are deleted before the mark is.
            let part = if to.fwmark == 0 {
                &mut *less
            } else {
                &mut *more
            };
            part.push(Change::FwMark(to.fwmark));
        }
        let known: HashMap<PublicKey, &Peer> = from
            .peers
            .iter()
            .map(|peer| (peer.public_key, peer))
            .collect();
        let wanted: HashSet<AllowedIp> = to.peers.iter().flat_map(ips).collect();
        for peer in &to.peers {
            let nothing = Peer::new(peer.public_key);
            let before = known.get(&peer.public_key);
            let changes = of_peer(before.copied().unwrap_or(&nothing), peer);
            if before.is_none() || !changes.is_empty() {
                more.push(Change::Peer(peer.public_key));
                more.extend(changes);
            }
            let left = before.iter().flat_map(|before| ips(before));
            let left: Vec<_> = left.filter(|ip| !wanted.contains(ip)).collect();
            if !left.is_empty() {
                less.push(Change::Peer(peer.public_key));
                less.extend(
                    left.into_iter()
                        .map(|ip| Change::AllowedIp { ip, remove: true }),
                );
            }
        }
        let stays: HashSet<_> = to.peers.iter().map(|peer| peer.public_key).collect();
        for peer in from
            .peers
            .iter()
            .filter(|peer| !stays.contains(&peer.public_key))
        {
            less.extend([Change::Peer(peer.public_key), Change::Remove]);
        }
        difference
    }
}

/// The same changes for older modules and daemons, which cannot remove a single network: each network is
/// moved to a temporary peer and removed with it. The other networks of its former peer stay in place
/// all the time. `None` if no network is removed.
pub fn without_taking(changes: &[Change]) -> Option<Vec<Change>> {
    let taken = |change: &Change| match change {
        Change::AllowedIp { ip, remove: true } => Some(*ip),
        _ => None,
    };
    let ips: Vec<AllowedIp> = changes.iter().filter_map(taken).collect();
    let rest = changes
        .iter()
        .filter(|change| taken(change).is_none())
        .cloned();
    (!ips.is_empty()).then(|| rest.chain(moved_out(ips)).collect())
}

/// Takes networks from the peers that have them, by a temporary peer.
pub fn moved_out(ips: Vec<AllowedIp>) -> Vec<Change> {
    if ips.is_empty() {
        return Vec::new();
    }
    let nobody = Change::Peer(PublicKey::from_bytes(*NOBODY));
    let mut changes = vec![nobody.clone()];
    changes.extend(
        ips.into_iter()
            .map(|ip| Change::AllowedIp { ip, remove: false }),
    );
    changes.extend([nobody, Change::Remove]);
    changes
}

/// The public key of the temporary peer.
const NOBODY: &[u8; 32] = b"wg-quick-rs: networks to be gone";

/// The networks that peers have in `now`, but no peer in `to`.
pub fn too_many(now: &Interface, to: &Interface) -> Vec<AllowedIp> {
    let wanted: HashSet<AllowedIp> = to.peers.iter().flat_map(ips).collect();
    let have = now.peers.iter().flat_map(ips);
    have.filter(|ip| !wanted.contains(ip)).collect()
}

fn ips(peer: &Peer) -> impl Iterator<Item = AllowedIp> {
    peer.allowed_ips.iter().copied()
}

fn of_peer(from: &Peer, to: &Peer) -> Vec<Change> {
    let mut changes = Vec::new();
    if from.preshared_key != to.preshared_key {
        changes.push(Change::PresharedKey(Box::new(to.preshared_key.clone())));
    }
    if from.endpoint != to.endpoint {
        changes.extend(to.endpoint.map(Change::Endpoint));
    }
    if from.persistent_keepalive != to.persistent_keepalive {
        changes.push(Change::PersistentKeepalive(to.persistent_keepalive));
    }
    let extensions = to.extensions.all().into_iter().zip(from.extensions.all());
    let new = extensions.filter(|(to, from)| to != from);
    changes.extend(new.map(|(to, _)| Change::Extension(to)));
    let there: HashSet<_> = ips(from).collect();
    let new = ips(to).filter(|ip| !there.contains(ip));
    changes.extend(new.map(|ip| Change::AllowedIp { ip, remove: false }));
    changes
}

/// The configuration that the file's settings ask for, given the configuration `now`. If the file does
/// not mention the port or the mark, the current ones are kept, as `up` chose them. With `keep_keys`,
/// keys that the file does not mention are kept too, as hooks may have set them. `endpoint` finds the
/// address of a peer, given its current one.
///
/// # Errors
/// The error of `endpoint`.
pub fn desired<E>(
    now: &Interface,
    settings: &Settings,
    keep_keys: bool,
    mut endpoint: impl FnMut(&PeerSettings, Option<SocketAddr>) -> Result<Option<SocketAddr>, E>,
) -> Result<Interface, E> {
    let key = settings.private_key.as_deref();
    let mut target = Interface {
        private_key: match key {
            Some(key) => Some(key.clone()).filter(|key| !key.is_zero()),
            None => now.private_key.clone(),
        },
        listen_port: settings
            .listen_port
            .filter(|port| *port != 0)
            .unwrap_or(now.listen_port),
        fwmark: settings.fwmark.unwrap_or(now.fwmark),
        peers: Vec::new(),
    };
    for wanted in &settings.peers {
        if wanted.remove {
            target
                .peers
                .retain(|peer| peer.public_key != wanted.public_key);
            continue;
        }
        let known = now
            .peers
            .iter()
            .find(|peer| peer.public_key == wanted.public_key);
        let again = target
            .peers
            .iter()
            .position(|peer| peer.public_key == wanted.public_key);
        let mut peer = match again {
            Some(at) => target.peers.remove(at),
            None => {
                let mut peer = Peer::new(wanted.public_key);
                if let Some(known) = known {
                    peer.endpoint = known.endpoint;
                    if keep_keys {
                        peer.preshared_key = known.preshared_key.clone();
                    }
                }
                peer
            }
        };
        if let Some(key) = wanted.preshared_key.as_deref() {
            peer.preshared_key = key.clone();
        }
        peer.endpoint = endpoint(wanted, peer.endpoint)?;
        if let Some(seconds) = wanted.persistent_keepalive {
            peer.persistent_keepalive = seconds;
        }
        for extension in &wanted.extensions {
            peer.extensions.set(extension);
        }
        if wanted.replace_allowed_ips {
            peer.allowed_ips.clear();
        }
        for setting in &wanted.allowed_ips {
            // The last peer in the file that lists a network has it.
            let owners = target.peers.iter_mut().chain([&mut peer]);
            owners.for_each(|peer| peer.allowed_ips.retain(|ip| *ip != setting.ip));
            if !setting.remove {
                peer.allowed_ips.push(setting.ip);
            }
        }
        target.peers.push(peer);
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use wg_rs::config::parse_file;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn ip(text: &str) -> AllowedIp {
        let (addr, cidr) = text.split_once('/').unwrap();
        AllowedIp::new(addr.parse().unwrap(), cidr.parse().unwrap()).unwrap()
    }

    fn peer(n: u8, ips: &[&str]) -> Peer {
        Peer {
            allowed_ips: ips.iter().map(|text| ip(text)).collect(),
            ..Peer::new(key(n))
        }
    }

    fn of(peers: Vec<Peer>) -> Interface {
        Interface {
            listen_port: 7,
            peers,
            ..Interface::default()
        }
    }

    fn add(text: &str) -> Change {
        let ip = ip(text);
        Change::AllowedIp { ip, remove: false }
    }

    fn take(text: &str) -> Change {
        let ip = ip(text);
        Change::AllowedIp { ip, remove: true }
    }

    #[test]
    fn equal_configurations_need_no_change() {
        let same = of(vec![peer(1, &["10.0.0.0/8", "fd00::/64"]), peer(2, &[])]);
        assert_eq!(Difference::new(&same, &same), Difference::default());
        let order = of(vec![peer(2, &[]), peer(1, &["fd00::/64", "10.0.0.0/8"])]);
        assert_eq!(Difference::new(&same, &order), Difference::default());
        assert_eq!(too_many(&same, &order), []);
    }

    #[test]
    fn networks_are_added_first_and_removed_last() {
        let from = of(vec![
            peer(1, &["10.0.0.0/8", "10.1.0.0/16"]),
            peer(2, &["10.2.0.0/16"]),
        ]);
        let to = of(vec![peer(1, &["10.0.0.0/8", "10.2.0.0/16"]), peer(3, &[])]);
        let Difference { more, less } = Difference::new(&from, &to);
        assert_eq!(
            more,
            [
                Change::Peer(key(1)),
                add("10.2.0.0/16"),
                Change::Peer(key(3))
            ]
        );
        assert_eq!(
            less,
            [
                Change::Peer(key(1)),
                take("10.1.0.0/16"),
                Change::Peer(key(2)),
                Change::Remove
            ]
        );
        assert_eq!(too_many(&from, &to), [ip("10.1.0.0/16")]);
        let nobody = Change::Peer(PublicKey::from_bytes(*NOBODY));
        assert_eq!(
            without_taking(&less).unwrap(),
            [
                Change::Peer(key(1)),
                Change::Peer(key(2)),
                Change::Remove,
                nobody.clone(),
                add("10.1.0.0/16"),
                nobody,
                Change::Remove
            ]
        );
        assert_eq!(without_taking(&more), None);
    }

    #[test]
    fn a_network_that_moves_is_not_removed_first() {
        let from = of(vec![peer(1, &["10.0.0.0/8"]), peer(2, &[])]);
        let to = of(vec![peer(1, &[]), peer(2, &["10.0.0.0/8"])]);
        let Difference { more, less } = Difference::new(&from, &to);
        assert_eq!(more, [Change::Peer(key(2)), add("10.0.0.0/8")]);
        assert_eq!(less, []);
    }

    #[test]
    fn settings_that_the_file_does_not_mention() {
        let mut now = of(vec![peer(1, &["10.0.0.0/8"])]);
        now.fwmark = 51820;
        now.peers[0].endpoint = Some("192.0.2.1:5".parse().unwrap());
        now.peers[0].persistent_keepalive = 25;
        let text = format!(
            "[Interface]\n[Peer]\nPublicKey={}\nAllowedIPs=10.0.0.0/8\n",
            key(1)
        );
        let settings = parse_file("wg0.conf", text.as_bytes()).unwrap();
        let keep = |_: &PeerSettings, now| Ok::<_, Infallible>(now);
        let Ok(target) = desired(&now, &settings, false, keep);
        assert_eq!(
            Difference::new(&now, &target).more,
            [Change::Peer(key(1)), Change::PersistentKeepalive(0)]
        );
    }
}
