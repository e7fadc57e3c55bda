//! The input of the protocol thread: handshake messages, events of the data path, and the next
//! timer.
//!
//! A handshake costs two or three Diffie-Hellman operations, so it is never computed on a thread
//! that moves data. Messages are copied to this bounded queue, and dropped if it is full, as in the
//! kernel.
//!
//! There are three queues, each with its own limit, so that a flood of initiations blocks neither
//! answers nor senders who have a cookie. Answers (responses and cookie replies) come first, because
//! each completes something that we began; then initiations with a mac2, which shows, once checked,
//! that the sender receives at its address; then all other initiations. After `IN_A_ROW` messages of a
//! queue one of the next queues is handled, so none is blocked for ever.
//!
//! When half of the last queue is used, a sender whose messages use an eighth of it cannot add another. So
//! a flood from one address leaves room for initiations of others, who have no cookie yet.
//!
//! A thread that moves data makes a system call to wake the protocol thread only if that thread
//! sleeps.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::now;
use super::senders::Senders;
use crate::sys::alarm::Alarm;
use crate::sys::poll::{self, Waker};
use crate::tunnel::ingress::HandshakeBacklog;
use crate::tunnel::messages::{
    INITIATION_SIZE, MAX_QUEUED_INCOMING_HANDSHAKES, MESSAGE_HANDSHAKE_INITIATION,
};
use crate::tunnel::peer::Endpoint;
use crate::tunnel::time::Time;

/// Messages of a queue that are handled in a row while messages of later queues wait.
const IN_A_ROW: u32 = 8;
/// With `CROWDED` messages in the last queue, a sender with `SHARE` of them cannot add another.
const SHARE: usize = MAX_QUEUED_INCOMING_HANDSHAKES / 8;
const CROWDED: usize = MAX_QUEUED_INCOMING_HANDSHAKES / 2;
/// Length of a mac2, which ends a message.
const MAC: usize = 16;

/// A handshake message or cookie reply, with its sender.
#[derive(Clone, Copy)]
pub struct ReceivedMessage {
    bytes: [u8; INITIATION_SIZE],
    len: u8,
    /// The sender, and our address that the message was sent to.
    pub from: Endpoint,
}

impl ReceivedMessage {
    /// None if the datagram is longer than any handshake message.
    pub fn new(datagram: &[u8], from: Endpoint) -> Option<Self> {
        let mut bytes = [0; INITIATION_SIZE];
        bytes.get_mut(..datagram.len())?.copy_from_slice(datagram);
        let len = datagram.len() as u8;
        Some(ReceivedMessage { bytes, len, from })
    }

    /// The datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn queue(&self) -> usize {
        let is_initiation = self
            .bytes
            .starts_with(&MESSAGE_HANDSHAKE_INITIATION.to_le_bytes());
        let (_, mac2) = self.bytes.split_at(INITIATION_SIZE - MAC);
        match (is_initiation, mac2.iter().all(|byte| *byte == 0)) {
            (false, _) => ANSWERS,
            (true, false) => WITH_COOKIE,
            (true, true) => WITHOUT_COOKIE,
        }
    }
}

/// Why the protocol thread was woken. (The large variant is the frequent one, so it is not worth an
/// allocation.)
#[allow(clippy::large_enum_variant)]
pub enum Wakeup {
    /// A turn: the next message, if any, and the number of messages behind it. There may also be
    /// events, changes of the configuration, or due timers.
    Turn(Option<ReceivedMessage>, HandshakeBacklog),
    /// The interface ends.
    Closed,
}

/// The queue of the protocol thread.
pub struct Inbox {
    state: Mutex<State>,
    waker: Waker,
    alarm: Alarm,
}

/// The queues, in the order in which they are served.
const ANSWERS: usize = 0;
const WITH_COOKIE: usize = 1;
const WITHOUT_COOKIE: usize = 2;
const QUEUES: usize = 3;

#[derive(Default)]
struct State {
    queues: [VecDeque<ReceivedMessage>; QUEUES],
    /// The senders of the messages in the last queue.
    senders: Senders,
    /// Messages of each queue that were handled in a row.
    in_a_row: [u32; QUEUES],
    news: bool,
    closed: bool,
    /// The protocol thread sleeps, or is about to, and has not been woken yet.
    sleeps: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        !self.closed && !self.news && self.queues.iter().all(VecDeque::is_empty)
    }

    fn next_message(&mut self) -> Option<ReceivedMessage> {
        for queue in 0..QUEUES {
            let others_wait = self.queues[queue + 1..].iter().any(|next| !next.is_empty());
            if (self.in_a_row[queue] < IN_A_ROW || !others_wait)
                && let Some(message) = self.queues[queue].pop_front()
            {
                self.in_a_row[queue] += u32::from(others_wait);
                if queue == WITHOUT_COOKIE {
                    *self.senders.waiting(message.from.addr.ip()) -= 1;
                }
                return Some(message);
            }
            self.in_a_row[queue] = 0;
        }
        None
    }

    /// Returns whether there was room for the message.
    fn add(&mut self, message: ReceivedMessage) -> bool {
        let number = message.queue();
        let len = self.queues[number].len();
        if len == MAX_QUEUED_INCOMING_HANDSHAKES {
            return false;
        }
        if number == WITHOUT_COOKIE {
            let waiting = self.senders.waiting(message.from.addr.ip());
            if len >= CROWDED && usize::from(*waiting) >= SHARE {
                return false;
            }
            *waiting += 1;
        }
        self.queues[number].push_back(message);
        true
    }

    fn backlog(&self) -> HandshakeBacklog {
        HandshakeBacklog {
            initiations: self.queues[WITH_COOKIE].len() + self.queues[WITHOUT_COOKIE].len(),
            answers: self.queues[ANSWERS].len(),
        }
    }

    fn next(&mut self) -> Wakeup {
        self.sleeps = false;
        self.news = false;
        if self.closed {
            return Wakeup::Closed;
        }
        Wakeup::Turn(self.next_message(), self.backlog())
    }
}

