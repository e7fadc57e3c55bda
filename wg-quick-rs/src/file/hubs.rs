//! Likely mistakes in a file about hubs: on the hub itself, whose peers have `#@ Relay`, and on a machine
//! that uses hubs, by `#@ Hub` or with an `Endpoint` that several peers share.

use std::collections::HashMap;
use std::net::IpAddr;

use wg_crypto::key::PublicKey;
use wg_rs::config::{ConfigEndpoint, PeerSettings};
use wg_rs::model::Extensions;

use super::{ConfigValue, File};

/// The mistakes, each with its line.
pub fn mistakes(file: &File) -> Vec<ConfigValue<String>> {
    let mut found = Vec::new();
    let peers = &file.settings.peers;
    relayed_alone(peers, &mut found);
    no_port(file, &mut found);
    hub_without_endpoint(peers, &mut found);
    hub_without_use(peers, &mut found);
    hub_not_kept_open(peers, &mut found);
    one_hub_by_two_addresses(peers, &mut found);
    found
}

/// What the running interface does otherwise than its file says, where `now` has the peers that have
/// extensions. Stock programs that apply a file do not see the lines with `#@`, and so leave what they
/// said before. None stands for a peer that the file does not have.
pub fn differences(
    file: &File,
    now: &HashMap<PublicKey, Extensions>,
) -> Vec<(Option<usize>, String)> {
    let (interface, peers) = (&file.interface, &file.settings.peers);
    let none = Extensions::default();
    let mut found = Vec::new();
    for peer in peers {
        let now = now.get(&peer.public_key).unwrap_or(&none);
        let wanted = peer.relay().unwrap_or(&none.relay);
        if now.relay != *wanted {
            let is = match now.relay.is_empty() {
                true => "does not relay for this peer".to_owned(),
                false => format!("relays for this peer in `{}'", now.relay),
            };
            let message = format!(
                "Relay: the running `{interface}' {is}: `wg-quick-rs reload {interface}' applies the file"
            );
            found.push((Some(peer.line), message));
        }
        if now.hub != peer.is_hub() {
            let is = if now.hub { "uses" } else { "does not use" };
            let message = format!(
                "Hub: the running `{interface}' {is} this peer as a hub: `wg-quick-rs reload \
                 {interface}' applies the file"
            );
            found.push((Some(peer.line), message));
        }
    }
    let is_unknown = |key: &PublicKey| !peers.iter().any(|peer| peer.public_key == *key);
    for (key, _) in now
        .iter()
        .filter(|(key, it)| is_unknown(key) && !it.relay.is_empty())
    {
        let message = format!(
            "the running `{interface}' relays for peer {key}, which this file does not have"
        );
        found.push((None, message));
    }
    found
}

fn add(found: &mut Vec<ConfigValue<String>>, line: usize, value: String) {
    found.push(ConfigValue { line, value });
}

/// Whether the peer has groups.
fn is_relayed(peer: &PeerSettings) -> bool {
    peer.relay().is_some_and(|groups| !groups.is_empty())
}

fn relayed_alone(peers: &[PeerSettings], found: &mut Vec<ConfigValue<String>>) {
    for peer in peers.iter().filter(|peer| is_relayed(peer)) {
        let groups = || peer.relay().into_iter().flat_map(|groups| groups.names());
        let is_shared = |other: &PeerSettings| {
            other.public_key != peer.public_key
                && other
                    .relay()
                    .is_some_and(|theirs| groups().any(|name| theirs.names().contains(name)))
        };
        if !peers.iter().any(is_shared) {
            let groups: Vec<_> = groups().map(|name| format!("`{name}'")).collect();
            let message = format!(
                "Relay: no other peer is in {}, so nothing is relayed for this one",
                groups.join(" or ")
            );
            add(found, peer.line, message);
        }
    }
}

fn no_port(file: &File, found: &mut Vec<ConfigValue<String>>) {
    let is_called = |peer: &&PeerSettings| is_relayed(peer) && peer.endpoint.is_none();
    if file.settings.listen_port.is_none()
        && let Some(peer) = file.settings.peers.iter().find(is_called)
    {
        let message = "Relay: without ListenPort in [Interface], this hub has another port after each \
                       start, and its peers do not find it";
        add(found, peer.line, message.into());
    }
}

fn hub_without_endpoint(peers: &[PeerSettings], found: &mut Vec<ConfigValue<String>>) {
    let hubs = peers.iter().filter(|peer| peer.is_hub());
    for hub in hubs.filter(|hub| hub.endpoint.is_none()) {
        let message =
            "Hub: this hub has no Endpoint, so it cannot be used before it connects by itself";
        add(found, hub.line, message.into());
    }
}

