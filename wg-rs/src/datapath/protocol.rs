//! The protocol thread: handshakes, events of the data path, timers.
//!
//! The tunnel's owner (configuration, handshakes, timers) is protected by one lock. This thread and
//! the configuration take it, but never a thread that moves data.
//!
//! The protocol thread works in turns: a received message, due timers, some of the messages to
//! send, and at most one initiation of ours. If the message is refused without a public-key operation, as
//! most of a flood are, others follow in the same turn. After each turn it passes the lock to a waiting
//! thread, so that `wg show` is answered at once during a flood of handshakes or while ten thousand
//! peers start. Only this thread sends: after a change, other threads notify it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::inbox::{Inbox, Wakeup};
use super::now;
use super::sockets::Sockets;
use crate::model::Wall;
use crate::sys::udp::OuterHeader;
use crate::tunnel::device::Device;
use crate::tunnel::drops::DropReason;
use crate::tunnel::plane::Plane;
use crate::tunnel::time::Time;

/// Most bytes that one poll of the owner writes.
const TRANSMIT_BUFFER: usize = 1 << 16;
/// Most messages in one turn, if all but the last are refused at once.
const MESSAGES_IN_A_TURN: usize = 32;
/// Most sends in one turn, which limits how long another thread waits for the owner. Each message may cause
/// one.
const SENDS_IN_A_TURN: usize = MESSAGES_IN_A_TURN + 16;

/// The owner, and what the thread needs to run.
pub struct Protocol<N> {
    owner: Mutex<Owner<N>>,
    /// The part that is shared with the data path.
    pub plane: Arc<Plane>,
    /// The sockets to send with.
    pub sockets: Arc<Sockets>,
    /// The queue that wakes the thread.
    pub inbox: Arc<Inbox>,
}

/// The tunnel's owner, and the sockets that its configuration opens and closes.
pub struct Owner<N> {
    /// The protocol's state.
    pub device: Device,
    /// The sockets.
    pub network: N,
}

impl<N> Protocol<N> {
    /// Prepares the protocol of `device` for its thread.
    pub fn new(device: Device, network: N, sockets: Arc<Sockets>, inbox: Arc<Inbox>) -> Self {
        Protocol {
            plane: device.plane().clone(),
            owner: Mutex::new(Owner { device, network }),
            sockets,
            inbox,
        }
    }

    /// The owner. After a change the inbox must be notified.
    pub fn owner(&self) -> MutexGuard<'_, Owner<N>> {
        self.owner.lock()
    }

    /// The owner, after it has handled what the data path has reported, for answers about its state. The data
    /// path counts packets at once, and this thread handles later that they have confirmed a handshake.
    pub fn informed_owner(&self) -> MutexGuard<'_, Owner<N>> {
        let mut owner = self.owner();
        // With the first report this thread was notified, so it sends what results.
        owner.device.handle_events(now(), Wall::now());
        owner
    }

    /// Runs until the inbox is closed.
    pub fn run(&self) {
        let mut out = Vec::with_capacity(TRANSMIT_BUFFER);
        let mut deadline = None;
        while let Wakeup::Turn(message, backlog) = self.inbox.wait(deadline) {
            let mut owner = self.owner();
            let device = &mut owner.device;
            let (now, wall) = (now(), Wall::now());
            let mut next = message.map(|message| (message, backlog));
            for handled in 1..=MESSAGES_IN_A_TURN {
                let Some((message, backlog)) = next else {
                    break;
                };
                let (from, bytes) = (message.from, message.bytes());
                let goes_on = device.handle_message(now, wall, from, bytes, backlog)
                    && handled < MESSAGES_IN_A_TURN;
                next = goes_on.then(|| self.inbox.another()).flatten();
            }
            // This also handles the data path's events.
            device.handle_timeout(now, wall);
            deadline = match self.transmit(device, &mut out, now, wall) {
                Progress::Done => device.next_timeout(),
                Progress::More => Some(Time::ZERO),
            };
            MutexGuard::unlock_fair(owner);
        }
    }

    /// Sends what the owner wants to send, within the limits of a turn.
    fn transmit(&self, device: &mut Device, out: &mut Vec<u8>, now: Time, wall: Wall) -> Progress {
        for _ in 0..SENDS_IN_A_TURN {
            let Some(transmit) = device.poll_transmit(now, wall, out) else {
                return Progress::Done;
            };
            let peer = transmit.peer().map(|peer| &**peer);
            let (to, stride) = (&transmit.to, transmit.stride);
            let header = OuterHeader::with_tos(transmit.tos);
            let sent = self.sockets.send(out, stride, to, header, peer, now);
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

/// The result of a turn.
enum Progress {
    /// There is nothing more to send.
    Done,
    /// There may be more to send.
    More,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::sim::Sim;

    #[test]
    fn an_informed_owner_knows_of_a_handshake_that_the_data_path_has_confirmed() {
        let device = Sim::pair().hosts.remove(0).device;
        let peer = device.peers().next().unwrap().clone();
        let (sockets, inbox) = (Arc::default(), Arc::new(Inbox::new().unwrap()));
        let protocol = Protocol::new(device, (), sockets, inbox);
        let is_known =
            |owner: MutexGuard<'_, Owner<()>>| owner.device.get().peers[0].last_handshake.is_some();
        protocol.plane.confirmed(&peer);
        assert!(!is_known(protocol.owner()));
        assert!(is_known(protocol.informed_owner()));
    }
}
