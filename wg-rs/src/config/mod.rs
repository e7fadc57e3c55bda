//! The configuration file of `wg` and the arguments of `wg set`, as settings of an interface.
//!
//! `file` and `args` read text into [`Settings`] by way of `value`; `changes` turns them into what
//! is asked of an interface; [`print()`] is the way back. Text to values and nothing else, but for
//! names: `endpoint` looks up hosts, `value` the services that ports are called by.
//!
//! What is said of wrong text never holds a key, nor what may be a piece of one.

mod args;
mod changes;
mod dialect;
mod endpoint;
mod error;
mod extensions;
mod file;
mod print;
mod settings;
pub mod value;

/// The invisible mark with which some editors begin a file.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub use args::{INVALID_LENGTH, parse_args};
pub use changes::Apply;
pub use dialect::{Dialect, WG_QUICK};
pub use endpoint::{Retries, look_up};
pub use error::{Error, Hint, Position, Reason};
pub use extensions::MARK as EXTENSION_MARK;
pub use file::{parse_file, read_file};
pub use print::print;
pub use settings::{Address, AllowedIpSetting, Endpoint, PeerSettings, Settings};
