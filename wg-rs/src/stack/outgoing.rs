//! Packets that wait to be sent into the tunnel: datagrams, and answers to packets that belong to no flow.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Maximum bytes that wait. Beyond it, senders of datagrams wait, and answers are dropped.
const MOST: usize = 1 << 20;

/// The queue of these packets. Each follows its virtio header.
#[derive(Default)]
pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    /// Notified when there is room again.
    room: Notify,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Outgoing {
    /// Adds a packet. Returns it if there is no room.
    pub fn put(&self, packet: Vec<u8>) -> Result<(), Vec<u8>> {
        let mut queue = self.queue.lock();
        if queue.bytes + packet.len() > MOST {
            return Err(packet);
        }
        queue.bytes += packet.len();
        queue.packets.push_back(packet);
        Ok(())
    }

    /// As [`Outgoing::put`], but waits for room. Returns the packet if `refuses` becomes true meanwhile.
    pub async fn put_later(
        &self,
        mut packet: Vec<u8>,
        refuses: impl Fn() -> bool,
    ) -> Result<(), Vec<u8>> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if refuses() {
                return Err(packet);
            }
            match self.put(packet) {
                Ok(()) => return Ok(()),
                Err(refused) => packet = refused,
            }
            room.await;
        }
    }

    /// Takes the oldest packet.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut queue = self.queue.lock();
        let packet = queue.packets.pop_front()?;
        queue.bytes -= packet.len();
        let has_room = queue.bytes < MOST / 2;
        drop(queue);
        if has_room {
            self.wake();
        }
        Some(packet)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.lock().packets.is_empty()
    }

    /// Wakes all that wait for room.
    pub fn wake(&self) {
        self.room.notify_waiters();
    }
}
