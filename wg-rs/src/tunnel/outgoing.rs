//! What the owner is about to send: messages that are made, and peers for which something is yet to be
//! made.
//!
//! Invariant: a peer is in a queue as long as its `Wants` say so, once.

use std::collections::VecDeque;
use std::sync::Arc;

use super::peer::{Endpoint, Peer};
use super::plane::Plane;
use super::send::Receipt;
use super::time::Time;

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

/// Queues of what is to be sent. They are emptied in this order.
#[derive(Default)]
pub(super) struct Outgoing {
    messages: VecDeque<(Transmit, Vec<u8>)>,
    flushes: VecDeque<u64>,
    initiations: VecDeque<u64>,
}

/// What is yet to be made for a peer.
#[derive(Default)]
pub(super) struct Wants {
    /// What is staged, sealed, or, if nothing is, a keepalive if one is wanted.
    flush: bool,
    pub(super) keepalive: bool,
    /// Another keepalive later, once this one is sent.
    pub(super) another_keepalive: bool,
    initiation: bool,
}

impl Outgoing {
    /// Sends a message that is made.
    pub(super) fn message(&mut self, transmit: Transmit, message: &[u8]) {
        self.messages.push_back((transmit, message.to_vec()));
    }

    /// Wants what is staged sent.
    pub(super) fn flush(&mut self, id: u64, wants: &mut Wants) {
        if !std::mem::replace(&mut wants.flush, true) {
            self.flushes.push_back(id);
        }
    }

    /// Wants an initiation made and sent.
    pub(super) fn initiation(&mut self, id: u64, wants: &mut Wants) {
        if !std::mem::replace(&mut wants.initiation, true) {
            self.initiations.push_back(id);
        }
    }

    /// The next message that is made.
    pub(super) fn next_message(&mut self) -> Option<(Transmit, Vec<u8>)> {
        self.messages.pop_front()
    }

    /// The peer whose flush is next; it stays so until `flushed`.
    pub(super) fn next_flush(&self) -> Option<u64> {
        self.flushes.front().copied()
    }

    /// Nothing more is to be sent to the peer whose flush was next.
    pub(super) fn flushed(&mut self, wants: Option<&mut Wants>) {
        self.flushes.pop_front();
        if let Some(wants) = wants {
            wants.flush = false;
            wants.keepalive = false;
        }
    }

    /// The peer whose initiation is to be made next.
    pub(super) fn next_initiation(&mut self) -> Option<u64> {
        self.initiations.pop_front()
    }

    /// Forgets all. Each peer is to forget what it wants.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.flushes.clear();
        self.initiations.clear();
    }
}

impl Wants {
    /// The initiation is being made.
    pub(super) fn take_initiation(&mut self) {
        self.initiation = false;
    }
}
