//! `wg-quick-rs`: the `wg-quick` command. See wg-quick-rs(8).
//!
//! ```text
//! command_line ─► file ─► up, down, … ─► steps ─► engine: done one by one, undone on failure
//! ```

#![forbid(unsafe_code)]

mod command_line;
#[allow(dead_code)]
mod console;
#[allow(dead_code)]
mod edit;
#[allow(dead_code)]
mod file;
#[allow(dead_code)]
mod lines;
#[allow(dead_code)]
mod qr;
#[allow(dead_code)]
mod replace;
#[allow(dead_code)]
mod save;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    command_line::main()
}
