//! The completion scripts of the package in bash, zsh and fish: the candidates of each shell for the
//! same lines, on a host with an interface. The tests need these shells.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use netns_tests::{Daemon, Host, Lab, PATIENCE, Via, binaries, require};

/// A line up to the cursor, and the candidates for its last word.
const LINES: [(&str, &[&str]); 8] = [
    ("wg-rs sh", &["show", "showconf"]),
    ("wg-rs show w", &["wg0"]),
    ("wg-rs show wg0 ke", &[]),
    ("wg-rs show wg0 l", &["latest-handshakes", "listen-port"]),
    ("wg-rs set wg0 fw", &["fwmark"]),
    ("wg-quick-rs re", &["reload", "remove", "reresolve"]),
    ("wg-quick-rs down w", &["wg0"]),
    ("wg-quick-rs completions z", &["zsh"]),
];

/// Each of these scripts prints `= LINE` and then the candidates, for each line in its arguments.
const BASH: &str = r#"
    . "$PACKAGED/wg-rs"
    eval "$(wg-quick-rs completions bash)"
    for line in "$@"; do
        COMP_LINE=$line COMP_POINT=${#line} COMPREPLY=()
        read -ra COMP_WORDS <<< "$line"
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        [[ $(complete -p "${COMP_WORDS[0]}") =~ -F\ ([^ ]+) ]]
        "${BASH_REMATCH[1]}" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" \
            "${COMP_WORDS[COMP_CWORD - 1]}" 2> /dev/null
        printf '= %s\n' "$line"
        for word in "${COMPREPLY[@]}"; do printf '%s\n' "$word"; done
    done
"#;

const FISH: &str = r#"
    source $PACKAGED/wg-rs.fish
    wg-quick-rs completions fish | source
    for line in $argv
        printf '= %s\n' $line
        complete -C $line | string split -f 1 \t
    end
    true
"#;

/// zsh completes only at a terminal: this script types the lines there.
const ZSH: &str = r#"
    zmodload zsh/zpty
    zpty shell zsh -i
    zpty -r -m shell shown '*READY*' || exit 1
    for line in "$@"; do
        zpty -w -n shell "$line"$'\t'
        zpty -r -m shell shown '*ASKED*' || exit 1
        print -r -- "= $line"
        print -r -- $shown | grep -o '<[^<>]*>' | tr -d '<>'
        zpty -w -n shell $'\C-u'
    done
    zpty -d shell
"#;

/// The start-up file of that zsh. It prints all matches as they are added.
const ZSHRC: &str = r#"
    PS1= PROMPT_SP= zle_highlight=(none) TERM=dumb
    fpath=("$PACKAGED" $fpath)
    autoload -Uz compinit
    compinit -u -D
    source <(wg-quick-rs completions zsh)
    compadd() {
        if (( ! ${@[(I)-[AOD]*]} )); then
            local -a found
            builtin compadd -O found "$@"
            (( $#found )) && print -l -- "<"$^found">"
        fi
        builtin compadd "$@"
    }
    ask() { zle list-choices; print ASKED }
    zle -N ask
    bindkey '^I' ask
    print READY
"#;

/// The candidates of a shell for each line, from the output of its script.
fn offered(host: &Host, command: &mut Command) -> io::Result<BTreeMap<String, BTreeSet<String>>> {
    let programs = [binaries::wg_rs()?.into(), binaries::build("wg-quick-rs")?];
    let folders = programs
        .iter()
        .filter_map(|program: &PathBuf| program.parent());
    let path = env::var_os("PATH").unwrap_or_default();
    let path = folders.map(Path::to_owned).chain(env::split_paths(&path));
    let path = env::join_paths(path).map_err(io::Error::other)?;
    command.args(LINES.map(|(line, _)| line)).env("PATH", path);
    command.env(
        "PACKAGED",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../wg-rs/completions"),
    );
    let told = host.spawn(command)?.success(PATIENCE)?;
    let parts = told.split("= ").skip(1);
    Ok(parts
        .map(|part| {
            let mut lines = part.lines().map(str::to_owned);
            (lines.next().unwrap_or_default(), lines.collect())
        })
        .collect())
}

fn check(shell: &str, command: impl FnOnce(PathBuf) -> io::Result<Command>) -> io::Result<()> {
    let Some(program) = require(shell, binaries::on_path(shell)) else {
        return Ok(());
    };
    let lab = Lab::new()?;
    let host = lab.host(shell)?;
    let _wg0 = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let offered = offered(&host, &mut command(program)?)?;
    for (line, expected) in LINES {
        let expected = expected.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(offered.get(line), Some(&expected), "{shell}: {line}");
    }
    Ok(())
}

#[test]
fn bash_completes() -> io::Result<()> {
    check("bash", |program| {
        let mut command = Command::new(program);
        command.args(["--norc", "-c", BASH, "bash"]);
        Ok(command)
    })
}

#[test]
fn fish_completes() -> io::Result<()> {
    check("fish", |program| {
        let mut command = Command::new(program);
        command.args(["--no-config", "-c", FISH]);
        Ok(command)
    })
}

#[test]
fn zsh_completes() -> io::Result<()> {
    check("zsh", |program| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zsh");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(".zshrc"), ZSHRC)?;
        let mut command = Command::new(program);
        command
            .args(["-f", "-c", ZSH, "zsh"])
            .env("ZDOTDIR", folder);
        Ok(command)
    })
}
