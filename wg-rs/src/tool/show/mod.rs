//! `show`: the state of interfaces, for people and for scripts.

mod fetch;
mod json;
mod pretty;
mod rates;
mod script;
mod terminal;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use self::fetch::{Selection, fetch, for_each};
use self::pretty::Pretty;
use self::script::Parameter;
use super::context::{Context, complain};
use super::json::JsonLayout;
use super::out::Out;

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
    let (selection, parameter) = (words.next(), words.next());
    if words.next().is_some() || (parameter.is_some() && !plain) {
        return context.usage();
    }
    let selection = match selection.as_deref() {
        None | Some("all") => Selection::All,
        Some("interfaces") if parameter.is_none() && plain => return interfaces(context),
        Some("interfaces") => return context.usage(),
        Some("-h" | "--help" | "help") if parameter.is_none() && plain => {
            context.usage();
            return ExitCode::SUCCESS;
        }
        Some(name) => Selection::One(name.to_owned()),
    };
    if watch {
        return watch::run(context, &selection, json);
    }
    let mut out = Out::new();
    let (written, status) = match parameter {
        Some(parameter) => parameter_of(context, &selection, &parameter, &mut out),
        None if json => {
            let (all, status) = fetch(context, &selection);
            (json::print(&mut out, &all, JsonLayout::Lines), status)
        }
        None => pretty_of(context, &selection, &mut out),
    };
    out.finish(written, status)
}

/// The names of the parameters.
pub(super) fn parameters() -> impl Iterator<Item = &'static str> {
    Parameter::ALL.iter().map(|(name, _)| *name)
}

/// Prints all names on one line.
fn interfaces(context: &Context) -> ExitCode {
    match context.interfaces.list() {
        Ok(names) if names.is_empty() => ExitCode::SUCCESS,
        Ok(names) => super::out::print(names.join(" ") + "\n"),
        Err(error) => complain(format_args!("Unable to list interfaces: {error}")),
    }
}

fn pretty_of(
    context: &Context,
    selection: &Selection,
    out: &mut Out,
) -> (io::Result<()>, ExitCode) {
    let pretty = Pretty::new(terminal::colours());
    for_each(context, selection, |name, interface, more| {
        pretty.print(out, name, &interface)?;
        if more {
            writeln!(out)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn parameter_of(
    context: &Context,
    selection: &Selection,
    parameter: &str,
    out: &mut Out,
) -> (io::Result<()>, ExitCode) {
    for_each(context, selection, |name, interface, _| {
        // Checked only now, like `wg`: without an interface an invalid parameter is not an error.
        let Some(parameter) = Parameter::of_name(parameter) else {
            complain(format_args!("Invalid parameter: `{parameter}'"));
            return Ok(context.usage());
        };
        let prefix = match selection {
            Selection::All => Some(name),
            Selection::One(_) => None,
        };
        parameter.print(out, prefix, &interface)?;
        Ok(ExitCode::SUCCESS)
    })
}
