//! `wireguard-rs INTERFACE`: see wireguard-rs(8).

use std::process::ExitCode;

fn main() -> ExitCode {
    wg_rs::daemon::main()
}
