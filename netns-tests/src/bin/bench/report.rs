//! Medians and ratios, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

use netns_tests::process;
use serde::Serialize;

use crate::measure::{Conditions, Sample};

/// All samples, by metric in order of appearance, then by daemon.
#[derive(Debug)]
pub struct Report {
    daemons: Vec<String>,
    metrics: Vec<Metric>,
}

#[derive(Debug)]
struct Metric {
    name: String,
    unit: &'static str,
    more_is_better: bool,
    samples: BTreeMap<String, Vec<f64>>,
}

#[derive(Serialize)]
struct Json<'a> {
    rounds: usize,
    seconds: f64,
    mtu: u32,
    congestion_control: &'a str,
    kernel: String,
    cpu: String,
    cpus: usize,
    daemons: &'a [String],
    metrics: Vec<JsonMetric<'a>>,
}

#[derive(Serialize)]
struct JsonMetric<'a> {
    metric: &'a str,
    unit: &'a str,
    more_is_better: bool,
    median: BTreeMap<&'a str, f64>,
    /// The first daemon's median divided by each daemon's.
    ratio: BTreeMap<&'a str, f64>,
    samples: &'a BTreeMap<String, Vec<f64>>,
}

impl Report {
    /// An empty report; the ratios will be relative to the first daemon.
    pub fn new(daemons: &[&str]) -> Report {
        let daemons = daemons.iter().map(|name| (*name).to_owned()).collect();
        Report {
            daemons,
            metrics: Vec::new(),
        }
    }

    /// Adds the samples of one round for one daemon.
    pub fn add(&mut self, daemon: &str, taken: Vec<Sample>) {
        for sample in taken {
            let known = self
                .metrics
                .iter()
                .position(|metric| metric.name == sample.metric);
            let n = known.unwrap_or_else(|| {
                self.metrics.push(Metric {
                    name: sample.metric,
                    unit: sample.unit,
                    more_is_better: sample.more_is_better,
                    samples: BTreeMap::new(),
                });
                self.metrics.len() - 1
            });
            self.metrics[n]
                .samples
                .entry(daemon.to_owned())
                .or_default()
                .push(sample.value);
        }
    }

    /// A table with a line for each metric and a column for each daemon: its median, and in
    /// parentheses the first daemon's median divided by it.
    pub fn table(&self) -> String {
        let mut rows = vec![vec!["".to_owned(), "".to_owned()]];
        rows[0].extend(self.daemons.iter().cloned());
        for metric in &self.metrics {
            let mut row = vec![metric.name.clone(), metric.unit.to_owned()];
            for (n, daemon) in self.daemons.iter().enumerate() {
                row.push(
                    match (
                        metric.median(daemon),
                        metric.ratio(&self.daemons[0], daemon),
                    ) {
                        (Some(median), Some(ratio)) if n > 0 => {
                            format!("{} ({ratio:.2})", figure(median))
                        }
                        (Some(median), _) => figure(median),
                        (None, _) => "-".into(),
                    },
                );
            }
            rows.push(row);
        }
        let mut text = String::new();
        let first = &self.daemons[0];
        let _ = writeln!(
            text,
            "\nMedians; in parentheses {first}'s figure divided by this one.\n"
        );
        for row in &rows {
            let mut line = String::new();
            for (n, cell) in row.iter().enumerate() {
                let width = rows
                    .iter()
                    .map(|row| row[n].chars().count())
                    .max()
                    .unwrap_or(0);
                let _ = match n {
                    0 | 1 => write!(line, "{cell:<width$}  "),
                    _ => write!(line, "{cell:>width$}  "),
                };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// All samples and medians, as JSON.
    pub fn json(&self, rounds: usize, conditions: &Conditions) -> io::Result<String> {
        let metrics = self.metrics.iter().map(|metric| JsonMetric {
            metric: &metric.name,
            unit: metric.unit,
            more_is_better: metric.more_is_better,
            median: self.each(|daemon| metric.median(daemon)),
            ratio: self.each(|daemon| metric.ratio(&self.daemons[0], daemon)),
            samples: &metric.samples,
        });
        let json = Json {
            rounds,
            seconds: conditions.window.as_secs_f64(),
            mtu: conditions.mtu,
            congestion_control: &conditions.congestion_control,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            cpu: process::cpu_name()?,
            cpus: std::thread::available_parallelism()?.get(),
            daemons: &self.daemons,
            metrics: metrics.collect(),
        };
        Ok(serde_json::to_string_pretty(&json).map_err(io::Error::other)? + "\n")
    }

    /// Returns the first daemon's median divided by the median of `daemon`.
    pub fn ratio(&self, metric: &str, daemon: &str) -> Option<f64> {
        let metric = self.metrics.iter().find(|known| known.name == metric)?;
        metric.ratio(&self.daemons[0], daemon)
    }

    fn each(&self, value: impl Fn(&str) -> Option<f64>) -> BTreeMap<&str, f64> {
        self.daemons
            .iter()
            .filter_map(|daemon| Some((daemon.as_str(), value(daemon)?)))
            .collect()
    }
}

impl Metric {
    fn median(&self, daemon: &str) -> Option<f64> {
        let mut samples = self.samples.get(daemon)?.clone();
        samples.sort_unstable_by(f64::total_cmp);
        let upper = *samples.get(samples.len() / 2)?;
        let lower = samples[(samples.len() - 1) / 2];
        Some((lower + upper) / 2.0)
    }

    fn ratio(&self, first: &str, daemon: &str) -> Option<f64> {
        let (first, other) = (self.median(first)?, self.median(daemon)?);
        (other != 0.0).then_some(first / other)
    }
}

/// A number with about three digits.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn medians_and_ratios() {
        let mut report = Report::new(&["ours", "theirs", "none"]);
        for value in [3.0, 1.0, 2.0] {
            let sample = |value| Sample {
                metric: "tcp1".into(),
                unit: "Mbit/s",
                value,
                more_is_better: true,
            };
            report.add("ours", vec![sample(value)]);
            report.add("theirs", vec![sample(2.0 * value), sample(2.0 * value)]);
        }
        let table = report.table();
        let line = table.lines().find(|line| line.starts_with("tcp1")).unwrap();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells, ["tcp1", "Mbit/s", "2.00", "4.00", "(0.50)", "-"]);
        let conditions = Conditions {
            window: Duration::from_secs(1),
            mtu: 1420,
            congestion_control: "cubic".into(),
        };
        let json: serde_json::Value =
            serde_json::from_str(&report.json(3, &conditions).unwrap()).unwrap();
        assert_eq!(json["congestion_control"], "cubic");
        assert_eq!(json["metrics"][0]["median"]["theirs"], 4.0);
        assert_eq!(json["metrics"][0]["ratio"]["theirs"], 0.5);
        assert_eq!(
            json["metrics"][0]["samples"]["ours"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
    }
}
