//! The `wg-rs` command.

use std::process::ExitCode;

/// Runs `wg-rs`.
pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
