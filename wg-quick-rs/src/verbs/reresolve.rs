//! Names as endpoints, asked again: what a machine's address behind dynamic DNS needs.
//!
//! ```text
//! a peer named in the file, no handshake for 135 s ─► its addresses now, those with a route
//!   ├ the endpoint is none of them          ─► the one the system prefers
//!   ├ it is, there are others, and the peer sends in vain ─► the next, IPv6 and IPv4 in turn
//!   └ it is, and the peer is idle           ─► left alone
//! ```
//! Where the system has no answer, servers outside of the tunnel are asked: see `ask`.
//! Nothing is remembered between two runs: the turn starts from the endpoint as it is, and a peer
//! that sends in vain shows that within one retry of its handshake.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wg_crypto::key::PublicKey;
use wg_rs::backend::Backends;
use wg_rs::config::Endpoint;
use wg_rs::model::{Change, Peer};

use crate::file::Location;
use crate::plan::ask::Around;
use crate::steps::console;
use crate::steps::state::State;

/// A session ends after 180 s, and is renewed after 120 s by a peer that can be reached.
const FRESH: Duration = Duration::from_secs(135);
/// A handshake is tried every 5 s and up to a third of a second.
const RETRY: Duration = Duration::from_millis(5500);
/// How often to look whether it is.
const LOOK: Duration = Duration::from_millis(250);
/// Names that are asked for at once.
const AT_ONCE: usize = 16;

/// A peer that may need another address.
struct Stale {
    interface: String,
    key: PublicKey,
    name: Endpoint,
    tx_bytes: u64,
    /// The way that the interface's own packets take.
    around: Around,
    /// Those there is a route to, the preferred one first.
    addresses: Vec<SocketAddr>,
}

