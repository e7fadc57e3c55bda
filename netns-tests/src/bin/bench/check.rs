//! Compares the ratios of a run with those of an earlier run, which are kept in the repository:
//! `--check` reads the file that `--json` wrote.
//!
//! Ratios differ between machines far less than figures. Still, the kept run should be of a similar
//! CPU; its congestion control and MTU must be the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

/// The ratios of an earlier run.
#[derive(Debug, Deserialize)]
pub struct Kept {
    cpu: String,
    kernel: String,
    mtu: u32,
    congestion_control: String,
    daemons: Vec<String>,
    metrics: Vec<KeptMetric>,
}

#[derive(Debug, Deserialize)]
struct KeptMetric {
    metric: String,
    more_is_better: bool,
    ratio: BTreeMap<String, f64>,
}

/// The result of a comparison.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    /// A line for each ratio that was compared.
    pub table: String,
    /// The number of ratios that are worse than allowed.
    pub short: usize,
}

impl Kept {
    /// Reads a file that `--json` wrote.
    ///
    /// # Errors
    /// The file cannot be read, or its text is wrong.
    pub fn read(file: &Path) -> io::Result<Kept> {
        let context =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        let text = fs::read_to_string(file).map_err(context)?;
        serde_json::from_str(&text).map_err(|error| context(error.into()))
    }

    /// Whether a run under these conditions can be compared at all.
    ///
    /// # Errors
    /// It cannot be compared; the error names the difference.
    pub fn comparable(&self, first: &str, mtu: u32, congestion_control: &str) -> io::Result<()> {
        for (what, kept, here) in [
            (
                "first daemon",
                self.daemons.first().map_or("", String::as_str),
                first,
            ),
            ("MTU", &*self.mtu.to_string(), &*mtu.to_string()),
            (
                "congestion control",
                &self.congestion_control,
                congestion_control,
            ),
        ] {
            if kept != here {
                return Err(io::Error::other(format!(
                    "the ratios to check against have {what} {kept}, and this run has {here}"
                )));
            }
        }
        Ok(())
    }

    /// Compares ratios: each may be worse than the kept one by the fraction `tolerance`. `ratio` returns
    /// the ratio of a metric and a daemon in this run, if there is one.
    ///
    /// # Errors
    /// The two runs have no measurement in common.
    pub fn compare(
        &self,
        tolerance: f64,
        ratio: impl Fn(&str, &str) -> Option<f64>,
    ) -> io::Result<Verdict> {
        let mut table = format!(
            "Ratios against those kept ({}, Linux {}); each may be worse by {:.0} %.\n",
            self.cpu,
            self.kernel,
            tolerance * 100.0
        );
        let (mut compared, mut short) = (0, 0);
        for metric in &self.metrics {
            for (daemon, &kept) in &metric.ratio {
                // The first daemon's ratio to itself is always 1.
                if Some(daemon) == self.daemons.first() {
                    continue;
                }
                let Some(here) = ratio(&metric.metric, daemon) else {
                    continue;
                };
                let is_short = match metric.more_is_better {
                    true => here < kept * (1.0 - tolerance),
                    false => here > kept * (1.0 + tolerance),
                };
                compared += 1;
                short += usize::from(is_short);
                let mark = if is_short { "  worse!" } else { "" };
                let name = format!("{} / {daemon}", metric.metric);
                // Writing to a string cannot fail.
                let _ = writeln!(table, "{name:<32} {here:>7.2}, kept {kept:>7.2}{mark}");
            }
        }
        match compared {
            0 => Err(io::Error::other(
                "this run measured nothing that is in the kept ratios",
            )),
            _ => Ok(Verdict { table, short }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        serde_json::from_str(
            r#"{"cpu": "a CPU", "kernel": "6.18", "mtu": 1420, "congestion_control": "bbr",
                "daemons": ["ours", "none"], "metrics": [
                {"metric": "tcp1", "more_is_better": true, "ratio": {"ours": 1.0, "none": 0.4}},
                {"metric": "rtt p50", "more_is_better": false, "ratio": {"ours": 1.0, "none": 5.0}}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn worse_ratios_are_counted() {
        let short = |tcp: f64, rtt: f64| {
            let ratio = |metric: &str, _: &str| Some(if metric == "tcp1" { tcp } else { rtt });
            kept().compare(0.1, ratio).unwrap().short
        };
        assert_eq!(short(0.4, 5.0), 0);
        assert_eq!(short(0.37, 5.4), 0, "within tolerance");
        assert_eq!(short(4.0, 0.5), 0, "better");
        assert_eq!(short(0.35, 5.0), 1, "less TCP");
        assert_eq!(short(0.4, 5.6), 1, "longer round trips");
        assert_eq!(short(0.1, 50.0), 2);
    }

    #[test]
    fn only_runs_under_equal_conditions_are_compared() {
        assert!(kept().comparable("ours", 1420, "bbr").is_ok());
        let error = kept().comparable("ours", 1420, "cubic").unwrap_err();
        assert!(error.to_string().contains("congestion control bbr"));
        assert!(kept().comparable("ours", 1280, "bbr").is_err());
        assert!(kept().comparable("theirs", 1420, "bbr").is_err());
        assert!(
            kept().compare(0.1, |_, _| None).is_err(),
            "nothing in common"
        );
    }
}
