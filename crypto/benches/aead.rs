//! Compares our AEAD on AVX-512 with AWS-LC's, interleaved: single packets and bursts, sealing and
//! opening.
//!
//! ```text
//! cargo bench -p wg-crypto --bench aead              # the table
//! cargo bench -p wg-crypto --bench aead -- --check   # exit code 1 if a required ratio is not reached
//! ```
//!
//! Exit code 2 means that this CPU has no AVX-512. `--quick` runs fewer rounds. A round times both
//! sides one after the other, and the order alternates. The ratio is the ratio of the medians.
//! Opening needs a sealed packet each time, so on both sides the measured time includes a copy of
//! the ciphertext.

use std::env;
use std::fs;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use wg_crypto::{AeadBackend, HEADER, OpeningKey, SealingKey, TAG};

/// Number of packets, bytes of each, and the required ratios (how many times as fast as AWS-LC): on a
/// CPU with execution units of 512 bits, and on one that splits a vector into two halves (Zen 4).
const CASES: [(usize, usize, [f64; 2]); 14] = [
    (1, 64, [1.0, 1.0]),
    (1, 128, [1.0, 1.0]),
    (1, 256, [1.0, 1.0]),
    (1, 448, [1.0, 1.0]),
    (1, 576, [1.0, 1.0]),
    (1, 768, [1.0, 1.0]),
    (1, 1424, [1.8, 1.3]),
    (1, 8192, [1.0, 1.0]),
    (8, 64, [3.0, 2.0]),
    (16, 64, [3.0, 2.2]),
    (45, 64, [3.0, 2.2]),
    (8, 1424, [1.8, 1.3]),
    (16, 1424, [1.8, 1.4]),
    (45, 1424, [1.8, 1.4]),
];

/// Whether this CPU splits vectors of 512 bits into halves.
fn splits_vectors() -> bool {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let is = |name: &str, value: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .is_some_and(|(_, found)| found == value)
    };
    is("vendor_id", "AuthenticAMD") && is("cpu family", "25")
}

/// Duration of one side of a round: long enough for the clock's resolution, and short enough that
/// few rounds are interrupted.
const ROUND: Duration = Duration::from_micros(300);

/// One side of the comparison: a key and a burst.
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

/// The median time of one call on each side, in nanoseconds.
fn medians(sides: &mut [Side; 2], call: fn(&mut Side), rounds: usize) -> [f64; 2] {
    let time = |side: &mut Side, calls: u32| {
        let start = Instant::now();
        (0..calls).for_each(|_| call(side));
        start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    // Warms up, and finds out how many calls fit in a round.
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
        // A plain `cargo bench` must not fail because of that.
        return if given("--check") { 2.into() } else { 0.into() };
    };

    println!(
        "ns per packet: {} / {ours}, the ratio of medians, and the required ratio",
        AeadBackend::Library
    );
    println!("{:>12}  {:>28}  {:>28}", "", "seal", "open");
    let mut short = false;
    let splits = splits_vectors();
    for (packets, len, bars) in CASES {
        let bar = bars[usize::from(splits)];
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
        println!("Cases marked with ! are too slow.");
    }
    ExitCode::from(u8::from(short && given("--check")))
}
