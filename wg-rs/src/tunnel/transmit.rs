//! What the owner sends on its own account: handshake messages, keepalives, and the packets that
//! waited for a session.
//!
//! Messages that answer another are in the outbox, ready made, and go first. All else is made when it
//! is polled for: what is staged is sealed with the session of that moment, and initiations come last,
//! so that a thousand peers that want one hold up nobody who has a session.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::debug;
use wg_crypto::wipe_stack_after;

use super::device::{Device, jitter, random_key};
use super::handshake::Parties;
use super::messages::{HANDSHAKE_DSCP, REKEY_TIMEOUT};
use super::peer::{Endpoint, Peer};
use super::plane::Plane;
use super::send::{Receipt, Unstaged};
use super::time::{Time, Wall};

/// Datagrams to be sent: what `poll_transmit` wrote to `out`, one at each stride.
#[derive(Debug)]
pub struct Transmit {
    /// Where to, and from where.
    pub to: Endpoint,
    /// Outer TOS.
    pub tos: u8,
    /// Distance between datagrams; the length if there is one.
    pub stride: usize,
    /// What is left to account (none: a cookie reply, which is nobody's).
    pub(super) receipt: Option<Receipt>,
    /// An initiation, which cost a Diffie-Hellman: before the next one others should have a turn.
    pub is_initiation: bool,
}

impl Transmit {
    /// Whom it is for, if for a peer. Its source is to be cleared if it proves unusable.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.receipt.as_ref().map(|receipt| &receipt.peer)
    }

    /// The network took so many bytes of it.
    pub fn sent(self, plane: &Plane, taken: usize, now: Time) {
        if let Some(receipt) = &self.receipt {
            plane.taken(receipt, taken, now);
        }
    }
}

impl Device {
    /// What is to be sent next, written over `out`, each result to be sent, and [`Transmit::sent`]
    /// told, before the next call. To be called after any of the other calls, and again and again
    /// until it gives `None`; any of the other calls may come in between.
    pub fn poll_transmit(&mut self, now: Time, wall: Wall, out: &mut Vec<u8>) -> Option<Transmit> {
        self.handle_events(now, wall);
        loop {
            if let Some((transmit, message)) = self.outbox.pop_front() {
                *out = message;
                return Some(transmit);
            }
            if let Some(&id) = self.ready.front() {
                if let Some(transmit) = self.flush(id, now, out) {
                    return Some(transmit);
                }
                self.ready.pop_front();
                if let Some(entry) = self.peers.get_mut(&id) {
                    entry.is_ready = false;
                    entry.wants_keepalive = false;
                }
                continue;
            }
            let id = self.initiating.pop_front()?;
            if let Some(entry) = self.peers.get_mut(&id) {
                entry.wants_initiation = false;
                wipe_stack_after(|| self.initiate(id, now, wall));
            }
        }
    }

    fn initiate(&mut self, id: u64, now: Time, wall: Wall) {
        let Some(local) = self.identity.as_ref() else {
            return;
        };
        let Some(entry) = self.peers.get_mut(&id) else {
            return;
        };
        let peer = entry.shared.clone();
        let Some(to) = peer.endpoint() else { return };
        if peer.sent_handshake_lately(now) {
            return;
        }
        let index = self.plane.index.reserve(&mut *self.rng);
        let ephemeral = random_key(&mut *self.rng);
        let parties = Parties {
            local,
            remote: peer.public_key(),
        };
        let former = entry.handshake().pending();
        let Some(message) = entry
            .handshake()
            .initiate(parties, ephemeral, index, now, wall)
        else {
            return self.plane.index.release(index);
        };
        entry.retransmit_handshake = Some(now + REKEY_TIMEOUT + jitter(&mut *self.rng));
        if let Some(former) = former {
            self.handshakes.remove(&former);
            self.plane.index.release(former);
        }
        self.handshakes.insert(index, id);
        peer.last_sent_handshake.set(now);
        debug!(%peer, to = %to.addr, "handshake initiation sent");
        self.send_message(&peer, to, &message, now);
        if let Some((transmit, _)) = self.outbox.back_mut() {
            transmit.is_initiation = true;
        }
        self.reschedule(id);
    }

