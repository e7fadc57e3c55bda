//! The messages that the owner sends to a peer: handshake messages, keepalives, and packets that
//! waited for a session.
//!
//! Replies are created at once and sent first. Everything else is created when it is polled: staged
//! packets are sealed with the current session, and initiations come last, so that a thousand peers
//! that want one do not delay peers with a session.

use std::sync::atomic::Ordering;

use tracing::debug;

use super::entry::{DeviceContext, Entry, jitter, random_key};
use super::frame::Frame;
use super::handshake::Parties;
use super::messages::{HANDSHAKE_DSCP, INITIATION_SIZE};
use super::outgoing::{OutgoingFrame, Transmit};
use super::peer::Endpoint;
use super::send::{Content, OutBuffer, Receipt, SealedBurst, Unstaged};
use super::time::Time;
use super::timers::{MAX_TIMER_HANDSHAKES, REKEY_TIMEOUT};
use crate::model::Wall;

/// How many initiations `call` sends if there is no response.
const CALL_TRIES: u32 = 3;

/// Copies the datagrams of a burst to `out`, and keeps its memory in `buffer` for the next one. Returns the
/// TOS, the stride, and what to account.
fn write(
    burst: SealedBurst,
    buffer: &mut Option<OutBuffer>,
    out: &mut Vec<u8>,
) -> (u8, usize, Receipt) {
    out.clear();
    out.extend_from_slice(burst.datagrams());
    let (tos, stride) = (burst.tos(), burst.stride());
    let (receipt, memory) = burst.into_receipt();
    *buffer = Some(memory);
    (tos, stride, receipt)
}

impl Entry {
    /// Requests an initiation, unless one was sent in the last five seconds.
    pub(super) fn send_initiation(&mut self, context: &mut DeviceContext, now: Time) {
        let peer = &self.shared;
        if context.plane.is_up() && peer.has_endpoint() && !peer.sent_handshake_lately(now) {
            context.outgoing.initiation(peer.id, &mut self.wants);
        }
    }

    /// Starts a handshake with `CALL_TRIES` tries, unless there is a session. Returns whether it does.
    pub(super) fn call(&mut self, context: &mut DeviceContext) -> bool {
        let peer = &self.shared;
        let calls =
            context.plane.is_up() && peer.has_endpoint() && peer.keypairs.current().is_none();
        if calls {
            // From zero attempts there would be MAX_TIMER_HANDSHAKES + 2 tries.
            let attempts = MAX_TIMER_HANDSHAKES + 2 - CALL_TRIES;
            peer.handshake_attempts.store(attempts, Ordering::Relaxed);
            context.outgoing.initiation(peer.id, &mut self.wants);
        }
        calls
    }

    /// Requests that staged packets are sent, or a keepalive if there are none.
    pub(super) fn send_keepalive(&mut self, context: &mut DeviceContext) {
        if self.shared.has_endpoint() {
            self.wants.keepalive = true;
            self.send_staged(context);
        }
    }

    /// Requests that staged packets are sent, or a handshake if there is no session.
    pub(super) fn send_staged(&mut self, context: &mut DeviceContext) {
        if context.plane.is_up() {
            context.outgoing.flush(self.shared.id, &mut self.wants);
        }
    }

    /// Creates an initiation.
    pub(super) fn initiate(&mut self, context: &mut DeviceContext, now: Time, wall: Wall) {
        let peer = self.shared.clone();
        let to = peer.endpoint();
        if peer.sent_handshake_lately(now) || !peer.has_endpoint() {
            return;
        }
        // An initiation that cannot be created must not be tried again for every packet.
        peer.last_sent_handshake.set(now);
        let Some(local) = context.identity.as_ref() else {
            return;
        };
        let index = context.plane.reserve_index(&mut *context.rng);
        let ephemeral = random_key(&mut *context.rng);
        let parties = Parties {
            local,
            remote: peer.public_key(),
        };
        let handshake = self.handshake();
        let former = handshake.pending();
        let Some(message) = handshake.initiate(parties, ephemeral, index, now, wall) else {
            return context.plane.index.release(index);
        };
        if let Some(former) = former {
            context.pending.release(former);
        }
        context.pending.begin(index, peer.id);
        self.retransmit_handshake = Some(now + REKEY_TIMEOUT + jitter(&mut *context.rng));
        match to {
            _ if self.relayed.is_some() => self.initiate_by_hubs(context, message, index, now),
            Some(to) => self.send_message(context, to, &message, now),
            None => {}
        }
        self.reschedule(context);
    }

