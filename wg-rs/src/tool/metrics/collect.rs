//! The metrics of this moment.

use std::process::ExitCode;

use super::exposition::exposition;
use crate::tool::context::complain;
use crate::tool::interfaces::Interfaces;

/// The metrics of all interfaces. One that cannot be asked is told on standard error, and left out.
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
