//! When it pays to hand bursts to workers, and what it costs when it does not. One process without sockets:
//! a burst is copied in (as a read does), sealed by the AEAD, and copied out in order (as a send does), by a
//! lane with 0, 1 and 2 workers, and with as many as the daemon has here by default.
//!
//! ```text
//! cargo bench -p wg-rs --bench lane              # the tables, and a model for more cores
//! cargo bench -p wg-rs --bench lane -- --check   # exit code 1 if a required ratio is not reached
//! cargo bench -p wg-rs --bench lane -- --times 14000,26000,22000
//!                  # also the model for other times of a burst (read, work, finish), in nanoseconds
//! ```
//!
//! `alone`: nothing follows a burst. Then the lane must cost nothing, whatever the number of workers. `flood`:
//! bursts follow each other without an end. Then the default number of workers must cost nothing. The first
//! ratios there are those of the times, the second those of the CPU times, which other programs on the machine
//! disturb less. All ratios are those of a lane to the same steps without a lane, taken in turn; the medians
//! are shown. `--quick` takes fewer samples.
//!
//! The model (`model.rs`) gets the times of the steps that this run measured; together they must agree
//! with the measured rate. What it says of the workers measured here is printed beside the measurement.

mod model;

use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use wg_crypto::{AeadBackend, SealingKey};
use wg_rs::datapath::lane::{self, Lane, Order, Stages};

use model::Times;

/// Datagrams in a burst, and the length of each.
const SHAPES: [(usize, usize); 4] = [(45, 1424), (8, 1424), (1, 1424), (1, 96)];
const PEERS: [usize; 3] = [1, 10, 1000];
/// The most that the default may cost, for a burst that nothing follows and for one that others follow.
const LOSS: f64 = 1.03;
/// A difference below this is lost in the resolution of the clock.
const NOTICEABLE: Duration = Duration::from_nanos(20);
/// By how much the steps together, which the model is made of, may differ from the measured rate.
const AGREES: f64 = 0.15;
const BUFFER: usize = 1 << 16;
/// Bursts whose steps are measured together, as many as a lane has buffers.
const TOGETHER: usize = lane::DEPTH;
const CORES: [usize; 4] = [2, 4, 8, 16];

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

/// Measures the steps of a burst without a lane.
struct Steps {
    reader: Reader,
    stages: Sealing,
    buffers: Vec<Box<[u8]>>,
    scratch: Box<[u8]>,
    /// In seconds: read, work, finish.
    samples: [Vec<f64>; 3],
}

impl Steps {
    fn new(shape: (usize, usize), peers: usize) -> Steps {
        let reader = Reader::new(shape, peers);
        let stages = reader.stages();
        Steps {
            buffers: (0..TOGETHER).map(|_| stages.new_buffer()).collect(),
            scratch: stages.new_scratch(),
            samples: Default::default(),
            reader,
            stages,
        }
    }

    fn sample(&mut self) {
        let Steps {
            reader,
            stages,
            buffers,
            scratch,
            samples,
        } = self;
        let start = Instant::now();
        let bursts: Vec<_> = buffers.drain(..).map(|free| reader.read(free)).collect();
        let read = Instant::now();
        let worked: Vec<_> = bursts.into_iter().map(|burst| stages.work(burst)).collect();
        let done = Instant::now();
        buffers.extend(
            worked
                .into_iter()
                .map(|burst| stages.finish(scratch, burst)),
        );
        let times = [read - start, done - read, done.elapsed()];
        for (samples, time) in samples.iter_mut().zip(times) {
            samples.push(time.as_secs_f64() / TOGETHER as f64);
        }
    }

    /// The time of all steps by the medians of the last `count` samples.
    fn last(&self, count: usize) -> f64 {
        let last = |samples: &Vec<f64>| median(samples[samples.len() - count..].iter().copied());
        self.samples.iter().map(last).sum()
    }

