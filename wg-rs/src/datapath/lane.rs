//! Processes bursts on any thread, and finishes those of a peer in order.
//!
//! ```text
//! one reader ── run(burst) ──► [work] ──► [finish, in order for each peer] ──► the buffer is free again
//!                    │                        ▲
//!                    └─► workers ── [work] ───┘   only while more bursts follow
//! ```
//!
//! A burst is first *worked* on (its AEAD) without a lock, and then *finished* (sent or delivered) in the
//! order of submission. The backlog decides who does that: the last burst is done by the reader, which has
//! nothing else to do, so that a round trip costs no wake-up. A burst that others follow is handed to a
//! worker, if there are enough cores for workers, and the reader reads the next one meanwhile.
//!
//! Bursts of different peers are finished independently, on several threads at once. Nobody waits for an
//! earlier burst of the same peer: who finds one unfinished leaves its own burst there, and the thread that
//! finishes the earlier one goes on with it. Only a worker that sleeps is woken, and only the reader ever
//! waits, for a free buffer.
//!
//! Invariants: only the reader submits. A burst's ticket is its number in its queue; `Queue::next` is the
//! ticket of the first slot of `worked`. At most one thread finishes bursts of a queue (`is_finishing`).
//! The pool has exactly `DEPTH` buffers, so memory is bounded, and a slow finish delays the reader, like a
//! full queue in the kernel.
//!
//! # Threads that do everything themselves
//!
//! The alternative is a thread for each queue of a TUN with several queues, with sockets of its own among which
//! the kernel chooses by receiver index. It is not built. The model of `cargo bench -p wg-rs --bench lane --
//! --times READ,WORK,FINISH` says how much faster both are than one thread on 4, 8 and 16 cores, with N/2 + 1
//! threads. The times, in microseconds for 45 packets, are those of a profile (two Emerald Rapids cores,
//! AVX-512; UDP in datagrams of 1200 bytes):
//!
//! ```text
//!                read  AEAD  finish    lane: one peer   1000 peers      to completion: one peer   1000 peers
//! TCP sealed       15    34      13    2.6  3.2  3.2   2.6  3.2  3.2    1.0                       3.0  5.0  9.0
//! TCP opened       11    33      19    2.6  3.2  3.2   2.6  4.2  4.2    1.0                       3.0  5.0  9.0
//! UDP sealed       84    39      22    1.6  1.6  1.6   1.6  1.6  1.6    1.0                       3.0  5.0  9.0
//! UDP opened       13    42      57    2.0  2.0  2.0   2.8  4.6  6.6    1.0                       3.0  5.0  9.0
//! ```
//!
//! So such threads would make one flow slower by half and more on the machines that have workers. They would
//! help hubs of many peers from eight cores on, most where many small packets are read from the TUN. That should
//! be tried first on such a machine: more queues of the TUN, each with a reader and a lane. It needs no order
//! among the queues, because the kernel keeps a flow on one queue.

use std::collections::VecDeque;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Most bursts in flight in a lane with workers.
pub const DEPTH: usize = 16;
/// The number of queues. Peers that share one by chance are only finished in order with each other.
const QUEUES: usize = 64;

/// With this number of cores or more, there are workers by default. And the most workers of a lane by default.
const CORES_TO_SPARE: usize = 4;
const MAX_WORKERS: usize = 8;

/// The default number of workers of a lane on a machine with this many cores: half of them, if there are
/// enough.
pub fn default_workers(cores: usize) -> usize {
    match cores {
        CORES_TO_SPARE.. => (cores / 2).min(MAX_WORKERS),
        _ => 0,
    }
}

/// What must be finished before a burst, and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Bursts with the same number are finished in the order of submission.
    Of(u64),
    /// This burst is finished after all earlier ones and before all later ones.
    Alone,
}

/// The processing of a burst: in parallel, and then in order. Each step consumes the result of the
/// step before.
pub trait Stages: Send + Sync + 'static {
    /// Memory for a burst, which is reused.
    type Buffer: Send;
    /// A burst to work on.
    type Burst: Send;
    /// A burst after the work.
    type Worked: Send;
    /// Memory that a thread needs to finish bursts. It carries nothing from one burst to the next.
    type Scratch: Send;

    /// Allocates memory for one more burst.
    fn new_buffer(&self) -> Self::Buffer;
    /// Allocates memory for one more thread.
    fn new_scratch(&self) -> Self::Scratch;
    /// The order of a burst relative to others.
    fn order(&self, burst: &Self::Burst) -> Order;
    /// The expensive step, on any thread.
    fn work(&self, burst: Self::Burst) -> Self::Worked;
    /// The ordered step.
    fn finish(&self, scratch: &mut Self::Scratch, burst: Self::Worked) -> Self::Buffer;
}

