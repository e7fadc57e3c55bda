//! Whether the time that sealing and opening take tells anything of what is secret: after "Dude, is
//! my code constant time?" (Reparaz, Balasch, Verbauwhede, 2017).
//!
//! ```text
//! cargo bench -p wg-crypto --bench constant_time                    # a million samples a test
//! cargo bench -p wg-crypto --bench constant_time -- --samples 50000
//! cargo bench -p wg-crypto --bench constant_time -- --check         # exit code 1 beyond 10
//! ```
//!
//! Both implementations are looked at, ours if the CPU has AVX-512. In each test there are two
//! classes of inputs, one fixed and one random, in random order. Welch's t compares their times:
//! all of them, and those below some percentiles, as what is slow is slow for other reasons. Beyond
//! 4.5 there may be a difference; beyond 10, it is no accident.
//!
//! The classes differ in what is in memory, not in where: every sample makes the inputs of both, and
//! copies one to the same place.

use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wg_crypto::{Backend, HEADER, OpeningKey, SealingKey, TAG};

/// Packets and bytes of each: every way that ours takes.
const CASES: [(usize, usize); 6] = [
    (1, 64),
    (1, 576),
    (1, 1424),
    (1, 8192),
    (16, 64),
    (16, 1424),
];
/// How much of the samples, from the fastest on.
const PERCENTILES: [usize; 5] = [100, 99, 90, 75, 50];

/// Makes the inputs of a sample of the given class, and returns how long it took, in nanoseconds.
type Sample = fn(&mut Subject, &mut ChaCha8Rng, bool) -> f64;

const TESTS: [(&str, Sample); 5] = [
    ("seal, key", Subject::seal_by_key),
    ("seal, plaintext", Subject::seal_by_text),
    ("open, key", Subject::open_by_key),
    ("open, plaintext", Subject::open_by_text),
    (
        "open, first wrong byte of the tag",
        Subject::open_by_wrong_byte,
    ),
];

const FIXED_KEY: [u8; 32] = [0; 32];

struct Subject {
    backend: Backend,
    stride: usize,
    burst: Vec<u8>,
    random: Vec<u8>,
    accepted: Vec<bool>,
}

impl Subject {
    fn new(backend: Backend, packets: usize, len: usize) -> Self {
        let stride = HEADER + len + TAG;
        let burst = vec![0; packets * stride];
        let random = burst.clone();
        Self {
            backend,
            stride,
            burst,
            random,
            accepted: Vec::with_capacity(packets),
        }
    }

    /// A random key, or the fixed one.
    fn key(rng: &mut ChaCha8Rng, fixed: bool) -> [u8; 32] {
        let random = rng.random();
        if fixed { FIXED_KEY } else { random }
    }

    /// Random bytes, or zeros.
    fn text(&mut self, rng: &mut ChaCha8Rng, fixed: bool) {
        rng.fill_bytes(&mut self.random);
        let zeros = vec![0; self.burst.len()];
        self.burst
            .copy_from_slice(if fixed { &zeros } else { &self.random });
    }

    fn time_seal(&mut self, key: [u8; 32]) -> f64 {
        let key = SealingKey::new(self.backend, &key);
        let burst = black_box(&mut self.burst);
        let start = Instant::now();
        match burst.len() == self.stride {
            true => key.seal(1, 2, burst),
            false => key.seal_burst(1, 2, burst, self.stride),
        }
        start.elapsed().as_nanos() as f64
    }

    fn time_open(&mut self, key: [u8; 32], right: bool) -> f64 {
        let key = OpeningKey::new(self.backend, &key);
        let burst = black_box(&mut self.burst);
        self.accepted.clear();
        let start = Instant::now();
        match burst.len() == self.stride {
            true => self.accepted.push(key.open(burst)),
            false => key.open_burst(burst, self.stride, &mut self.accepted),
        }
        let time = start.elapsed().as_nanos() as f64;
        assert!(self.accepted.iter().all(|&accepted| accepted == right));
        time
    }

