//! Runs the code that threads share under many orders of their steps, which `shuttle` chooses. The files are
//! those of the programs; only `crate::sync` and what they need around them are replaced.
//!
//! ```text
//! cargo run --manifest-path interleavings/Cargo.toml [NUMBER OF ORDERS]
//! ```
//! A failed run prints the order, by which it can be repeated.
//!
//! With the feature `real-threads` the same code runs as often with threads of the system, for ThreadSanitizer
//! (`.ci/tsan`), which sees the order of memory accesses that `shuttle` does not model.

extern crate self as wg_crypto;

#[cfg(not(feature = "real-threads"))]
mod sync {
    pub use shuttle::sync::*;
    pub use shuttle::thread;
}
#[cfg(feature = "real-threads")]
#[path = "real_threads.rs"]
mod sync;

#[allow(dead_code)]
#[path = "../../wg-rs/src/datapath/lane.rs"]
mod lane;
#[allow(dead_code)]
#[path = "../../crypto/src/replay.rs"]
mod replay;
#[allow(dead_code)]
mod tunnel;

/// What `routes.rs` needs of the model of an interface.
mod model {
    use std::net::IpAddr;

    #[derive(Clone, Copy)]
    pub struct AllowedIp {
        pub addr: IpAddr,
        pub cidr: u8,
    }
}

/// What `keypair.rs` needs of the keys.
pub struct SealingKey;
pub struct OpeningKey;
pub struct SessionKeys {
    pub sealing: SealingKey,
    pub opening: OpeningKey,
}
pub use replay::ReplayWindow;

/// What `messages.rs` needs of packets.
pub mod transport {
    pub const HEADER: usize = 16;
    pub const TAG: usize = 16;
}

use std::collections::HashSet;
use std::time::Duration;

use lane::{Lane, Order, Stages};
use sync::atomic::{AtomicBool, AtomicU64, Ordering};
use sync::{Arc, Mutex, thread};
use tunnel::keypair::{Keypair, Keypairs, Origin};
use tunnel::messages::REJECT_AFTER_MESSAGES;
use tunnel::staged::{StagedPacket, StagedQueue};
use tunnel::time::Time;
use tunnel::timers::Timers;

const NOW: Time = Time::from_nanos(1_000_000_000_000);

fn keypair(peer: &Arc<()>, local: u32, is_initiator: bool) -> Arc<Keypair<()>> {
    let keys = SessionKeys {
        sealing: SealingKey,
        opening: OpeningKey,
    };
    let origin = Origin {
        local,
        receiver: local,
        is_initiator,
        jitter: Duration::ZERO,
        created: NOW,
    };
    Keypair::new(peer, keys, origin)
}

/// No counter is used twice, and none beyond the last.
fn counters_are_unique() {
    let peer = Arc::new(());
    let session = keypair(&peer, 1, true);
    // Nearly used up.
    assert_eq!(session.reserve(REJECT_AFTER_MESSAGES - 5, NOW), Some(0));
    let senders = [1, 2, 3].map(|n| {
        let session = session.clone();
        thread::spawn(move || {
            let first = (0..2).filter_map(|_| session.reserve(n, NOW));
            first.flat_map(|first| first..first + n).collect::<Vec<_>>()
        })
    });
    let mut used = HashSet::new();
    for sender in senders {
        for counter in sender.join().expect("counters") {
            assert!(
                counter < REJECT_AFTER_MESSAGES && used.insert(counter),
                "{counter} again"
            );
        }
    }
}

/// Each packet is accepted once, although two threads receive copies of all.
fn packets_are_accepted_once() {
    let peer = Arc::new(());
    let session = keypair(&peer, 1, true);
    let accepted = Arc::new(AtomicU64::new(0));
    let receivers = [[0u64, 1, 2], [2, 0, 1]].map(|counters| {
        let (session, accepted) = (session.clone(), accepted.clone());
        thread::spawn(move || {
            for counter in counters {
                let is_new = session.replay.lock().expect("a window").accept(counter);
                accepted.fetch_add(is_new.into(), Ordering::Relaxed);
            }
        })
    });
    receivers
        .into_iter()
        .for_each(|receiver| receiver.join().expect("packets"));
    assert_eq!(accepted.load(Ordering::Relaxed), 3);
}

/// While a session is confirmed and another is added, each session is in a slot or was handed out to be
/// forgotten, exactly once; after the end of all sessions nothing is sent in any of them.
fn sessions_are_in_one_place() {
    let peer = Arc::new(());
    let sessions: Vec<_> = (0..4).map(|n| keypair(&peer, n, n % 2 == 0)).collect();
    let pairs = Arc::new(Keypairs::default());
    let gone = Arc::new(Mutex::new(Vec::new()));
    let forget = |discarded: [Option<Arc<Keypair<()>>>; 3], gone: &Mutex<Vec<u32>>| {
        let locals = discarded.iter().flatten().map(|session| session.local());
        gone.lock().expect("a list").extend(locals);
    };
    forget(pairs.add(sessions[1].clone()), &gone);
    let mut threads = Vec::new();
    for n in [0, 2, 3] {
        let (pairs, gone, session) = (pairs.clone(), gone.clone(), sessions[n].clone());
        threads.push(thread::spawn(move || forget(pairs.add(session), &gone)));
    }
    for n in [1, 3] {
        let (pairs, gone, session) = (pairs.clone(), gone.clone(), sessions[n].clone());
        threads.push(thread::spawn(move || {
            let _ = pairs.current();
            if let Some(discarded) = pairs.confirm(&session) {
                forget(discarded, &gone);
            }
        }));
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("sessions"));
    forget(pairs.clear(), &gone);
    let mut gone = gone.lock().expect("a list").clone();
    gone.sort_unstable();
    assert_eq!(gone, [0, 1, 2, 3]);
    assert!(pairs.current().is_none());
}

