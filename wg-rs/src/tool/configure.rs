//! The commands that change an interface, and `showconf`.
//!
//! All input is read and all names are resolved before the interface's state is requested:
//! resolving may take a minute, and the state would then be out of date.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::context::{Context, complain};
use super::keys::KEY_LEN;
use super::out::print;
use crate::backend::{Errno, errno};
use crate::config::value::is_space;
use crate::config::{self, Apply, INVALID_LENGTH, Settings, look_up, parse_args, parse_file};
use crate::model::Change;
use crate::place;
use crate::sys::secrets;

/// `set IFACE WORD…`
pub(crate) fn set(context: &Context, args: &[OsString]) -> ExitCode {
    let [interface, words @ ..] = args else {
        return context.usage();
    };
    if words.is_empty() {
        return context.usage();
    }
    match parse_args(words, read_key) {
        Ok(settings) => set_all(context, interface, &settings),
        Err(error) => complain(error),
    }
}

/// Applies the settings of the command line, or nothing if the interface refuses one.
fn set_all(context: &Context, interface: &OsStr, settings: &Settings) -> ExitCode {
    let changes = match addresses(settings) {
        Ok(addresses) => settings.changes_to(Apply::AddConf, &addresses),
        Err(status) => return status,
    };
    let name = interface.to_string_lossy();
    let Err(error) = context.interfaces.set(&name, &changes) else {
        return ExitCode::SUCCESS;
    };
    let extension = settings
        .peers
        .iter()
        .flat_map(|peer| &peer.extensions)
        .next();
    match (extension, errno(&error)) {
        (Some(extension), Some(libc::EINVAL)) => complain(format_args!(
            "Unable to modify interface: the daemon of {name} does not support `{}'",
            extension.key()
        )),
        (Some(extension), Some(libc::EOPNOTSUPP)) => complain(format_args!(
            "Unable to modify interface: {name} is an interface of the kernel, which does not support `{}'",
            extension.key()
        )),
        _ => refused(&name, &changes, &error),
    }
}

/// Reports a refusal with the text of `wg`, and what is known of its reason on another line.
fn refused(name: &str, changes: &[Change], error: &io::Error) -> ExitCode {
    let status = complain(format_args!("Unable to modify interface: {error}"));
    match place::port_in_use(name, changes, error) {
        Some(why) => complain(why),
        None => status,
    }
}

/// `setconf IFACE FILE`
pub(crate) fn setconf(context: &Context, args: &[OsString]) -> ExitCode {
    let [interface, file] = args else {
        return context.usage();
    };
    match read(file) {
        Ok(mut settings) => {
            let unread = switch_off(context, interface, &mut settings);
            unless(
                unread,
                change(context, interface, &settings, Apply::SetConf),
            )
        }
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
    let mut settings = match read(file) {
        Ok(settings) => settings,
        Err(status) => return status,
    };
    let unread = switch_off(context, interface, &mut settings);
    if settings.peers.is_empty() {
        let done = change(context, interface, &settings, Apply::SetConf);
        return unless(unread, done);
    }
    let addresses = match addresses(&settings) {
        Ok(addresses) => addresses,
        Err(status) => return status,
    };
    match context.interfaces.get(&interface.to_string_lossy()) {
        Ok(now) => {
            let changes = settings.changes_to(Apply::SyncConf(&now), &addresses);
            unless(unread, make(context, interface, &changes))
        }
        Err(error) => complain(format_args!(
            "Unable to retrieve current interface configuration: {error}"
        )),
    }
}

/// Turns off extensions of the interface's peers that the file does not mention. Returns the error if
/// they cannot be read.
fn switch_off(context: &Context, interface: &OsStr, settings: &mut Settings) -> Option<io::Error> {
    match context.interfaces.extensions(&interface.to_string_lossy()) {
        Ok(now) => {
            settings.switch_off(&now);
            None
        }
        Err(error) => Some(error),
    }
}

/// The exit code of a change. A change that was made although the extensions could not be read is
/// incomplete; one that was refused has already reported why.
fn unless(unread: Option<io::Error>, done: ExitCode) -> ExitCode {
    match unread {
        Some(error) if done == ExitCode::SUCCESS => complain(format_args!(
            "Unable to turn off settings of `#@' lines that the file no longer has: {error}"
        )),
        _ => done,
    }
}

/// `showconf IFACE`
pub(crate) fn showconf(context: &Context, args: &[OsString]) -> ExitCode {
    let [interface] = args else {
        return context.usage();
    };
    let name = interface.to_string_lossy();
    let with_extensions = context.interfaces.get(&name).and_then(|mut now| {
        let mut extensions = context.interfaces.extensions(&name)?;
        for peer in &mut now.peers {
            peer.extensions = extensions.remove(&peer.public_key).unwrap_or_default();
        }
        Ok(now)
    });
    match with_extensions {
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

/// Prints warnings, and resolves the endpoints.
fn addresses(settings: &Settings) -> Result<Vec<Option<SocketAddr>>, ExitCode> {
    for warning in settings.warnings() {
        complain(warning);
    }
    settings.addresses(look_up).map_err(complain)
}

fn make(context: &Context, interface: &OsStr, changes: &[Change]) -> ExitCode {
    let name = interface.to_string_lossy();
    match context.interfaces.set_without_unknown(&name, changes) {
        Ok(missed) => {
            for extension in missed {
                complain(format_args!(
                    "Warning: {name} is not an interface of wireguard-rs; `{}' is ignored",
                    extension.key()
                ));
            }
            ExitCode::SUCCESS
        }
        Err(error) => refused(&name, changes, &error),
    }
}

/// Reads a configuration file. Prints the first error.
fn read(file: &OsStr) -> Result<Settings, ExitCode> {
    let name = file.to_string_lossy();
    let text = secrets::read(Path::new(file))
        .map_err(|error| complain(format_args!("{name}: {}", reason(&error))))?;
    parse_file(&name, &text).map_err(|errors| match errors.first() {
        Some(error) => complain(error),
        None => ExitCode::FAILURE,
    })
}

/// Reads the start of a key file. /dev/null and an empty file mean "no key". An empty pipe does
/// not: it comes from a command that failed, which must not remove a key.
fn read_key(path: &OsStr) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = File::open(path).map_err(|error| reason(&error))?;
    let says_no_key = file.metadata().is_ok_and(|file| {
        file.is_file() || file.file_type().is_char_device() && file.rdev() == NULL_DEVICE
    });
    let key = secrets::read_start(file, KEY_LEN, is_space).map_err(|error| reason(&error))?;
    if key.is_empty() && !says_no_key {
        return Err(INVALID_LENGTH.into());
    }
    Ok(key)
}

/// The major and minor number of /dev/null.
const NULL_DEVICE: u64 = libc::makedev(1, 3);

/// The error with the text of strerror(3).
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => Errno(errno).to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_an_empty_file_and_dev_null_mean_no_key() {
        let read = |path: &str| read_key(OsStr::new(path)).map(|key| key.to_vec());
        let empty = std::env::temp_dir().join(format!("wg-rs-no-key-{}", std::process::id()));
        File::create(&empty).unwrap();
        let of_file = read(empty.to_str().unwrap());
        std::fs::remove_file(&empty).unwrap();
        assert_eq!(of_file, Ok(vec![]));
        assert_eq!(read("/dev/null"), Ok(vec![]));

        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        assert_eq!(read(&path), Err(INVALID_LENGTH.into()));
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"text\n").unwrap();
        drop(writer);
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        assert_eq!(read(&path), Ok(b"text\n".to_vec()));
    }
}