    /// Seals the next burst of staged packets, or a keepalive if one is wanted.
    pub(super) fn flush(
        &mut self,
        context: &mut DeviceContext,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let peer = self.shared.clone();
        let plane = context.plane.clone();
        let buffer = context.buffer.take().unwrap_or_default();
        let mut has_data = true;
        let burst = match plane.unstage(&peer, buffer, now) {
            Unstaged::Burst(burst) => Ok(burst),
            Unstaged::NoSession(buffer) => Err(buffer),
            Unstaged::Nothing(buffer) if !self.wants.keepalive => {
                context.buffer = Some(buffer);
                return None;
            }
            Unstaged::Nothing(buffer) => {
                has_data = false;
                plane.keepalive(&peer, buffer, now)
            }
        };
        // A packet has the same effect as a keepalive.
        self.wants.keepalive = false;
        let burst = match burst {
            Ok(burst) => burst.seal(),
            Err(buffer) => {
                context.buffer = Some(buffer);
                peer.handshake_attempts.store(0, Ordering::Relaxed);
                self.send_initiation(context, now);
                return None;
            }
        };
        let (tos, stride, receipt) = write(burst, &mut context.buffer, out);
        plane.account(&receipt.peer, receipt.content, now);
        if std::mem::take(&mut self.wants.another_keepalive) {
            plane.wake(&peer, peer.timers.keepalive_again(now));
        }
        let destination = peer.destination(has_data, now)?;
        plane.note(&peer, &destination);
        if let Some(also) = destination.also {
            context.outgoing.copy(also, tos, stride, out);
        }
        Some(Transmit {
            to: destination.to,
            tos,
            stride,
            receipt: Some(receipt),
            is_initiation: false,
        })
    }

    /// Seals a frame. None if there is no session.
    pub(super) fn seal_frame(
        &mut self,
        context: &mut DeviceContext,
        OutgoingFrame { to, frame, .. }: OutgoingFrame,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let peer = &self.shared;
        let plane = &context.plane;
        let to = to.or_else(|| peer.endpoint())?;
        let buffer = context.buffer.take().unwrap_or_default();
        let burst = match plane.frame_burst(peer, &frame.to_bytes(), buffer, now) {
            Ok(burst) => burst.seal(),
            Err(buffer) => {
                context.buffer = Some(buffer);
                return None;
            }
        };
        let (tos, stride, receipt) = write(burst, &mut context.buffer, out);
        let is_keepalive = matches!(frame, Frame::Hello { .. } | Frame::Bind { .. });
        let content = Content::Frame { is_keepalive };
        let receipt = Receipt { content, ..receipt };
        plane.account(&receipt.peer, content, now);
        Some(Transmit {
            to,
            tos,
            stride,
            receipt: Some(receipt),
            is_initiation: false,
        })
    }

    /// Sends a handshake message.
    pub(super) fn send_message(
        &self,
        context: &mut DeviceContext,
        to: Endpoint,
        message: &[u8],
        now: Time,
    ) {
        let peer = &self.shared;
        if message.len() == INITIATION_SIZE {
            debug!(%peer, to = %to.addr, "handshake initiation sent");
        }
        peer.timers.any_authenticated_packet_sent();
        let wake = peer.timers.any_authenticated_packet_traversal(now);
        context.plane.wake(peer, wake);
        let transmit = Transmit {
            to,
            tos: HANDSHAKE_DSCP,
            stride: message.len(),
            receipt: Some(Receipt {
                peer: peer.clone(),
                content: Content::NoData,
            }),
            is_initiation: message.len() == INITIATION_SIZE,
        };
        context.outgoing.message(transmit, message);
    }
}
