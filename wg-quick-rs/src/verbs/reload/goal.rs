//! The configuration that the file asks for. Settings that hooks or the user made, and that the file
//! does not mention, are kept.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use wg_rs::config::{PeerSettings, Retries};
use wg_rs::model::{AllowedIp, Interface, Peer};

use super::others::{BY_A_HOOK, left};
use crate::file::File;
use crate::file::difference::desired;
use crate::file::hook_text;
use crate::plan::endpoint;
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::signals::Signals;
use crate::steps::state::State;
use crate::verbs::reresolve;

/// The configuration that the file asks for. A peer keeps its endpoint if the name in the file still has
/// that address, or cannot be resolved now.
///
/// # Errors
/// The name of a peer without an endpoint cannot be resolved, or a signal arrived.
pub fn wanted_interface(
    signals: &Signals,
    file: &File,
    now: &Interface,
    known: Option<&State>,
) -> Result<Interface, Failure> {
    file.settings.warnings().for_each(console::line);
    let retries = Retries::from_env().map_err(Failure::new)?;
    let endpoint = |peer: &PeerSettings, at: Option<SocketAddr>| {
        let Some(endpoint) = &peer.endpoint else {
            return Ok(at);
        };
        let of_file = known.and_then(|state| state.peer(&peer.public_key));
        let is_unchanged = of_file
            .and_then(|peer| peer.endpoint.as_ref())
            .is_some_and(|before| *before == endpoint.to_string());
        let is_name = endpoint.host.parse::<IpAddr>().is_err();
        // The peer may have roamed; the file's endpoint is the same as before, so it has no news.
        if is_unchanged && at.is_some() && !is_name {
            return Ok(at);
        }
        let is_alive = now.peers.iter().any(|one| {
            one.public_key == peer.public_key && reresolve::is_fresh(one, SystemTime::now())
        });
        let retries = if at.is_some() {
            Retries(Some(0))
        } else {
            retries
        };
        let resolved = endpoint::resolve(endpoint, None, retries, signals);
        if let Some(signal) = signals.caught() {
            return Err(Failure::Signal(signal));
        }
        match (resolved, at) {
            (Ok(first), Some(at)) if first != at => {
                let all = endpoint.addresses().unwrap_or_default();
                let roamed = is_alive && (is_unchanged || known.is_none());
                if roamed && !all.contains(&at) {
                    left(
                        format_args!("peer {}: its endpoint {at}", peer.public_key),
                        ", from which it answers",
                    );
                }
                Ok(Some(if roamed || all.contains(&at) {
                    at
                } else {
                    first
                }))
            }
            (Ok(first), _) => Ok(Some(first)),
            (Err(reason), Some(at)) => {
                console::note(format_args!("{reason}; its endpoint stays {at}."));
                Ok(Some(at))
            }
            (Err(reason), None) => Err(Failure::new(reason)),
        }
    };
    let mut wanted = desired(now, &file.settings, false, endpoint)?;
    keep_others(&mut wanted, now, file, known);
    Ok(wanted)
}

/// Keeps what hooks and the user set.
fn keep_others(wanted: &mut Interface, now: &Interface, file: &File, known: Option<&State>) {
    for peer in &now.peers {
        let key = &peer.public_key;
        let of_file = known.and_then(|state| state.peer(key));
        let claimed: HashSet<AllowedIp> = wanted
            .peers
            .iter()
            .flat_map(|one| one.allowed_ips.iter().copied())
            .collect();
        let free = |ip: &&AllowedIp| !claimed.contains(ip);
        let Some(at) = wanted.peers.iter().position(|one| one.public_key == *key) else {
            let is_others = match known {
                Some(_) => of_file.is_none(),
                None => hook_text::set_peers(file),
            };
            if is_others {
                let why = if known.is_none() {
                    BY_A_HOOK
                } else {
                    ": the file never had it"
                };
                left(format_args!("peer {key}"), why);
                let allowed_ips = peer.allowed_ips.iter().filter(free).copied().collect();
                wanted.peers.push(Peer {
                    allowed_ips,
                    ..peer.clone()
                });
            }
            continue;
        };
        let one = &mut wanted.peers[at];
        let in_file = file
            .settings
            .peers
            .iter()
            .filter(|one| one.public_key == *key);
        let says = |says: fn(&PeerSettings) -> bool| in_file.clone().any(says);
        let keeps_key = match known {
            Some(_) => of_file.is_none_or(|peer| !peer.preshared_key),
            None => hook_text::set_preshared_key(file, &key.to_base64()),
        };
        if keeps_key && !peer.preshared_key.is_zero() && !says(|one| one.preshared_key.is_some()) {
            left(format_args!("peer {key}: its preshared key"), BY_A_HOOK);
            one.preshared_key = peer.preshared_key.clone();
        }
        if known.is_none() {
            continue;
        }
        let keeps_alive = of_file.is_none_or(|peer| peer.persistent_keepalive.is_none());
        if keeps_alive
            && peer.persistent_keepalive != 0
            && !says(|one| one.persistent_keepalive.is_some())
        {
            left(format_args!("peer {key}: its keepalive"), BY_A_HOOK);
            one.persistent_keepalive = peer.persistent_keepalive;
        }
        let was_files =
            |ip: &AllowedIp| of_file.is_some_and(|peer| peer.allowed_ips.contains(&ip.to_string()));
        for ip in peer.allowed_ips.iter().filter(free) {
            if !was_files(ip) {
                left(format_args!("peer {key}: its allowed IP {ip}"), BY_A_HOOK);
                one.allowed_ips.push(*ip);
            }
        }
    }
}
