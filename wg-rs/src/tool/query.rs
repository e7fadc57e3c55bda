//! Queries the status of one interface, or of all.

use std::io;
use std::process::ExitCode;

use super::context::complain;
use super::interfaces::Interfaces;
use crate::backend::Kind;
use crate::model::status::Status;
use crate::place;

/// Queries this interface, or all. One that cannot be queried is left out, with a message on standard
/// error. Interfaces whose daemon was killed go to `left`, and their sockets are not deleted. The exit
/// code says whether all could be queried.
pub(super) fn query(
    interfaces: &Interfaces,
    name: Option<&str>,
    mut left: impl FnMut(&str) -> ExitCode,
) -> (Vec<(String, Kind, Status)>, ExitCode) {
    let mut exit = ExitCode::SUCCESS;
    let (names, dead) = match name {
        Some(name) if interfaces.is_left(name) => (Vec::new(), vec![name.to_owned()]),
        Some(name) => (vec![name.to_owned()], Vec::new()),
        None => match interfaces.survey() {
            Ok(found) => found,
            Err(error) => {
                let failure = complain(format_args!("Unable to list interfaces: {error}"));
                return (Vec::new(), failure);
            }
        },
    };
    for name in dead {
        if left(&name) != ExitCode::SUCCESS {
            exit = ExitCode::FAILURE;
        }
    }
    let mut all = Vec::new();
    for name in names {
        match interfaces.status(&name) {
            Ok((kind, status)) => all.push((name, kind, status)),
            Err(error) => exit = no_access(&name, &error),
        }
    }
    (all, exit)
}

/// Says why an interface cannot be accessed.
pub(super) fn no_access(name: &str, error: &io::Error) -> ExitCode {
    complain(format_args!(
        "Unable to access interface {name}: {}",
        place::no_access(name, error)
    ))
}

/// Says that the daemon of an interface was killed.
pub(super) fn left_behind(name: &str) -> ExitCode {
    complain(format_args!("{name}: {}", place::left_behind(name)))
}