impl Inbox {
    /// An empty inbox.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        Ok(Inbox {
            state: Mutex::default(),
            waker: Waker::new()?,
            alarm: Alarm::new()?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state. If the protocol thread sleeps, wakes it after the lock is released.
    fn tell(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let wake = !state.is_idle() && std::mem::take(&mut state.sleeps);
        drop(state);
        if wake {
            self.waker.signal();
        }
    }

    /// Queues messages, and empties `messages`. Returns the number of those whose queue was full.
    pub fn push(&self, messages: &mut Vec<ReceivedMessage>) -> usize {
        let mut refused = 0;
        self.tell(|state| {
            for message in messages.drain(..) {
                refused += usize::from(!state.add(message));
            }
        });
        refused
    }

    /// The next message, if there is one, for the same turn.
    pub fn another(&self) -> Option<(ReceivedMessage, HandshakeBacklog)> {
        let mut state = self.lock();
        let message = state.next_message()?;
        Some((message, state.backlog()))
    }

    /// Reports that there are events, or that a deadline may have changed.
    pub fn notify(&self) {
        self.tell(|state| state.news = true);
    }

    /// Ends [`Inbox::wait`], now and in all later calls.
    pub fn close(&self) {
        self.tell(|state| state.closed = true);
    }

    /// Discards the waiting messages, when the interface goes down.
    pub fn clear(&self) {
        self.tell(|state| {
            state.queues = Default::default();
            state.senders = Senders::default();
        });
    }

