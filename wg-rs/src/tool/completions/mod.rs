//! `completions`: shell completion scripts, and the candidates that they request from this program.
//!
//! A script calls `completions candidates WORD…` with the words of the command line, of which the
//! last is to be completed. The reply has one candidate on each line, or is `:files`. The words for
//! `link` come from its definition.
//!
//! `clap_complete` is not used here, although `wg-quick-rs` uses it. Its completers get only the word that is
//! to be completed, while the words of `set` depend on all words before: `peer` is followed by a key of the
//! interface that was named, `private-key` by a file, and each may come again. `--netns`, which may stand
//! anywhere before, decides whose interfaces they are.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::context::Context;
use super::interfaces::Interfaces;
use super::out::print;
use super::verb::VERBS;
use super::{link, log, netns, show};
use crate::place;

const BASH: &str = include_str!("wg-rs.bash");
const ZSH: &str = include_str!("wg-rs.zsh");
const FISH: &str = include_str!("wg-rs.fish");

/// The kind of word that may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next<'a> {
    Verbs,
    Words(&'a [&'a str]),
    /// These words.
    Own(Vec<String>),
    /// The names of interfaces, and these words.
    Interfaces(&'a [&'a str]),
    Parameters,
    /// The public keys of the peers of this interface.
    Peers(&'a str),
    Namespaces,
    Files,
    Nothing,
}

/// Runs `completions`.
pub(super) fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let script = match words.iter().map(AsRef::as_ref).collect::<Vec<_>>()[..] {
        ["bash"] => BASH,
        ["zsh"] => ZSH,
        ["fish"] => FISH,
        ["candidates", _, ..] => return print(candidates(&args[1..])),
        _ => return context.usage(),
    };
    let name = Path::new(&context.program).file_name();
    let name = name.unwrap_or_default().to_string_lossy();
    let function = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    print(
        script
            .replace("@PROGRAM@", &name)
            .replace("@FUNCTION@", &function),
    )
}

/// One candidate on each line. Candidates that cannot be determined are left out.
fn candidates(words: &[OsString]) -> String {
    let mut words = words.to_vec();
    let mut interfaces = Interfaces::all();
    // The name of a namespace may be the word to be completed.
    if words.len() > 2 || words[0].to_string_lossy().starts_with("--netns=") {
        match netns::take(&mut words, 0) {
            Ok(Some(netns)) if !words.is_empty() => {
                if netns::enter(&netns).is_ok() {
                    interfaces = Interfaces::here();
                }
            }
            Ok(_) if !words.is_empty() => {}
            _ => return String::new(),
        }
    }
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let Some((begun, before)) = words.split_last() else {
        return String::new();
    };
    let next = next(before);
    let all: Vec<String> = match next {
        Next::Files => return ":files\n".into(),
        Next::Nothing => Vec::new(),
        Next::Own(words) => words,
        Next::Words(words) => words.iter().map(|word| word.to_string()).collect(),
        Next::Verbs => {
            let verbs = VERBS.iter().map(|verb| verb.name);
            let verbs = verbs.chain(["help", "version", "--netns"]);
            verbs.map(str::to_owned).collect()
        }
        Next::Interfaces(words) => {
            let mut names = interfaces.list().unwrap_or_default();
            names.extend(words.iter().map(|word| word.to_string()));
            names
        }
        Next::Parameters => show::parameters().map(str::to_owned).collect(),
        Next::Peers(interface) => {
            let peers = interfaces.get(interface).map(|interface| interface.peers);
            let peers = peers.unwrap_or_default();
            peers
                .iter()
                .map(|peer| peer.public_key.to_base64())
                .collect()
        }
        Next::Namespaces => {
            let mut names: Vec<_> = place::namespaces()
                .iter()
                .map(ToString::to_string)
                .collect();
            names.extend(["pid:", "path:"].map(str::to_owned));
            names
        }
    };
    let fitting = all.iter().filter(|word| word.starts_with(begun));
    fitting.map(|word| format!("{word}\n")).collect()
}

