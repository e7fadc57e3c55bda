//! Selects interfaces and requests their state.

use std::io;
use std::process::ExitCode;

use crate::model::Interface;
use crate::tool::context::{Context, complain};

/// The selected interfaces.
pub(super) enum Selection {
    All,
    One(String),
}

/// Requests the state of each interface in turn, and calls `each` with its name, its state, and
/// whether another interface follows. If one of several interfaces fails, its error is printed and
/// it is left out. Fails if there are interfaces but all of them failed, or if `each` failed.
pub(super) fn for_each(
    context: &Context,
    selection: &Selection,
    mut each: impl FnMut(&str, Interface, bool) -> io::Result<ExitCode>,
) -> (io::Result<()>, ExitCode) {
    let names = match selection {
        Selection::All => match context.interfaces.list() {
            Ok(names) => names,
            Err(error) => {
                let status = complain(format_args!("Unable to list interfaces: {error}"));
                return (Ok(()), status);
            }
        },
        Selection::One(name) => vec![name.clone()],
    };
    let mut status = if names.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    let mut names = names.iter().peekable();
    while let Some(name) = names.next() {
        match (context.interfaces.get(name), selection) {
            (Ok(interface), _) => match each(name, interface, names.peek().is_some()) {
                Ok(ExitCode::SUCCESS) => status = ExitCode::SUCCESS,
                Ok(failure) => return (Ok(()), failure),
                Err(error) => return (Err(error), ExitCode::FAILURE),
            },
            (Err(error), Selection::One(_)) => {
                complain(format_args!("Unable to access interface: {error}"));
            }
            (Err(error), Selection::All) => {
                complain(format_args!("Unable to access interface {name}: {error}"));
            }
        }
    }
    (Ok(()), status)
}

/// Like [`for_each`], but returns all interfaces.
pub(super) fn fetch(
    context: &Context,
    selection: &Selection,
) -> (Vec<(String, Interface)>, ExitCode) {
    let mut all = Vec::new();
    let (_, status) = for_each(context, selection, |name, interface, _| {
        all.push((name.to_owned(), interface));
        Ok(ExitCode::SUCCESS)
    });
    (all, status)
}
