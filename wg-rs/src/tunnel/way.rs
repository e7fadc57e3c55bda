//! The data path's view of a peer with which frames may be exchanged, and of the paths to it. It is
//! behind the lock of the peer's endpoint, which is taken once for a burst anyway.
//!
//! ```text
//! the peer does not speak   packets follow the peer: the last source is the endpoint, as always
//! the peer speaks           the owner chooses the endpoint, and trusts it for a few seconds after
//!                           a PONG; if data is sent later, it also goes by the other path, if any
//! ```
//! What arrives proves only the other direction. So packets by a known path move nothing.

use std::net::SocketAddr;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::pace::Pace;
use super::time::Time;

/// Most frames of a peer: a hundred per second, and two hundred at once.
const FRAME_INTERVAL: Duration = Duration::from_millis(10);
const FRAMES_AHEAD: Duration = FRAME_INTERVAL.saturating_mul(200);

/// What was received from a peer, or set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    Data,
    Keepalive,
    Initiation,
    Response,
    /// The configuration, or a frame of a client that moves it.
    Order,
}

/// The paths to a peer that speaks.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// Addresses from which packets of the peer may come without moving it: those of our hubs.
    pub(crate) known: Vec<SocketAddr>,
    /// Used as well while the endpoint is not trusted.
    pub(crate) other: Option<Endpoint>,
    /// Until when the endpoint is trusted.
    pub(crate) trusted: Time,
    /// When data last went in either direction.
    pub(crate) used: Time,
    /// Whether the owner watches the paths, because they are used.
    pub(crate) is_watched: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Way {
    frames: Pace,
    /// None unless the peer speaks.
    pub(crate) paths: Option<Box<Paths>>,
}

impl Way {
    /// Whether one more frame of the peer is within its limit.
    pub(crate) fn take_frame(&mut self, now: Time) -> bool {
        self.frames.take(now, FRAME_INTERVAL, FRAMES_AHEAD)
    }
}

impl Paths {
    /// The endpoint cannot be used: what is sent goes by the other path too, if there is one.
    pub(crate) fn end_trust(&mut self) {
        self.trusted = Time::ZERO;
    }

    /// Called when data moves. Returns whether the owner must be told.
    pub(crate) fn moves(&mut self, now: Time) -> bool {
        self.used = now;
        !std::mem::replace(&mut self.is_watched, true)
    }

    /// Whether what was heard from this address makes it the endpoint, instead of `current`.
    pub(crate) fn moves_to(
        &mut self,
        from: Endpoint,
        current: Option<Endpoint>,
        heard: Heard,
        now: Time,
    ) -> bool {
        let is_trusted = now <= self.trusted;
        if heard == Heard::Initiation {
            // The peer may have lost its path to us.
            self.trusted = Time::ZERO;
        }
        let Some(current) = current.filter(|current| current.addr != from.addr) else {
            return true;
        };
        if !self.known.contains(&from.addr) {
            self.other = is_trusted.then_some(current).or(self.other);
            self.trusted = Time::ZERO;
            return true;
        }
        match heard {
            Heard::Data | Heard::Keepalive => false,
            Heard::Order => true,
            Heard::Response => !is_trusted,
            Heard::Initiation => {
                if is_trusted {
                    self.other = Some(from);
                }
                !is_trusted
            }
        }
    }
}

/// Where a burst goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// The endpoint.
    pub to: Endpoint,
    /// Another path, by which the same datagrams must be sent too.
    pub also: Option<Endpoint>,
    /// Whether the owner must be told that the paths are used.
    pub(crate) is_news: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Time = Time::from_nanos(1_000_000_000_000);

    fn at(n: u8) -> Endpoint {
        SocketAddr::from(([192, 0, 2, n], 51820)).into()
    }

    fn paths(trusted: Time) -> Paths {
        Paths {
            known: vec![at(1).addr, at(2).addr],
            trusted,
            ..Paths::default()
        }
    }

    #[test]
    fn what_arrives_by_a_known_path_moves_nothing() {
        for trusted in [Time::ZERO, T] {
            let mut paths = paths(trusted);
            assert!(!paths.moves_to(at(2), Some(at(1)), Heard::Data, T));
            assert!(paths.moves_to(at(1), Some(at(1)), Heard::Data, T));
            assert_eq!((paths.other, paths.trusted), (None, trusted));
            assert!(paths.moves_to(at(2), None, Heard::Data, T));
        }
    }

    #[test]
    fn an_unknown_source_is_followed_without_trust() {
        let mut paths = paths(T);
        assert!(paths.moves_to(at(9), Some(at(1)), Heard::Data, T));
        assert_eq!((paths.other, paths.trusted), (Some(at(1)), Time::ZERO));
        // An endpoint that is not trusted does not become the other one.
        assert!(paths.moves_to(at(8), Some(at(9)), Heard::Data, T));
        assert_eq!(paths.other, Some(at(1)));
    }

    #[test]
    fn a_handshake_moves_only_what_is_not_trusted() {
        let mut trusted = paths(T);
        assert!(!trusted.moves_to(at(2), Some(at(1)), Heard::Response, T));
        assert_eq!(trusted.trusted, T);
        assert!(!trusted.moves_to(at(2), Some(at(1)), Heard::Initiation, T));
        assert_eq!((trusted.other, trusted.trusted), (Some(at(2)), Time::ZERO));
        let mut doubted = paths(Time::ZERO);
        assert!(doubted.moves_to(at(2), Some(at(1)), Heard::Response, T));
        assert!(doubted.moves_to(at(2), Some(at(1)), Heard::Initiation, T));
    }

    #[test]
    fn the_owner_is_told_once_that_paths_are_used() {
        let mut paths = paths(T);
        assert!(paths.moves(T));
        assert!(!paths.moves(T));
        paths.is_watched = false;
        assert!(paths.moves(T));
    }
}
