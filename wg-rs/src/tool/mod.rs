//! The `wg-rs` command.
//!
//! ```text
//! argv ─► verb::VERBS, by name ─► its run(&Context, arguments) ─► exit status 0 or 1
//! ```
//!
//! Under the name `wg` it passes for that: `help`, `version` and every usage are those of `wg`, and the
//! verbs that `wg` lacks are there all the same.

mod completions;
mod configure;
mod context;
mod interfaces;
mod keys;
mod link;
mod out;
mod show;
mod verb;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use self::context::{Context, complain};
use self::interfaces::Interfaces;
use self::out::print;
use self::verb::VERBS;
use crate::place::{self, Namespace};
use crate::sys::process::confine;

/// The release of wireguard-tools that `wg-rs` behaves as.
const WIREGUARD_TOOLS: &str = "1.0.20260223";

/// Runs `wg-rs`: exit status 0 or 1.
pub fn main() -> ExitCode {
    // Before there are keys in this memory.
    if let Err(error) = confine::no_core_dumps() {
        return complain(format_args!("Unable to forbid core dumps: {error}"));
    }
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_else(|| "wg-rs".into());
    let as_wg = Path::new(&program)
        .file_name()
        .is_some_and(|name| name == "wg");
    let program = program.to_string_lossy().into_owned();
    let mut args: Vec<OsString> = args.collect();
    let netns = match take_netns(&mut args) {
        Ok(netns) => netns,
        Err(message) => return complain(message),
    };
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
    let interfaces = match &netns {
        None => Interfaces::all(),
        Some(netns) => match enter(netns) {
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

/// Takes `--netns NS` or `--netns=NS` away from the front.
fn take_netns(args: &mut Vec<OsString>) -> Result<Option<Namespace>, String> {
    let Some(first) = args.first().map(|first| first.to_string_lossy()) else {
        return Ok(None);
    };
    let (name, taken) = if first == "--netns" {
        let Some(name) = args.get(1) else {
            return Err("--netns needs the name of a namespace".into());
        };
        (name.to_string_lossy(), 2)
    } else if let Some(name) = first.strip_prefix("--netns=") {
        (name.into(), 1)
    } else {
        return Ok(None);
    };
    let netns = name
        .parse()
        .map_err(|error: place::Error| error.to_string())?;
    args.drain(..taken);
    Ok(Some(netns))
}

/// Enters for good. There is no other thread yet.
fn enter(netns: &Namespace) -> Result<(), place::Error> {
    Ok(netns.open()?.enter()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_before_the_command() {
        let take = |words: &[&str]| {
            let mut args: Vec<OsString> = words.iter().map(Into::into).collect();
            let netns = take_netns(&mut args);
            netns.map(|netns| (netns.map(|netns| netns.to_string()), args.len()))
        };
        assert_eq!(take(&[]), Ok((None, 0)));
        assert_eq!(take(&["show", "--netns", "a"]), Ok((None, 3)));
        assert_eq!(take(&["--netns", "a"]), Ok((Some("a".into()), 0)));
        assert_eq!(
            take(&["--netns", "pid:1", "show"]),
            Ok((Some("pid:1".into()), 1))
        );
        assert_eq!(take(&["--netns=a", "show"]), Ok((Some("a".into()), 1)));
        assert!(take(&["--netns"]).is_err());
        assert!(take(&["--netns="]).is_err());
        assert!(take(&["--netns", "pid:x"]).is_err());
    }
}
