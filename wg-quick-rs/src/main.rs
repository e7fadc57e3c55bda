//! `wg-quick-rs`: the `wg-quick` command. See wg-quick-rs(8).
//!
//! ```text
//! command_line ─► verbs: up, down, … ─► plan: what a file means for this host
//!                   │                    │
//!                   └────────────────────┴► steps: done one by one, undone on failure ─► file: its text
//! ```
//! Each folder imports only from the folders to its right: verbs, plan, steps, file.

#![forbid(unsafe_code)]

mod command_line;
mod completions;
mod file;
mod plan;
mod steps;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    command_line::main()
}