/// The kind of word after these, which follow `--netns NAMESPACE`.
fn next<'a>(before: &[&'a str]) -> Next<'a> {
    match before {
        [] => Next::Verbs,
        ["--netns"] => Next::Namespaces,
        ["help"] => Next::Own(VERBS.iter().map(|verb| verb.name.to_owned()).collect()),
        [_, .., "--netns"] => Next::Namespaces,
        ["show"] => Next::Interfaces(&["all", "interfaces", "--json", "--watch", "--netns"]),
        ["show", "--json" | "--watch"] => Next::Interfaces(&["all"]),
        ["show", "interfaces"] => Next::Nothing,
        ["show", _] => Next::Parameters,
        ["showconf" | "set" | "setconf" | "addconf" | "syncconf"] => Next::Interfaces(&[]),
        ["setconf" | "addconf" | "syncconf", _] => Next::Files,
        ["set", interface, rest @ ..] => set(interface, rest),
        ["status"] => Next::Interfaces(&["--json", "--watch"]),
        ["status", "--json" | "--watch"] => Next::Interfaces(&[]),
        ["status", _] => Next::Words(&["--json", "--watch"]),
        ["metrics"] => Next::Words(&["--listen"]),
        ["log"] => Next::Interfaces(&[]),
        ["log", _] => Next::Words(&log::LEVELS),
        ["link", rest @ ..] => link(rest),
        ["forward" | "socks" | "relay"] => Next::Files,
        [
            "forward" | "socks",
            ..,
            "--address" | "--dns" | "--mtu" | "-L" | "-R",
        ] => Next::Nothing,
        ["forward", ..] => Next::Words(&[
            "-L",
            "-R",
            "--local",
            "--remote",
            "--address",
            "--dns",
            "--mtu",
            "--allow-remote",
        ]),
        ["socks", ..] => Next::Words(&["--address", "--dns", "--mtu", "--allow-remote"]),
        ["completions"] => Next::Words(&["bash", "zsh", "fish"]),
        _ => Next::Nothing,
    }
}

/// The kind of word after these, which follow `link`, from the definition of its command line.
fn link<'a>(words: &[&'a str]) -> Next<'a> {
    let command = link::command();
    let Some((name, words)) = words.split_first() else {
        let commands = command.get_subcommands();
        return Next::Own(commands.map(|command| command.get_name().into()).collect());
    };
    let Some(command) = command.find_subcommand(name) else {
        return Next::Nothing;
    };
    let long = |word: &str| {
        let option = word.strip_prefix("--")?;
        command
            .get_opts()
            .find(|known| known.get_long() == Some(option))
    };
    // An option with a value is followed by that value.
    let last = words.last().and_then(|word| long(word));
    if let Some(option) = last.filter(|option| option.get_action().takes_values()) {
        return value(option);
    }
    let mut positionals = command.get_positionals();
    let mut given = words.iter().peekable();
    while let Some(word) = given.next() {
        if long(word).is_some_and(|option| option.get_action().takes_values()) {
            given.next();
        } else if !word.starts_with("--") {
            positionals.next();
        }
    }
    match positionals.next() {
        // Any new name.
        Some(_) if *name == "add" => Next::Nothing,
        Some(argument) => value(argument),
        None => {
            let options = command.get_opts().filter_map(|option| option.get_long());
            Next::Own(options.map(|option| format!("--{option}")).collect())
        }
    }
}

/// The values of an argument.
fn value<'a>(argument: &clap::Arg) -> Next<'a> {
    let names = argument.get_value_names().unwrap_or_default();
    let possible = argument.get_possible_values();
    match names.first().map(|name| name.as_str()) {
        Some("NAMESPACE") => Next::Namespaces,
        Some("INTERFACE") => Next::Interfaces(&[]),
        _ if argument.get_value_hint() == clap::ValueHint::FilePath => Next::Files,
        _ => Next::Own(
            possible
                .iter()
                .map(|value| value.get_name().into())
                .collect(),
        ),
    }
}

