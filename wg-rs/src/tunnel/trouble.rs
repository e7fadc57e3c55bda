//! Recent failures for `status`. Only failures and handshakes access them.

use std::net::SocketAddr;
use std::time::Duration;

use super::time::Time;
use crate::model::status::{Refusal, Refused};

/// Most remembered senders that are not peers. An attacker with many addresses pushes out the
/// others.
const STRANGERS: usize = 8;
/// Most remembered addresses that are unreachable.
const UNREACHABLE_ADDRESSES: usize = 64;
/// Failures to send with at most this time between them count as one.
const STREAK_GAP: Duration = Duration::from_secs(15);
/// A failure to send that lasts this long is reported.
const PERSISTENT: Duration = Duration::from_secs(5);

/// The last refusal of each kind for a peer.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    refusals: Vec<(Refusal, Time)>,
    sending: Option<Streak>,
}

/// Consecutive failures to send.
#[derive(Debug)]
struct Streak {
    errno: i32,
    first: Time,
    last: Time,
    told: bool,
}

impl Trouble {
    /// Records a refusal at this time.
    pub(crate) fn note(&mut self, refusal: Refusal, now: Time) {
        let kind = std::mem::discriminant(&refusal);
        let known = |(known, _): &&mut (Refusal, Time)| std::mem::discriminant(known) == kind;
        match self.refusals.iter_mut().find(known) {
            Some(known) => *known = (refusal, now),
            None => self.refusals.push((refusal, now)),
        }
    }

    /// Records that sending fails with this errno. Returns whether to report it: the failure has
    /// lasted, and was not reported yet.
    pub(crate) fn send_failed(&mut self, errno: i32, now: Time) -> bool {
        self.note(Refusal::SendFailed { errno }, now);
        let goes_on = |streak: &&mut Streak| {
            streak.errno == errno && now.saturating_since(streak.last) <= STREAK_GAP
        };
        let Some(streak) = self.sending.as_mut().filter(goes_on) else {
            self.sending = Some(Streak {
                errno,
                first: now,
                last: now,
                told: false,
            });
            return false;
        };
        streak.last = now;
        let lasts = now.saturating_since(streak.first) >= PERSISTENT;
        lasts && !std::mem::replace(&mut streak.told, true)
    }

    /// All refusals with their age.
    pub(crate) fn list(&self, now: Time) -> Vec<Refused> {
        let refused = |(refusal, at): &(Refusal, Time)| with_age(*refusal, *at, now);
        self.refusals.iter().map(refused).collect()
    }
}

/// The last refusal at each address, for the `MOST` addresses with the latest refusals.
#[derive(Debug, Default)]
pub(super) struct Latest<const MOST: usize>(Vec<(SocketAddr, Refusal, Time)>);

/// Senders that are not peers.
pub(super) type Strangers = Latest<STRANGERS>;
/// Addresses that ICMP reports are about. Such reports can be forged.
pub(super) type UnreachableAddresses = Latest<UNREACHABLE_ADDRESSES>;

impl<const MOST: usize> Latest<MOST> {
    /// Records a refusal at this address and time.
    pub(super) fn note(&mut self, address: SocketAddr, refusal: Refusal, now: Time) {
        self.0.retain(|(known, ..)| *known != address);
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push((address, refusal, now));
    }

    /// All refusals with their age, the latest last.
    pub(super) fn list(&self, now: Time) -> Vec<Refused> {
        let refused = |(_, refusal, at): &(_, Refusal, Time)| with_age(*refusal, *at, now);
        self.0.iter().map(refused).collect()
    }

    /// The last refusal at this address with its age.
    pub(super) fn at(&self, address: SocketAddr, now: Time) -> Option<Refused> {
        let found = self.0.iter().find(|(known, ..)| *known == address);
        found.map(|(_, refusal, at)| with_age(*refusal, *at, now))
    }
}

fn with_age(refusal: Refusal, at: Time, now: Time) -> Refused {
    Refused {
        refusal,
        age: now.saturating_since(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Time = Time::from_nanos(1_000_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_last_refusal_of_each_kind_is_kept() {
        let source = |last| Refusal::NotAllowed {
            source: [10, 0, 0, last].into(),
        };
        let mut trouble = Trouble::default();
        trouble.note(source(1), T);
        trouble.note(Refusal::Timestamp, T + SECOND);
        trouble.note(source(2), T + SECOND * 2);
        let list = trouble.list(T + SECOND * 3);
        let expected = [(source(2), SECOND), (Refusal::Timestamp, SECOND * 2)];
        let expected = expected.map(|(refusal, age)| Refused { refusal, age });
        assert_eq!(list, expected);
    }

    #[test]
    fn a_lasting_failure_is_reported_once() {
        let mut trouble = Trouble::default();
        let mut told = |errno, at| trouble.send_failed(errno, T + SECOND * at);
        assert!(!told(libc::ENETUNREACH, 0));
        assert!(!told(libc::ENETUNREACH, 4));
        assert!(told(libc::ENETUNREACH, 5));
        assert!(!told(libc::ENETUNREACH, 6));
        assert!(!told(libc::ENETUNREACH, 20));
        // A failure with another errno, and one after a time without failures.
        assert!(!told(libc::EPERM, 21));
        assert!(told(libc::EPERM, 30));
        assert!(!told(libc::EPERM, 50));
        assert!(told(libc::EPERM, 60));
    }

    #[test]
    fn a_few_strangers_are_kept_once_each() {
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let from = |port| Refusal::OtherKey {
            from: address(port),
        };
        let mut strangers = Strangers::default();
        for port in 0..1000 {
            strangers.note(address(port), from(port), T);
            strangers.note(address(1000), from(1000), T);
        }
        let list = strangers.list(T + SECOND);
        assert_eq!(list.len(), STRANGERS);
        assert_eq!(list[STRANGERS - 1].refusal, from(1000));
        assert_eq!(list[STRANGERS - 2].refusal, from(999));
    }
}
