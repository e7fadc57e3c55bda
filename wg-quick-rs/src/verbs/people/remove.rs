//! `remove`: removes a peer from the file and from the interface.

use std::process::ExitCode;

use crate::file::edit::Edit;
use crate::file::roster::Who;
use crate::verbs::people::change;

/// Runs the command.
pub fn run(argument: &str, who: &Who) -> ExitCode {
    change::with(argument, |transaction, opened| {
        let mut text = Edit::new(&opened.text);
        let (key, sections) = opened.find(&text, who)?;
        for member in &sections {
            text.remove(&member.section);
        }
        opened.apply(transaction, text.finish(), &[key])
    })
}
