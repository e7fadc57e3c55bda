//! `genkey`, `genpsk` and `pubkey`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::stat::{Mode, SFlag, fstat};
use rand_core::{OsRng, TryRngCore};
use wg_crypto::{PresharedKey, PrivateKey};
use zeroize::Zeroizing;

use super::context::{Context, complain};
use super::out::print;
use crate::config::value::is_space;
use crate::sys::secrets;

/// Length of a key in base64 characters.
pub(super) const KEY_LEN: usize = 44;

/// `genkey`
pub(crate) fn genkey(context: &Context, args: &[OsString]) -> ExitCode {
    generate(context, args, |bytes| {
        PrivateKey::from_bytes(bytes).to_base64()
    })
}

/// `genpsk`
pub(crate) fn genpsk(context: &Context, args: &[OsString]) -> ExitCode {
    generate(context, args, |bytes| {
        PresharedKey::from_bytes(bytes).to_base64()
    })
}

fn generate(
    context: &Context,
    args: &[OsString],
    key: fn([u8; 32]) -> Zeroizing<String>,
) -> ExitCode {
    if !args.is_empty() {
        return context.usage();
    }
    if fstat(io::stdout()).is_ok_and(|file| is_open_to_all(file.st_mode)) {
        complain(
            "Warning: writing to world accessible file.\n\
             Consider setting the umask to 077 and trying again.",
        );
    }
    let mut bytes = Zeroizing::new([0; 32]);
    match OsRng.try_fill_bytes(&mut *bytes) {
        Ok(()) => print_line(&key(*bytes)),
        Err(error) => complain(format_args!("getrandom: {error}")),
    }
}

/// Whether this is a regular file that others than its owner and group can access.
fn is_open_to_all(mode: libc::mode_t) -> bool {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG
        && mode & Mode::S_IRWXO.bits() != 0
}

/// `pubkey`
pub(crate) fn pubkey(context: &Context, args: &[OsString]) -> ExitCode {
    if !args.is_empty() {
        return context.usage();
    }
    // `Stdin` is not used because its buffer is never wiped.
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let blank = |b| b == 0 || is_space(b);
    let text = stdin.and_then(|stdin| secrets::read_start(stdin, KEY_LEN, blank));
    let text = text.unwrap_or_default();
    let program = &context.program;
    if text.len() > KEY_LEN {
        return complain(format_args!(
            "{program}: Trailing characters found after key"
        ));
    }
    match str::from_utf8(&text)
        .ok()
        .and_then(|text| PrivateKey::from_base64(text).ok())
    {
        Some(key) => print_line(&key.public_key().to_base64()),
        None => complain(format_args!(
            "{program}: Key is not the correct length or format"
        )),
    }
}

fn print_line(key: &str) -> ExitCode {
    let mut line = Zeroizing::new(String::with_capacity(key.len() + 1));
    line.push_str(key);
    line.push('\n');
    print(&*line)
}
