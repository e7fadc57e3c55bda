//! When it pays to hand bursts to workers, and what it costs when it does not. One process without sockets:
//! a burst is copied in (as a read does), sealed by the AEAD, and copied out in order (as a send does), by a
//! lane with 0, 1 and 2 workers.
//!
//! ```text
//! cargo bench -p wg-rs --bench lane              # the tables, and a model for more cores
//! cargo bench -p wg-rs --bench lane -- --check   # exit code 1 if a required ratio is not reached
//! ```
//!
//! `alone`: nothing follows a burst. Then the lane must cost nothing, whatever the number of workers. `flood`:
//! bursts follow each other without an end. The first ratio there is that of the times, the second that of the
//! CPU times, which other programs on the machine disturb less. All ratios are those of a lane to the same
//! steps without a lane, taken in turn; the medians are shown. `--quick` takes fewer samples.
//!
//! The model is not a measurement. It divides the measured costs among more cores, and leaves out the
//! kernel's part, the memory bandwidth that the cores share, and what waking a core costs. With N cores the
//! daemon has N/2 workers, at most 8. One thread reads, one at a time finishes the bursts of a peer, and all
//! threads seal:
//!
//! ```text
//! time of a burst = the largest of: read + hand-over; finish, among the peers that there are;
//!                                   all of it, among the reader and the workers
//! ```

use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use wg_crypto::{AeadBackend, SealingKey};
use wg_rs::datapath::lane::{Lane, Order, Stages};

/// Datagrams in a burst, and the length of each.
const SHAPES: [(usize, usize); 4] = [(45, 1424), (8, 1424), (1, 1424), (1, 96)];
const PEERS: [usize; 3] = [1, 10, 1000];
const WORKERS: [usize; 3] = [0, 1, 2];
/// The most that a lane may cost for a burst that nothing follows.
const ALONE: f64 = 1.03;
/// A difference below this is lost in the resolution of the clock.
const NOTICEABLE: Duration = Duration::from_nanos(20);
const BUFFER: usize = 1 << 16;
const CORES: [usize; 3] = [4, 8, 16];

/// Seals bursts and copies them out.
struct Sealing {
    peers: Arc<Vec<Peer>>,
}

struct Peer {
    key: SealingKey,
    /// The counter of the next burst to be finished.
    next: AtomicU64,
}

/// A burst of a peer, with its first counter.
struct Burst {
    peer: usize,
    first: u64,
    count: usize,
    stride: usize,
    bytes: Box<[u8]>,
}

impl Burst {
    fn len(&self) -> usize {
        self.count * self.stride
    }
}

impl Stages for Sealing {
    type Buffer = Box<[u8]>;
    type Burst = Burst;
    type Worked = Burst;
    type Scratch = Box<[u8]>;

    fn new_buffer(&self) -> Box<[u8]> {
        vec![0; BUFFER].into()
    }

    fn new_scratch(&self) -> Box<[u8]> {
        vec![0; BUFFER].into()
    }

    fn order(&self, burst: &Burst) -> Order {
        Order::Of(burst.peer as u64)
    }

    fn work(&self, mut burst: Burst) -> Burst {
        let len = burst.len();
        let key = &self.peers[burst.peer].key;
        key.seal_burst(7, burst.first, &mut burst.bytes[..len], burst.stride);
        burst
    }

    fn finish(&self, scratch: &mut Box<[u8]>, burst: Burst) -> Box<[u8]> {
        let next = &self.peers[burst.peer].next;
        let expected = next.load(Ordering::Relaxed);
        assert_eq!(expected, burst.first, "finished in order");
        next.store(expected + burst.count as u64, Ordering::Relaxed);
        let len = burst.len();
        scratch[..len].copy_from_slice(&burst.bytes[..len]);
        black_box(&scratch);
        burst.bytes
    }
}

/// The reader: bursts of one shape, for one peer after the other.
struct Reader {
    shape: (usize, usize),
    peers: Arc<Vec<Peer>>,
    counters: Vec<u64>,
    turn: usize,
    source: Box<[u8]>,
}

