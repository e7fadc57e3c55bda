//! What waits for the protocol thread: handshake messages, events of the data path, the next timer.
//!
//! Handshakes cost two or three Diffie-Hellman operations each, so they never run on a thread that
//! moves data: they are copied here, bounded, and dropped when there is no room, as in the kernel.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::tunnel::messages::{INITIATION_SIZE, MAX_QUEUED_INCOMING_HANDSHAKES};
use crate::tunnel::peer::Endpoint;

/// A handshake message or cookie reply, and who sent it.
#[derive(Clone, Copy)]
pub struct Message {
    bytes: [u8; INITIATION_SIZE],
    len: u8,
    /// Where it came from, and which of our addresses it reached.
    pub from: Endpoint,
}

impl Message {
    /// The datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Why the protocol thread was woken. (The large variant is what floods: it is not worth an allocation.)
#[allow(clippy::large_enum_variant)]
pub enum Wakeup {
    /// A message, and how many wait behind it.
    Message(Message, usize),
    /// The data path or the configuration has news, or the time has come.
    Look,
    /// The interface ends.
    Closed,
}

/// The queue. See the head of the file.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    look: bool,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message of at most 148 bytes. False: the queue is full, or the message too long.
    pub fn push(&self, datagram: &[u8], from: Endpoint) -> bool {
        let mut bytes = [0; INITIATION_SIZE];
        let Some(head) = bytes.get_mut(..datagram.len()) else {
            return false;
        };
        head.copy_from_slice(datagram);
        let mut state = self.lock();
        if state.messages.len() >= MAX_QUEUED_INCOMING_HANDSHAKES {
            return false;
        }
        state.messages.push_back(Message {
            bytes,
            len: datagram.len() as u8,
            from,
        });
        self.news.notify_one();
        true
    }

    /// Says that there are events to handle or that a deadline may have moved.
    pub fn notify(&self) {
        self.lock().look = true;
        self.news.notify_one();
    }

    /// Ends [`Inbox::wait`] for good.
    pub fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }

    /// Forgets the messages that wait: the interface goes down.
    pub fn clear(&self) {
        self.lock().messages.clear();
    }

    /// Waits for a message or news, at most `timeout` (`None`: no deadline).
    pub fn wait(&self, timeout: Option<Duration>) -> Wakeup {
        let idle = |state: &mut State| !state.closed && !state.look && state.messages.is_empty();
        let state = self.lock();
        let mut state = match timeout {
            None => self
                .news
                .wait_while(state, idle)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.news
                    .wait_timeout_while(state, timeout, idle)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        if state.closed {
            return Wakeup::Closed;
        }
        // News first: they are cheap, and a flood of messages must not hold them up.
        if std::mem::take(&mut state.look) {
            return Wakeup::Look;
        }
        match state.messages.pop_front() {
            Some(message) => Wakeup::Message(message, state.messages.len()),
            None => Wakeup::Look,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> Endpoint {
        Endpoint {
            addr: ([192, 0, 2, 1], 51820).into(),
            src: None,
        }
    }

    #[test]
    fn messages_come_in_order_after_news() {
        let inbox = Inbox::default();
        assert!(inbox.push(&[1; 148], from()));
        assert!(inbox.push(&[2; 92], from()));
        inbox.notify();
        assert!(matches!(inbox.wait(None), Wakeup::Look));
        assert!(matches!(inbox.wait(None), Wakeup::Message(m, 1) if m.bytes() == [1; 148]));
        assert!(matches!(inbox.wait(None), Wakeup::Message(m, 0) if m.bytes() == [2; 92]));
        assert!(matches!(inbox.wait(Some(Duration::ZERO)), Wakeup::Look));
    }

    #[test]
    fn it_is_bounded() {
        let inbox = Inbox::default();
        assert!(!inbox.push(&[0; 149], from()), "no message is that long");
        for _ in 0..MAX_QUEUED_INCOMING_HANDSHAKES {
            assert!(inbox.push(&[0; 64], from()));
        }
        assert!(!inbox.push(&[0; 64], from()));
        inbox.clear();
        assert!(inbox.push(&[0; 64], from()));
    }

    #[test]
    fn closing_wakes_the_thread_that_waits() {
        let inbox = std::sync::Arc::new(Inbox::default());
        let waits = std::thread::spawn({
            let inbox = inbox.clone();
            move || matches!(inbox.wait(None), Wakeup::Closed)
        });
        inbox.close();
        assert!(waits.join().expect("no panic"));
    }
}
