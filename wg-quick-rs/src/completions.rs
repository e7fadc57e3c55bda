//! Completions for shells: the scripts that the package installs, and the answers they ask for.
//!
//! A script runs this program with the command line so far, and with [`VARIABLE`] in the environment.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Shells, Zsh};
use wg_rs::backend::Backends;

use crate::file::FOLDER;

/// The shells that have a script.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Shell {
    /// bash(1)
    Bash,
    /// zsh(1)
    Zsh,
    /// fish(1)
    Fish,
}

const PROGRAM: &str = "wg-quick-rs";
/// Its value is the name of the shell that asks for candidates.
const VARIABLE: &str = "WG_QUICK_RS_COMPLETE";
const SHELLS: [&dyn EnvCompleter; 3] = [&Bash, &Zsh, &Fish];
/// The folder where `ip netns` keeps named namespaces.
const NETNS: &str = "/run/netns";

/// Answers a script that asks for candidates; `None` if no script asks.
pub fn answer(command: impl Fn() -> clap::Command) -> Option<ExitCode> {
    let answered = CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .shells(Shells(&SHELLS))
        .try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref());
    match answered {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// Prints the script for a shell.
pub fn print(shell: Shell) -> ExitCode {
    let mut out = io::stdout().lock();
    let written = script(shell).and_then(|text| out.write_all(&text));
    match written.and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn script(shell: Shell) -> io::Result<Vec<u8>> {
    let shell = match shell {
        Shell::Bash => SHELLS[0],
        Shell::Zsh => SHELLS[1],
        Shell::Fish => SHELLS[2],
    };
    let mut text = Vec::new();
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut text)?;
    Ok(text)
}

/// The running interfaces.
pub fn running(start: &OsStr) -> Vec<CompletionCandidate> {
    let running = Backends::new().list().unwrap_or_default();
    starting(start, running)
}

/// Interfaces with a file in the usual folder, and config files in the current one.
pub fn files(start: &OsStr) -> Vec<CompletionCandidate> {
    let names = names(FOLDER).into_iter();
    let names = names.filter_map(|name| name.strip_suffix(".conf").map(String::from));
    let is_config = |path: &Path| path.extension().is_some_and(|end| end == "conf");
    let mut found = starting(start, names);
    found.extend(PathCompleter::file().filter(is_config).complete(start));
    found
}

/// Named namespaces, and the prefixes by which the others are given.
pub fn namespaces(start: &OsStr) -> Vec<CompletionCandidate> {
    let others = ["init", "pid:", "path:", "docker:", "podman:"].map(String::from);
    starting(start, names(NETNS).into_iter().chain(others))
}

fn starting(start: &OsStr, words: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let start = start.to_string_lossy();
    let words = words.into_iter();
    words
        .filter(|word| word.starts_with(&*start))
        .map(CompletionCandidate::new)
        .collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `WRITE_COMPLETIONS=1 cargo test -p wg-quick-rs completions` writes the scripts again.
    #[test]
    fn the_package_has_the_printed_scripts() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
        for (name, shell) in [
            ("wg-quick-rs.bash", Shell::Bash),
            ("_wg-quick-rs", Shell::Zsh),
            ("wg-quick-rs.fish", Shell::Fish),
        ] {
            let (path, text) = (folder.join(name), script(shell).unwrap());
            if std::env::var_os("WRITE_COMPLETIONS").is_some() {
                fs::write(&path, &text).unwrap();
            }
            assert_eq!(fs::read(&path).unwrap(), text, "{}", path.display());
        }
    }
}
