//! Our AEAD on AVX-512 against AWS-LC's, interleaved: single packets and bursts, sealed and opened.
//!
//! ```text
//! cargo bench -p wg-crypto --bench aead              # the table
//! cargo bench -p wg-crypto --bench aead -- --check   # exit code 1 where a bar falls short
//! ```
//!
//! Exit code 2: this CPU has no AVX-512. `--quick` takes fewer rounds. A round times both sides one
//! right after the other, which of them first changes every round; the ratio is that of medians.
//! An opened packet has to be sealed again, so opening is timed with a copy of the ciphertext
//! before it, on both sides.

use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use wg_crypto::{AeadBackend, HEADER, OpeningKey, SealingKey, TAG};

/// Packets, bytes of each, and how many times as fast it must be.
const CASES: [(usize, usize, f64); 11] = [
    (1, 64, 1.0),
    (1, 128, 1.0),
    (1, 576, 1.0),
    (1, 1424, 1.8),
    (1, 8192, 1.0),
    (8, 64, 3.0),
    (16, 64, 3.0),
    (45, 64, 3.0),
    (8, 1424, 1.8),
    (16, 1424, 1.8),
    (45, 1424, 1.8),
];

/// How long one side of a round takes: long enough for the clock, short enough for an interruption
/// to hit few of them.
const ROUND: Duration = Duration::from_micros(300);

/// One side: a key and its burst.
struct Side {
    sealing: SealingKey,
    opening: OpeningKey,
    stride: usize,
    counter: u64,
    burst: Vec<u8>,
    sealed: Vec<u8>,
    accepted: Vec<bool>,
}

impl Side {
    fn new(backend: AeadBackend, packets: usize, len: usize) -> Self {
        let stride = HEADER + len + TAG;
        let sealing = SealingKey::new(backend, &[7; 32]);
        let mut sealed = vec![1; packets * stride];
        sealing.seal_burst(1, 0, &mut sealed, stride);
        Self {
            sealing,
            opening: OpeningKey::new(backend, &[7; 32]),
            stride,
            counter: 0,
            burst: sealed.clone(),
            sealed,
            accepted: Vec::with_capacity(packets),
        }
    }

    fn seal(&mut self) {
        self.counter += 64;
        let burst = black_box(&mut self.burst);
        match burst.len() == self.stride {
            true => self.sealing.seal(1, self.counter, burst),
            false => self.sealing.seal_burst(1, self.counter, burst, self.stride),
        }
    }

    fn open(&mut self) {
        self.burst.copy_from_slice(&self.sealed);
        let burst = black_box(&mut self.burst);
        if burst.len() == self.stride {
            return assert!(self.opening.open(burst));
        }
        self.opening
            .open_burst(burst, self.stride, &mut self.accepted);
        assert!(self.accepted.iter().all(|&accepted| accepted));
    }
}

/// Median times of one call of each side, in nanoseconds.
fn medians(sides: &mut [Side; 2], call: fn(&mut Side), rounds: usize) -> [f64; 2] {
    let time = |side: &mut Side, calls: u32| {
        let start = Instant::now();
        (0..calls).for_each(|_| call(side));
        start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    // A warm-up, and how many calls a round takes.
    let one = time(&mut sides[0], 200).max(1.0);
    time(&mut sides[1], 200);
    let calls = ((ROUND.as_nanos() as f64 / one) as u32).max(1);
    let mut times = [vec![], vec![]];
    for round in 0..rounds {
        for side in [round % 2, 1 - round % 2] {
            times[side].push(time(&mut sides[side], calls));
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

fn main() -> ExitCode {
    let given = |name| env::args().any(|argument| argument == name);
    let rounds = if given("--quick") { 21 } else { 301 };
    let Some(ours) = AeadBackend::avx512() else {
        println!("This CPU has no AVX-512: nothing to compare.");
        // `cargo bench` without a wish is not to fail for this.
        return if given("--check") { 2.into() } else { 0.into() };
    };

    println!(
        "ns per packet: {} / {ours}, the ratio of medians, and what it must be",
        AeadBackend::Library
    );
    println!("{:>12}  {:>28}  {:>28}", "", "seal", "open");
    let mut short = false;
    for (packets, len, bar) in CASES {
        print!("{packets:>4} x {len:>5}");
        for call in [Side::seal, Side::open] {
            let mut sides = [AeadBackend::Library, ours].map(|side| Side::new(side, packets, len));
            let [library, ours] = medians(&mut sides, call, rounds);
            let ratio = library / ours;
            let mark = if ratio < bar { "!" } else { " " };
            let [library, ours] = [library, ours].map(|time| time / packets as f64);
            print!("  {library:>7.0} / {ours:>5.0} {ratio:>5.2} >= {bar}{mark}");
            short |= ratio < bar;
        }
        println!();
    }
    if short {
        println!("What is marked with ! is too slow.");
    }
    ExitCode::from(u8::from(short && given("--check")))
}
