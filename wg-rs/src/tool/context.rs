//! What every verb is given, and how it speaks.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use super::interfaces::Interfaces;
use super::verb::Verb;

/// The circumstances of a call.
pub(crate) struct Context {
    /// `argv[0]` as it is: by this the program speaks of itself.
    pub program: String,
    /// What is asked for, by its name in [`super::verb::VERBS`].
    pub verb: &'static Verb,
    /// The interfaces there are.
    pub interfaces: Interfaces,
}

impl Context {
    /// Complains with the verb's usage.
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

/// Says on standard error what is wrong, and fails.
pub(crate) fn complain(message: impl Display) -> ExitCode {
    // If nobody listens there, the exit status must do.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::FAILURE
}