fn set<'a>(interface: &'a str, words: &[&'a str]) -> Next<'a> {
    let mut peer = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        peer |= *word == "peer";
        if *word == "remove" || words.next().is_some() {
            continue;
        }
        // The word to be completed is the value of this word.
        return match *word {
            "peer" => Next::Peers(interface),
            "private-key" | "preshared-key" => Next::Files,
            "fwmark" | "persistent-keepalive" => Next::Words(&["off"]),
            "relay" | "hub" => Next::Words(&["on", "off"]),
            _ => Next::Nothing,
        };
    }
    Next::Words(if peer {
        &[
            "preshared-key",
            "endpoint",
            "persistent-keepalive",
            "allowed-ips",
            "name",
            "relay",
            "hub",
            "remove",
            "peer",
        ]
    } else {
        &["listen-port", "fwmark", "private-key", "peer"]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(line: &str) -> Next<'_> {
        next(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn the_next_word_depends_on_the_words_before() {
        assert_eq!(after(""), Next::Verbs);
        assert_eq!(after("show wg0"), Next::Parameters);
        assert_eq!(after("show interfaces"), Next::Nothing);
        assert_eq!(after("show wg0 dump"), Next::Nothing);
        assert_eq!(after("syncconf wg0"), Next::Files);
        assert_eq!(after("set wg0 private-key"), Next::Files);
        assert_eq!(after("set wg0 fwmark 1 peer"), Next::Peers("wg0"));
        assert_eq!(after("set wg0 peer x remove peer"), Next::Peers("wg0"));
        assert_eq!(after("set wg0 peer x endpoint"), Next::Nothing);
        assert!(matches!(
            after("set wg0 fwmark 1"),
            Next::Words(["listen-port", ..])
        ));
        assert!(matches!(
            after("set wg0 peer x"),
            Next::Words(["preshared-key", ..])
        ));
        let own = |words: &[&str]| Next::Own(words.iter().map(|word| word.to_string()).collect());
        assert_eq!(after("show --netns"), Next::Namespaces);
        assert_eq!(after("link"), own(&["add", "del", "list", "move"]));
        assert_eq!(after("link list"), own(&["--json"]));
        assert_eq!(after("link add"), Next::Nothing);
        assert_eq!(after("link del"), Next::Interfaces(&[]));
        assert_eq!(after("link delete wg0"), own(&["--netns"]));
        assert_eq!(after("link move --netns web"), Next::Interfaces(&[]));
        assert_eq!(
            after("link add wg0 --backend"),
            own(&["auto", "userspace", "kernel"])
        );
        assert_eq!(after("link add wg0 --mtu"), own(&[]));
        assert_eq!(
            after("link add wg0 --mtu 1280"),
            own(&[
                "--netns",
                "--backend",
                "--config",
                "--address",
                "--mtu",
                "--up"
            ])
        );
        assert_eq!(after("link move wg0"), Next::Namespaces);
        assert_eq!(after("link add wg0 --netns"), Next::Namespaces);
        assert_eq!(after("link add wg0 --up --config"), Next::Files);
        assert_eq!(after("forward"), Next::Files);
        assert_eq!(after("relay"), Next::Files);
        assert_eq!(after("relay wg0.conf"), Next::Nothing);
        assert_eq!(after("socks wg0.conf --dns"), Next::Nothing);
        assert!(matches!(after("forward wg0.conf"), Next::Words(["-L", ..])));
        assert_eq!(after("genkey"), Next::Nothing);
        assert_eq!(after("status --json"), Next::Interfaces(&[]));
        assert_eq!(after("status wg0"), Next::Words(&["--json", "--watch"]));
        assert_eq!(after("metrics --listen"), Next::Nothing);
        assert_eq!(
            after("log wg0"),
            Next::Words(&["silent", "error", "verbose"])
        );
        assert_eq!(after("bogus"), Next::Nothing);
    }

    #[test]
    fn every_command_is_offered() {
        let offered = candidates(&["".into()]);
        for verb in VERBS {
            assert!(
                offered.lines().any(|line| line == verb.name),
                "{}",
                verb.name
            );
        }
        assert_eq!(candidates(&["gen".into()]), "genkey\ngenpsk\n");
        assert_eq!(
            candidates(&["help".into(), "gen".into()]),
            "genkey\ngenpsk\n"
        );
        assert_eq!(
            candidates(&["setconf".into(), "x".into(), "".into()]),
            ":files\n"
        );
    }
}
