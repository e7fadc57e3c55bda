//! `strip`: a file without wg-quick's own keys.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::file::{File, Location};
use crate::steps::console;

/// Prints the part of a file that `wg` reads. Errors in that part are left to `wg`.
pub fn run(location: &Location) -> ExitCode {
    match location.read_leniently() {
        Ok((file, _)) => strip(&file),
        Err(error) => {
            console::error(error);
            ExitCode::FAILURE
        }
    }
}

fn strip(file: &File) -> ExitCode {
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