/// A timer that the data path arms while the owner goes to sleep for longer wakes it, or is seen by it.
fn no_timer_is_overslept() {
    let timers = Arc::new(Timers::default());
    // An earlier deadline of the owner's, which is past when it goes to sleep again.
    timers.sleep(Some(NOW + Duration::from_secs(5)));
    let woken = Arc::new(AtomicBool::new(false));
    let arming = [0, 1].map(|n| {
        let (timers, woken) = (timers.clone(), woken.clone());
        thread::spawn(move || {
            let wake = match n {
                0 => timers.data_sent(NOW, Duration::ZERO),
                _ => timers.data_received(NOW, 1),
            };
            if wake.0 {
                // The owner gets an event, upon which it looks at the timers again.
                woken.store(true, Ordering::SeqCst);
            }
        })
    });
    let sleeps_until = timers.sleep(Some(NOW + Duration::from_secs(60)));
    arming
        .into_iter()
        .for_each(|thread| thread.join().expect("timers"));
    let earliest = timers.earliest().expect("two are armed");
    let is_late = sleeps_until.is_none_or(|until| until > earliest);
    assert!(
        !is_late || woken.load(Ordering::SeqCst),
        "nobody wakes the owner"
    );
}

/// Packets that wait for a session leave in the order in which they came, and none is lost between the
/// thread that stages it and the owner.
fn staged_packets_keep_their_order() {
    let queue = Arc::new(StagedQueue::default());
    let sent = Arc::new(Mutex::new(Vec::new()));
    let packet = |n: u8| StagedPacket {
        tos: 0,
        bytes: Box::new([n]),
    };
    queue.push([packet(0)].into_iter());
    let sender = {
        let (queue, sent) = (queue.clone(), sent.clone());
        thread::spawn(move || {
            for n in 1..5 {
                if queue.is_busy() {
                    queue.push([packet(n)].into_iter());
                } else {
                    sent.lock().expect("a list").push(n);
                }
            }
        })
    };
    let send_all = || {
        loop {
            let mut room = 2;
            let taken = queue.take(|_| {
                room -= 1;
                room >= 0
            });
            if taken.is_empty() {
                break;
            }
            sent.lock()
                .expect("a list")
                .extend(taken.iter().map(|packet| packet.bytes[0]));
        }
    };
    send_all();
    sender.join().expect("packets");
    send_all();
    assert_eq!(*sent.lock().expect("a list"), [0, 1, 2, 3, 4]);
}

struct Numbers(Arc<Mutex<Vec<u64>>>);

impl Numbers {
    fn order(number: u64) -> Order {
        match number % 8 {
            0 => Order::Alone,
            number => Order::Of(number % 3),
        }
    }
}

impl Stages for Numbers {
    type Buffer = ();
    type Burst = u64;
    type Worked = u64;
    type Scratch = ();

    fn new_buffer(&self) {}

    fn new_scratch(&self) {}

    fn order(&self, number: &u64) -> Order {
        Numbers::order(*number)
    }

    fn work(&self, number: u64) -> u64 {
        thread::yield_now();
        number
    }

    fn finish(&self, (): &mut (), number: u64) {
        self.0.lock().expect("a list").push(number);
    }
}

/// Bursts are finished once by any number of workers, those of the same order one after the other, and one that
/// must be alone after all earlier and before all later ones. The reader never waits for ever.
fn bursts_are_finished_in_order() {
    const BURSTS: u64 = 40;
    let finished = Arc::new(Mutex::new(Vec::new()));
    let mut lane = Lane::new("lane", 2, Numbers(finished.clone())).expect("threads");
    (0..BURSTS).for_each(|number| lane.run(number, !number.is_multiple_of(5)));
    drop(lane);
    let finished = finished.lock().expect("a list");
    let mut sorted = finished.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..BURSTS), "{finished:?}");
    for (n, later) in finished.iter().enumerate() {
        let is_bound = |earlier: &&u64| match (Numbers::order(**earlier), Numbers::order(*later)) {
            (Order::Alone, _) | (_, Order::Alone) => true,
            (one, other) => one == other,
        };
        let mut before = finished[..n].iter().filter(is_bound);
        assert!(before.all(|earlier| earlier < later), "{finished:?}");
    }
}

const CHECKS: [(&str, fn()); 7] = [
    ("counters are unique", counters_are_unique),
    ("packets are accepted once", packets_are_accepted_once),
    ("sessions are in one place", sessions_are_in_one_place),
    ("no timer is overslept", no_timer_is_overslept),
    (
        "staged packets keep their order",
        staged_packets_keep_their_order,
    ),
    ("routes are seen whole", tunnel::routes_are_seen_whole),
    ("bursts are finished in order", bursts_are_finished_in_order),
];

/// Random orders, and orders with few changes of threads, which find other faults.
#[cfg(not(feature = "real-threads"))]
fn run(check: fn(), orders: usize) {
    shuttle::check_random(check, orders / 2);
    shuttle::check_pct(check, orders / 2, 3);
}

#[cfg(feature = "real-threads")]
fn run(check: fn(), times: usize) {
    (0..times).for_each(|_| check());
}

fn main() {
    let orders = std::env::args().nth(1);
    let orders = orders.map_or(2000, |number| number.parse().expect("a number of orders"));
    for (name, check) in CHECKS {
        run(check, orders);
        println!("{name}: {orders} orders");
    }
}