    /// The medians. `hand`: what handing over adds.
    fn times(self, hand: f64) -> Times {
        let [read, work, finish] = self.samples.map(median);
        Times {
            read,
            work,
            finish,
            hand: hand.max(0.0),
        }
    }
}

/// The figures of one shape of bursts and one number of peers.
struct Line {
    /// The time of a burst without a lane, in seconds.
    each: f64,
    /// The same by step.
    times: Times,
    /// For each number of workers, the ratios to no lane: the CPU time when nothing follows, and the costs
    /// of a flood.
    alone: Vec<f64>,
    flood: Vec<Cost>,
    /// What the steps take together, as a ratio to the time without a lane in the same round.
    steps: f64,
}

fn measure(shape: (usize, usize), peers: usize, workers: &[usize], rounds: usize) -> Line {
    // About 30 MB for each sample.
    let n = (30_000_000 / (shape.0 * (shape.1 + 600))).clamp(400, 40_000);
    let mut reader = Reader::new(shape, peers);
    let mut steps = Steps::new(shape, peers);
    let (mut each, mut hand, mut agreement) = (Vec::new(), Vec::new(), Vec::new());
    let mut alone = vec![Vec::new(); workers.len()];
    let mut flood = vec![Vec::new(); workers.len()];
    for _ in 0..rounds {
        let base = without(&mut reader, n);
        each.push(base.cpu / n as f64);
        let count = n.div_ceil(TOGETHER);
        for _ in 0..count {
            steps.sample();
        }
        agreement.push(steps.last(count) / (base.cpu / n as f64));
        for (i, &workers) in workers.iter().enumerate() {
            let lane = through(&mut reader, workers, n, false);
            alone[i].push(lane.cpu / base.cpu);
            let lane = through(&mut reader, workers, n, true);
            if workers == 1 {
                hand.push((lane.cpu - base.cpu) / n as f64);
            }
            flood[i].push(Cost {
                wall: lane.wall / base.wall,
                cpu: lane.cpu / base.cpu,
            });
        }
    }
    let of_flood = |costs: Vec<Cost>| Cost {
        wall: median(costs.iter().map(|cost| cost.wall)),
        cpu: median(costs.iter().map(|cost| cost.cpu)),
    };
    Line {
        each: median(each),
        times: steps.times(median(hand)),
        alone: alone.into_iter().map(median).collect(),
        flood: flood.into_iter().map(of_flood).collect(),
        steps: median(agreement),
    }
}

/// What exceeds a limit for one shape of bursts. Noise on the machine disturbs single lines, and the number of
/// peers changes nothing that is judged, so it is the middle of the lines for all numbers of peers.
fn excesses(lines: &[Line], workers: &[usize], default_at: usize) -> Vec<String> {
    let middle = |of: &dyn Fn(&Line) -> f64| median(lines.iter().map(of));
    let each = middle(&|line| line.each);
    let is_loss = |ratio: f64| ratio > LOSS && each * (ratio - 1.0) > NOTICEABLE.as_secs_f64();
    let mut excesses = Vec::new();
    for (i, &workers) in workers.iter().enumerate() {
        let ratio = middle(&|line| line.alone[i]);
        if is_loss(ratio) {
            excesses.push(format!(
                "a burst alone takes {ratio:.2} with {workers} workers"
            ));
        }
    }
    let ratio = middle(&|line| line.flood[default_at].wall);
    if is_loss(ratio) {
        excesses.push(format!("a flood takes {ratio:.2} with the default"));
    }
    let steps = middle(&|line| line.steps);
    if (steps - 1.0).abs() > AGREES {
        excesses.push(format!("the steps together take {steps:.2}"));
    }
    excesses
}

