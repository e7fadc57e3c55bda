//! What every verb is given, and how it reports errors.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use super::interfaces::Interfaces;
use super::verb::Verb;
use crate::sys;

/// How the program was called.
pub(crate) struct Context {
    /// `argv[0]` as it is: the name by which usages call the program.
    pub program: String,
    /// The verb.
    pub verb: &'static Verb,
    /// The interfaces that can be reached.
    pub interfaces: Interfaces,
}

impl Context {
    /// Prints the verb's usage as an error.
    pub fn usage(&self) -> ExitCode {
        complain(self.synopsis())
    }

    /// The answer to `--help`.
    pub fn help(&self) -> String {
        let mut text = format!("{}\n\n{}.\n", self.synopsis(), self.verb.about);
        for (n, option) in self.verb.options.lines().enumerate() {
            let heading = if n == 0 { "\nOptions:\n" } else { "" };
            text += &format!("{heading}  {}\n", option.trim_start());
        }
        text + &format!("\nExample:\n  {} {}\n", self.program, self.verb.example)
    }

    fn synopsis(&self) -> String {
        let Verb { name, synopsis, .. } = self.verb;
        let line = format!("Usage: {} {name} {synopsis}", self.program);
        line.trim_end().to_owned()
    }
}

/// Prints an error on standard error, and fails.
pub(crate) fn complain(message: impl Display) -> ExitCode {
    // If nobody reads that, the exit status must do.
    let _ = writeln!(std::io::stderr(), "{}", sys::reason(&message));
    ExitCode::FAILURE
}
