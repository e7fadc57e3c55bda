//! Completions for shells: the files that the package installs, to be had from the program too.

use std::io::{self, Write};
use std::process::ExitCode;

const SCRIPTS: [(&str, &str); 3] = [
    ("bash", include_str!("../completions/wg-quick-rs.bash")),
    ("zsh", include_str!("../completions/_wg-quick-rs")),
    ("fish", include_str!("../completions/wg-quick-rs.fish")),
];

/// Prints the script for one of these shells.
pub fn print(shell: &str) -> ExitCode {
    let script = SCRIPTS.iter().find(|(name, _)| *name == shell);
    let Some((_, script)) = script else {
        return ExitCode::FAILURE;
    };
    let mut out = io::stdout().lock();
    let written = out.write_all(script.as_bytes()).and_then(|()| out.flush());
    if written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_in_every_shell() {
        let verbs = [
            "up",
            "down",
            "save",
            "strip",
            "reload",
            "check",
            "reresolve",
            "qr",
            "completions",
            "help",
        ];
        for (shell, script) in SCRIPTS {
            let words: Vec<_> = script.split(|c: char| !c.is_alphanumeric()).collect();
            for verb in verbs {
                assert!(words.contains(&verb), "{verb} in {shell}");
            }
        }
    }
}
