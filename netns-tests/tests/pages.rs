//! The manual pages and the programs have the same commands, options, keys and variables.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use netns_tests::binaries;

type Names = BTreeSet<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> io::Result<String> {
    fs::read_to_string(root().join("man").join(format!("{name}.8")))
}

/// The output of a program, on both streams.
fn said(program: &Path, args: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(args).output()?;
    assert!(output.status.success(), "{args:?}: {output:?}");
    assert!(!output.stdout.is_empty(), "{args:?} says nothing");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c == '-'
}

/// The `--words` of a help text, with those in its examples.
fn options_of_help(text: &str) -> Names {
    let words = text.split(|c: char| c.is_whitespace() || "[]<>,`'".contains(c));
    words
        .filter_map(|word| word.strip_prefix("--"))
        .filter(|name| !name.is_empty() && name.chars().all(is_name))
        .map(str::to_owned)
        .collect()
}

/// The `Fl Fl words` of a page, without its examples.
fn options_of_page(text: &str) -> Names {
    let mut names = Names::new();
    for line in text.lines().filter(|line| line.starts_with('.')) {
        let words: Vec<&str> = line.trim_start_matches('.').split_whitespace().collect();
        for triple in words.windows(3) {
            if triple[..2] == ["Fl", "Fl"] {
                names.insert(triple[2].to_owned());
            }
        }
    }
    names
}

/// The variables in the ENVIRONMENT section of a page.
fn environment_of_page(text: &str) -> Names {
    let names = text.lines().filter_map(|line| line.strip_prefix(".It Ev "));
    names.map(str::to_owned).collect()
}

/// The string literals in the sources, without tests, that look like variables: capitals and `_`.
fn environment_of_code(folders: &[impl AsRef<Path>]) -> io::Result<Names> {
    let mut names = Names::new();
    let mut todo: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
        {
            let text = fs::read_to_string(&path)?;
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for literal in code.flat_map(|line| line.split('"').skip(1).step_by(2)) {
                let capitals = literal.chars().all(|c| c.is_ascii_uppercase() || c == '_');
                let cargos = literal.starts_with("CARGO_");
                if capitals && !cargos && literal.len() > 3 && literal.contains('_') {
                    names.insert(literal.to_owned());
                }
            }
        }
    }
    Ok(names)
}

fn names(words: &[&str]) -> Names {
    words.iter().map(|word| word.to_string()).collect()
}

