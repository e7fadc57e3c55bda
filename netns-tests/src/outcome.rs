//! How the programs of this crate sum up and end.

use std::io;
use std::process::ExitCode;

/// The exit code of a program whose checks were passed or not. An error is printed after the program's name.
pub fn exit_code(program: &str, passed: io::Result<bool>) -> ExitCode {
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The median: of an even number of values the greater one in the middle. `None` if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
