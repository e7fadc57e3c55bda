//! The verbs that change an interface, and the one that prints its configuration.
//!
//! All is read, and names are looked up, before anything is asked of the interface: that may take a
//! minute, after which its state is another.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::context::{Context, complain};
use super::keys::KEY_LEN;
use super::out::print;
use crate::backend::Errno;
use crate::config::value::is_space;
use crate::config::{self, Apply, Settings, look_up, parse_args, parse_file};
use crate::sys::secrets;
use crate::uapi::types::Change;

/// `set IFACE WORD…`
pub(crate) fn set(context: &Context, args: &[OsString]) -> ExitCode {
    let [interface, words @ ..] = args else {
        return context.usage();
    };
    if words.is_empty() {
        return context.usage();
    }
    match parse_args(words, read_key) {
        Ok(settings) => change(context, interface, &settings, Apply::AddConf),
        Err(error) => complain(error),
    }
}

/// `setconf IFACE FILE`
pub(crate) fn setconf(context: &Context, args: &[OsString]) -> ExitCode {
    let [interface, file] = args else {
        return context.usage();
    };
    match read(file) {
        Ok(settings) => change(context, interface, &settings, Apply::SetConf),
        Err(status) => status,
    }
}

/// `addconf IFACE FILE`
pub(crate) fn addconf(context: &Context, args: &[OsString]) -> ExitCode {
    let [interface, file] = args else {
        return context.usage();
    };
    match read(file) {
        Ok(settings) => change(context, interface, &settings, Apply::AddConf),
        Err(status) => status,
    }
}

/// `syncconf IFACE FILE`
pub(crate) fn syncconf(context: &Context, args: &[OsString]) -> ExitCode {
    let [interface, file] = args else {
        return context.usage();
    };
    let settings = match read(file) {
        Ok(settings) => settings,
        Err(status) => return status,
    };
    if settings.peers.is_empty() {
        return change(context, interface, &settings, Apply::SetConf);
    }
    let addresses = match addresses(&settings) {
        Ok(addresses) => addresses,
        Err(status) => return status,
    };
    match context.interfaces.get(&interface.to_string_lossy()) {
        Ok(now) => {
            let changes = settings.changes_to(Apply::SyncConf(&now), &addresses);
            make(context, interface, &changes)
        }
        Err(error) => complain(format_args!(
            "Unable to retrieve current interface configuration: {error}"
        )),
    }
}

/// `showconf IFACE`
pub(crate) fn showconf(context: &Context, args: &[OsString]) -> ExitCode {
    let [interface] = args else {
        return context.usage();
    };
    match context.interfaces.get(&interface.to_string_lossy()) {
        Ok(now) => print(&*config::print(&now)),
        Err(error) => complain(format_args!("Unable to access interface: {error}")),
    }
}

fn change(context: &Context, interface: &OsStr, settings: &Settings, how: Apply<'_>) -> ExitCode {
    match addresses(settings) {
        Ok(addresses) => make(context, interface, &settings.changes_to(how, &addresses)),
        Err(status) => status,
    }
}

/// Says what is to be warned of, and looks up the endpoints.
fn addresses(settings: &Settings) -> Result<Vec<Option<SocketAddr>>, ExitCode> {
    for warning in settings.warnings() {
        complain(warning);
    }
    settings.addresses(look_up).map_err(complain)
}

fn make(context: &Context, interface: &OsStr, changes: &[Change]) -> ExitCode {
    match context
        .interfaces
        .set(&interface.to_string_lossy(), changes)
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(format_args!("Unable to modify interface: {error}")),
    }
}

/// Reads a file, or says what is wrong with it first.
fn read(file: &OsStr) -> Result<Settings, ExitCode> {
    let name = file.to_string_lossy();
    let text = secrets::read(Path::new(file))
        .map_err(|error| complain(format_args!("{name}: {}", reason(&error))))?;
    parse_file(&name, &text).map_err(|errors| match errors.first() {
        Some(error) => complain(error),
        None => ExitCode::FAILURE,
    })
}

/// Reads the file of a key as far as that takes.
fn read_key(path: &OsStr) -> Result<Zeroizing<Vec<u8>>, String> {
    File::open(path)
        .and_then(|file| secrets::read_start(file, KEY_LEN, is_space))
        .map_err(|error| reason(&error))
}

/// As strerror(3) has it.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => Errno(errno).to_string(),
        None => error.to_string(),
    }
}
