//! Processes bursts on any thread, and finishes them in order.
//!
//! ```text
//! one reader ── run(burst) ──► [work] ──► [finish, in order] ──► the buffer is free again
//!                    │                        ▲
//!                    └─► workers ── [work] ───┘   only with enough cores
//! ```
//!
//! A burst is first *worked* on (its AEAD) without a lock, and then *finished* (sent or delivered)
//! in the order of submission. If nothing is in flight, the reader works on a small burst and
//! finishes it itself, without queue and wake-up, which keeps round trips short. With workers, a
//! large burst goes into a slot of a ring. The thread that completes the oldest burst finishes it
//! and all following ones that are ready. No thread only forwards.
//!
//! Invariants: only the reader submits; a burst's slot in the ring is its number modulo `DEPTH`;
//! `finished` changes only while `finish` is locked. The pool has exactly `DEPTH` buffers, so
//! memory is bounded, and a slow finish delays the reader, like a full queue in the kernel.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Most bursts in flight in a lane with workers.
const DEPTH: usize = 16;

/// The processing of a burst: in parallel, and then in order. Each step consumes the result of the
/// step before.
pub trait Stages: Send + Sync + 'static {
    /// Memory for a burst, which is reused.
    type Buffer: Send;
    /// A burst to work on.
    type Burst: Send;
    /// A burst after the work.
    type Worked: Send;
    /// State of the ordered step, which one thread uses at a time.
    type Finisher: Send;

    /// Allocates memory for one more burst.
    fn new_buffer(&self) -> Self::Buffer;
    /// The expensive step, on any thread.
    fn work(&self, burst: Self::Burst) -> Self::Worked;
    /// The ordered step.
    fn finish(&self, finisher: &mut Self::Finisher, burst: Self::Worked) -> Self::Buffer;
    /// Whether the burst is worth waking another core.
    fn is_large(&self, burst: &Self::Burst) -> bool;
}

/// One direction of the data path.
pub struct Lane<S: Stages> {
    shared: Arc<Shared<S>>,
    workers: Vec<JoinHandle<()>>,
    submitted: u64,
}

struct Shared<S: Stages> {
    stages: S,
    /// Numbered bursts that wait for a worker.
    queue: Mutex<VecDeque<(u64, S::Burst)>>,
    queued: Condvar,
    /// Worked bursts, at their number modulo `DEPTH`.
    ring: Vec<Mutex<Option<S::Worked>>>,
    finish: Mutex<S::Finisher>,
    finished: AtomicU64,
    free: Mutex<Vec<S::Buffer>>,
    freed: Condvar,
    stop: AtomicBool,
}

