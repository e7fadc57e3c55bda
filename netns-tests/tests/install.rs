//! `make install` with another prefix: it installs as many files as the package has, and units that run the
//! installed programs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use netns_tests::{binaries, require};

/// The files below a folder, by their paths relative to it.
fn files(folder: &Path) -> io::Result<BTreeSet<String>> {
    let (mut found, mut todo) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                todo.push(entry?.path());
            }
        } else if let Ok(path) = path.strip_prefix(folder) {
            found.insert(path.display().to_string());
        }
    }
    Ok(found)
}

#[test]
fn make_install_works_with_another_prefix() -> io::Result<()> {
    if require("make", binaries::on_path("make")).is_none() {
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = binaries::build("wireguard-rs")?;
    binaries::build("wg-rs")?;
    binaries::build("wg-quick-rs")?;
    let folder = tempfile::tempdir()?;
    let make = |goal: &str| -> io::Result<()> {
        let target = built.parent().expect("a folder").display();
        let output = Command::new("make")
            .args(["-s", goal, "prefix=/opt/wg", &format!("target={target}")])
            .arg(format!("DESTDIR={}", folder.path().display()))
            .current_dir(&root)
            .output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(())
    };
    make("install")?;
    let installed = files(folder.path())?;
    // The package has as many files, and five more in usr/share/doc and for lintian.
    let package = fs::read_to_string(root.join("wg-quick-rs/Cargo.toml"))?;
    let assets = package
        .lines()
        .filter(|line| line.starts_with("    [\""))
        .count();
    // These folders are one line each there; the pages are two, one for each section.
    let mut expected = assets - 5 - 2 - 2;
    for folder in ["man", "wg-quick-rs/systemd", "wg-quick-rs/systemd-user"] {
        expected += files(&root.join(folder))?.len();
    }
    assert_eq!(installed.len(), expected, "{installed:?}");

    let unit = folder
        .path()
        .join("opt/wg/lib/systemd/system/wg-quick-rs@.service");
    let unit = fs::read_to_string(unit)?;
    assert!(
        unit.contains("\nExecStart=/opt/wg/bin/wg-quick-rs up %i\n"),
        "{unit}"
    );
    assert!(!unit.contains("/usr/bin/"), "{unit}");
    for program in ["wireguard-rs", "wg-rs", "wg-quick-rs"] {
        let path = folder.path().join("opt/wg/bin").join(program);
        let said = Command::new(path).arg("--version").output()?;
        assert!(said.status.success(), "{said:?}");
    }
    make("uninstall")?;
    assert_eq!(files(folder.path())?, BTreeSet::new());
    Ok(())
}

#[test]
fn both_packages_have_the_same_files() -> io::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wg-quick-rs/Cargo.toml");
    let text = fs::read_to_string(path)?;
    let sources = |start: &str| -> BTreeSet<&str> {
        let assets = text.lines().filter_map(|line| line.strip_prefix(start));
        let sources = assets.filter_map(|rest| Some(rest.split_once('"')?.0));
        sources
            .filter(|source| !source.starts_with("debian/"))
            .collect()
    };
    let deb = sources("    [\"");
    assert!(deb.len() > 10, "{deb:?}");
    assert_eq!(deb, sources("    { source = \""));
    Ok(())
}