    fn seal(&mut self, key: [u8; 32]) {
        let key = SealingKey::new(self.backend, &key);
        key.seal_burst(1, 2, &mut self.burst, self.stride);
    }

    fn seal_by_key(&mut self, rng: &mut ChaCha8Rng, fixed: bool) -> f64 {
        self.text(rng, true);
        let key = Self::key(rng, fixed);
        self.time_seal(key)
    }

    fn seal_by_text(&mut self, rng: &mut ChaCha8Rng, fixed: bool) -> f64 {
        self.text(rng, fixed);
        self.time_seal(FIXED_KEY)
    }

    fn open_by_key(&mut self, rng: &mut ChaCha8Rng, fixed: bool) -> f64 {
        self.text(rng, true);
        let key = Self::key(rng, fixed);
        self.seal(key);
        self.time_open(key, true)
    }

    fn open_by_text(&mut self, rng: &mut ChaCha8Rng, fixed: bool) -> f64 {
        self.text(rng, fixed);
        self.seal(FIXED_KEY);
        self.time_open(FIXED_KEY, true)
    }

    /// Fixed is the first byte, random is any.
    fn open_by_wrong_byte(&mut self, rng: &mut ChaCha8Rng, fixed: bool) -> f64 {
        self.text(rng, true);
        self.seal(FIXED_KEY);
        let random = rng.random_range(0..TAG);
        let wrong = if fixed { 0 } else { random };
        for datagram in self.burst.chunks_mut(self.stride) {
            let len = datagram.len();
            datagram[len - TAG + wrong] ^= 0xff;
        }
        self.time_open(FIXED_KEY, false)
    }
}

/// The largest of Welch's t, of the times of both classes, over the percentiles.
fn largest_t(classes: &[Vec<f64>; 2]) -> f64 {
    let mut all = classes.concat();
    all.sort_by(f64::total_cmp);
    let of = |percent: usize| {
        let limit = all[(all.len() * percent / 100).max(1) - 1];
        let [a, b] = [0, 1].map(|class| {
            let times = classes[class].iter().filter(|time| **time <= limit);
            let (count, sum) = times
                .clone()
                .fold((0.0, 0.0), |(n, sum), time| (n + 1.0, sum + time));
            let mean = sum / count;
            let squares: f64 = times.map(|time| (time - mean).powi(2)).sum();
            (mean, squares / (count - 1.0) / count)
        });
        // Times that are all the same differ by nothing, or by everything.
        ((a.0 - b.0) / (a.1 + b.1).sqrt().max(1e-9)).abs()
    };
    PERCENTILES.into_iter().map(of).fold(0.0, f64::max)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let given = |name: &str| arguments.iter().position(|argument| argument == name);
    let samples = match (given("--samples"), given("--quick")) {
        (Some(at), _) => arguments[at + 1].parse().expect("a number after --samples"),
        (None, Some(_)) => 2_000,
        (None, None) => 1_000_000,
    };
    let ours = Backend::avx512();
    if ours.is_none() {
        println!("This CPU has no AVX-512: only AWS-LC is looked at.");
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut worst = 0.0;
    println!("largest t of {samples} samples; beyond 10 the time tells something");
    for backend in ours.into_iter().chain([Backend::Library]) {
        for (packets, len) in CASES {
            for (name, sample) in TESTS {
                let mut subject = Subject::new(backend, packets, len);
                let mut classes = [vec![], vec![]];
                for _ in 0..1000 {
                    sample(&mut subject, &mut rng, true);
                }
                for _ in 0..samples {
                    let fixed = rng.random();
                    let time = sample(&mut subject, &mut rng, fixed);
                    classes[usize::from(fixed)].push(time);
                }
                let t = largest_t(&classes);
                println!("{t:>8.1}  {packets:>2} x {len:>4}  {name}  ({backend})");
                if Some(backend) == ours {
                    worst = f64::max(worst, t);
                }
            }
        }
    }
    match given("--check") {
        Some(_) if ours.is_none() => 2.into(),
        Some(_) if worst > 10.0 => 1.into(),
        _ => 0.into(),
    }
}
