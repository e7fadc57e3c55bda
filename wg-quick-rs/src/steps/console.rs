//! What is told to the person, on standard error. Nobody there to read it is no reason to stop.

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use wg_rs::sys::reason;

/// The name we were called by.
pub fn program() -> String {
    let called = env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name();
    name.map_or("wg-quick-rs".into(), |name| {
        name.to_string_lossy().into_owned()
    })
}

/// One line, as it is.
pub fn line(text: impl Display) {
    // In one piece: others write there too. The number of an errno helps nobody.
    let text = reason(&text) + "\n";
    let _ = io::stderr().write_all(text.as_bytes());
}

/// What went wrong.
pub fn error(message: impl Display) {
    line(format_args!("{}: {message}", program()));
}

/// What is being done, as a command.
pub fn command(command: impl Display) {
    line(format_args!("[#] {command}"));
}

/// A hook that is run, byte for byte.
pub fn hook(command: &OsStr) {
    let line = [b"[#] ", command.as_bytes(), b"\n"].concat();
    let _ = io::stderr().write_all(&line);
}

/// What is worth knowing.
pub fn note(message: impl Display) {
    line(format_args!("[!] {message}"));
}
