//! `show`: the state of interfaces, for people and for scripts.

mod json;
mod pretty;
mod rates;
mod script;
mod terminal;
mod watch;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use self::pretty::Pretty;
use self::script::Parameter;
use super::context::{Context, complain};
use super::out::Out;
use crate::uapi::types::Interface;

/// What is asked for.
enum Which {
    All,
    One(String),
}

/// Runs `show`.
pub(super) fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let (mut json, mut watch) = (false, false);
    let mut words = Vec::new();
    for arg in args {
        match &*arg.to_string_lossy() {
            "--json" => json = true,
            "--watch" => watch = true,
            word => words.push(word.to_owned()),
        }
    }
    let plain = !json && !watch;
    let mut words = words.into_iter();
    let (which, parameter) = (words.next(), words.next());
    if words.next().is_some() || (parameter.is_some() && !plain) {
        return context.usage();
    }
    let which = match which.as_deref() {
        None | Some("all") => Which::All,
        Some("interfaces") if parameter.is_none() && plain => return interfaces(context),
        Some("interfaces") => return context.usage(),
        Some("-h" | "--help" | "help") if parameter.is_none() && plain => {
            context.usage();
            return ExitCode::SUCCESS;
        }
        Some(name) => Which::One(name.to_owned()),
    };
    if watch {
        return watch::run(context, &which, json);
    }
    let mut out = Out::new();
    let (written, status) = match parameter {
        Some(parameter) => parameter_of(context, &which, &parameter, &mut out),
        None if json => {
            let (all, status) = fetch(context, &which);
            (json::print(&mut out, &all, json::Layout::Lines), status)
        }
        None => pretty_of(context, &which, &mut out),
    };
    out.finish(written, status)
}

/// What can be asked of one interface, or of all.
pub(super) fn parameters() -> impl Iterator<Item = &'static str> {
    Parameter::ALL.iter().map(|(name, _)| *name)
}

/// All names on one line.
fn interfaces(context: &Context) -> ExitCode {
    match context.interfaces.list() {
        Ok(names) if names.is_empty() => ExitCode::SUCCESS,
        Ok(names) => super::out::print(names.join(" ") + "\n"),
        Err(error) => complain(format_args!("Unable to list interfaces: {error}")),
    }
}

/// Asks each interface in turn and does `each` with it: its name, its state, and whether another
/// follows. One of several that cannot be asked is complained of and left out. Fails if there are
/// interfaces but none could be asked, or if `each` did.
fn for_each(
    context: &Context,
    which: &Which,
    mut each: impl FnMut(&str, Interface, bool) -> io::Result<ExitCode>,
) -> (io::Result<()>, ExitCode) {
    let names = match which {
        Which::All => match context.interfaces.list() {
            Ok(names) => names,
            Err(error) => {
                let status = complain(format_args!("Unable to list interfaces: {error}"));
                return (Ok(()), status);
            }
        },
        Which::One(name) => vec![name.clone()],
    };
    let mut status = if names.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    let mut names = names.iter().peekable();
    while let Some(name) = names.next() {
        match (context.interfaces.get(name), which) {
            (Ok(interface), _) => match each(name, interface, names.peek().is_some()) {
                Ok(ExitCode::SUCCESS) => status = ExitCode::SUCCESS,
                Ok(failure) => return (Ok(()), failure),
                Err(error) => return (Err(error), ExitCode::FAILURE),
            },
            (Err(error), Which::One(_)) => {
                complain(format_args!("Unable to access interface: {error}"));
            }
            (Err(error), Which::All) => {
                complain(format_args!("Unable to access interface {name}: {error}"));
            }
        }
    }
    (Ok(()), status)
}

/// As [`for_each`], all at once.
fn fetch(context: &Context, which: &Which) -> (Vec<(String, Interface)>, ExitCode) {
    let mut all = Vec::new();
    let (_, status) = for_each(context, which, |name, interface, _| {
        all.push((name.to_owned(), interface));
        Ok(ExitCode::SUCCESS)
    });
    (all, status)
}

fn pretty_of(context: &Context, which: &Which, out: &mut Out) -> (io::Result<()>, ExitCode) {
    let pretty = Pretty::new(terminal::colours());
    for_each(context, which, |name, interface, more| {
        pretty.print(out, name, &interface)?;
        if more {
            writeln!(out)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn parameter_of(
    context: &Context,
    which: &Which,
    parameter: &str,
    out: &mut Out,
) -> (io::Result<()>, ExitCode) {
    for_each(context, which, |name, interface, _| {
        // Only now, as `wg` has it: nobody complains where there is no interface.
        let Some(parameter) = Parameter::of_name(parameter) else {
            complain(format_args!("Invalid parameter: `{parameter}'"));
            return Ok(context.usage());
        };
        let prefix = match which {
            Which::All => Some(name),
            Which::One(_) => None,
        };
        parameter.print(out, prefix, &interface)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Whether secrets may be shown to people and in JSON.
fn reveals_keys() -> bool {
    env::var_os("WG_HIDE_KEYS").is_some_and(|value| value == "never")
}
