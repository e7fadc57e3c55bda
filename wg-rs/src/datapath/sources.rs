//! Chooses the source address for packets to a peer.
//!
//! The rule is that of the kernel module. For IPv4, the source is the address that the peer last
//! sent to, if packets from it leave by the link on which the peer's packet arrived; otherwise the
//! routing table chooses. For IPv6 any local address is used, and the send itself detects an
//! address that is not local.
//!
//! ```text
//! routes, rules or links change ─► `changed` ─► the source of each peer must be judged again
//!                                               ─► the kernel is asked once for each (destination, source)
//! ```
//! So the first packet after a change takes the new route, silent peers cost nothing, and without
//! changes a burst costs one comparison of numbers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::sys::netlink::Netlink;
use crate::tunnel::pace::Pace;
use crate::tunnel::peer::{Endpoint, Peer, Source};
use crate::tunnel::time::Time;

/// Most verdicts that are stored, so that answers to a flood do not fill the memory.
const MAX_VERDICTS: usize = 1 << 16;

/// How many questions about destinations that are no peer's the kernel is asked at once, and how many more in
/// a second. A flood from forged addresses has a new destination for each cookie reply. The other replies come
/// from the address that the message was sent to.
const STRANGERS: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// Chooses sources, and remembers its decisions.
pub struct Sources {
    /// Counts the changes from 1. A peer stores 0 for "never judged".
    state: AtomicU32,
    judge: Mutex<Judge>,
}

#[derive(Default)]
struct Judge {
    /// Opened when it is first needed, on a thread that never leaves the sockets' namespace.
    netlink: Option<Netlink>,
    mark: u32,
    /// Whether a source can be used for a destination, in the state `at`.
    verdicts: HashMap<(IpAddr, Source), bool>,
    at: u32,
    /// Limits the questions about strangers.
    strangers: Pace,
}

impl Default for Sources {
    fn default() -> Self {
        Sources {
            state: AtomicU32::new(1),
            judge: Mutex::default(),
        }
    }
}

impl Sources {
    /// Must be called when routes, rules or links have changed.
    pub fn changed(&self) {
        // Never 0, even after 2^32 changes.
        let next = |state: u32| Some(state.wrapping_add(1).max(1));
        let _ = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
    }

    /// Sets the mark of packets. Rules may choose routes by it.
    pub fn set_mark(&self, mark: u32) {
        self.judge
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .mark = mark;
        self.changed();
    }

    /// The source for packets to `to`. `peer` is the peer at this endpoint, if any.
    pub fn choose(&self, to: &Endpoint, peer: Option<&Peer>, now: Time) -> Option<Source> {
        let state = self.state.load(Ordering::Acquire);
        if to.addr.is_ipv6() || peer.is_some_and(|peer| peer.source_is_judged(state)) {
            return to.src;
        }
        // A source that was refused before the routes changed is judged again.
        let learned = peer.and_then(Peer::learned_endpoint).filter(|learned| {
            learned.addr == to.addr && (to.src.is_none() || to.src == learned.src)
        });
        let source = learned.unwrap_or(*to).src;
        let stranger = peer.is_none().then_some(now);
        let is_fit = source.is_none_or(|source| self.is_fit(to.addr.ip(), source, state, stranger));
        if let (Some(peer), Some(learned)) = (peer, learned) {
            peer.judge_source(learned, is_fit, state);
        }
        source.filter(|_| is_fit)
    }

    /// `stranger`: the current time if the destination is no peer's.
    fn is_fit(&self, to: IpAddr, source: Source, state: u32, stranger: Option<Time>) -> bool {
        let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        if judge.at != state || judge.verdicts.len() >= MAX_VERDICTS {
            judge.verdicts.clear();
            judge.at = state;
        }
        if let Some(verdict) = judge.verdicts.get(&(to, source)) {
            return *verdict;
        }
        let take = |now| judge.strangers.take(now, SECOND / STRANGERS, SECOND);
        if !stranger.is_none_or(take) {
            return true;
        }
        let verdict = judge.ask(to, source);
        judge.verdicts.insert((to, source), verdict);
        verdict
    }
}

