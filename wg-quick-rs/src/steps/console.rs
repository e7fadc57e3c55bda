//! Messages to the user, on standard error. If they cannot be written, the program goes on.

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use wg_rs::sys::reason;

use crate::file::Location;

/// The name by which this program was called.
pub fn program() -> String {
    let called = env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name();
    name.map_or("wg-quick-rs".into(), |name| {
        name.to_string_lossy().into_owned()
    })
}

/// Prints one line.
pub fn line(text: impl Display) {
    // In one write, as other programs print there too. `reason` drops the number of an error.
    let text = reason(&text) + "\n";
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints an error.
pub fn error(message: impl Display) {
    line(format_args!("{}: {message}", program()));
}

/// Prints the command for what is being done.
pub fn command(command: impl Display) {
    line(format_args!("[#] {command}"));
}

/// Prints a hook that is run, byte for byte.
pub fn hook(command: &OsStr) {
    let line = [b"[#] ", command.as_bytes(), b"\n"].concat();
    let _ = io::stderr().write_all(&line);
}

/// Warns if everyone can read a config file.
pub fn warn_of_readers(location: &Location) {
    if let Some(path) = location.world_accessible() {
        line(format_args!(
            "Warning: `{}' is world accessible",
            path.display()
        ));
    }
}

/// Prints a note.
pub fn note(message: impl Display) {
    line(format_args!("[!] {message}"));
}
