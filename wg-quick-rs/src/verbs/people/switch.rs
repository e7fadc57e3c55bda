//! `disable` and `enable`: turn a peer's section into a comment, and back. The peer keeps its keys,
//! its name and its address.

use std::process::ExitCode;

use crate::file::Location;
use crate::file::edit::Edit;
use crate::file::roster::Who;
use crate::steps::console;
use crate::verbs::people::change;

/// Runs one of the two commands.
pub fn run(location: &Location, who: &Who, enable: bool) -> ExitCode {
    change::with(location, |transaction, opened| {
        let mut text = Edit::new(&opened.text);
        let (key, mut sections) = opened.find(&text, who)?;
        sections.retain(|member| member.is_enabled != enable);
        if sections.is_empty() {
            let state = if enable { "enabled" } else { "disabled" };
            console::note(format_args!("`{who}' is already {state}."));
            return Ok(());
        }
        for member in &sections {
            match enable {
                true => text.enable(&member.section),
                false => text.disable(&member.section),
            }
        }
        opened.apply(transaction, text.finish(), &[key])
    })
}