/// One direction of the data path.
pub struct Lane<S: Stages> {
    shared: Arc<Shared<S>>,
    workers: Vec<JoinHandle<()>>,
    scratch: S::Scratch,
    /// The number of tickets of each queue.
    issued: Vec<u64>,
}

struct Shared<S: Stages> {
    stages: S,
    jobs: Mutex<Jobs<S::Burst>>,
    queued: Condvar,
    queues: Vec<Queue<S::Worked>>,
    free: Mutex<Free<S::Buffer>>,
    freed: Condvar,
    stop: AtomicBool,
}

/// A burst, and its place in the order.
struct Job<B> {
    queue: usize,
    ticket: u64,
    burst: B,
}

/// The bursts that wait for a worker.
struct Jobs<B> {
    waiting: VecDeque<Job<B>>,
    /// Workers that sleep and have not been woken.
    idle: usize,
}

/// Bursts that are finished in order.
struct Queue<W> {
    /// The number of finished bursts. It grows after the finishing of each.
    finished: AtomicU64,
    state: Mutex<QueueState<W>>,
}

struct QueueState<W> {
    next: u64,
    /// The bursts from `next` on that have been worked on.
    worked: VecDeque<Option<W>>,
    is_finishing: bool,
}

struct Free<B> {
    buffers: Vec<B>,
    /// Whether the reader sleeps until a buffer is free.
    reader_waits: bool,
}

