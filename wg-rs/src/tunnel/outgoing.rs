//! The owner's output: finished messages, and the peers for which a message has yet to be created.
//!
//! Invariant: a peer is in a queue, once, if and only if its `Wants` say so.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::Frame;
use super::peer::{Endpoint, Peer};
use super::plane::Plane;
use super::send::Receipt;
use super::time::Time;

/// Datagrams to send: the content of `out` after `poll_transmit`, at a fixed stride.
#[derive(Debug)]
pub struct Transmit {
    /// The destination and the source.
    pub to: Endpoint,
    /// TOS of the outer packets.
    pub tos: u8,
    /// Distance between datagrams in bytes; the length if there is only one.
    pub stride: usize,
    /// What to account when it is sent. None for a message that is accounted to no peer: a cookie
    /// reply, or a relayed message.
    pub(super) receipt: Option<Receipt>,
    /// Whether this is an initiation. It cost a Diffie-Hellman operation, so other work should be
    /// done before the next one.
    pub is_initiation: bool,
}

impl Transmit {
    /// The peer that it is for, if any. If its source cannot be used, the source must be cleared.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.receipt.as_ref().map(|receipt| &receipt.peer)
    }

    /// Reports that the network accepted this many bytes.
    pub fn sent(self, plane: &Plane, taken: usize, now: Time) {
        if let Some(receipt) = &self.receipt {
            plane.taken(receipt, taken, now);
        }
    }
}

/// Queues of what is to be sent, in the order in which they are emptied.
#[derive(Default)]
pub(super) struct Outgoing {
    messages: VecDeque<(Transmit, Vec<u8>)>,
    flushes: VecDeque<u64>,
    frames: VecDeque<OutgoingFrame>,
    initiations: VecDeque<u64>,
}

/// A frame that is sealed when it is sent.
pub(super) struct OutgoingFrame {
    pub(super) peer: u64,
    /// The path. None: the peer's endpoint.
    pub(super) to: Option<Endpoint>,
    pub(super) frame: Frame,
}

/// The messages to create for a peer.
#[derive(Default)]
pub(super) struct Wants {
    /// Staged packets or, if there are none, a keepalive if one is wanted.
    flush: bool,
    pub(super) keepalive: bool,
    /// Another keepalive is needed after this one.
    pub(super) another_keepalive: bool,
    initiation: bool,
}

impl Outgoing {
    /// Queues a finished message.
    pub(super) fn message(&mut self, transmit: Transmit, message: &[u8]) {
        self.messages.push_back((transmit, message.to_vec()));
    }

    /// Queues a finished message that is accounted to no peer. It leaves together with the message before
    /// it if both have the same length and destination, as cookie replies to a flood do.
    pub(super) fn unaccounted(&mut self, to: Endpoint, tos: u8, message: &[u8]) {
        if let Some((before, datagrams)) = self.messages.back_mut()
            && before.receipt.is_none()
            && (before.to, before.tos, before.stride) == (to, tos, message.len())
            && datagrams.len() % message.len() == 0
        {
            return datagrams.extend_from_slice(message);
        }
        self.copy(to, tos, message.len(), message);
    }

    /// Queues a copy of datagrams that are sent anyway, for another path.
    pub(super) fn copy(&mut self, to: Endpoint, tos: u8, stride: usize, datagrams: &[u8]) {
        let transmit = Transmit {
            to,
            tos,
            stride,
            receipt: None,
            is_initiation: false,
        };
        self.message(transmit, datagrams);
    }

    /// Requests that staged packets are sent.
    pub(super) fn flush(&mut self, id: u64, wants: &mut Wants) {
        if !std::mem::replace(&mut wants.flush, true) {
            self.flushes.push_back(id);
        }
    }

    /// Queues a frame for a peer. It is dropped if there is no session when it is sent.
    pub(super) fn frame(&mut self, peer: u64, to: Option<Endpoint>, frame: Frame) {
        self.frames.push_back(OutgoingFrame { peer, to, frame });
    }

    /// The next frame.
    pub(super) fn next_frame(&mut self) -> Option<OutgoingFrame> {
        self.frames.pop_front()
    }

    /// Requests an initiation.
    pub(super) fn initiation(&mut self, id: u64, wants: &mut Wants) {
        if !std::mem::replace(&mut wants.initiation, true) {
            self.initiations.push_back(id);
        }
    }

    /// The next finished message.
    pub(super) fn next_message(&mut self) -> Option<(Transmit, Vec<u8>)> {
        self.messages.pop_front()
    }

    /// The next peer to flush. It stays the same until `flushed` is called.
    pub(super) fn next_flush(&self) -> Option<u64> {
        self.flushes.front().copied()
    }

    /// Records that there is nothing more to send for the peer of `next_flush`.
    pub(super) fn flushed(&mut self, wants: Option<&mut Wants>) {
        self.flushes.pop_front();
        if let Some(wants) = wants {
            wants.flush = false;
            wants.keepalive = false;
        }
    }

    /// The next peer that needs an initiation.
    pub(super) fn next_initiation(&mut self) -> Option<u64> {
        self.initiations.pop_front()
    }

    /// Empties the queues. The peers' `Wants` must be cleared too.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.flushes.clear();
        self.frames.clear();
        self.initiations.clear();
    }
}

impl Wants {
    /// Called when the initiation is created.
    pub(super) fn take_initiation(&mut self) {
        self.initiation = false;
    }
}
