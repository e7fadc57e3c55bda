//! What a daemon uses, sampled all the time, and whether it grows.

use std::fmt;
use std::io;

use netns_tests::{median, process};

/// The growth of resident memory that is taken for noise: this part, or one mebibyte if that is more.
const PART: f64 = 0.05;
const MEBIBYTE: f64 = 1048576.0;

/// What a daemon uses at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Resident memory in bytes.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Sample {
    /// Of this process.
    pub fn of(pid: i32) -> io::Result<Sample> {
        Ok(Sample {
            memory: process::resident_memory(pid)?,
            descriptors: process::descriptors(pid)?,
            threads: process::threads(pid)?,
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample {
            memory,
            descriptors,
            threads,
        } = self;
        let mebibytes = *memory as f64 / MEBIBYTE;
        write!(
            f,
            "{mebibytes:.2} MiB, {descriptors} descriptors, {threads} threads"
        )
    }
}

/// How a daemon's use has changed.
#[derive(Debug)]
pub struct Growth {
    before: Sample,
    after: Sample,
    /// Medians of resident memory in the second and in the last quarter of the time.
    memory: Option<(f64, f64)>,
}

impl Growth {
    /// Of samples taken at equal intervals under load, and one before and one after the load.
    pub fn of(before: Sample, samples: &[Sample], after: Sample) -> Growth {
        let quarter = samples.len() / 4;
        let of = |part: &[Sample]| median(part.iter().map(|sample| sample.memory as f64));
        let second = of(&samples[quarter..2 * quarter]);
        let last = of(&samples[samples.len() - quarter..]);
        Growth {
            before,
            after,
            memory: second.zip(last),
        }
    }

    /// What has grown.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match self.memory {
            None => faults.push("there are too few samples".into()),
            Some((second, last)) if last > second + MEBIBYTE.max(second * PART) => {
                faults.push("its memory grows".into());
            }
            Some(_) => {}
        }
        if self.before.descriptors != self.after.descriptors {
            faults.push("it does not have as many descriptors as before".into());
        }
        if self.before.threads != self.after.threads {
            faults.push("it does not have as many threads as before".into());
        }
        faults
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "before {}; after {}", self.before, self.after)?;
        if let Some((second, last)) = self.memory {
            let [second, last] = [second, last].map(|bytes| bytes / MEBIBYTE);
            write!(
                f,
                "; memory in the second quarter of the time {second:.2} MiB, in the last {last:.2} MiB"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(memory: impl Fn(u64) -> u64, descriptors: usize) -> Growth {
        let sample = |memory, descriptors| Sample {
            memory,
            descriptors,
            threads: 3,
        };
        let samples: Vec<Sample> = (0..60).map(|n| sample(memory(n), 9)).collect();
        Growth::of(sample(1, 9), &samples, sample(2, descriptors))
    }

    #[test]
    fn growth_is_a_fault_and_noise_is_not() {
        const MIB: u64 = 1 << 20;
        assert!(
            growth(|n| 10 * MIB + n % 7 * MIB / 10, 9)
                .faults()
                .is_empty()
        );
        // It grows at the beginning only.
        assert!(growth(|n| n.min(10) * MIB, 9).faults().is_empty());
        assert_eq!(growth(|n| n * MIB / 10, 9).faults().len(), 1);
        assert_eq!(growth(|_| MIB, 10).faults().len(), 1);
    }
}
