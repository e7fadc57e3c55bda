//! Reads the configuration file of `wg` and the arguments of `wg set` into settings of an
//! interface.
//!
//! `lines` splits a file into keys and values. `file` and `args` read them into [`Settings`], using
//! `keys` and `value`. `changes` turns settings into changes of an interface. [`print()`] prints an
//! interface as a file. The only I/O is name
//! resolution: of hosts in `endpoint`, and of services in `value`.
//!
//! Errors never contain a key, nor a possible piece of one.

mod args;
mod changes;
mod dialect;
mod endpoint;
mod error;
mod extensions;
mod file;
mod keys;
pub mod lines;
mod print;
mod settings;
pub mod value;

/// The invisible mark with which some editors begin a file.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub use args::{INVALID_LENGTH, parse_args};
pub use changes::Apply;
pub use dialect::{Dialect, WG_QUICK};
pub use endpoint::{Retries, look_up};
pub use error::{Error, Hint, NotAHost, Position, Reason, shown};
pub use extensions::MARK as EXTENSION_MARK;
pub use file::{parse_file, read_file};
pub use print::print;
pub use settings::{Address, AllowedIpSetting, ConfigEndpoint, PeerSettings, Settings};

/// The line and text of the first error in a file; `I` and `P` stand for the section headers.
#[cfg(test)]
fn first_error(text: &str, dialect: Dialect) -> String {
    let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    let text = text
        .replace("I\n", "[Interface]\n")
        .replace("P\n", &format!("[Peer]\nPublicKey={key}\n"));
    let (_, errors) = read_file("f", text.as_bytes(), dialect);
    errors.first().map(Error::to_string).unwrap_or_default()
}
