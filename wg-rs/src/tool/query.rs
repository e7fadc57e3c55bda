//! Queries the status of one interface, or of all.

use std::process::ExitCode;

use super::context::complain;
use super::interfaces::Interfaces;
use crate::backend::Kind;
use crate::model::status::Status;

/// Queries this interface, or all. One that cannot be queried is left out, with a message on standard error.
/// The exit code says whether all could be queried.
pub(super) fn query(
    interfaces: &Interfaces,
    name: Option<&str>,
) -> (Vec<(String, Kind, Status)>, ExitCode) {
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => match interfaces.list() {
            Ok(names) => names,
            Err(error) => {
                let failure = complain(format_args!("Unable to list interfaces: {error}"));
                return (Vec::new(), failure);
            }
        },
    };
    let mut exit = ExitCode::SUCCESS;
    let mut all = Vec::new();
    for name in names {
        match interfaces.status(&name) {
            Ok((kind, status)) => all.push((name, kind, status)),
            Err(error) => {
                exit = complain(format_args!("Unable to access interface {name}: {error}"));
            }
        }
    }
    (all, exit)
}