impl Judge {
    fn ask(&mut self, to: IpAddr, source: Source) -> bool {
        if self.netlink.is_none() {
            self.netlink = Netlink::open().ok();
        }
        let Some(netlink) = &mut self.netlink else {
            return true;
        };
        match netlink.route_get(to, Some(source.ip), self.mark) {
            Ok(hop) => hop.local || source.ifindex == 0 || hop.link == source.ifindex,
            // The source is no longer local, or there is no route.
            Err(_) => netlink.route_get(to, None, self.mark).is_err(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::changes::Changes;
    use crate::sys::netlink::{LinkAddress, Route};
    use crate::sys::netns::NetNs;
    use crate::sys::tun::{Tun, TunOffloads};
    use crate::tunnel::way::Heard;
    use wg_crypto::PublicKey;

    const THERE: [u8; 4] = [192, 0, 2, 2];

    fn address(netlink: &mut Netlink, link: &str, ip: [u8; 4]) -> (Tun, Source) {
        let tun = Tun::create(link, TunOffloads::NONE).unwrap();
        netlink.set_up(link, true).unwrap();
        let (ip, ifindex) = (ip.into(), netlink.link(link).unwrap().index);
        let address = LinkAddress {
            link: ifindex,
            ip,
            prefix: 24,
        };
        netlink.add_address(&address).unwrap();
        (tun, Source { ip, ifindex })
    }

    #[test]
    fn a_source_is_used_while_packets_leave_by_the_link_of_arrival() {
        let work = || {
            let mut netlink = Netlink::open().unwrap();
            let (_near, near) = address(&mut netlink, "near", [192, 0, 2, 1]);
            let (_far, far) = address(&mut netlink, "far", [198, 51, 100, 1]);
            let changes = Changes::open().unwrap();
            let sources = Sources::default();
            let peer = Peer::new(1, PublicKey::from_bytes([1; 32]));
            let heard_from = |src: Source| {
                let addr = (THERE, 51820).into();
                let from = Endpoint {
                    addr,
                    src: Some(src),
                };
                peer.heard(from, Heard::Data, Time::ZERO);
                if changes.take() {
                    sources.changed();
                }
                let chosen = sources.choose(&peer.endpoint().unwrap(), Some(&peer), Time::ZERO);
                assert_eq!(peer.endpoint().unwrap().src, chosen);
                // Already judged; for the sender of a cookie, who is not a peer, the result is the
                // same.
                let whole = peer.learned_endpoint().unwrap();
                assert_eq!(sources.choose(&whole, None, Time::ZERO), chosen);
                chosen
            };
            assert_eq!(heard_from(near), Some(near));
            assert_eq!(heard_from(far), None, "the packet arrived on another link");
            assert_eq!(heard_from(far), None);
            assert_eq!(heard_from(near), Some(near));

            let route = Route::new((THERE.into(), 32), far.ifindex);
            netlink.add_route(&route).unwrap();
            assert_eq!(heard_from(near), None, "packets now leave by another link");
            assert_eq!(heard_from(far), Some(far));
            netlink.delete_route(&route).unwrap();
            assert_eq!(heard_from(far), None);
            assert_eq!(heard_from(near), Some(near));
            netlink.add_route(&route).unwrap();
            assert_eq!(heard_from(near), None);
            netlink.delete_route(&route).unwrap();
            assert_eq!(
                heard_from(near),
                Some(near),
                "the refused source can be used again"
            );

            let address = LinkAddress {
                link: near.ifindex,
                ip: near.ip,
                prefix: 24,
            };
            netlink.delete_address(&address).unwrap();
            let default = Route::new(([0, 0, 0, 0].into(), 0), far.ifindex);
            netlink.add_route(&default).unwrap();
            assert_eq!(heard_from(near), None, "not a local address");
        };
        NetNs::new().expect("needs root").run(work).unwrap();
    }

    #[test]
    fn ipv6_sources_are_checked_by_the_send() {
        let source = Source {
            ip: "2001:db8::1".parse().unwrap(),
            ifindex: 7,
        };
        let to = Endpoint {
            addr: "[2001:db8::2]:1".parse().unwrap(),
            src: Some(source),
        };
        let chosen = Sources::default().choose(&to, None, Time::ZERO);
        assert_eq!(chosen, Some(source));
    }

    #[test]
    fn a_flood_from_forged_addresses_asks_the_kernel_a_limited_number_of_times() {
        let work = || {
            let mut netlink = Netlink::open().unwrap();
            let (_near, near) = address(&mut netlink, "near", [192, 0, 2, 1]);
            let sources = Sources::default();
            let asked = || sources.judge.lock().unwrap().verdicts.len();
            let flood = |second: u64| {
                for n in 0..STRANGERS as u16 * 2 {
                    let [a, b] = n.to_be_bytes();
                    let to = Endpoint {
                        addr: ([192, 0, second as u8 + a, b], 51820).into(),
                        src: Some(near),
                    };
                    let now = Time::ZERO + SECOND * second as u32;
                    sources.choose(&to, None, now);
                }
            };
            flood(2);
            assert_eq!(asked(), STRANGERS as usize);
            flood(10);
            assert_eq!(asked(), 2 * STRANGERS as usize);
        };
        NetNs::new().expect("needs root").run(work).unwrap();
    }
}
