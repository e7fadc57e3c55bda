//! The context of a command, and how it reports errors.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use super::interfaces::Interfaces;
use super::verb::Verb;
use crate::sys;

/// How the program was called.
pub(crate) struct Context {
    /// `argv[0]` unchanged: the name of the program in usage messages.
    pub program: String,
    /// The command.
    pub verb: &'static Verb,
    /// The interfaces that can be reached.
    pub interfaces: Interfaces,
}

impl Context {
    /// Prints the command's usage as an error.
    pub fn usage(&self) -> ExitCode {
        complain(self.synopsis())
    }

    /// The text for `--help`.
    pub fn help(&self) -> String {
        let mut text = format!("{}\n\n{}.\n", self.synopsis(), self.verb.about);
        for (n, option) in self.verb.options.lines().enumerate() {
            let heading = if n == 0 { "\nOptions:\n" } else { "" };
            text += &format!("{heading}  {}\n", option.trim_start());
        }
        if !self.verb.notes.is_empty() {
            text += &format!("\n{}", self.verb.notes);
        }
        text + &format!("\nExample:\n  {} {}\n", self.program, self.verb.example)
    }

    fn synopsis(&self) -> String {
        let Verb { name, synopsis, .. } = self.verb;
        let line = format!("Usage: {} {name} {synopsis}", self.program);
        line.trim_end().to_owned()
    }
}

/// Prints an error on standard error. Returns the exit status of failure.
pub(crate) fn complain(message: impl Display) -> ExitCode {
    // If standard error is closed, the exit status must be enough.
    let _ = writeln!(std::io::stderr(), "{}", sys::reason(&message));
    ExitCode::FAILURE
}
