//! How many messages of each sender wait in a queue, so that one sender cannot fill it.
//!
//! Senders are those of the rate limit ([`SourcePrefix`]). They are put into groups by a keyed hash, so that
//! nobody can choose the group of somebody else. A flood from forged addresses is in all groups; only the
//! cookie helps against that.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use crate::tunnel::ratelimiter::SourcePrefix;

const GROUPS: usize = 256;

/// The number of waiting messages of each group.
pub(super) struct Senders {
    waiting: [u16; GROUPS],
    keys: RandomState,
}

impl Default for Senders {
    fn default() -> Self {
        Senders {
            waiting: [0; GROUPS],
            keys: RandomState::new(),
        }
    }
}

impl Senders {
    /// The number of waiting messages of a sender and of those in the same group.
    pub(super) fn waiting(&mut self, sender: IpAddr) -> &mut u16 {
        let group = self.keys.hash_one(SourcePrefix::from(sender)) as usize % GROUPS;
        &mut self.waiting[group]
    }
}
