//! A model of bursts on many cores. It is not a measurement: it divides the measured times of one burst among
//! more threads. It leaves out that cores share the memory and the caches, and what waking a core costs.
//!
//! ```text
//! lane               one thread reads, all threads work, one thread at a time finishes the bursts of a peer:
//!   time of a burst = the largest of: read + half of the hand-over; finish, among the peers that there are;
//!                                     all of it, among the threads
//! run to completion  each thread has its own queue of the TUN and its own sockets, and does all three steps:
//!   time of a burst = all of it, among the queues that are in use
//! ```
//!
//! The kernel keeps a flow on one queue of a TUN, and a session on one socket. So what uses a queue is a flow of
//! packets to be sealed, and a peer whose packets are to be opened.

/// The times of one burst by step, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Until the burst is in memory. In a lane only one thread does this.
    pub read: f64,
    /// What any thread can do.
    pub work: f64,
    /// What is done in order for each peer.
    pub finish: f64,
    /// What handing a burst to a worker adds, on both sides together.
    pub hand: f64,
}

impl Times {
    /// The time of a burst on one thread, which does everything.
    pub fn alone(&self) -> f64 {
        self.read + self.work + self.finish
    }

    /// The time of a burst in a lane: a reader and `workers` on `cores`, with traffic of `peers`.
    pub fn lane(&self, workers: usize, cores: usize, peers: usize) -> f64 {
        if workers == 0 {
            return self.alone();
        }
        let threads = (workers + 1).min(cores);
        let reader = self.read + self.hand / 2.0;
        let finishers = self.finish / threads.min(peers) as f64;
        let all = (self.alone() + self.hand) / threads as f64;
        reader.max(finishers).max(all)
    }

    /// The time of a burst if `threads` do everything for the flows (or peers) that the kernel has assigned
    /// to each of them at random.
    pub fn run_to_completion(&self, threads: usize, flows: usize) -> f64 {
        self.alone() / in_use(threads, flows)
    }
}

/// The expected number of queues that at least one of `flows` uses.
fn in_use(queues: usize, flows: usize) -> f64 {
    let queues = queues as f64;
    queues * (1.0 - (1.0 - 1.0 / queues).powi(flows as i32))
}

/// Checks the model where its result is known without it.
///
/// # Panics
/// If the model is wrong.
pub fn check() {
    let times = Times {
        read: 2.0,
        work: 9.0,
        finish: 3.0,
        hand: 1.0,
    };
    let is = |found: f64, expected: f64| {
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    };
    is(times.lane(0, 16, 1000), 14.0);
    is(times.lane(4, 1, 1000), 15.0); // one core: all of it, and the hand-over
    is(times.lane(1, 2, 1), 7.5); // two threads share all of it
    is(times.lane(8, 16, 1), 3.0); // one peer: its bursts are finished one after the other
    is(times.lane(8, 16, 10), 2.5); // the reader reads one after the other
    is(times.run_to_completion(1, 1000), 14.0);
    is(times.run_to_completion(9, 1), 14.0); // one flow uses one queue
    is(times.run_to_completion(2, 2), 14.0 / 1.5);
    is(times.run_to_completion(8, 1000), 1.75);
}
