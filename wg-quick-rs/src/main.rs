//! `wg-quick-rs`: see wg-quick-rs(8).

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::FAILURE
}
