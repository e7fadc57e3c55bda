//! Queries the interfaces for their current metrics.

use std::process::ExitCode;

use super::exposition::exposition;
use crate::tool::interfaces::Interfaces;
use crate::tool::query::query;

/// Returns the metrics of all interfaces. An interface that cannot be queried is left out, with a message
/// on standard error. One whose daemon was killed has no metrics, which Prometheus notices by itself.
pub(super) fn collect(interfaces: &Interfaces) -> (String, ExitCode) {
    let (all, exit) = query(interfaces, None, |_| ExitCode::SUCCESS);
    let all: Vec<_> = { all.into_iter() }
        .map(|(name, _, status)| (name, status))
        .collect();
    (exposition(&all), exit)
}