impl Reader {
    fn new(shape: (usize, usize), peers: usize) -> Reader {
        let peer = |n: usize| Peer {
            key: SealingKey::new(AeadBackend::fastest(), &[n as u8; 32]),
            next: AtomicU64::new(0),
        };
        Reader {
            shape,
            peers: Arc::new((0..peers).map(peer).collect()),
            counters: vec![0; peers],
            turn: 0,
            source: vec![9; BUFFER].into(),
        }
    }

    fn stages(&self) -> Sealing {
        Sealing {
            peers: self.peers.clone(),
        }
    }

    fn read(&mut self, mut bytes: Box<[u8]>) -> Burst {
        let (count, stride) = self.shape;
        let peer = self.turn % self.peers.len();
        self.turn += 1;
        let first = self.counters[peer];
        self.counters[peer] += count as u64;
        let len = count * stride;
        bytes[..len].copy_from_slice(&self.source[..len]);
        Burst {
            peer,
            first,
            count,
            stride,
            bytes,
        }
    }
}

/// Time, and CPU time of this process.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall: f64,
    cpu: f64,
}

fn cost(work: impl FnOnce()) -> Cost {
    let cpu = || {
        let now = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("the clock exists");
        Duration::from(now).as_secs_f64()
    };
    let (start, before) = (Instant::now(), cpu());
    work();
    Cost {
        wall: start.elapsed().as_secs_f64(),
        cpu: cpu() - before,
    }
}

/// Runs `bursts` bursts without a lane.
fn without(reader: &mut Reader, bursts: usize) -> Cost {
    let stages = reader.stages();
    let (mut buffer, mut scratch) = (stages.new_buffer(), stages.new_scratch());
    cost(|| {
        for _ in 0..bursts {
            let burst = reader.read(std::mem::take(&mut buffer));
            buffer = stages.finish(&mut scratch, stages.work(burst));
        }
    })
}

