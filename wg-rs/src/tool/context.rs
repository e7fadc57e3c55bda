//! What every verb is given, and how it speaks.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use super::verb::Verb;

/// The circumstances of a call.
pub(crate) struct Context {
    /// `argv[0]` as it is: by this the program speaks of itself.
    pub program: String,
    /// Whether that is the name `wg`.
    pub as_wg: bool,
    /// What is asked for, by its name in [`super::verb::VERBS`].
    pub verb: &'static Verb,
}

impl Context {
    /// Complains with the verb's usage.
    pub fn usage(&self) -> ExitCode {
        complain(self.synopsis())
    }

    /// The answer to `--help`.
    pub fn help(&self) -> String {
        let Verb { about, example, .. } = self.verb;
        let (usage, program) = (self.synopsis(), &self.program);
        format!("{usage}\n\n{about}.\n\nExample:\n  {program} {example}\n")
    }

    fn synopsis(&self) -> String {
        let Verb { name, synopsis, .. } = self.verb;
        let line = format!("Usage: {} {name} {synopsis}", self.program);
        line.trim_end().to_owned()
    }
}

/// Writes to standard output and succeeds. A reader that went away knows what it wanted: that is
/// no failure, and nothing is said; any other is one.
pub(crate) fn print(text: impl AsRef<[u8]>) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(format_args!("Unable to write: {error}")),
    }
}

/// Says on standard error what is wrong, and fails.
pub(crate) fn complain(message: impl Display) -> ExitCode {
    // If nobody listens there, the exit status must do.
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::FAILURE
}

/// Why something failed, in the words of strerror(3): "No such device", without its number.
pub(crate) fn reason(error: &impl Display) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_strerror() {
        let error = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        assert_eq!(reason(&error), "Operation not supported");
        assert_eq!(reason(&"ended early"), "ended early");
    }
}