    /// Waits for a message or a notification, but at most until `deadline` (None: no deadline).
    /// Only one thread may wait.
    pub fn wait(&self, deadline: Option<Time>) -> Wakeup {
        {
            let mut state = self.lock();
            if !state.is_idle() || deadline.is_some_and(|at| at <= now()) {
                return state.next();
            }
            state.sleeps = true;
        }
        // Neither call can fail with these arguments; an error would only cause an extra turn.
        let _ = self.alarm.set(deadline.map(Time::as_nanos));
        let _ = poll::wait([self.waker.as_fd(), self.alarm.as_fd()], None);
        let mut state = self.lock();
        // A wake-up that comes after the alarm ends the next wait without a reason, which is
        // harmless.
        self.waker.drain();
        state.next()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn from() -> Endpoint {
        Endpoint {
            addr: ([192, 0, 2, 1], 51820).into(),
            src: None,
        }
    }

    fn push(inbox: &Inbox, message: &[u8]) -> bool {
        push_from(inbox, message, from())
    }

    fn push_from(inbox: &Inbox, message: &[u8], from: Endpoint) -> bool {
        let message = ReceivedMessage::new(message, from).unwrap();
        inbox.push(&mut vec![message]) == 0
    }

    /// A sender that nobody else is.
    fn sender(number: u32) -> Endpoint {
        Endpoint {
            addr: (std::net::Ipv4Addr::from_bits(0x0a00_0000 + number), 7).into(),
            src: None,
        }
    }

    fn message(kind: u8, number: u8) -> Vec<u8> {
        let mut message = vec![number; if kind == 1 { 148 } else { 92 }];
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        let mac2 = message.len() - MAC;
        message[mac2..].fill(0);
        message
    }

    fn with_cookie(number: u8) -> Vec<u8> {
        let mut message = message(1, number);
        message[INITIATION_SIZE - MAC..].fill(7);
        message
    }

    /// The next message's type and number, and the number of messages behind it.
    fn take(inbox: &Inbox) -> Option<(u8, u8, usize, usize)> {
        match inbox.wait(Some(Time::ZERO)) {
            Wakeup::Turn(message, backlog) => message.map(|message| {
                let bytes = message.bytes();
                (bytes[0], bytes[4], backlog.initiations, backlog.answers)
            }),
            Wakeup::Closed => panic!("the inbox was not closed"),
        }
    }

    #[test]
    fn answers_come_before_initiations_and_each_in_order() {
        let inbox = Inbox::new().unwrap();
        for (kind, number) in [(1, 1), (2, 2), (1, 3), (3, 4)] {
            assert!(push(&inbox, &message(kind, number)));
        }
        assert_eq!(take(&inbox), Some((2, 2, 2, 1)));
        assert_eq!(take(&inbox), Some((3, 4, 2, 0)));
        assert_eq!(take(&inbox), Some((1, 1, 1, 0)));
        assert_eq!(take(&inbox), Some((1, 3, 0, 0)));
        assert_eq!(take(&inbox), None);
    }

    #[test]
    fn a_flood_of_answers_does_not_block_initiations() {
        let inbox = Inbox::new().unwrap();
        for number in 0..100 {
            push(&inbox, &message(2, number));
        }
        push(&inbox, &message(1, 0));
        push(&inbox, &message(1, 1));
        let kinds: Vec<_> = (0..20).map(|_| take(&inbox).unwrap().0).collect();
        let firsts = kinds.iter().enumerate().filter(|(_, kind)| **kind == 1);
        assert!(firsts.map(|(i, _)| i).eq([8, 17]), "{kinds:?}");
    }

    #[test]
    fn a_flood_of_initiations_does_not_block_those_with_a_cookie() {
        let inbox = Inbox::new().unwrap();
        while push(&inbox, &message(1, 0)) {}
        assert!(push(&inbox, &with_cookie(1)));
        assert!(push(&inbox, &message(2, 2)));
        let numbers: Vec<_> = (0..3).map(|_| take(&inbox).unwrap().1).collect();
        assert_eq!(numbers, [2, 1, 0]);

        // Nor is it the other way round.
        while push(&inbox, &with_cookie(1)) {}
        let numbers: Vec<_> = (0..18).map(|_| take(&inbox).unwrap().1).collect();
        let others = numbers.iter().filter(|number| **number == 0);
        assert_eq!(others.count(), 2, "{numbers:?}");
    }

    #[test]
    fn the_inbox_is_bounded() {
        let inbox = Inbox::new().unwrap();
        let long = ReceivedMessage::new(&[0; 149], from());
        assert!(long.is_none(), "this is longer than any message");
        for full in [message(1, 0), message(2, 0), with_cookie(0)] {
            let mut senders = (0..).map(sender);
            let mut push = || push_from(&inbox, &full, senders.next().unwrap());
            for _ in 0..MAX_QUEUED_INCOMING_HANDSHAKES {
                assert!(push());
            }
            assert!(!push());
        }
        inbox.clear();
        assert!(push(&inbox, &message(1, 0)));
    }

    #[test]
    fn a_flood_from_one_address_leaves_room_for_others() {
        let inbox = Inbox::new().unwrap();
        let mut flood = 0;
        while push(&inbox, &message(1, 0)) {
            flood += 1;
        }
        assert_eq!(flood, CROWDED);
        // Others have room, except for the few that a hash puts into the same group.
        let others = (0..1000).filter(|n| push_from(&inbox, &message(1, 1), sender(*n)));
        assert!(others.count() > 950);
        assert!(!push(&inbox, &message(1, 0)));
        assert!(push(&inbox, &with_cookie(0)) && push(&inbox, &message(2, 0)));
        // What is handled makes room.
        while take(&inbox).is_some() {}
        for _ in 0..CROWDED {
            assert!(push(&inbox, &message(1, 0)));
        }
    }

    /// A flood must not cause a system call for each message while the protocol thread works.
    #[test]
    fn only_a_sleeping_thread_is_woken() {
        let inbox = Inbox::new().unwrap();
        push(&inbox, &message(1, 0));
        inbox.notify();
        assert!(!inbox.waker.drain(), "the protocol thread does not sleep");
        assert!(take(&inbox).is_some());
        inbox.lock().sleeps = true;
        inbox.clear();
        assert!(inbox.lock().sleeps, "there was no event");
        push(&inbox, &message(1, 0));
        assert!(inbox.waker.drain());
        push(&inbox, &message(1, 0));
        inbox.notify();
        assert!(!inbox.waker.drain(), "the thread was already woken");
    }

    #[test]
    fn messages_and_notifications_end_the_wait() {
        let tell: [fn(&Inbox); 3] = [
            |inbox| assert!(push(inbox, &message(1, 7))),
            Inbox::notify,
            Inbox::close,
        ];
        for (i, tell) in tell.into_iter().enumerate() {
            let inbox = Arc::new(Inbox::new().unwrap());
            let waits = std::thread::spawn({
                let inbox = inbox.clone();
                move || inbox.wait(None)
            });
            while !inbox.lock().sleeps && i != 0 {
                std::thread::yield_now();
            }
            tell(&inbox);
            match (i, waits.join().expect("no panic")) {
                (0, Wakeup::Turn(Some(message), _)) => assert_eq!(message.bytes()[4], 7),
                (1, Wakeup::Turn(None, _)) | (2, Wakeup::Closed) => {}
                (i, _) => panic!("{i}"),
            }
        }
    }

    #[test]
    fn the_deadline_ends_the_wait_and_not_before() {
        let inbox = Inbox::new().unwrap();
        let at = now() + std::time::Duration::from_millis(20);
        assert!(matches!(inbox.wait(Some(at)), Wakeup::Turn(None, _)));
        assert!(now() >= at);
    }
}
