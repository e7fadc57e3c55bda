//! The status for people: a line for each interface, and below it one for each of its peers,
//! and for each pair of peers that it relays between.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::time::Duration;

use super::age::time;
use super::asked::Asked;
use super::hubs;
use super::reason::{is_its_address, reason};
use crate::backend::{Errno, Kind};
use crate::model::Wall;
use crate::model::status::{PeerStatus, Refusal, Refused, Status};
use crate::place::Namespace;
use crate::sys::numeric::NumericEndpoint;
use crate::units::size;

/// Older refusals of senders that are not peers are not shown.
const RECENT: Duration = Duration::from_secs(180);

/// Writes the status of all interfaces, with empty lines between them.
pub(super) fn print(out: &mut impl Write, all: &[Asked], now: Wall) -> io::Result<()> {
    for (n, asked) in all.iter().enumerate() {
        if n > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}: {}", asked.name, interface(asked))?;
        peers(out, &asked.status, now)?;
        pairs(out, &asked.status)?;
    }
    Ok(())
}

fn peers(out: &mut impl Write, status: &Status, now: Wall) -> io::Result<()> {
    let columns: Vec<_> = status
        .peers
        .iter()
        .map(|peer| {
            let name = called(peer);
            let network = peer.peer.allowed_ips.first();
            let network = network.map_or_else(|| "-".into(), |ip| ip.to_string());
            (name, network, reason(status, peer, now).text)
        })
        .collect();
    let width = |width: fn(&(String, String, String)) -> usize| columns.iter().map(width).max();
    let names = width(|(name, _, _)| name.chars().count()).unwrap_or(0);
    let networks = width(|(_, network, _)| network.len()).unwrap_or(0);
    for (name, network, reason) in &columns {
        writeln!(out, "  {name:names$}  {network:networks$}  {reason}")?;
    }
    Ok(())
}

/// The pairs of peers that a hub has relayed between.
fn pairs(out: &mut impl Write, status: &Status) -> io::Result<()> {
    if status.pairs.is_empty() {
        return Ok(());
    }
    let names: HashMap<_, _> = (status.peers.iter())
        .map(|peer| (*peer.peer.public_key.as_bytes(), called(peer)))
        .collect();
    for pair in &status.pairs {
        let [first, second] = pair.keys.each_ref().map(|key| {
            let name = names.get(key.as_bytes());
            name.map_or_else(|| key.to_base64(), String::clone)
        });
        let [there, back] = [pair.tx_bytes, pair.rx_bytes].map(|bytes| {
            let (number, unit) = size(bytes, 2);
            format!("{number} {unit}")
        });
        let last = time(pair.age);
        writeln!(
            out,
            "  relayed from {first} to {second}: {there}, back: {back}, the last packet {last} ago"
        )?;
    }
    Ok(())
}

/// The name of a peer, or its key.
fn called(peer: &PeerStatus) -> String {
    let key = || peer.peer.public_key.to_base64();
    peer.name().map_or_else(key, str::to_owned)
}

/// Describes an interface on one line.
fn interface(asked: &Asked) -> String {
    let status = &asked.status;
    let mut facts = vec![match (&status.version, asked.kind) {
        (Some(version), _) => format!("wireguard-rs {version}"),
        (None, Kind::Kernel) => "kernel module".into(),
        (None, Kind::Userspace) => "a daemon that reports only its configuration".into(),
    }];
    match (status.up, status.bind_error) {
        (Some(true), _) => facts.push("up".into()),
        (Some(false), Some(errno)) => facts.push(format!(
            "down, as port {} cannot be opened: {}",
            status.listen_port,
            Errno(errno)
        )),
        (Some(false), None) => facts.push("down".into()),
        (None, _) => {}
    }
    if status.listen_port != 0 {
        facts.push(format!("port {}", status.listen_port));
    }
    facts.extend(groups(status));
    facts.extend(hubs::nat(status));
    facts.extend(namespaces(asked));
    if let Some(offloads) = &status.offloads {
        facts.push(match offloads.as_str() {
            "" => "no offloads".into(),
            some => format!("offloads {}", some.replace(',', " ")),
        });
    }
    facts.extend(status.aead.clone());
    if status.under_load == Some(true) {
        facts.push("under load: handshakes are answered with cookies".into());
    }
    let dropped: Vec<_> = (status.drops.iter())
        .filter(|(_, packets)| *packets > 0)
        .map(|(name, packets)| format!("{} ({packets})", name.replace('_', " ")))
        .collect();
    if !dropped.is_empty() {
        facts.push(format!("dropped since it started: {}", dropped.join(", ")));
    }
    let strangers = status
        .refusals
        .iter()
        .filter(|refused| refused.age < RECENT);
    facts.extend(strangers.filter_map(|refused| stranger(status, refused)));
    facts.join("; ")
}

