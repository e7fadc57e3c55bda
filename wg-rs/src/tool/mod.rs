//! The `wg-rs` command.
//!
//! ```text
//! argv ─► --netns ─► verb::VERBS, by name ─► run: its function(&Context, arguments) ─► exit status 0 or 1
//! ```
//!
//! When called as `wg`, the program behaves like `wg`: `help`, `version` and all usage messages are
//! those of `wg`. The commands that `wg` lacks still work.

mod completions;
mod configure;
mod context;
mod interfaces;
mod json;
mod keys;
mod link;
mod log;
mod metrics;
mod netns;
mod out;
mod query;
mod show;
mod status;
#[cfg(feature = "stack")]
mod tunnel;
mod verb;
mod watch;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use self::context::{Context, complain};
use self::interfaces::Interfaces;
use self::out::print;
use self::verb::VERBS;
use crate::sys::process::confine;

/// The version of wireguard-tools that `wg-rs` imitates.
const WIREGUARD_TOOLS: &str = "1.0.20260223";

/// Runs `wg-rs`: exit status 0 or 1.
pub fn main() -> ExitCode {
    // Before this process contains keys.
    if let Err(error) = confine::no_core_dumps() {
        return complain(format_args!("Unable to disable core dumps: {error}"));
    }
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_else(|| "wg-rs".into());
    let as_wg = Path::new(&program)
        .file_name()
        .is_some_and(|name| name == "wg");
    let program = program.to_string_lossy().into_owned();
    let mut args: Vec<OsString> = args.collect();
    let mut netns = match netns::take(&mut args, 0) {
        Ok(netns) => netns,
        Err(message) => return complain(message),
    };
    if !as_wg && args.len() == 2 && args[0] == "help" {
        match args[1].to_str() {
            Some("help" | "version") => args.truncate(1),
            // `help set` is `set help`.
            _ => args.rotate_left(1),
        }
    }
    let name = match args.first() {
        None => "show".into(),
        Some(name) => name.to_string_lossy(),
    };
    match (&*name, args.len()) {
        ("-v" | "--version" | "version", 1) => return version(as_wg),
        ("-V", 1) if !as_wg => return version(as_wg),
        ("-h" | "--help" | "help", 1) => return print(verb::usage(&program, as_wg)),
        _ => {}
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        return complain(format_args!(
            "Invalid subcommand: `{name}'\n{}",
            verb::usage(&program, as_wg).trim_end()
        ));
    };
    // `wg' would treat this as the name of an interface.
    if verb.of_wg && !as_wg && netns.is_none() {
        let last = if verb.name == "show" { args.len() } else { 2 };
        for position in 1..last {
            match netns::take(&mut args, position) {
                Ok(None) => continue,
                Ok(taken) => netns = taken,
                Err(message) => return complain(message),
            }
            break;
        }
    }
    let interfaces = match &netns {
        None => Interfaces::all(),
        Some(netns) => match netns::enter(netns) {
            Ok(()) => Interfaces::here(),
            Err(error) => return complain(error),
        },
    };
    let args = args.get(1..).unwrap_or_default();
    let context = Context {
        program,
        verb,
        interfaces,
    };
    match args {
        [help] if !as_wg && ["-h", "--help", "help"].iter().any(|word| help == word) => {
            print(context.help())
        }
        _ => run(&context, args),
    }
}

/// Runs the command with the arguments after its name: exit status 0 or 1.
fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let run = match context.verb.name {
        "show" => show::run,
        "showconf" => configure::showconf,
        "set" => configure::set,
        "setconf" => configure::setconf,
        "addconf" => configure::addconf,
        "syncconf" => configure::syncconf,
        "genkey" => keys::genkey,
        "genpsk" => keys::genpsk,
        "pubkey" => keys::pubkey,
        "link" => link::run,
        "status" => status::run,
        "metrics" => metrics::run,
        "log" => log::run,
        #[cfg(feature = "stack")]
        "forward" => tunnel::forward::run,
        #[cfg(feature = "stack")]
        "socks" => tunnel::socks::run,
        #[cfg(feature = "stack")]
        "relay" => tunnel::relay::run,
        "completions" => completions::run,
        other => unreachable!("a verb without a function: {other}"),
    };
    run(context, args)
}

fn version(as_wg: bool) -> ExitCode {
    if as_wg {
        print(format!(
            "wireguard-tools v{WIREGUARD_TOOLS} - https://git.zx2c4.com/wireguard-tools/\n"
        ))
    } else {
        print(concat!("wg-rs ", env!("CARGO_PKG_VERSION"), "\n"))
    }
}
