//! The command line: which verb, on which file.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sys::prctl;
use nix::unistd::geteuid;
use wg_rs::place::Namespace;

use crate::file::{File, Location, is_name};
use crate::{check, completions, console, down, qr, reload, reresolve, up};

/// Runs `wg-quick-rs`.
pub fn main() -> ExitCode {
    // There are keys in this memory, and they are nobody's to dump.
    let _ = prctl::set_dumpable(false);
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let words: Option<Vec<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    let Some(words) = words else {
        console::error("an argument is not UTF-8 text");
        return ExitCode::FAILURE;
    };
    match words.as_slice() {
        ["--help" | "-h" | "help"] => {
            usage();
            ExitCode::SUCCESS
        }
        ["up", rest @ ..] => match up_arguments(rest) {
            Ok(Some((file, namespace))) => {
                let namespace = namespace.as_ref();
                as_root(&args, || with_file(file, |file| up::up(file, namespace)))
            }
            Ok(None) => {
                usage();
                ExitCode::FAILURE
            }
            Err(error) => {
                console::error(error);
                ExitCode::FAILURE
            }
        },
        ["down", file] => as_root(&args, || with_file(file, down::down)),
        ["reload", file] => as_root(&args, || with_file(file, reload::reload)),
        ["save", file] => as_root(&args, || with_file(file, down::save)),
        ["strip", file] => as_root(&args, || with_text(file, strip)),
        ["check", files @ ..] if !files.is_empty() => as_reader(&args, files, || check::run(files)),
        ["qr", file] => as_reader(&args, &[file], || qr::run(file)),
        ["completions", shell @ ("bash" | "zsh" | "fish")] => completions::print(shell),
        ["reresolve", interfaces @ ..] => as_root(&args, || reresolve::run(interfaces)),
        _ => {
            usage();
            ExitCode::FAILURE
        }
    }
}

/// Runs `work`, as root if one of `files` is of those that only root may read.
fn as_reader(args: &[OsString], files: &[&str], work: impl FnOnce() -> ExitCode) -> ExitCode {
    if files.iter().any(|file| is_name(file)) {
        as_root(args, work)
    } else {
        work()
    }
}

/// The file, and the namespace after `--netns`, in either order.
fn up_arguments<'a>(words: &[&'a str]) -> Result<Option<(&'a str, Option<Namespace>)>, String> {
    let (file, namespace) = match words {
        [file] => (file, None),
        [file, "--netns", namespace] | ["--netns", namespace, file] => (file, Some(*namespace)),
        [file, option] | [option, file] if option.starts_with("--netns=") => {
            (file, option.strip_prefix("--netns="))
        }
        _ => return Ok(None),
    };
    if file.starts_with("--") {
        return Ok(None);
    }
    let namespace = namespace.map(str::parse).transpose();
    let namespace = namespace.map_err(|error: wg_rs::place::Error| error.to_string())?;
    Ok(Some((file, namespace)))
}

/// Prints what `wg` understands of a file. What is wrong with it is for `wg` to say.
fn strip(file: &File) -> ExitCode {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(&file.stripped)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs `work` on a file without errors; else they are told, all of them.
fn with_file(argument: &str, work: impl FnOnce(&File) -> ExitCode) -> ExitCode {
    load(argument, |file, errors| match errors {
        [] => work(file),
        errors => {
            errors.iter().for_each(console::error);
            ExitCode::FAILURE
        }
    })
}

/// Runs `work` on a file, whatever is wrong with it.
fn with_text(argument: &str, work: impl FnOnce(&File) -> ExitCode) -> ExitCode {
    load(argument, |file, _| work(file))
}

fn load(argument: &str, work: impl FnOnce(&File, &[crate::file::Error]) -> ExitCode) -> ExitCode {
    let read = Location::of(argument).and_then(|location| {
        if let Some(path) = location.world_accessible() {
            console::line(format_args!(
                "Warning: `{}' is world accessible",
                path.display()
            ));
        }
        location.read_leniently()
    });
    match read {
        Ok((file, errors)) => work(&file, &errors),
        Err(error) => {
            console::error(error);
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` as root: if need be by sudo, with the same arguments.
fn as_root(args: &[OsString], work: impl FnOnce() -> ExitCode) -> ExitCode {
    if geteuid().is_root() {
        return work();
    }
    let prompt = format!(
        "{} must be run as root. Please enter the password for %u to continue: ",
        console::program()
    );
    let run = || -> io::Result<()> {
        let itself = env::current_exe()?;
        let mut sudo = Command::new("sudo");
        sudo.args(["-p", &prompt, "--"]).arg(itself).args(args);
        Err(sudo.exec())
    };
    if let Err(error) = run() {
        console::error(format_args!(
            "must be run as root, and there is no sudo: {error}"
        ));
    }
    ExitCode::FAILURE
}

fn usage() {
    let program = console::program();
    console::line(format_args!(
        "\
Usage: {program} [ up | down | save | strip ] [ CONFIG_FILE | INTERFACE ]
       {program} up [ CONFIG_FILE | INTERFACE ] --netns NAMESPACE
       {program} reload [ CONFIG_FILE | INTERFACE ]
       {program} check [ CONFIG_FILE | INTERFACE ]...
       {program} reresolve [ CONFIG_FILE | INTERFACE ]...
       {program} qr [ CONFIG_FILE | INTERFACE ]
       {program} completions [ bash | zsh | fish ]

  CONFIG_FILE is a configuration file, whose filename is the interface name
  followed by `.conf'. Otherwise, INTERFACE is an interface name, with
  configuration found at /etc/wireguard/INTERFACE.conf. It holds what wg(8)'s
  `setconf' reads, and in the [Interface] section:

  - Address: addresses of the interface, with an optional prefix length each.
  - DNS: servers, and domains to search, while the interface is up.
  - MTU: of the interface; if unspecified, by the route to the peers.
  - Table: the routing table that routes are added to; `auto' (the default) for
    the main one and one of its own for default routes; `off' for no routes.
  - PreUp, PostUp, PreDown, PostDown: run by bash(1), or else sh(1), at these
    points. `%i' is the interface.
  - SaveConfig: if `true', the file is brought up to date on `down'.

See wg-quick-rs(8) for more, and examples."
    ));
}
