//! `reresolve`: looks up host names of endpoints again, as dynamic DNS needs it.
//!
//! ```text
//! an endpoint with a name, no handshake for 135 s ─► its addresses now, those with a route
//!   ├ the current endpoint is not among them            ─► the address that the system prefers
//!   ├ it is, there are others, and nobody answers there ─► the next address, IPv6 and IPv4 in turn
//!   └ it is, and nothing is being sent to the peer      ─► no change
//! ```
//! If the system has no answer, servers outside of the tunnel are asked: see `ask`.
//! Nothing is stored between two runs: the next address is found from the current endpoint, and whether
//! packets are sent in vain shows within one retry of the handshake.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wg_crypto::key::PublicKey;
use wg_rs::backend::Backends;
use wg_rs::config::ConfigEndpoint;
use wg_rs::model::{Change, Peer};
use wg_rs::place;

use crate::file::Location;
use crate::plan::ask::Around;
use crate::steps::console;
use crate::steps::state::State;

/// A session ends after 180 s. A peer that can be reached renews it after 120 s.
const FRESH: Duration = Duration::from_secs(135);
/// A handshake is retried every 5 s, plus up to a third of a second.
const RETRY: Duration = Duration::from_millis(5500);
/// The time between two checks whether the handshake was retried.
const LOOK: Duration = Duration::from_millis(250);
/// The number of names that are looked up at the same time.
const AT_ONCE: usize = 16;

/// A peer that may need another address.
struct Stale {
    interface: String,
    key: PublicKey,
    name: ConfigEndpoint,
    tx_bytes: u64,
    /// The way that the interface's own encrypted packets take.
    around: Around,
    /// The addresses that have a route, the preferred one first.
    addresses: Vec<SocketAddr>,
}

/// Runs the command for these interfaces, or for all running ones that have a file.
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
        // An interface without a file was not brought up by this program.
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

/// The peers of a file whose endpoint is a name and that have no fresh handshake.
fn find(backends: &Backends, location: &Location) -> Result<Vec<Stale>, String> {
    let (file, _) = location
        .read_leniently()
        .map_err(|error| error.to_string())?;
    let is_name = |endpoint: &ConfigEndpoint| endpoint.numeric().is_none();
    // If a peer is listed twice, its last endpoint counts.
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
    if backends.is_left(name) {
        return Err(format!("{name}: {}", place::left_behind(name)));
    }
    let running = backends.get(name).map_err(|error| {
        let why = place::no_access(name, &error);
        format!("{name}: Unable to access interface: {why}")
    })?;
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

/// Whether the last handshake is recent. A time in the future also counts: then the clock was wrong.
pub fn is_fresh(peer: &Peer, now: SystemTime) -> bool {
    peer.last_handshake.is_some_and(|wall| {
        // A daemon may send a time that is too large for a `SystemTime`.
        let at = UNIX_EPOCH.checked_add(Duration::new(wall.secs, wall.nanos));
        let age = at.and_then(|at| now.duration_since(at).ok());
        age.is_none_or(|age| age <= FRESH)
    })
}

/// Looks up all names. Returns the errors.
fn resolve(stale: &mut [Stale]) -> Vec<String> {
    let mut errors = Vec::new();
    for some in stale.chunks_mut(AT_ONCE) {
        let answers = thread::scope(|scope| {
            let ask = |peer: &mut Stale| {
                // The name server may be reached only through this tunnel.
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

/// Sets the endpoints that changed, and waits for peers to which packets may be sent in vain.
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
            // The peer is gone, or has answered in the meantime.
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

/// What to do with a peer whose endpoint is `current` and whose name has `addresses`.
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

/// IPv6 and IPv4 addresses alternately, sorted, so that the name server's order does not matter.
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

    #[test]
    fn a_time_that_is_too_large_is_in_the_future() {
        let mut peer = Peer::new(wg_crypto::PublicKey::from_bytes([1; 32]));
        let at = |secs| Some(Wall { secs, nanos: 0 });
        for (last_handshake, fresh) in [(None, false), (at(1), false), (at(u64::MAX), true)] {
            peer.last_handshake = last_handshake;
            assert_eq!(is_fresh(&peer, SystemTime::now()), fresh);
        }
    }

    fn list(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_are_tried_in_turn() {
        let turn = in_turn(&list(&[OTHER_V6, V4, V6, V4]));
        assert_eq!(turn, list(&[V6, V4, OTHER_V6]));
        let choose = |addresses: &[&str], current: Option<&str>, in_vain| {
            let current = current.map(|text| text.parse().unwrap());
            choose(&list(addresses), current, in_vain)
        };
        let set = |address: &str| Choice::Set(address.parse().unwrap());
        // First the system's choice, then the others, whatever the order of the answer.
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
    fn a_handshake_is_fresh_for_135_seconds() {
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
