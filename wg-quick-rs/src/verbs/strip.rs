//! `strip`: a file without wg-quick's own keys.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::file::Location;
use crate::steps::console;

/// Prints the part of a file that `wg` reads. Errors in that part are left to `wg`.
pub fn strip(location: &Location) -> ExitCode {
    let file = match location.read_leniently() {
        Ok((file, _)) => file,
        Err(error) => {
            console::error(error);
            return ExitCode::FAILURE;
        }
    };
    let mut out = io::stdout().lock();
    let written = out
        .write_all(&file.stripped)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
