//! Who sent the messages that wait in a queue, so that one sender cannot fill it.
//!
//! A sender is an IPv4 address or an IPv6 network of 64 bits, as for the rate limit. Senders are put into
//! groups by a keyed hash, so that nobody can choose to be in the group of somebody else. A flood from
//! forged addresses is in all groups; against that, only the cookie helps.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

const GROUPS: usize = 256;

/// A group of senders.
pub(super) type Group = u8;

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
    /// The group of a sender.
    pub(super) fn group(&self, sender: IpAddr) -> Group {
        let prefix = match sender {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
        };
        self.keys.hash_one(prefix) as Group
    }

    /// The number of waiting messages of a group.
    pub(super) fn waiting(&self, group: Group) -> usize {
        usize::from(self.waiting[usize::from(group)])
    }

    /// Counts a message that is queued.
    pub(super) fn add(&mut self, group: Group) {
        self.waiting[usize::from(group)] += 1;
    }

    /// Counts a message that left the queue.
    pub(super) fn remove(&mut self, group: Group) {
        self.waiting[usize::from(group)] -= 1;
    }

    /// Called when the queue was emptied.
    pub(super) fn clear(&mut self) {
        self.waiting = [0; GROUPS];
    }
}
