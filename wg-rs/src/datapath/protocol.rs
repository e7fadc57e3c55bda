//! The protocol thread: handshakes, events of the data path, timers.
//!
//! The tunnel's owner (configuration, handshakes, timers) is behind one lock, taken by this thread and
//! by whoever configures: never by a thread that moves data.
//!
//! The protocol thread works in turns: a message that came in, timers that are due, some of what is to
//! be sent, one initiation of ours at most. After each it hands the lock to whoever waits for it, so
//! that `wg show` is answered at once while handshakes flood in or ten thousand peers start. Nobody
//! else sends: who changes something tells the protocol thread.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::inbox::{Inbox, Wakeup};
use super::now;
use super::sockets::Sockets;
use crate::model::Wall;
use crate::sys::process::clock;
use crate::tunnel::device::Device;
use crate::tunnel::drops::DropReason;
use crate::tunnel::plane::Plane;
use crate::tunnel::time::Time;

/// Bytes that one poll of the owner writes at most.
const TRANSMIT_BUFFER: usize = 1 << 16;
/// Sends in one turn at most: so long somebody else may wait for the owner.
const SENDS_IN_A_TURN: usize = 16;

/// The owner, and what it is woken for and sends by. See the head of the file.
pub struct Protocol<N> {
    owner: Mutex<Owner<N>>,
    /// The data path's view of the tunnel.
    pub plane: Arc<Plane>,
    /// What it sends by.
    pub sockets: Arc<Sockets>,
    /// What wakes it.
    pub inbox: Arc<Inbox>,
}

/// The tunnel's owner, and the sockets that its configuration opens and closes.
pub struct Owner<N> {
    /// The protocol.
    pub device: Device,
    /// The sockets.
    pub network: N,
}

/// Now, in the time of day.
pub(crate) fn wall() -> Wall {
    let now = clock::wall();
    Wall {
        secs: now.as_secs(),
        nanos: now.subsec_nanos(),
    }
}

impl<N> Protocol<N> {
    /// A protocol of `device`, to be run by a thread.
    pub fn new(device: Device, network: N, sockets: Arc<Sockets>, inbox: Arc<Inbox>) -> Self {
        Protocol {
            plane: device.plane().clone(),
            owner: Mutex::new(Owner { device, network }),
            sockets,
            inbox,
        }
    }

    /// The owner. Whoever changes something notifies the inbox afterwards.
    pub fn owner(&self) -> MutexGuard<'_, Owner<N>> {
        self.owner.lock()
    }

    /// Runs until the inbox is closed.
    pub fn run(&self) {
        let mut out = Vec::with_capacity(TRANSMIT_BUFFER);
        let mut deadline = None;
        while let Wakeup::Turn(message, backlog) = self.inbox.wait(deadline) {
            let mut owner = self.owner();
            let device = &mut owner.device;
            if let Some(message) = message {
                device.handle_message(now(), wall(), message.from, message.bytes(), backlog);
            }
            // Handles the data path's events as well.
            device.handle_timeout(now(), wall());
            deadline = match self.transmit(device, &mut out) {
                Progress::Done => device.next_timeout(),
                Progress::More => Some(Time::ZERO),
            };
            MutexGuard::unlock_fair(owner);
        }
    }

    /// Sends what the owner has to send, as far as it fits in a turn.
    fn transmit(&self, device: &mut Device, out: &mut Vec<u8>) -> Progress {
        for _ in 0..SENDS_IN_A_TURN {
            let Some(transmit) = device.poll_transmit(now(), wall(), out) else {
                return Progress::Done;
            };
            let now = now();
            let peer = transmit.peer().map(|peer| &**peer);
            let (to, stride, tos) = (&transmit.to, transmit.stride, transmit.tos);
            let sent = self.sockets.send(out, stride, to, tos, peer, now);
            if let Some(error) = sent.error {
                match peer {
                    Some(peer) => peer.send_failed(&error, now),
                    None => tracing::debug!(%error, "sending failed"),
                }
                self.plane
                    .drop_packets(DropReason::SendFailed, sent.refused);
            }
            let is_initiation = transmit.is_initiation;
            transmit.sent(&self.plane, sent.bytes, now);
            if is_initiation {
                break;
            }
        }
        Progress::More
    }
}

/// How far a turn got.
enum Progress {
    /// There is nothing more to send.
    Done,
    /// There may be more.
    More,
}
