//! What a config file says: read, compared, edited, replaced.
//!
//! Code that needs only the text of a file belongs here; what the file means for a host is in `plan`.

pub mod difference;
pub mod edit;
pub mod hook_text;
pub mod hubs;
mod name;
pub mod overridden;
pub mod own_endpoint;
mod parse;
mod repeated;
pub mod replace;
pub mod roster;
pub mod saved;
pub mod table;

pub use name::is_name;
pub use parse::{
    Address, ConfigValue, Dns, Error, FOLDER, File, Hook, Location, is_server, parse, words,
};