/// A peer is reached through hubs if it has no endpoint, or that of a hub.
fn hub_without_use(peers: &[PeerSettings], found: &mut Vec<ConfigValue<String>>) {
    let hubs = || peers.iter().filter(|peer| peer.is_hub());
    let is_at_hub =
        |endpoint: &ConfigEndpoint| hubs().any(|hub| is_at(hub.endpoint.as_ref(), endpoint));
    let others: Vec<_> = peers.iter().filter(|peer| !peer.is_hub()).collect();
    let may_be_relayed = |peer: &&PeerSettings| peer.endpoint.as_ref().is_none_or(is_at_hub);
    if let Some(hub) = hubs().next()
        && !others.is_empty()
        && !others.iter().any(may_be_relayed)
    {
        let message = "Hub: no peer is reached through a hub, as each has an Endpoint of its own; remove \
                       the Endpoint of those that are behind a NAT";
        add(found, hub.line, message.into());
    }
}

/// Several peers at one endpoint are a hub and those that it relays to. Without something that is sent
/// regularly, a NAT soon lets nothing in.
fn hub_not_kept_open(peers: &[PeerSettings], found: &mut Vec<ConfigValue<String>>) {
    for (n, endpoint) in endpoints(peers) {
        let is_there = |peer: &&PeerSettings| is_at(peer.endpoint.as_ref(), endpoint);
        let is_kept_open = |peer: &PeerSettings| {
            peer.is_hub() || peer.persistent_keepalive.is_some_and(|s| s != 0)
        };
        let others = peers[n + 1..].iter().filter(is_there);
        let is_first = !peers[..n].iter().any(|peer| is_there(&peer));
        if is_first && others.count() > 0 && !peers.iter().filter(is_there).any(is_kept_open) {
            let message = format!(
                "Endpoint: several peers are at {endpoint}, as if it were a hub, but none has \
                 PersistentKeepalive or `#@ Hub = on': the hub needs one of them if this host is behind \
                 a NAT"
            );
            add(found, endpoint.line, message);
        }
    }
}

/// A hub must see one address of ours, by which it knows us. A name is not resolved here, so this is
/// told only for peers that the rest of the file shows to be meant for a hub.
fn one_hub_by_two_addresses(peers: &[PeerSettings], found: &mut Vec<ConfigValue<String>>) {
    for (n, endpoint) in endpoints(peers).filter(|(n, _)| !peers[*n].is_hub()) {
        let is_another_form = |(other, hub): &(usize, &ConfigEndpoint)| {
            let sharing = endpoints(peers).filter(|(_, there)| is_at(Some(hub), there));
            let (ours, theirs) = (Form::of(endpoint), Form::of(hub));
            let is_hub = match peers[*other].is_hub() {
                // Other peers of such a file need no endpoint, so one of another form is meant.
                true => ours != Form::Name && theirs != Form::Name,
                false => sharing.count() > 1,
            };
            *other != n && is_hub && ours != theirs && hub.port == endpoint.port
        };
        let is_shared =
            endpoints(peers).any(|(other, there)| other != n && is_at(Some(endpoint), there));
        if !is_shared && let Some((_, hub)) = endpoints(peers).find(is_another_form) {
            let message = format!(
                "Endpoint: if {endpoint} is the hub {hub} (line {}), write it in the same way: a hub \
                 relays only for the address from which this host sends to the hub itself",
                hub.line
            );
            add(found, endpoint.line, message);
        }
    }
}

/// How the host of an endpoint is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Name,
    V4,
    V6,
}

impl Form {
    fn of(endpoint: &ConfigEndpoint) -> Form {
        match endpoint.numeric().map(|at| at.ip()) {
            None => Form::Name,
            Some(IpAddr::V4(_)) => Form::V4,
            Some(IpAddr::V6(_)) => Form::V6,
        }
    }
}

/// The endpoints, each with the number of its peer.
fn endpoints(peers: &[PeerSettings]) -> impl Iterator<Item = (usize, &ConfigEndpoint)> {
    let all = peers.iter().enumerate();
    all.filter_map(|(n, peer)| Some((n, peer.endpoint.as_ref()?)))
}

