//! The verbs, and the usage that lists them.

use std::ffi::OsString;
use std::fmt::Write;
use std::process::ExitCode;

use super::context::Context;

/// A verb and how it is described.
pub(crate) struct Verb {
    /// As it is typed.
    pub name: &'static str,
    /// One line, without a full stop. Those of `wg` are its own words.
    pub about: &'static str,
    /// The arguments, as the usage line shows them. Those of `wg` are its own words.
    pub synopsis: &'static str,
    /// Arguments of a call that makes sense, for `--help`.
    pub example: &'static str,
    /// Whether `wg` has it.
    pub of_wg: bool,
    /// Does it, with the arguments behind its name. Its exit status is 0 or 1.
    pub run: fn(&Context, &[OsString]) -> ExitCode,
}

/// All verbs: first those of `wg`, in its order.
pub(crate) const VERBS: &[Verb] = &[];

/// What `help` prints.
pub(super) fn usage(program: &str, as_wg: bool) -> String {
    let mut text = if as_wg {
        format!("Usage: {program} <cmd> [<args>]\n\nAvailable subcommands:\n")
    } else {
        format!("Usage: {program} [--netns <namespace>] <cmd> [<args>]\n\nAvailable subcommands:\n")
    };
    for verb in VERBS.iter().filter(|verb| verb.of_wg || !as_wg) {
        let Verb { name, about, .. } = verb;
        let _ = writeln!(text, "  {name}: {about}");
    }
    text.push_str("You may pass `--help' to any of these subcommands to view usage.\n");
    text
}
