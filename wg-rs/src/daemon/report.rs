//! Reports dropped packets in the log: one line per period, if packets were dropped and the log is
//! verbose. Packets are counted and not logged one by one, because a flood of packets would flood
//! the log.

use std::fmt::Write;
use std::time::Duration;

use tokio::time::Instant;

use crate::tunnel::drops::{DropReason, Drops};

/// Time between two lines.
const PERIOD: Duration = Duration::from_secs(10);

/// The counters that were already reported.
#[derive(Debug)]
pub struct Report {
    reported: [u64; DropReason::ALL.len()],
}

impl Report {
    /// Creates a report whose counters start at zero.
    pub fn new() -> Self {
        Report {
            reported: [0; DropReason::ALL.len()],
        }
    }

    /// Returns the time of the next line; `None` if the log is not verbose.
    pub fn next() -> Option<Instant> {
        tracing::enabled!(tracing::Level::DEBUG).then(|| Instant::now() + PERIOD)
    }

    /// Logs the packets that were dropped since the last call.
    pub fn log(&mut self, drops: &Drops) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let news = self.news(drops);
        if !news.is_empty() {
            tracing::debug!("packets dropped: {news}");
        }
    }

    /// The reasons, each with its number of packets.
    fn news(&mut self, drops: &Drops) -> String {
        let mut news = String::new();
        for (reason, reported) in DropReason::ALL.iter().zip(&mut self.reported) {
            let count = drops.get(*reason);
            let new = count - std::mem::replace(reported, count);
            if new > 0 {
                let separator = if news.is_empty() { "" } else { ", " };
                let _ = write!(news, "{separator}{} ({new})", reason.as_str());
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::plane::Plane;

    #[test]
    fn new_drops_are_reported_once() {
        let plane = Plane::new();
        let mut report = Report::new();
        assert_eq!(report.news(plane.drops()), "");
        plane.drop_packets(DropReason::NoPeer, 2);
        plane.drop_packets(DropReason::BadMac1, 1);
        let news = "no peer for the destination (2), wrong mac1 (1)";
        assert_eq!(report.news(plane.drops()), news);
        plane.drop_packets(DropReason::BadMac1, 3);
        assert_eq!(report.news(plane.drops()), "wrong mac1 (3)");
        assert_eq!(report.news(plane.drops()), "");
    }
}