/// The groups within which the interface relays, as a hub, with the number of their peers.
fn groups(status: &Status) -> Option<String> {
    let mut sizes = BTreeMap::new();
    for peer in &status.peers {
        for group in peer.peer.extensions.relay.names() {
            *sizes.entry(group.as_str()).or_insert(0) += 1;
        }
    }
    let groups: Vec<_> = (sizes.iter())
        .map(|(group, peers)| {
            format!(
                "{group} ({peers} {})",
                if *peers == 1 { "peer" } else { "peers" }
            )
        })
        .collect();
    (!groups.is_empty()).then(|| format!("relays between the peers of {}", groups.join(", ")))
}

/// Names the namespaces of the link and of the sockets.
fn namespaces(asked: &Asked) -> Option<String> {
    let place = asked.place.as_ref();
    let called = |name: Option<&Namespace>, inode: Option<u64>| -> Option<String> {
        let name = name.map(ToString::to_string);
        name.or_else(|| Some(format!("net:[{}]", inode?)))
    };
    let link = called(
        place.and_then(|place| place.lives_in.as_ref()),
        asked.status.link_netns,
    );
    let sockets = called(
        place.and_then(|place| place.born_in.as_ref()),
        asked.status.socket_netns,
    );
    Some(match (link, sockets) {
        (Some(link), Some(sockets)) if link == sockets => format!("in namespace {link}"),
        (Some(link), Some(sockets)) => {
            format!("link in namespace {link}, sockets in {sockets}")
        }
        (Some(link), None) => format!("link in namespace {link}"),
        (None, Some(sockets)) => format!("sockets in namespace {sockets}"),
        (None, None) => return None,
    })
}

