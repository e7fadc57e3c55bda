//! Tests whether the time of sealing and opening depends on secrets, by the method of "Dude, is my
//! code constant time?" (Reparaz, Balasch, Verbauwhede, 2017).
//!
//! ```text
//! cargo bench -p wg-crypto --bench constant_time                    # 100 000 samples per test
//! cargo bench -p wg-crypto --bench constant_time -- --samples 1000000
//! cargo bench -p wg-crypto --bench constant_time -- --check         # exit code 1 if a test fails
//! ```
//!
//! Both implementations are tested; ours only if the CPU has AVX-512. Each test has two classes of
//! inputs: one fixed input and random ones. Welch's t compares the times of the classes: all times,
//! and those below some percentiles, because slow samples are slow for other reasons. Above 4.5
//! there may be a difference; above 10 it is not chance.
//!
//! The classes must differ in nothing but their content. So 64 inputs of both classes are made in
//! advance, in the same way and in one pool. A sample picks one by its index and copies it twice to
//! the buffer that all samples use, which leaves the caches in the same state whatever they held
//! before.
//!
//! To prove that the tests can fail, there is a third implementation that leaks: a Poly1305 that
//! branches on carries, and a comparison of tags that stops at the first wrong byte. Every test
//! must detect it, or the whole run fails.

use std::env;
use std::fmt::{self, Display};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wg_crypto::{AeadBackend, HEADER, OpeningKey, SealingKey, TAG};

/// Number of packets and bytes of each: together they take every code path of our implementation.
const CASES: [(usize, usize); 6] = [
    (1, 64),
    (1, 576),
    (1, 1424),
    (1, 8192),
    (16, 64),
    (16, 1424),
];
/// The case in which the leak must be detected.
const LEAKY_CASE: (usize, usize) = (1, 576);
/// Inputs that are made in advance.
const POOL: usize = 64;
/// The percentages of the samples that are compared, from the fastest on.
const PERCENTILES: [usize; 5] = [100, 99, 90, 75, 50];
/// Above this t, the time depends on the input.
const LIMIT: f64 = 10.0;

/// The operation that is timed, and the part of the input in which the two classes differ.
#[derive(Clone, Copy, PartialEq)]
enum Test {
    SealKey,
    SealText,
    OpenKey,
    OpenText,
    OpenWrongByte,
}

impl Test {
    const ALL: [Self; 5] = [
        Self::SealKey,
        Self::SealText,
        Self::OpenKey,
        Self::OpenText,
        Self::OpenWrongByte,
    ];

    fn opens(self) -> bool {
        !matches!(self, Self::SealKey | Self::SealText)
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SealKey => "seal, key",
            Self::SealText => "seal, plaintext",
            Self::OpenKey => "open, key",
            Self::OpenText => "open, plaintext",
            Self::OpenWrongByte => "open, first wrong byte of the tag",
        })
    }
}

/// An implementation.
#[derive(Clone, Copy, PartialEq)]
enum Aead {
    Real(AeadBackend),
    Leaky,
}

impl Display for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real(backend) => backend.fmt(f),
            Self::Leaky => f.write_str("leaking test implementation"),
        }
    }
}

/// A key of an implementation.
enum Key {
    Real(SealingKey, OpeningKey),
    Leaky([u8; 32]),
}

impl Key {
    fn new(aead: Aead, key: &[u8; 32]) -> Self {
        match aead {
            Aead::Real(backend) => {
                Self::Real(SealingKey::new(backend, key), OpeningKey::new(backend, key))
            }
            Aead::Leaky => Self::Leaky(*key),
        }
    }

    fn seal(&self, burst: &mut [u8], stride: usize) {
        match self {
            Self::Real(key, _) if burst.len() == stride => key.seal(1, 2, burst),
            Self::Real(key, _) => key.seal_burst(1, 2, burst, stride),
            Self::Leaky(key) => burst
                .chunks_mut(stride)
                .for_each(|datagram| leaky::seal(key, datagram)),
        }
    }

    fn open(&self, burst: &mut [u8], stride: usize, accepted: &mut Vec<bool>) {
        match self {
            Self::Real(_, key) if burst.len() == stride => accepted.push(key.open(burst)),
            Self::Real(_, key) => key.open_burst(burst, stride, accepted),
            Self::Leaky(key) => accepted.extend(
                burst
                    .chunks(stride)
                    .map(|datagram| leaky::open(key, datagram)),
            ),
        }
    }
}