/// How much faster than on one thread: a lane with the daemon's default of workers, and as many threads that
/// run to completion.
fn print_model(name: &str, times: &Times) {
    let list = |gain: &dyn Fn(usize) -> f64| {
        let gains = CORES.map(|cores| format!("{:4.1}", times.alone() / gain(cores)));
        gains.join("")
    };
    let ns = |seconds: f64| format!("{:.0}", seconds * 1e9);
    println!(
        "{name}: read {}, work {}, finish {}, hand over {} ns",
        ns(times.read),
        ns(times.work),
        ns(times.finish),
        ns(times.hand),
    );
    for (name, peers, flows) in [
        ("one flow", 1, 1),
        ("one peer, ten flows", 1, 10),
        ("ten peers", 10, 10),
        ("1000 peers", 1000, 1000),
    ] {
        let lane = list(&|cores| times.lane(lane::default_workers(cores), cores, peers));
        let threads = |cores: usize| (cores / 2 + 1).min(cores);
        let seals = list(&|cores| times.run_to_completion(threads(cores), flows));
        let opens = list(&|cores| times.run_to_completion(threads(cores), peers));
        println!("  {name:<22}{lane}      {seals}      {opens}");
    }
}

/// The times of `--times`.
fn given_times(hand: f64) -> Option<Times> {
    let mut arguments = env::args().skip_while(|argument| argument != "--times");
    let list = arguments.nth(1)?;
    let times: Vec<f64> = list.split(',').map_while(|ns| ns.parse().ok()).collect();
    let [read, work, finish] = times[..] else {
        panic!("--times needs three numbers of nanoseconds with commas: read, work, finish");
    };
    Some(Times {
        read: read / 1e9,
        work: work / 1e9,
        finish: finish / 1e9,
        hand,
    })
}

fn main() -> ExitCode {
    model::check();
    let has = |name| env::args().any(|argument| argument == name);
    let rounds = if has("--quick") { 3 } else { 45 };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let default = lane::default_workers(cores);
    let mut workers = vec![0, 1, 2];
    let default_at = workers.iter().position(|&number| number == default);
    let default_at = default_at.unwrap_or_else(|| {
        workers.push(default);
        workers.len() - 1
    });
    let mut short = false;
    let mut models = Vec::new();

    println!("lane / without a lane, with {workers:?} workers; the default here is {default}");
    println!("{:<12}{:>6}{:>9}", "burst", "peers", "ns");
    for shape in SHAPES {
        let name = format!("{} x {}", shape.0, shape.1);
        let lines = PEERS.map(|peers| {
            let line = measure(shape, peers, &workers, rounds);
            let list = |of: &dyn Fn(usize) -> f64| {
                let ratios = (0..workers.len()).map(|i| format!("{:.2}", of(i)));
                ratios.collect::<Vec<_>>().join(" ")
            };
            println!(
                "{name:<12}{peers:>6}{:>9.0}   alone {}   flood {}, CPU {}   steps {:.2}, model {}",
                line.each * 1e9,
                list(&|i| line.alone[i]),
                list(&|i| line.flood[i].wall),
                list(&|i| line.flood[i].cpu),
                line.steps,
                list(&|i| line.times.lane(workers[i], cores, peers) / line.each),
            );
            line
        });
        for excess in excesses(&lines, &workers, default_at) {
            short = true;
            println!("! {excess} of the time without a lane");
        }
        models.push((name, lines[0].times));
    }

    println!("\nA model, not a measurement: how much faster than on one thread");
    let columns = CORES.map(|cores| format!("{cores:4}")).join("");
    println!("{:24}lane                  to completion: seals  opens", "");
    println!("{:24}{columns}      {columns}      {columns} cores", "");
    let given = given_times(models[0].1.hand).map(|times| ("given".to_owned(), times));
    for (name, times) in models.iter().chain(&given) {
        print_model(name, times);
    }
    if short {
        println!(
            "What is marked with ! exceeds a limit: a loss of 3 %, or steps that differ from the measured rate by 15 %."
        );
    }
    ExitCode::from(u8::from(short && has("--check")))
}