/// A panic in another thread aborts the release build; in tests the state is still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Stages> Lane<S> {
    /// A lane with `workers` threads that are called `name` (0: the reader's thread does
    /// everything).
    pub fn new(
        name: &str,
        workers: usize,
        stages: S,
        finisher: S::Finisher,
    ) -> std::io::Result<Self> {
        let depth = if workers == 0 { 0 } else { DEPTH };
        let shared = Arc::new(Shared {
            free: Mutex::new((0..depth).map(|_| stages.new_buffer()).collect()),
            stages,
            queue: Mutex::new(VecDeque::with_capacity(depth)),
            queued: Condvar::new(),
            ring: (0..depth).map(|_| Mutex::new(None)).collect(),
            finish: Mutex::new(finisher),
            finished: AtomicU64::new(0),
            freed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut lane = Lane {
            shared,
            workers: Vec::with_capacity(workers),
            submitted: 0,
        };
        for _ in 0..workers {
            let shared = lane.shared.clone();
            let thread = std::thread::Builder::new().name(name.into());
            lane.workers.push(thread.spawn(move || shared.serve())?);
        }
        Ok(lane)
    }

    /// Memory for the reader's first burst.
    pub fn new_buffer(&self) -> S::Buffer {
        self.shared.stages.new_buffer()
    }

    /// Works on `burst` and finishes it, here or on workers. Returns free memory.
    pub fn run(&mut self, burst: S::Burst) -> S::Buffer {
        let shared = &self.shared;
        let stages = &shared.stages;
        let in_flight = self.submitted - shared.finished.load(Ordering::Acquire);
        if self.workers.is_empty() || (in_flight == 0 && !stages.is_large(&burst)) {
            let worked = stages.work(burst);
            return stages.finish(&mut lock(&shared.finish), worked);
        }
        let free = shared.free_buffer();
        lock(&shared.queue).push_back((self.submitted, burst));
        self.submitted += 1;
        shared.queued.notify_one();
        free
    }
}

impl<S: Stages> Shared<S> {
    fn serve(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let job = loop {
                if let Some(job) = queue.pop_front() {
                    break job;
                }
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                queue = self
                    .queued
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            self.work_on(job);
        }
    }

    fn work_on(&self, (number, burst): (u64, S::Burst)) {
        let worked = self.stages.work(burst);
        *lock(&self.ring[number as usize % DEPTH]) = Some(worked);
        self.finish_ready();
    }

    /// Finishes the oldest bursts while they are ready.
    ///
    /// A thread that does not get the lock may return: its burst was in the ring before it tried,
    /// and the holder checks the ring again after releasing the lock.
    fn finish_ready(&self) {
        loop {
            let Ok(mut finisher) = self.finish.try_lock() else {
                return;
            };
            let mut next = self.finished.load(Ordering::Relaxed);
            while let Some(worked) = lock(&self.ring[next as usize % DEPTH]).take() {
                let buffer = self.stages.finish(&mut finisher, worked);
                next += 1;
                self.finished.store(next, Ordering::Release);
                lock(&self.free).push(buffer);
                self.freed.notify_one();
            }
            drop(finisher);
            if lock(&self.ring[next as usize % DEPTH]).is_none() {
                return;
            }
        }
    }

    /// A free buffer. While there is none, the reader helps with the queued work.
    fn free_buffer(&self) -> S::Buffer {
        loop {
            if let Some(buffer) = lock(&self.free).pop() {
                return buffer;
            }
            let job = lock(&self.queue).pop_front();
            match job {
                Some(job) => self.work_on(job),
                None => {
                    let free = lock(&self.free);
                    if free.is_empty() {
                        drop(
                            self.freed
                                .wait(free)
                                .unwrap_or_else(PoisonError::into_inner),
                        );
                    }
                }
            }
        }
    }
}

impl<S: Stages> Drop for Lane<S> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Taking the lock ensures that a worker sees the flag at its next check of the queue.
        drop(lock(&self.shared.queue));
        self.shared.queued.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Numbers its bursts. Some need more time than others.
    struct Numbers {
        out: mpsc::Sender<(u64, u64)>,
    }

    impl Stages for Numbers {
        type Buffer = ();
        type Burst = u64;
        type Worked = (u64, u64);
        type Finisher = u64;

        fn new_buffer(&self) {}
        fn work(&self, number: u64) -> (u64, u64) {
            let mut sum = 0;
            for i in 0..(number % 7) * 3_000 {
                sum = std::hint::black_box(sum + i);
            }
            (number, number * 2)
        }
        fn finish(&self, count: &mut u64, (number, double): (u64, u64)) {
            assert_eq!(number, *count, "finished out of order");
            *count += 1;
            self.out.send((number, double)).expect("the test listens");
        }
        fn is_large(&self, number: &u64) -> bool {
            !number.is_multiple_of(3)
        }
    }

    fn run(workers: usize, bursts: u64) {
        let (out, finished) = mpsc::channel();
        let mut lane = Lane::new("lane-test", workers, Numbers { out }, 0).expect("threads");
        (0..bursts).for_each(|number| lane.run(number));
        drop(lane);
        let all: Vec<_> = finished.iter().collect();
        assert_eq!(all, (0..bursts).map(|n| (n, n * 2)).collect::<Vec<_>>());
    }

    #[test]
    fn without_workers_bursts_finish_at_once() {
        run(0, 1000);
    }

    #[test]
    fn bursts_finish_in_order_with_any_number_of_workers() {
        for workers in 1..6 {
            run(workers, 20_000);
        }
    }
}