/// Number of packets that are processed together, and their length.
#[derive(Clone, Copy)]
struct Shape {
    packets: usize,
    stride: usize,
}

/// The input of one sample.
struct Input {
    class: usize,
    key: [u8; 32],
    burst: Vec<u8>,
}

impl Input {
    /// An input of a class: 0 is the fixed one, the others are random. Both are made in the same
    /// way.
    fn new(aead: Aead, test: Test, shape: Shape, rng: &mut ChaCha8Rng) -> Self {
        let Shape { packets, stride } = shape;
        let class = rng.random_range(0..2);
        let keys = [[0x42; 32], rng.random()];
        let mut texts = vec![vec![0x5a; packets * stride]; 2];
        rng.fill_bytes(&mut texts[1]);
        let wrong = [0, rng.random_range(0..TAG)][class];

        let key = keys[match test {
            Test::SealKey | Test::OpenKey => class,
            _ => 0,
        }];
        let mut burst = texts.swap_remove(match test {
            Test::SealText | Test::OpenText => class,
            _ => 0,
        });
        if test.opens() {
            Key::new(aead, &key).seal(&mut burst, stride);
        }
        if test == Test::OpenWrongByte {
            for datagram in burst.chunks_mut(stride) {
                let len = datagram.len();
                datagram[len - TAG + wrong] ^= 0xff;
            }
        }
        Self { class, key, burst }
    }
}

/// The buffer that all samples use.
struct Workspace {
    burst: Vec<u8>,
    accepted: Vec<bool>,
}

impl Workspace {
    /// How long one sample takes, in nanoseconds.
    fn time(&mut self, aead: Aead, test: Test, stride: usize, input: &Input) -> f64 {
        for _ in 0..2 {
            self.burst.copy_from_slice(&input.burst);
        }
        let key = black_box(Key::new(aead, &input.key));
        let burst = black_box(self.burst.as_mut_slice());
        self.accepted.clear();

        let start = Instant::now();
        if test.opens() {
            key.open(burst, stride, &mut self.accepted);
        } else {
            key.seal(burst, stride);
        }
        let time = start.elapsed().as_nanos() as f64;

        let right = test != Test::OpenWrongByte;
        assert!(self.accepted.iter().all(|&accepted| accepted == right));
        time
    }
}

/// The largest t of a test.
fn largest_t(
    aead: Aead,
    test: Test,
    (packets, len): (usize, usize),
    samples: usize,
    rng: &mut ChaCha8Rng,
) -> f64 {
    let shape = Shape {
        packets,
        stride: HEADER + len + TAG,
    };
    let mut workspace = Workspace {
        burst: vec![0; packets * shape.stride],
        accepted: Vec::with_capacity(packets),
    };
    let mut classes = [vec![], vec![]];
    // The first pool is a warm-up.
    for pool in 0..=samples.div_ceil(POOL) {
        let inputs: Vec<Input> = (0..POOL)
            .map(|_| Input::new(aead, test, shape, rng))
            .collect();
        let mut times = [0.0; POOL];
        for (time, input) in times.iter_mut().zip(&inputs) {
            *time = workspace.time(aead, test, shape.stride, input);
        }
        for (time, input) in times.iter().zip(&inputs).filter(|_| pool > 0) {
            classes[input.class].push(*time);
        }
    }
    let mut all = classes.concat();
    all.sort_by(f64::total_cmp);
    let below = |percent: usize| {
        let limit = all[(all.len() * percent / 100).max(1) - 1];
        welch_t(&classes, limit)
    };
    PERCENTILES.into_iter().map(below).fold(0.0, f64::max)
}

/// Welch's t for the times of both classes that are at most `limit`.
fn welch_t(classes: &[Vec<f64>; 2], limit: f64) -> f64 {
    let [a, b] = [0, 1].map(|class| {
        let times = classes[class].iter().filter(|time| **time <= limit);
        let (count, sum) = times
            .clone()
            .fold((0.0, 0.0), |(n, sum), time| (n + 1.0, sum + time));
        let mean = sum / count;
        let squares: f64 = times.map(|time| (time - mean).powi(2)).sum();
        (mean, squares / (count - 1.0) / count)
    });
    // If all times are equal, t is zero or infinite.
    ((a.0 - b.0) / (a.1 + b.1).sqrt().max(1e-9)).abs()
}

