//! The peers that this hub relays for: their groups and endpoints, and the search for the receiver
//! of a message.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wg_crypto::MacKeys;

use super::super::drops::DropReason;
use super::super::pace::Pace;
use super::super::peer::Peer;
use super::super::time::Time;
use super::places::Places;
use crate::model::{Groups, Label, MAX_GROUPS_IN_ALL};

/// The time between two searches for one sender. After a pause, ten are allowed at once.
const SEARCH_INTERVAL: Duration = Duration::from_millis(200);
const SEARCHES_AHEAD: Duration = SEARCH_INTERVAL.saturating_mul(10);
/// The same, if all its searches find nobody.
const LONGEST_SEARCH_INTERVAL: Duration = Duration::from_secs(10);
/// The cost of comparing one mac1. It limits all searches to a tenth of a thread's time: four
/// hundred thousand comparisons per second.
const TRIAL: Duration = Duration::from_nanos(2500);
/// Most comparisons at once. The part above `TRIALS_FOR_ALL` is reserved for senders whose search
/// succeeded recently.
const TRIALS_AT_ONCE: u32 = 100_000;
const TRIALS_FOR_ALL: u32 = TRIALS_AT_ONCE / 4 * 3;
const LATELY: Duration = Duration::from_secs(3600);

/// A peer with groups.
pub(super) struct Member {
    pub(super) peer: Arc<Peer>,
    /// The keys for messages to this peer.
    pub(super) mac_keys: MacKeys,
    /// A bit for each group.
    groups: u64,
    /// The peer's address in `Places`.
    place: Option<SocketAddr>,
    searches: Pace,
    search_interval: Duration,
    last_found: Option<Time>,
    /// When it last sent a HELLO.
    pub(super) spoke: Option<Time>,
}

struct Group {
    name: Label,
    members: BTreeMap<u64, Candidate>,
    /// Where the next search begins, because the last one may have stopped early.
    next: u64,
}

/// What a search compares with. The layout allows ten thousand of them to be read in sequence.
struct Candidate {
    mac_keys: MacKeys,
    groups: u64,
}

/// The interface would have too many groups.
#[derive(Debug)]
pub(in super::super) struct TooManyGroups;

