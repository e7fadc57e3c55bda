//! `PreUp`, `PostUp`, `PreDown` and `PostDown`.

use crate::file::{ConfigValue, File, Hook};
use crate::steps::failure::{self, Failure};
use crate::steps::step::Step;
use crate::steps::transaction::Transaction;

/// Runs the hooks of this key, one after the other.
///
/// # Errors
/// A hook failed; the hooks after it are not run.
pub fn run(
    transaction: &mut Transaction,
    file: &File,
    key: &str,
    hooks: &[ConfigValue<Hook>],
) -> Result<(), Failure> {
    for hook in hooks {
        transaction.run(step(file, key, hook))?;
    }
    Ok(())
}

/// The step that runs one hook.
pub fn step(file: &File, key: &str, hook: &ConfigValue<Hook>) -> Step {
    Step::Hook {
        command: hook.value.command(&file.interface),
        file: file.path.clone(),
        position: failure::position(file, hook.line, key),
    }
}