/// An AEAD with leaks. It does not encrypt, because tags are enough for the tests.
mod leaky {
    use super::{HEADER, TAG};

    /// Writes the datagram's tag: Poly1305 of the body, with `key` as its one-time key.
    pub fn seal(key: &[u8; 32], datagram: &mut [u8]) {
        let (text, tag) = datagram.split_last_chunk_mut::<TAG>().expect("a tag");
        *tag = poly1305(key, &text[HEADER..]);
    }

    /// Whether the tag is right; the comparison stops at the first wrong byte.
    pub fn open(key: &[u8; 32], datagram: &[u8]) -> bool {
        let (text, tag) = datagram.split_last_chunk::<TAG>().expect("a tag");
        let right = poly1305(key, &text[HEADER..]);
        for (right, found) in right.iter().zip(tag) {
            if different(*right, *found) {
                return false;
            }
        }
        true
    }

    /// A function of its own, so that the compiler does not merge the sixteen comparisons into one.
    #[inline(never)]
    fn different(a: u8, b: u8) -> bool {
        a != b
    }

    /// Like `transport/avx512/poly1305_scalar.rs`, but with a branch on the carry of each addition.
    /// The body consists of whole blocks, and its length is not hashed.
    fn poly1305(key: &[u8; 32], body: &[u8]) -> [u8; TAG] {
        let mut words = key
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next().expect("four words");
        let r = [
            word() & 0x0fff_fffc_0fff_ffff,
            word() & 0x0fff_fffc_0fff_fffc,
        ];
        let s = u128::from(word()) | u128::from(word()) << 64;
        let [r0, r1] = r.map(u128::from);
        let around = r1 + (r1 >> 2);

        let mut h = [0_u64; 3];
        for block in body.as_chunks::<16>().0 {
            let block = u128::from_le_bytes(*block);
            let (a, carries) = h[0].overflowing_add(block as u64);
            let mut high = u128::from(h[1]) + (block >> 64);
            if carries {
                high = plus_one(high);
            }
            let top = h[2] + 1 + (high >> 64) as u64;
            let [a, b] = [a, high as u64].map(u128::from);
            let low = a * r0 + b * around;
            let high = a * r1 + b * r0 + u128::from(top) * around + (low >> 64);
            let top = top * r[0] + (high >> 64) as u64;
            let back = (top & !3) + (top >> 2);
            let low = u128::from(low as u64) + u128::from(back);
            let high = u128::from(high as u64) + (low >> 64);
            h = [low as u64, high as u64, (top & 3) + (high >> 64) as u64];
        }
        let number = u128::from(h[0]) | u128::from(h[1]) << 64;
        number.wrapping_add(s).to_le_bytes()
    }

    /// A function of its own, so that the compiler does not remove the branch.
    #[inline(never)]
    fn plus_one(high: u128) -> u128 {
        high + 1
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let given = |name: &str| arguments.iter().position(|argument| argument == name);
    let samples = match (given("--samples"), given("--quick")) {
        (Some(at), _) => arguments[at + 1].parse().expect("a number after --samples"),
        (None, Some(_)) => 2_000,
        (None, None) => 100_000,
    };
    let ours = AeadBackend::avx512().map(Aead::Real);
    if ours.is_none() {
        println!("This CPU has no AVX-512: only AWS-LC is tested.");
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut row = |aead, case: (usize, usize), test| {
        let t = largest_t(aead, test, case, samples, &mut rng);
        println!("{t:>8.1}  {:>2} x {:>4}  {test}  ({aead})", case.0, case.1);
        t
    };
    println!("largest t of {samples} samples; above {LIMIT} the time depends on the input");
    let mut failed = false;
    for aead in ours.into_iter().chain([Aead::Real(AeadBackend::Library)]) {
        for case in CASES {
            for test in Test::ALL {
                // AWS-LC is tested only for comparison.
                failed |= row(aead, case, test) > LIMIT && Some(aead) == ours;
            }
        }
    }
    for test in Test::ALL {
        if row(Aead::Leaky, LEAKY_CASE, test) <= LIMIT {
            println!("The tests did not detect the leaking implementation.");
            failed = true;
        }
    }
    ExitCode::from(u8::from(failed && given("--check").is_some()))
}