/// All peers with groups, by their identifiers.
#[derive(Default)]
pub(super) struct Members {
    members: HashMap<u64, Member>,
    /// The index of a group is the number of its bit.
    groups: Vec<Option<Group>>,
    places: Places,
    trials: Pace,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }

    /// Whether two peers share a group.
    pub(super) fn share(&self, a: u64, b: u64) -> bool {
        let groups = |id| self.members.get(&id).map_or(0, |member| member.groups);
        groups(a) & groups(b) != 0
    }

    /// Puts a peer into exactly these groups, of which there is at least one. Other state of the
    /// peer is kept.
    pub(super) fn put(&mut self, peer: &Arc<Peer>, groups: &Groups) -> Result<(), TooManyGroups> {
        self.check_room(peer.id, groups)?;
        self.leave_groups(peer.id);
        let member = self.members.entry(peer.id).or_insert_with(|| Member {
            peer: peer.clone(),
            mac_keys: MacKeys::new(peer.public_key()),
            groups: 0,
            place: None,
            searches: Pace::default(),
            search_interval: SEARCH_INTERVAL,
            last_found: None,
            spoke: None,
        });
        let mac_keys = member.mac_keys.clone();
        let mask = self.enter_groups(peer.id, &mac_keys, groups);
        if let Some(member) = self.members.get_mut(&peer.id) {
            member.groups = mask;
        }
        // Set before the address is read, so that later changes are reported.
        peer.is_followed.store(true, Ordering::Release);
        self.follow(peer.id);
        Ok(())
    }

    /// Whether the peer's groups can be replaced by these.
    fn check_room(&self, id: u64, groups: &Groups) -> Result<(), TooManyGroups> {
        let mine = self.members.get(&id).map_or(0, |member| member.groups);
        let is_only_mine =
            |bit: usize, group: &Group| mine >> bit & 1 == 1 && group.members.len() == 1;
        let stay = self.groups.iter().enumerate().filter_map(|(bit, group)| {
            let group = group.as_ref()?;
            (!is_only_mine(bit, group)).then_some(&group.name)
        });
        let stay: Vec<&Label> = stay.collect();
        let new = groups.names().iter().filter(|name| !stay.contains(name));
        match stay.len() + new.count() > MAX_GROUPS_IN_ALL {
            true => Err(TooManyGroups),
            false => Ok(()),
        }
    }

    /// Removes a peer from all groups.
    pub(super) fn remove(&mut self, id: u64) -> Option<Member> {
        self.leave_groups(id);
        let member = self.members.remove(&id)?;
        member.peer.is_followed.store(false, Ordering::Release);
        if let Some(place) = member.place {
            self.places.leave(id, place);
        }
        Some(member)
    }

    fn enter_groups(&mut self, id: u64, mac_keys: &MacKeys, groups: &Groups) -> u64 {
        let mut mask = 0;
        for name in groups.names() {
            let is_it = |group: &Option<Group>| group.as_ref().is_some_and(|g| g.name == *name);
            let known = self.groups.iter().position(is_it);
            let bit = known.or_else(|| self.groups.iter().position(Option::is_none));
            let bit = bit.unwrap_or_else(|| {
                self.groups.push(None);
                self.groups.len() - 1
            });
            self.groups[bit].get_or_insert_with(|| Group {
                name: name.clone(),
                members: BTreeMap::new(),
                next: 0,
            });
            mask |= 1 << bit;
        }
        for bit in bits(mask) {
            if let Some(group) = &mut self.groups[bit] {
                let candidate = Candidate {
                    mac_keys: mac_keys.clone(),
                    groups: mask,
                };
                group.members.insert(id, candidate);
            }
        }
        mask
    }

    fn leave_groups(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        for bit in bits(std::mem::take(&mut member.groups)) {
            self.groups[bit].take_if(|group| {
                group.members.remove(&id);
                group.members.is_empty()
            });
        }
    }

    /// Stores the current address of a peer. An address that has not changed is stored again, because others
    /// may have claimed it since, and must not hide a peer that is there.
    pub(super) fn follow(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let place = member.peer.endpoint().map(|endpoint| endpoint.addr);
        if let Some(former) = std::mem::replace(&mut member.place, place) {
            self.places.leave(id, former);
        }
        if let Some(place) = place {
            self.places.enter(id, place);
        }
    }

    /// The peers at this address.
    pub(super) fn at(&self, addr: SocketAddr) -> Vec<u64> {
        let at = self.places.at(addr).iter().copied();
        let is_there = |id: &u64| self.get(*id).is_some_and(|member| member.peer.is_at(addr));
        at.filter(is_there).collect()
    }

    /// The peers that may have sent an initiation from this address: the peers at this address, and
    /// those near it (see [`Places::near`]).
    pub(super) fn may_be_at(&self, addr: SocketAddr) -> Vec<u64> {
        let mut ids = self.at(addr);
        let near = self.places.near(addr).iter().copied();
        ids.extend(near.filter(|id| !self.places.at(addr).contains(id)));
        ids
    }

    /// The receiver of an initiation: a peer that shares a group with `sender`. The search is
    /// limited by its budget.
    pub(super) fn search(
        &mut self,
        sender: u64,
        message: &[u8],
        now: Time,
    ) -> Result<u64, DropReason> {
        let member = self
            .members
            .get_mut(&sender)
            .ok_or(DropReason::RelayNotPeer)?;
        let interval = member.search_interval;
        if !member
            .searches
            .take(now, interval, SEARCHES_AHEAD.max(interval))
        {
            return Err(DropReason::RelayLimited);
        }
        let lately = |found: Time| now.saturating_since(found) < LATELY;
        let most = match member.last_found.is_some_and(lately) {
            true => TRIALS_AT_ONCE,
            false => TRIALS_FOR_ALL,
        };
        let mine = member.groups;
        let sizes = bits(mine).filter_map(|bit| Some(self.groups[bit].as_ref()?.members.len()));
        let trials = (sizes.sum::<usize>() as u32).min(most);
        if !self.trials.take(now, TRIAL * trials, TRIAL * most) {
            return Err(DropReason::RelayLimited);
        }
        let found = self.compare(sender, mine, message, trials);
        let member = self
            .members
            .get_mut(&sender)
            .ok_or(DropReason::RelayNotPeer)?;
        match found {
            Ok(_) => {
                member.search_interval = SEARCH_INTERVAL;
                member.last_found = Some(now);
            }
            Err(_) => member.search_interval = (interval * 2).min(LONGEST_SEARCH_INTERVAL),
        }
        found
    }

    /// Compares an initiation with the keys of the peers in these groups.
    fn compare(
        &mut self,
        sender: u64,
        groups: u64,
        message: &[u8],
        mut trials: u32,
    ) -> Result<u64, DropReason> {
        for bit in bits(groups) {
            let Some(group) = &mut self.groups[bit] else {
                continue;
            };
            let before = groups & ((1 << bit) - 1);
            let start = std::mem::take(&mut group.next);
            let members = group
                .members
                .range(start..)
                .chain(group.members.range(..start));
            for (&id, candidate) in members {
                // The sender itself, or a peer that was already compared in another group.
                if id == sender || candidate.groups & before != 0 {
                    continue;
                }
                if trials == 0 {
                    group.next = id;
                    return Err(DropReason::RelayLimited);
                }
                trials -= 1;
                if candidate.mac_keys.verify_mac1(message) {
                    return Ok(id);
                }
            }
        }
        Err(DropReason::RelayUnknown)
    }
}

/// The numbers of the bits that are set.
fn bits(mask: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |bit| mask >> bit & 1 == 1)
}