/// Runs `bursts` bursts through a lane, until the last is finished.
fn through(reader: &mut Reader, workers: usize, bursts: usize, backlog: bool) -> Cost {
    let mut lane = Lane::new("bench", workers, reader.stages()).expect("threads");
    let mut buffer = lane.new_buffer();
    // The workers start, and the memory is touched.
    for _ in 0..64 {
        let burst = reader.read(buffer);
        buffer = lane.run(burst, backlog);
    }
    let mut lane = Some(lane);
    cost(|| {
        if let Some(lane) = &mut lane {
            for _ in 0..bursts {
                let burst = reader.read(std::mem::take(&mut buffer));
                buffer = lane.run(burst, backlog);
            }
        }
        if backlog {
            // Joins the workers after the last burst.
            lane = None;
        }
    })
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The costs of one burst, by step, without a lane, in seconds.
struct Steps {
    read: f64,
    work: f64,
    finish: f64,
    /// What handing over adds.
    hand: f64,
}

fn steps(shape: (usize, usize), hand: f64) -> Steps {
    let mut reader = Reader::new(shape, 1);
    let stages = reader.stages();
    let (mut buffer, mut scratch) = (stages.new_buffer(), stages.new_scratch());
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..501 {
        let start = Instant::now();
        let burst = reader.read(std::mem::take(&mut buffer));
        let read = Instant::now();
        let worked = stages.work(burst);
        let done = Instant::now();
        buffer = stages.finish(&mut scratch, worked);
        let finished = Instant::now();
        times[0].push((read - start).as_secs_f64());
        times[1].push((done - read).as_secs_f64());
        times[2].push((finished - done).as_secs_f64());
    }
    let [read, work, finish] = times.map(median);
    Steps {
        read,
        work,
        finish,
        hand: hand.max(0.0),
    }
}

impl Steps {
    /// How much faster bursts pass than on one thread, by the model at the head of this file.
    fn gain(&self, cores: usize, peers: usize) -> f64 {
        let alone = self.read + self.work + self.finish;
        let workers = (cores / 2).min(8);
        let reader = self.read + self.hand;
        let finisher = self.finish / peers.min(workers + 1) as f64;
        let all = (alone + self.hand) / (workers + 1) as f64;
        alone / reader.max(finisher).max(all)
    }
}

fn main() -> ExitCode {
    let given = |name| env::args().any(|argument| argument == name);
    let rounds = if given("--quick") { 3 } else { 15 };
    // About 30 MB for each sample.
    let bursts = |(count, stride): (usize, usize)| {
        (30_000_000 / (count * (stride + 600))).clamp(400, 40_000)
    };
    let mut short = false;
    let mut hands = Vec::new();

    println!(
        "{:<12}{:>6}{:>9}   lane / without a lane, with 0, 1, 2 workers",
        "burst", "peers", "ns"
    );
    for shape in SHAPES {
        for peers in PEERS {
            let n = bursts(shape);
            let mut reader = Reader::new(shape, peers);
            let mut plain = Vec::new();
            let mut alone: [Vec<f64>; 3] = Default::default();
            let mut flood: [Vec<Cost>; 3] = Default::default();
            let mut more = Vec::new();
            for _ in 0..rounds {
                let base = without(&mut reader, n);
                plain.push(base.cpu / n as f64);
                for (i, workers) in WORKERS.into_iter().enumerate() {
                    let lane = through(&mut reader, workers, n, false);
                    alone[i].push(lane.cpu / base.cpu);
                    let lane = through(&mut reader, workers, n, true);
                    if workers == 1 {
                        more.push((lane.cpu - base.cpu) / n as f64);
                    }
                    flood[i].push(Cost {
                        wall: lane.wall / base.wall,
                        cpu: lane.cpu / base.cpu,
                    });
                }
            }
            let each = median(plain);
            let alone = alone.map(median);
            let wall = flood
                .each_ref()
                .map(|costs| median(costs.iter().map(|cost| cost.wall)));
            let cpu = flood
                .each_ref()
                .map(|costs| median(costs.iter().map(|cost| cost.cpu)));
            let is_slow = alone
                .iter()
                .any(|ratio| *ratio > ALONE && each * (ratio - 1.0) > NOTICEABLE.as_secs_f64());
            short |= is_slow;
            let list = |ratios: [f64; 3]| ratios.map(|ratio| format!("{ratio:.2}")).join(" ");
            println!(
                "{:<12}{peers:>6}{:>9.0}   alone {} <= {ALONE}{}   flood {}, CPU {}",
                format!("{} x {}", shape.0, shape.1),
                each * 1e9,
                list(alone),
                if is_slow { "!" } else { "" },
                list(wall),
                list(cpu),
            );
            if peers == 1 {
                hands.push(median(more));
            }
        }
    }

    println!(
        "\nA model, not a measurement: how much faster than on one thread, without the kernel's part."
    );
    println!(
        "{:<12}{:>8}{:>8}{:>8}{:>10}   with 4, 8, 16 cores: one flow; ten flows of one peer; ten peers; 1000 peers",
        "burst", "read", "AEAD", "finish", "hand over"
    );
    for (shape, hand) in SHAPES.into_iter().zip(hands) {
        let steps = steps(shape, hand);
        let gains = [1, 1, 10, 1000].map(|peers| {
            CORES
                .map(|cores| format!("{:.1}", steps.gain(cores, peers)))
                .join(" ")
        });
        println!(
            "{:<12}{:>8.0}{:>8.0}{:>8.0}{:>7.0} ns   {}",
            format!("{} x {}", shape.0, shape.1),
            steps.read * 1e9,
            steps.work * 1e9,
            steps.finish * 1e9,
            steps.hand * 1e9,
            gains.join("; ")
        );
    }
    if short {
        println!("Lines marked with ! exceed a limit.");
    }
    ExitCode::from(u8::from(short && given("--check")))
}
