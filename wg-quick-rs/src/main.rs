//! `wg-quick-rs`: see wg-quick-rs(8).

#![forbid(unsafe_code)]

#[allow(dead_code)]
mod edit;
#[allow(dead_code)]
mod lines;
#[allow(dead_code)]
mod replace;
#[allow(dead_code)]
mod save;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::FAILURE
}