    /// Seals the next burst of staged packets, or else a keepalive if one is wanted.
    fn flush(&mut self, id: u64, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        let entry = self.peers.get_mut(&id)?;
        let peer = entry.shared.clone();
        let to = peer.endpoint()?;
        let buffer = self.buffer.take().unwrap_or_default();
        let burst = match self.plane.unstage(&peer, buffer, now) {
            Unstaged::Burst(burst) => Ok(burst),
            Unstaged::NoSession(buffer) => Err(buffer),
            Unstaged::Nothing(buffer) if !entry.wants_keepalive => {
                self.buffer = Some(buffer);
                return None;
            }
            Unstaged::Nothing(buffer) => self.plane.keepalive(&peer, buffer, now),
        };
        // A packet serves as well.
        entry.wants_keepalive = false;
        let burst = match burst {
            Ok(burst) => burst.seal(),
            Err(buffer) => {
                self.buffer = Some(buffer);
                peer.handshake_attempts.store(0, Ordering::Relaxed);
                self.send_initiation(id, now);
                return None;
            }
        };
        out.clear();
        out.extend_from_slice(burst.datagrams());
        let (tos, stride) = (burst.tos(), burst.stride());
        let (receipt, buffer) = burst.into_receipt();
        self.buffer = Some(buffer);
        self.plane.sending(&receipt, now);
        if std::mem::take(&mut entry.wants_another_keepalive) {
            self.plane.wake(&peer, peer.timers.keepalive_again(now));
        }
        Some(Transmit {
            to,
            tos,
            stride,
            receipt: Some(receipt),
            is_initiation: false,
        })
    }

    /// Wants an initiation sent, unless one was in the last five seconds.
    pub(super) fn send_initiation(&mut self, id: u64, now: Time) {
        if self.plane.is_up()
            && let Some(entry) = self.peers.get_mut(&id)
            && entry.shared.has_endpoint()
            && !entry.shared.sent_handshake_lately(now)
            && !std::mem::replace(&mut entry.wants_initiation, true)
        {
            self.initiating.push_back(id);
        }
    }

    /// Sends what is staged, or else a keepalive.
    pub(super) fn send_keepalive(&mut self, id: u64) {
        if let Some(entry) = self.peers.get_mut(&id)
            && entry.shared.has_endpoint()
        {
            entry.wants_keepalive = true;
            self.send_staged(id);
        }
    }

    /// Sends what is staged, or starts a handshake if there is no session for it.
    pub(super) fn send_staged(&mut self, id: u64) {
        if self.plane.is_up()
            && let Some(entry) = self.peers.get_mut(&id)
            && !std::mem::replace(&mut entry.is_ready, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Drops what is about to be sent.
    pub(super) fn clear_transmits(&mut self) {
        self.outbox.clear();
        for id in self.ready.drain(..) {
            if let Some(entry) = self.peers.get_mut(&id) {
                entry.is_ready = false;
                entry.wants_keepalive = false;
            }
        }
        for id in self.initiating.drain(..) {
            if let Some(entry) = self.peers.get_mut(&id) {
                entry.wants_initiation = false;
            }
        }
    }

    /// Queues a handshake message.
    pub(super) fn send_message(
        &mut self,
        peer: &Arc<Peer>,
        to: Endpoint,
        message: &[u8],
        now: Time,
    ) {
        peer.timers.any_authenticated_packet_sent();
        self.plane
            .wake(peer, peer.timers.any_authenticated_packet_traversal(now));
        let stride = message.len();
        let transmit = Transmit {
            to,
            tos: HANDSHAKE_DSCP,
            stride,
            receipt: Some(Receipt {
                peer: peer.clone(),
                answer: None,
            }),
            is_initiation: false,
        };
        self.outbox.push_back((transmit, message.to_vec()));
    }
}