fn is_at(endpoint: Option<&ConfigEndpoint>, other: &ConfigEndpoint) -> bool {
    endpoint.is_some_and(|endpoint| (&endpoint.host, endpoint.port) == (&other.host, other.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;

    /// The findings about a file whose peers have these lines: the peer's number, and the message.
    fn found(interface: &str, peers: &[&str]) -> Vec<(usize, String)> {
        let mut text = format!("[Interface]\n{interface}\n");
        let mut ends = Vec::new();
        for (n, peer) in peers.iter().enumerate() {
            let key = wg_crypto::key::PublicKey::from_bytes([n as u8 + 1; 32]);
            text += &format!("[Peer]\nPublicKey = {key}\n{peer}\n");
            ends.push(text.lines().count());
        }
        let (file, errors) = file::parse("wg0.conf", "wg0", text.as_bytes());
        assert_eq!(errors, [], "{text}");
        let peer = |line| ends.iter().position(|end| line <= *end).unwrap();
        let found = mistakes(&file).into_iter();
        found.map(|found| (peer(found.line), found.value)).collect()
    }

    const HUB: &str = "Endpoint = hub.example:51820";

    #[test]
    fn good_files_have_no_findings() {
        let keepalive = format!("{HUB}\nPersistentKeepalive = 25");
        let ours = format!("#@ Hub = on\n{HUB}");
        for (interface, peers) in [
            // A hub.
            (
                "ListenPort = 51820",
                &["#@ Relay = on", "#@ Relay = on", ""][..],
            ),
            (
                "ListenPort = 5",
                &["#@ Relay = a, b", "#@ Relay = b, c", "#@ Relay = c"],
            ),
            // A hub that connects to its peers.
            (
                "",
                &[
                    "#@ Relay = on\nEndpoint = a:1",
                    "#@ Relay = on\nEndpoint = b:1",
                ],
            ),
            // Stock clients, also with another server, and with another hub.
            ("", &[&keepalive, HUB, HUB]),
            (
                "",
                &[
                    &keepalive,
                    HUB,
                    "Endpoint = 192.0.2.1:51821",
                    "Endpoint = x:51820",
                ],
            ),
            (
                "",
                &["Endpoint = x:1", "Endpoint = y:1", "Endpoint = 192.0.2.1:1"],
            ),
            // Our clients, with two hubs, and with a peer that is reached by itself.
            ("", &[&ours]),
            ("", &[&ours, "", HUB]),
            (
                "",
                &[
                    &ours,
                    "#@ Hub = on\nEndpoint = 192.0.2.1:51820",
                    "",
                    "Endpoint = [2001:db8::1]:7",
                ],
            ),
            ("", &[&ours, "", "Endpoint = 192.0.2.1:51820"]),
        ] {
            assert_eq!(found(interface, peers), [], "{peers:?}");
        }
    }

    #[test]
    fn a_running_interface_may_differ_from_its_file() {
        let key = |n| wg_crypto::key::PublicKey::from_bytes([n; 32]);
        let text = format!(
            "[Interface]\n[Peer]\n#@ Relay = lab\nPublicKey = {}\n[Peer]\nPublicKey = {}\n",
            key(1),
            key(2)
        );
        let (file, errors) = file::parse("wg0.conf", "wg0", text.as_bytes());
        assert_eq!(errors, []);
        let relays = |name: &str| Extensions {
            relay: name.parse().unwrap(),
            ..Extensions::default()
        };
        let found = |now: &[(u8, Extensions)]| {
            let now = now.iter().map(|(n, it)| (key(*n), it.clone())).collect();
            differences(&file, &now)
        };
        assert_eq!(found(&[(1, relays("lab"))]), []);
        let differ = |now: &[(u8, Extensions)], line: Option<usize>, part: &str| {
            let found = found(now);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, line);
            assert!(found[0].1.contains(part), "{found:?}");
        };
        differ(&[], Some(2), "`wg0' does not relay for this peer");
        differ(
            &[(1, relays("office"))],
            Some(2),
            "relays for this peer in `office'",
        );
        let lab = (1, relays("lab"));
        // The line was removed, and a stock program has applied the file.
        differ(
            &[lab.clone(), (2, relays("lab"))],
            Some(5),
            "relays for this peer in `lab'",
        );
        let hub = Extensions {
            hub: true,
            ..Extensions::default()
        };
        differ(
            &[lab.clone(), (2, hub)],
            Some(5),
            "`wg0' uses this peer as a hub",
        );
        differ(
            &[lab, (3, relays("lab"))],
            None,
            "which this file does not have",
        );
    }

    #[test]
    fn each_mistake_is_found_at_its_peer() {
        let ours = format!("#@ Hub = on\n{HUB}");
        let numeric = "#@ Hub = on\nEndpoint = 192.0.2.1:51820";
        let keepalive = format!("{HUB}\nPersistentKeepalive = 25");
        for (interface, peers, peer, part) in [
            (
                "ListenPort = 5",
                &["#@ Relay = lab", "#@ Relay = lab", "#@ Relay = labs, x"][..],
                2,
                "no other peer is in `labs' or `x'",
            ),
            (
                "",
                &["", "#@ Relay = on", "#@ Relay = on"],
                1,
                "without ListenPort",
            ),
            ("", &["#@ Hub = on", ""], 0, "has no Endpoint"),
            (
                "",
                &[&ours, "Endpoint = x:5"],
                0,
                "no peer is reached through a hub",
            ),
            ("", &["", HUB, HUB], 1, "none has PersistentKeepalive"),
            (
                "",
                &[HUB, "Endpoint = hub.example:51820\nPersistentKeepalive = 0"],
                0,
                "at hub.example:51820",
            ),
            (
                "",
                &[&keepalive, HUB, "Endpoint = 192.0.2.1:51820"],
                2,
                "if 192.0.2.1:51820 is the hub hub.example:51820 (line 5)",
            ),
            (
                "",
                &[numeric, "", "Endpoint = [2001:db8::1]:51820"],
                2,
                "write it in the same way",
            ),
        ] {
            let found = found(interface, peers);
            assert_eq!(found.len(), 1, "{peers:?}: {found:?}");
            assert_eq!(found[0].0, peer, "{found:?}");
            assert!(found[0].1.contains(part), "{found:?}");
        }
    }
}
