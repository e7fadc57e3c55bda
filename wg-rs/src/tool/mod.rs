//! The `wg-rs` command.
//!
//! ```text
//! argv ─► verb::VERBS, by name ─► its run(&Context, arguments) ─► exit status 0 or 1
//! ```
//!
//! Under the name `wg` it passes for that: `help`, `version` and every usage are those of `wg`, and the
//! verbs that `wg` lacks are there all the same.

mod configure;
mod context;
mod keys;
mod out;
mod show;
mod verb;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use self::context::{Context, complain};
use self::out::print;
use self::verb::VERBS;
use crate::backend::Backends;

/// The release of wireguard-tools that `wg-rs` behaves as.
const WIREGUARD_TOOLS: &str = "1.0.20260223";

/// Runs `wg-rs`: exit status 0 or 1.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_else(|| "wg-rs".into());
    let as_wg = Path::new(&program)
        .file_name()
        .is_some_and(|name| name == "wg");
    let program = program.to_string_lossy().into_owned();
    let args: Vec<OsString> = args.collect();
    let name = match args.first() {
        None => "show".into(),
        Some(name) => name.to_string_lossy(),
    };
    match (&*name, args.len()) {
        ("-v" | "--version" | "version", 1) => return version(as_wg),
        ("-h" | "--help" | "help", 1) => return print(verb::usage(&program, as_wg)),
        _ => {}
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        return complain(format_args!(
            "Invalid subcommand: `{name}'\n{}",
            verb::usage(&program, as_wg).trim_end()
        ));
    };
    let args = args.get(1..).unwrap_or_default();
    let context = Context {
        program,
        verb,
        interfaces: Backends::new(),
    };
    match args {
        [help] if !as_wg && ["-h", "--help", "help"].iter().any(|word| help == word) => {
            print(context.help())
        }
        _ => (verb.run)(&context, args),
    }
}

fn version(as_wg: bool) -> ExitCode {
    if as_wg {
        print(format!(
            "wireguard-tools v{WIREGUARD_TOOLS} - https://git.zx2c4.com/wireguard-tools/\n"
        ))
    } else {
        print(concat!("wg-rs v", env!("CARGO_PKG_VERSION"), "\n"))
    }
}
