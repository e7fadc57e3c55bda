//! `remove`: removes a peer from the file and from the interface.

use std::process::ExitCode;

use crate::file::Location;
use crate::file::edit::Edit;
use crate::file::roster::Who;
use crate::verbs::people::change;

/// Runs the command.
pub fn run(location: &Location, who: &Who) -> ExitCode {
    change::with(location, |transaction, opened| {
        let mut text = Edit::new(&opened.text);
        let (key, sections) = opened.find(&text, who)?;
        for member in &sections {
            text.remove(&member.section);
        }
        opened.apply(transaction, text.finish(), &[key])
    })
}
