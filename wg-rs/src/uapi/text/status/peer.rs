//! The lines of a peer in a status, and of the hub that it is or is reached by.

use std::io::{self, Write};
use std::time::Duration;

use wg_crypto::PublicKey;

use super::super::reply::{fill, store};
use super::super::{get, number};
use super::refusals;
use crate::model::status::{HubStatus, PathStatus, PeerStatus, Unanswered};
use crate::sys::numeric::NumericEndpoint;

/// Prints the lines of a peer, except for its networks.
pub(super) fn print(status: &PeerStatus, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "public_key={}", status.peer.public_key.to_hex())?;
    if let Some(name) = status.name() {
        writeln!(out, "name={name}")?;
    }
    let groups = &status.peer.extensions.relay;
    if !groups.is_empty() {
        writeln!(out, "relay={groups}")?;
    }
    if status.peer.extensions.hub {
        writeln!(out, "hub=true")?;
    }
    if let Some(hub) = &status.hub {
        print_hub(hub, out)?;
    }
    if let Some(path) = &status.path {
        print_path(path, status.session, out)?;
    }
    writeln!(out, "has_preshared_key={}", status.has_preshared_key)?;
    get::print_state(&status.peer, out)?;
    if let Some(session) = status.session {
        writeln!(out, "session={session}")?;
    }
    if let Some(handshakes) = status.handshakes {
        writeln!(out, "handshakes={handshakes}")?;
    }
    if let Some(Unanswered { count, age }) = status.unanswered {
        writeln!(out, "unanswered={count} {}", age.as_millis())?;
    }
    if status.unconfirmed != 0 {
        writeln!(out, "unconfirmed={}", status.unconfirmed)?;
    }
    refusals::print(&status.refusals, out)
}

fn print_hub(hub: &HubStatus, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "hub_mute={}", hub.is_mute)?;
    if let Some(age) = hub.heard {
        writeln!(out, "hub_heard={}", age.as_millis())?;
    }
    if let Some(rtt) = hub.rtt {
        writeln!(out, "hub_rtt_us={}", rtt.as_micros())?;
    }
    if let Some(addr) = hub.sees {
        writeln!(out, "hub_sees={}", NumericEndpoint(addr))?;
    }
    Ok(())
}

fn print_path(path: &PathStatus, session: Option<bool>, out: &mut Vec<u8>) -> io::Result<()> {
    let kind = match (path.hub, session) {
        (Some(_), _) => "relay",
        (None, Some(true)) => "direct",
        (None, _) => "none",
    };
    writeln!(out, "path={kind}")?;
    if let Some(key) = &path.hub {
        writeln!(out, "path_hub={}", key.to_hex())?;
    }
    if let Some(key) = &path.other {
        writeln!(out, "path_other={}", key.to_hex())?;
    }
    if let Some(rtt) = path.rtt {
        writeln!(out, "path_rtt_us={}", rtt.as_micros())?;
    }
    if let Some(doubt) = path.doubt {
        writeln!(out, "path_doubt={}", doubt.as_millis())?;
    }
    writeln!(out, "speaks={}", path.speaks)
}

/// Reads a line of a peer.
pub(super) fn read(status: &mut PeerStatus, key: &[u8], value: &str) -> Result<(), &'static str> {
    match key {
        b"name" => fill(&mut status.peer.extensions.name, value.parse().ok(), "name"),
        b"relay" => {
            let relay = &mut status.peer.extensions.relay;
            store(relay, value.parse().ok(), "relay")
        }
        b"hub" => {
            let hub = &mut status.peer.extensions.hub;
            store(hub, value.parse().ok(), "hub")
        }
        b"hub_mute" => {
            let hub = status.hub.get_or_insert_default();
            store(&mut hub.is_mute, value.parse().ok(), "hub_mute")
        }
        b"hub_heard" => {
            let hub = status.hub.get_or_insert_default();
            fill(&mut hub.heard, millis(value), "hub_heard")
        }
        b"hub_rtt_us" => {
            let hub = status.hub.get_or_insert_default();
            fill(&mut hub.rtt, micros(value), "hub_rtt_us")
        }
        b"hub_sees" => {
            let hub = status.hub.get_or_insert_default();
            fill(&mut hub.sees, super::super::endpoint(value), "hub_sees")
        }
        b"path" => {
            status.path.get_or_insert_default();
            Ok(())
        }
        b"path_hub" => {
            let path = status.path.get_or_insert_default();
            fill(&mut path.hub, PublicKey::from_hex(value).ok(), "path_hub")
        }
        b"path_other" => {
            let path = status.path.get_or_insert_default();
            let key = PublicKey::from_hex(value).ok();
            fill(&mut path.other, key, "path_other")
        }
        b"path_rtt_us" => {
            let path = status.path.get_or_insert_default();
            fill(&mut path.rtt, micros(value), "path_rtt_us")
        }
        b"path_doubt" => {
            let path = status.path.get_or_insert_default();
            fill(&mut path.doubt, millis(value), "path_doubt")
        }
        b"speaks" => {
            let path = status.path.get_or_insert_default();
            store(&mut path.speaks, value.parse().ok(), "speaks")
        }
        b"handshakes" => fill(&mut status.handshakes, number(value), "handshakes"),
        b"has_preshared_key" => {
            let has = &mut status.has_preshared_key;
            store(has, value.parse().ok(), "has_preshared_key")
        }
        b"session" => fill(&mut status.session, value.parse().ok(), "session"),
        b"unanswered" => {
            let unanswered = value.split_once(' ').and_then(|(count, age)| {
                let (count, age) = (number(count)?, Duration::from_millis(number(age)?));
                Some(Unanswered { count, age })
            });
            fill(&mut status.unanswered, unanswered, "unanswered")
        }
        b"unconfirmed" => store(&mut status.unconfirmed, number(value), "unconfirmed"),
        b"refused" => refusals::read(&mut status.refusals, value),
        // The daemon does not send this key, and it must not be stored.
        b"preshared_key" => Ok(()),
        _ => get::peer_line(&mut status.peer, key, value),
    }
}

fn millis(value: &str) -> Option<Duration> {
    number(value).map(Duration::from_millis)
}

fn micros(value: &str) -> Option<Duration> {
    number(value).map(Duration::from_micros)
}
