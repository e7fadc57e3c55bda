//! `wg-rs`: see wg-rs(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    wg_rs::tool::main()
}
