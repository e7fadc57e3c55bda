//! `log`: sets how much a running daemon logs.

use std::ffi::OsString;
use std::process::ExitCode;

use super::context::{Context, complain};
use super::query::{left_behind, no_access};

/// The names of the log levels.
pub(super) const LEVELS: [&str; 3] = ["silent", "error", "verbose"];

/// Runs `log`.
pub(super) fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let [name, level] = &words[..] else {
        return context.usage();
    };
    if !LEVELS.contains(&&**level) {
        return complain(format_args!(
            "`{level}' is not a log level: use silent, error or verbose"
        ));
    }
    if context.interfaces.is_left(name) {
        return left_behind(name);
    }
    match context.interfaces.log(name, level) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => complain(format_args!(
            "Unable to set the log level of {name}: only the daemon wireguard-rs can"
        )),
        Err(error) => no_access(name, &error),
    }
}