/// Runs the command for these interfaces, or for all that run and have a file.
pub fn run(arguments: &[String]) -> ExitCode {
    let backends = Backends::new();
    let mut failed = false;
    let mut fail = |message: String| {
        console::error(message);
        failed = true;
    };
    let mut stale = Vec::new();
    if arguments.is_empty() {
        let running = backends.list().unwrap_or_else(|error| {
            fail(format!("Unable to list interfaces: {error}"));
            Vec::new()
        });
        // One that is not ours has no file.
        for location in running.iter().filter_map(|name| Location::of(name).ok()) {
            match find(&backends, &location) {
                Ok(found) => stale.extend(found),
                Err(error) => fail(error),
            }
        }
    }
    for argument in arguments {
        let location = Location::of(argument).map_err(|error| error.to_string());
        match location.and_then(|location| find(&backends, &location)) {
            Ok(found) => stale.extend(found),
            Err(error) => fail(error),
        }
    }
    resolve(&mut stale).into_iter().for_each(&mut fail);
    stale.retain(|peer| !peer.addresses.is_empty());
    follow(&backends, stale).into_iter().for_each(&mut fail);
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The peers of a file that have a name and no fresh handshake.
fn find(backends: &Backends, location: &Location) -> Result<Vec<Stale>, String> {
    let (file, _) = location
        .read_leniently()
        .map_err(|error| error.to_string())?;
    let is_name = |endpoint: &Endpoint| endpoint.numeric().is_none();
    // Of a peer that is listed twice, the last endpoint counts.
    let named: HashMap<_, _> = file
        .settings
        .peers
        .iter()
        .filter_map(|peer| Some((peer.public_key, peer.endpoint.as_ref()?)))
        .filter(|(_, endpoint)| is_name(endpoint))
        .collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let name = &location.interface;
    let running = backends
        .get(name)
        .map_err(|error| format!("{name}: Unable to access interface: {error}"))?;
    let state = State::load(name).ok().flatten();
    let around = Around::new(running.fwmark, state.as_ref());
    let now = SystemTime::now();
    let stale = running.peers.iter().filter(|peer| !is_fresh(peer, now));
    Ok(stale
        .filter_map(|peer| {
            Some(Stale {
                interface: name.clone(),
                key: peer.public_key,
                name: (*named.get(&peer.public_key)?).clone(),
                tx_bytes: peer.tx_bytes,
                around: around.clone(),
                addresses: Vec::new(),
            })
        })
        .collect())
}

/// Whether it was heard lately. One heard in the future is: the clock was wrong, the peer is not.
pub fn is_fresh(peer: &Peer, now: SystemTime) -> bool {
    peer.last_handshake.is_some_and(|wall| {
        let at = UNIX_EPOCH + Duration::new(wall.secs, wall.nanos);
        now.duration_since(at).map_or(true, |age| age <= FRESH)
    })
}

/// Asks for all names. What is said of those that have no answer.
fn resolve(stale: &mut [Stale]) -> Vec<String> {
    let mut errors = Vec::new();
    for some in stale.chunks_mut(AT_ONCE) {
        let answers = thread::scope(|scope| {
            let ask = |peer: &mut Stale| {
                // The name server may be behind the very tunnel.
                match peer.around.addresses(&peer.name) {
                    Ok(mut addresses) => {
                        addresses.retain(|address| peer.around.reaches(*address));
                        peer.addresses = addresses;
                        None
                    }
                    Err(error) => Some(format!("{}: {error}: `{}'", peer.interface, peer.name)),
                }
            };
            let asked: Vec<_> = some
                .iter_mut()
                .map(|peer| scope.spawn(move || ask(peer)))
                .collect();
            let answers = asked.into_iter().filter_map(|asked| asked.join().ok());
            answers.flatten().collect::<Vec<_>>()
        });
        errors.extend(answers);
    }
    errors
}

/// Sets what there is to set, and waits for peers that may be sending in vain.
fn follow(backends: &Backends, mut stale: Vec<Stale>) -> Vec<String> {
    let mut errors = Vec::new();
    let end = Instant::now() + RETRY;
    loop {
        let mut running = HashMap::new();
        stale.retain(|peer| {
            let name = &peer.interface;
            let state = running
                .entry(name.clone())
                .or_insert_with(|| backends.get(name));
            let now = state.as_ref().ok().and_then(|state| {
                let same = |now: &&Peer| now.public_key == peer.key;
                state.peers.iter().find(same)
            });
            // Gone, or heard in the meantime.
            let Some(now) = now.filter(|now| !is_fresh(now, SystemTime::now())) else {
                return false;
            };
            let in_vain = now.tx_bytes > peer.tx_bytes;
            match choose(&peer.addresses, now.endpoint, in_vain) {
                Choice::Stay => return false,
                Choice::Wait => return true,
                Choice::Set(address) => errors.extend(set(backends, peer, address).err()),
            }
            false
        });
        if stale.is_empty() || Instant::now() >= end {
            return errors;
        }
        thread::sleep(LOOK);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Stay,
    Wait,
    Set(SocketAddr),
}

/// What to do with a peer at `current` whose name stands for `addresses`.
fn choose(addresses: &[SocketAddr], current: Option<SocketAddr>, in_vain: bool) -> Choice {
    let turn = in_turn(addresses);
    let at = turn.iter().position(|address| Some(*address) == current);
    match (at, turn.len()) {
        (_, 0) | (Some(_), 1) => Choice::Stay,
        (None, _) => Choice::Set(addresses[0]),
        (Some(_), _) if !in_vain => Choice::Wait,
        (Some(at), len) => Choice::Set(turn[(at + 1) % len]),
    }
}

/// IPv6 and IPv4 by turns, in an order that the name server's own rotation does not change.
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut sorted = addresses.to_vec();
    sorted.sort();
    sorted.dedup();
    let (v6, v4): (Vec<_>, Vec<_>) = sorted.into_iter().partition(SocketAddr::is_ipv6);
    let longest = v6.len().max(v4.len());
    let pair = |n| [v6.get(n), v4.get(n)].into_iter().flatten().copied();
    (0..longest).flat_map(pair).collect()
}

fn set(backends: &Backends, peer: &Stale, address: SocketAddr) -> Result<(), String> {
    let name = &peer.interface;
    console::command(format_args!(
        "wg set {name} peer {} endpoint {address}",
        peer.key
    ));
    let changes = [
        Change::Peer(peer.key),
        Change::UpdateOnly,
        Change::Endpoint(address),
    ];
    backends
        .set(name, &changes)
        .map_err(|error| format!("{name}: Unable to modify interface: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wg_rs::model::Wall;

    const V6: &str = "[2001:db8::1]:1";
    const OTHER_V6: &str = "[2001:db8::2]:1";
    const V4: &str = "192.0.2.1:1";

    fn list(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn by_turns() {
        let turn = in_turn(&list(&[OTHER_V6, V4, V6, V4]));
        assert_eq!(turn, list(&[V6, V4, OTHER_V6]));
        let choose = |addresses: &[&str], current: Option<&str>, in_vain| {
            let current = current.map(|text| text.parse().unwrap());
            choose(&list(addresses), current, in_vain)
        };
        let set = |address: &str| Choice::Set(address.parse().unwrap());
        // The system's choice first, and then the others, whatever order the answer has.
        assert_eq!(choose(&[V4, V6], None, false), set(V4));
        assert_eq!(choose(&[V6, V4], Some("192.0.2.9:1"), false), set(V6));
        assert_eq!(choose(&[V6, V4], Some("192.0.2.1:2"), false), set(V6));
        assert_eq!(choose(&[V6, V4], Some(V6), true), set(V4));
        assert_eq!(choose(&[V4, V6], Some(V4), true), set(V6));
        assert_eq!(choose(&[V6, V4], Some(V6), false), Choice::Wait);
        assert_eq!(choose(&[V6, V6], Some(V6), true), Choice::Stay);
        assert_eq!(choose(&[], None, true), Choice::Stay);
    }

    #[test]
    fn fresh_for_135_seconds() {
        let peer = |secs| Peer {
            last_handshake: Some(Wall { secs, nanos: 0 }),
            ..Peer::new(PublicKey::from_bytes([1; 32]))
        };
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert!(is_fresh(&peer(1000), now));
        assert!(is_fresh(&peer(865), now));
        assert!(!is_fresh(&peer(864), now));
        assert!(is_fresh(&peer(2000), now));
        assert!(!is_fresh(&Peer::new(PublicKey::from_bytes([1; 32])), now));
    }
}