#[test]
fn wg_rs() -> io::Result<()> {
    let program = binaries::build("wg-rs")?;
    let page = page("wg-rs")?;
    let help = said(&program, &["help"])?;
    said(&program, &["--version"])?;

    let verbs: Names = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once(": "))
        .map(|(name, _)| name.to_owned())
        .collect();
    let items = page.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    let documented: Names = items
        .filter_map(|item| item.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    let deeds: Names = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm link "))
        .filter_map(|item| item.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert_eq!(verbs, documented, "commands");

    let mut options = options_of_help(&help);
    options.extend(names(&["help", "version"]));
    for verb in &verbs {
        let text = said(&program, &[verb, "--help"])?;
        assert!(text.contains("\nExample:\n"), "{verb} has no example");
        options.extend(options_of_help(&text));
    }
    let link = said(&program, &["link", "--help"])?;
    let (_, rest) = link.split_once("link { ").expect("its deeds");
    let (listed, _) = rest.split_once(" }").expect("its deeds");
    assert_eq!(
        listed.split(" | ").map(str::to_owned).collect::<Names>(),
        deeds
    );
    for deed in &deeds {
        let text = said(&program, &["link", deed, "--help"])?;
        assert!(text.contains("Example:\n"), "link {deed} has no example");
        options.extend(options_of_help(&text));
    }
    assert_eq!(options, options_of_page(&page), "options");

    // The parameters of `show`, between the last brackets of its usage.
    let usage = said(&program, &["show", "--help"])?;
    let parameters = usage.split(['[', ']']).nth(1).expect("the parameters");
    for parameter in parameters.split(" | ") {
        assert!(page.contains(&format!(".Cm {parameter}")), "{parameter}");
    }

    let read = environment_of_code(
        &["tool", "config", "place", "backend"].map(|folder| format!("wg-rs/src/{folder}")),
    )?;
    assert_eq!(read, environment_of_page(&page), "environment");
    Ok(())
}

#[test]
fn wireguard_rs() -> io::Result<()> {
    let program = binaries::build("wireguard-rs")?;
    let page = page("wireguard-rs")?;
    let help = said(&program, &["--help"])?;
    assert!(help.contains("Example:\n"), "{help}");
    assert_eq!(options_of_help(&help), options_of_page(&page), "options");
    // Passed from a parent process to its child, and not documented.
    let internal = names(&["WG_READY_FD"]);
    let code = environment_of_code(&["wg-rs/src/daemon", "wg-rs/src/sys/process"])?;
    let read: Names = code.difference(&internal).cloned().collect();
    assert_eq!(read, environment_of_page(&page), "environment");
    Ok(())
}

/// AVX-512 is the default if the CPU has it. `WG_AEAD` chooses, and `--version` prints the choice.
#[test]
fn wireguard_rs_names_its_aead() -> io::Result<()> {
    let program = binaries::build("wireguard-rs")?;
    let run = |value: Option<&str>, arg: &str| {
        let mut command = Command::new(&program);
        command.env_remove("WG_AEAD").arg(arg);
        command.envs(value.map(|value| ("WG_AEAD", value)));
        command.output()
    };
    let version = |value| -> io::Result<String> {
        let output = run(value, "--version")?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let library = "Transport AEAD: ChaCha20-Poly1305 by AWS-LC\n";
    let avx512 = "Transport AEAD: ChaCha20-Poly1305 on AVX-512\n";
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let has = |flag| cpu.split_whitespace().any(|word| word == flag);
    let default = match has("avx512ifma") && has("avx512_vbmi2") {
        true => avx512,
        false => library,
    };
    assert!(version(None)?.ends_with(default), "by default");
    assert!(version(Some(""))?.ends_with(default), "empty");
    assert!(version(Some("library"))?.ends_with(library));
    if default == avx512 {
        assert!(version(Some("avx512"))?.ends_with(avx512));
    }

    // An unknown value is refused before an interface is created.
    let output = run(Some("aes"), "no-such-aead")?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("WG_AEAD: `aes' is neither"), "{error}");
    assert!(!Path::new("/sys/class/net/no-such-aead").exists());
    Ok(())
}

#[test]
fn wg_quick_rs() -> io::Result<()> {
    let program = binaries::build("wg-quick-rs")?;
    let page = page("wg-quick-rs")?;
    let help = said(&program, &["help"])?;

    // On the page they are items of the list of commands; in the help, the first words of its list.
    let (_, commands) = page
        .split_once("The commands are as follows:")
        .expect("them");
    let items = commands
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "));
    let documented: Names = items
        .filter_map(|item| item.split_whitespace().next())
        .filter(|name| name.chars().all(is_name))
        .map(str::to_owned)
        .collect();
    let (_, listed) = help.split_once("Commands:\n").expect("them");
    let verbs: Names = listed
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert_eq!(verbs, documented, "commands");

    let mut options = options_of_help(&help);
    for verb in verbs.iter().filter(|verb| *verb != "help") {
        options.extend(options_of_help(&said(&program, &[verb, "--help"])?));
    }
    said(&program, &["--version"])?;
    assert_eq!(options, options_of_page(&page), "options");

    // The keys of wg-quick.
    let keys = page.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    let keys = keys.filter(|item| item.starts_with(|c: char| c.is_ascii_uppercase()));
    for key in keys.flat_map(|item| item.split(" , ")) {
        assert!(help.contains(key), "{key} is not in the help");
    }

    let folders = [
        "wg-quick-rs/src",
        "wg-rs/src/config",
        "wg-rs/src/place",
        "wg-rs/src/sys/process/notify.rs",
    ];
    // The variables for hooks and programs, and those of the daemon.
    let given = names(&["CONFIG_FILE", "LC_ALL", "LOG_LEVEL"]);
    let code = environment_of_code(&folders)?;
    let read: Names = code.difference(&given).cloned().collect();
    // The search finds only variables with an underscore.
    let documented = environment_of_page(&page).into_iter();
    let documented: Names = documented.filter(|name| name.contains('_')).collect();
    assert_eq!(read, documented, "environment");
    Ok(())
}

/// The page of the hub: its files are ones that `wg-quick-rs check` accepts, and it lists the counters that
/// the source has.
#[test]
fn wg_hub() -> io::Result<()> {
    let page = fs::read_to_string(root().join("man/wg-hub.7"))?;
    let program = binaries::build("wg-quick-rs")?;
    let (_, examples) = page.split_once(".Sh EXAMPLES").expect("its examples");
    let files = examples.split(".Bd -literal -offset indent\n").skip(1);
    let files: Vec<&str> = files
        .filter_map(|file| Some(file.split_once(".Ed")?.0))
        .collect();
    assert_eq!(files.len(), 4, "a hub, two kinds of laptop and a phone");
    let folder = std::env::temp_dir().join(format!("wg-hub-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let checked: io::Result<Vec<_>> = files
        .iter()
        .zip(0..)
        .map(|(file, n)| {
            let path = folder.join(format!("hub{n}.conf"));
            fs::write(&path, file)?;
            Command::new(&program).arg("strip").arg(&path).output()
        })
        .collect();
    fs::remove_dir_all(&folder)?;
    for output in checked? {
        assert!(output.status.success(), "{output:?}");
    }

    let documented = page.lines().filter_map(|line| line.strip_prefix(".It Li "));
    let documented: Names = documented.map(str::to_owned).collect();
    let source = fs::read_to_string(root().join("wg-rs/src/tunnel/drops.rs"))?;
    let texts = source.lines().filter_map(|line| {
        let line = line.trim().strip_prefix("Relay")?;
        line.split('"').nth(1)
    });
    let counters: Names = texts.map(|text| text.replace(' ', "_")).collect();
    assert!(counters.len() >= 8, "{counters:?}");
    assert_eq!(counters, documented, "counters");
    Ok(())
}