/// A panic in another thread aborts the release build; in tests the state is still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Stages> Lane<S> {
    /// A lane with `workers` threads that are called `name` (0: the reader's thread does
    /// everything).
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(name: &str, workers: usize, stages: S) -> std::io::Result<Self> {
        let (depth, queues) = match workers {
            0 => (0, 0),
            _ => (DEPTH, QUEUES),
        };
        let scratch = stages.new_scratch();
        let shared = Arc::new(Shared {
            free: Mutex::new(Free {
                buffers: (0..depth).map(|_| stages.new_buffer()).collect(),
                reader_waits: false,
            }),
            stages,
            jobs: Mutex::new(Jobs {
                waiting: VecDeque::with_capacity(depth),
                idle: 0,
            }),
            queued: Condvar::new(),
            queues: (0..queues).map(|_| Queue::new()).collect(),
            freed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut lane = Lane {
            shared,
            workers: Vec::with_capacity(workers),
            scratch,
            issued: vec![0; queues],
        };
        for _ in 0..workers {
            let shared = lane.shared.clone();
            let thread = Builder::new().name(name.into());
            lane.workers.push(thread.spawn(move || shared.serve())?);
        }
        Ok(lane)
    }

    /// Memory for one more of the reader's bursts.
    pub fn new_buffer(&self) -> S::Buffer {
        self.shared.stages.new_buffer()
    }

    /// Whether there are workers, so that it matters what follows a burst.
    pub fn has_workers(&self) -> bool {
        !self.workers.is_empty()
    }

    /// Works on `burst` and finishes it, here or, if the reader has enough to do after it (`backlog`), on a
    /// worker. Returns free memory.
    pub fn run(&mut self, burst: S::Burst, backlog: bool) -> S::Buffer {
        let shared = &self.shared;
        let stages = &shared.stages;
        if self.workers.is_empty() {
            return stages.finish(&mut self.scratch, stages.work(burst));
        }
        let queue = match stages.order(&burst) {
            Order::Of(number) => (number % QUEUES as u64) as usize,
            Order::Alone => {
                shared.settle(&mut self.scratch);
                return stages.finish(&mut self.scratch, stages.work(burst));
            }
        };
        let is_first = shared.queues[queue].finished.load(Ordering::Acquire) == self.issued[queue];
        if !backlog && is_first {
            return stages.finish(&mut self.scratch, stages.work(burst));
        }
        let free = shared.free_buffer(&mut self.scratch);
        let job = Job {
            queue,
            ticket: self.issued[queue],
            burst,
        };
        self.issued[queue] += 1;
        if backlog {
            shared.hand_over(job);
        } else {
            shared.do_job(job, &mut self.scratch);
        }
        free
    }
}

impl<S: Stages> Shared<S> {
    fn serve(&self) {
        let mut scratch = self.stages.new_scratch();
        loop {
            let mut jobs = lock(&self.jobs);
            let job = loop {
                if let Some(job) = jobs.waiting.pop_front() {
                    break job;
                }
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                jobs.idle += 1;
                jobs = self
                    .queued
                    .wait(jobs)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(jobs);
            self.do_job(job, &mut scratch);
        }
    }

    fn hand_over(&self, job: Job<S::Burst>) {
        let mut jobs = lock(&self.jobs);
        jobs.waiting.push_back(job);
        // A worker that woke up for no reason is still counted, and then this signal is for nobody.
        let wake = jobs.idle > 0;
        jobs.idle = jobs.idle.saturating_sub(1);
        drop(jobs);
        if wake {
            self.queued.notify_one();
        }
    }

    /// Works on a burst, and finishes it and those after it that are ready, unless another thread does.
    fn do_job(&self, job: Job<S::Burst>, scratch: &mut S::Scratch) {
        let worked = self.stages.work(job.burst);
        let queue = &self.queues[job.queue];
        let mut state = lock(&queue.state);
        state.put(job.ticket, worked);
        if state.is_finishing {
            return;
        }
        state.is_finishing = true;
        while let Some(worked) = state.take() {
            let finished = state.next;
            drop(state);
            let buffer = self.stages.finish(scratch, worked);
            queue.finished.store(finished, Ordering::Release);
            self.give_back(buffer);
            state = lock(&queue.state);
        }
        state.is_finishing = false;
    }

    fn give_back(&self, buffer: S::Buffer) {
        let mut free = lock(&self.free);
        free.buffers.push(buffer);
        let wake = std::mem::take(&mut free.reader_waits);
        drop(free);
        if wake {
            self.freed.notify_one();
        }
    }

    /// A free buffer. While there is none, the reader helps with the work.
    fn free_buffer(&self, scratch: &mut S::Scratch) -> S::Buffer {
        let mut free = self.help_until(scratch, |free| !free.buffers.is_empty());
        free.buffers.pop().expect("there is a free buffer")
    }

    /// Returns when everything is finished.
    fn settle(&self, scratch: &mut S::Scratch) {
        drop(self.help_until(scratch, |free| free.buffers.len() == DEPTH));
    }

    /// The reader helps with the work, and then waits, until the free buffers are as wanted.
    fn help_until(
        &self,
        scratch: &mut S::Scratch,
        wanted: impl Fn(&Free<S::Buffer>) -> bool,
    ) -> MutexGuard<'_, Free<S::Buffer>> {
        loop {
            let free = lock(&self.free);
            if wanted(&free) {
                return free;
            }
            drop(free);
            let job = lock(&self.jobs).waiting.pop_front();
            if let Some(job) = job {
                self.do_job(job, scratch);
                continue;
            }
            // Only the reader adds jobs, so none is missed from here on.
            let mut free = lock(&self.free);
            while !wanted(&free) {
                free.reader_waits = true;
                free = self
                    .freed
                    .wait(free)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            return free;
        }
    }
}

impl<W> Queue<W> {
    fn new() -> Self {
        Queue {
            finished: AtomicU64::new(0),
            state: Mutex::new(QueueState {
                next: 0,
                worked: VecDeque::new(),
                is_finishing: false,
            }),
        }
    }
}

impl<W> QueueState<W> {
    fn put(&mut self, ticket: u64, worked: W) {
        let at = (ticket - self.next) as usize;
        if self.worked.len() <= at {
            self.worked.resize_with(at + 1, || None);
        }
        self.worked[at] = Some(worked);
    }

    /// The next burst, if it is ready.
    fn take(&mut self) -> Option<W> {
        let worked = self.worked.front_mut()?.take()?;
        self.worked.pop_front();
        self.next += 1;
        Some(worked)
    }
}

impl<S: Stages> Drop for Lane<S> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Taking the lock ensures that a worker sees the flag at its next check of the jobs.
        drop(lock(&self.shared.jobs));
        self.shared.queued.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    /// A burst: its number among all, its peer, and its number among those of the peer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Numbered {
        number: u64,
        order: Order,
        of_peer: u64,
    }

    /// Checks the order. Some bursts need more time than others.
    struct Numbers {
        finished: [AtomicU64; PEERS],
        in_flight: [AtomicBool; PEERS],
        all: AtomicU64,
        active: AtomicUsize,
        out: mpsc::Sender<u64>,
    }

    const PEERS: usize = 5;

    fn busy(rounds: u64) {
        let mut sum = 0;
        for i in 0..rounds {
            sum = std::hint::black_box(sum + i);
        }
    }

    impl Stages for Numbers {
        type Buffer = ();
        type Burst = Numbered;
        type Worked = Numbered;
        type Scratch = ();

        fn new_buffer(&self) {}
        fn new_scratch(&self) {}

        fn order(&self, burst: &Numbered) -> Order {
            burst.order
        }

        fn work(&self, burst: Numbered) -> Numbered {
            busy(burst.number % 7 * 3_000);
            burst
        }

        fn finish(&self, (): &mut (), burst: Numbered) {
            let others = self.active.fetch_add(1, Ordering::SeqCst);
            match burst.order {
                Order::Of(peer) => {
                    let peer = peer as usize;
                    assert!(!self.in_flight[peer].swap(true, Ordering::SeqCst));
                    let before = self.finished[peer].load(Ordering::SeqCst);
                    assert_eq!(before, burst.of_peer, "finished out of order");
                    busy(burst.number % 3 * 2_000);
                    self.finished[peer].store(before + 1, Ordering::SeqCst);
                    self.in_flight[peer].store(false, Ordering::SeqCst);
                }
                Order::Alone => {
                    assert_eq!(others, 0);
                    assert_eq!(self.all.load(Ordering::SeqCst), burst.number);
                }
            }
            self.all.fetch_add(1, Ordering::SeqCst);
            self.active.fetch_sub(1, Ordering::SeqCst);
            self.out.send(burst.number).expect("the test listens");
        }
    }

    fn run(workers: usize, bursts: u64, backlog: fn(u64) -> bool) {
        let (out, finished) = mpsc::channel();
        let numbers = Numbers {
            finished: Default::default(),
            in_flight: Default::default(),
            all: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            out,
        };
        let mut lane = Lane::new("lane-test", workers, numbers).expect("threads");
        let mut counts = [0; PEERS];
        for number in 0..bursts {
            let peer = (number * number % 11 % PEERS as u64) as usize;
            let alone = number % 97 == 96;
            let burst = Numbered {
                number,
                order: if alone {
                    Order::Alone
                } else {
                    Order::Of(peer as u64)
                },
                of_peer: counts[peer],
            };
            counts[peer] += u64::from(!alone);
            lane.run(burst, backlog(number));
        }
        drop(lane);
        let mut all: Vec<_> = finished.iter().collect();
        all.sort_unstable();
        assert_eq!(all, (0..bursts).collect::<Vec<_>>(), "each once");
    }

    #[test]
    fn without_workers_bursts_finish_at_once() {
        run(0, 1000, |_| true);
    }

    #[test]
    fn bursts_of_a_peer_finish_in_order_with_any_number_of_workers() {
        for workers in 1..6 {
            run(workers, 10_000, |_| true);
            run(workers, 10_000, |number| number % 3 != 0);
            run(workers, 2_000, |number| number / 100 % 2 == 0);
        }
    }

    #[test]
    fn without_a_backlog_a_burst_is_finished_when_run_returns() {
        struct Here(Arc<AtomicU64>);
        impl Stages for Here {
            type Buffer = ();
            type Burst = ();
            type Worked = std::thread::ThreadId;
            type Scratch = ();
            fn new_buffer(&self) {}
            fn new_scratch(&self) {}
            fn order(&self, (): &()) -> Order {
                Order::Of(1)
            }
            fn work(&self, (): ()) -> std::thread::ThreadId {
                std::thread::current().id()
            }
            fn finish(&self, (): &mut (), worked: std::thread::ThreadId) {
                assert_eq!(worked, std::thread::current().id());
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let done = Arc::new(AtomicU64::new(0));
        let mut lane = Lane::new("lane-test", 2, Here(done.clone())).expect("threads");
        for count in 1..100 {
            lane.run((), false);
            assert_eq!(done.load(Ordering::SeqCst), count);
        }
    }
}
