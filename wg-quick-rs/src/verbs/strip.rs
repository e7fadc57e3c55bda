//! `strip`: a file without what is wg-quick's own.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::file::File;

/// Prints what `wg` understands of a file. What is wrong with it is for `wg` to say.
pub fn strip(file: &File) -> ExitCode {
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