/// Describes handshakes that were refused, if they did not come from the address of a peer.
fn stranger(status: &Status, refused: &Refused) -> Option<String> {
    let (from, whose) = match &refused.refusal {
        Refusal::OtherKey { from } => (from, "for a public key other than its own".to_owned()),
        Refusal::UnknownKey { from, key } => (from, format!("of {key}, which no peer has,")),
        _ => return None,
    };
    let is_known = (status.peers.iter()).any(|peer| is_its_address(status, peer, *from));
    (!is_known).then(|| {
        let (from, ago) = (NumericEndpoint(*from), time(refused.age));
        format!("handshakes {whose} came from {from} ({ago} ago)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::PairStatus;
    use crate::model::{AllowedIp, Extensions, Peer};
    use wg_crypto::PublicKey;

    const NOW: Wall = Wall {
        secs: 1_000_000_000,
        nanos: 0,
    };

    fn shown(all: &[Asked]) -> String {
        let mut out = Vec::new();
        print(&mut out, all, NOW).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn peer(n: u8, name: Option<&str>, network: Option<&str>) -> PeerStatus {
        let network = network.map(|ip| AllowedIp::new(ip.parse().unwrap(), 32).unwrap());
        PeerStatus::new(Peer {
            allowed_ips: network.into_iter().collect(),
            extensions: Extensions {
                name: name.and_then(|name| name.parse().ok()),
                ..Extensions::default()
            },
            ..Peer::new(PublicKey::from_bytes([n; 32]))
        })
    }

    #[test]
    fn each_interface_and_peer_has_a_line() {
        let key = PublicKey::from_bytes([9; 32]);
        let from = "198.51.100.1:9".parse().unwrap();
        let daemon = Asked {
            name: "wg0".into(),
            kind: Kind::Userspace,
            place: None,
            status: Status {
                version: Some("0.1.0".into()),
                up: Some(true),
                listen_port: 51820,
                link_netns: Some(7),
                socket_netns: Some(8),
                offloads: Some("tso,gro".into()),
                aead: Some("ChaCha20-Poly1305 by AWS-LC".into()),
                under_load: Some(true),
                drops: vec![("wrong_mac1".into(), 2), ("no_session".into(), 0)],
                refusals: vec![Refused {
                    refusal: Refusal::UnknownKey { from, key },
                    age: Duration::from_secs(3),
                }],
                peers: vec![
                    peer(1, Some("alice"), Some("10.9.0.2")),
                    peer(2, Some("bob-of-berlin"), None),
                ],
                ..Status::default()
            },
        };
        let kernel = Asked {
            name: "wg1".into(),
            kind: Kind::Kernel,
            place: None,
            status: Status {
                peers: vec![peer(3, None, None)],
                ..Status::default()
            },
        };
        let nowhere = "not connected: no endpoint is known; the peer must connect first";
        let text = format!(
            "wg0: wireguard-rs 0.1.0; up; port 51820; link in namespace net:[7], sockets in net:[8]; \
             offloads tso gro; ChaCha20-Poly1305 by AWS-LC; under load: handshakes are answered with \
             cookies; dropped since it started: wrong mac1 (2); handshakes of {key}, which no peer has, \
             came from 198.51.100.1:9 (3 s ago)\n\
             \x20 alice          10.9.0.2/32  {nowhere}\n\
             \x20 bob-of-berlin  -            {nowhere}\n\
             \nwg1: kernel module\n\
             \x20 AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=  -  {nowhere}\n"
        );
        assert_eq!(shown(&[daemon, kernel]), text);
    }

    #[test]
    fn a_hub_shows_its_groups_and_what_it_relays() {
        let mut peers = vec![peer(1, Some("alice"), None), peer(2, None, None)];
        peers[0].peer.extensions.relay = "office,lab".parse().unwrap();
        peers[1].peer.extensions.relay = "lab".parse().unwrap();
        let status = Status {
            version: Some("0.1.0".into()),
            peers,
            pairs: vec![PairStatus {
                keys: [1, 2].map(|n| PublicKey::from_bytes([n; 32])),
                tx_bytes: 5 << 29,
                rx_bytes: 300,
                age: Duration::from_millis(3999),
            }],
            ..Status::default()
        };
        let text = shown(&[Asked {
            name: "wg0".into(),
            kind: Kind::Userspace,
            place: None,
            status,
        }]);
        let first =
            "wg0: wireguard-rs 0.1.0; relays between the peers of lab (2 peers), office (1 peer)\n";
        assert!(text.starts_with(first), "{text}");
        let last = "  relayed from alice to AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=: 2.50 GiB, back: \
                    300 B, the last packet 3 s ago\n";
        assert!(text.ends_with(last), "{text}");
    }

    #[test]
    fn an_interface_is_down_if_its_port_is_taken() {
        let asked = Asked {
            name: "wg0".into(),
            kind: Kind::Userspace,
            place: None,
            status: Status {
                version: Some("0.1.0".into()),
                up: Some(false),
                bind_error: Some(libc::EADDRINUSE),
                listen_port: 53,
                ..Status::default()
            },
        };
        let text = "wg0: wireguard-rs 0.1.0; down, as port 53 cannot be opened: Address already in \
                    use; port 53\n";
        assert_eq!(shown(&[asked]), text);
    }
}
