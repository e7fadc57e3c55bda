//! `wg-quick-rs`: the `wg-quick` command. See wg-quick-rs(8).
//!
//! ```text
//! command_line ─► file ─► up, down, … ─► steps ─► engine: done one by one, undone on failure
//! ```

#![forbid(unsafe_code)]

mod check;
mod command_line;
#[allow(dead_code)]
mod console;
#[allow(dead_code)]
mod edit;
#[allow(dead_code)]
mod file;
mod lines;
mod qr;
#[allow(dead_code)]
mod replace;
mod reresolve;
#[allow(dead_code)]
mod save;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    command_line::main()
}
