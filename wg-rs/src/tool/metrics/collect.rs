//! Queries the interfaces for their current metrics.

use std::process::ExitCode;

use super::exposition::exposition;
use crate::tool::context::complain;
use crate::tool::interfaces::Interfaces;

/// Returns the metrics of all interfaces. An interface that cannot be queried is left out, with a message
/// on standard error.
pub(super) fn collect(interfaces: &Interfaces) -> (String, ExitCode) {
    let names = match interfaces.list() {
        Ok(names) => names,
        Err(error) => {
            let status = complain(format_args!("Unable to list interfaces: {error}"));
            return (exposition(&[]), status);
        }
    };
    let mut status = ExitCode::SUCCESS;
    let mut all = Vec::new();
    for name in names {
        match interfaces.status(&name) {
            Ok((_, asked)) => all.push((name, asked)),
            Err(error) => {
                status = complain(format_args!("Unable to access interface {name}: {error}"));
            }
        }
    }
    (exposition(&all), status)
}
