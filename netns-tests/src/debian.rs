//! Clean roots of Debian by debootstrap. They are kept for later runs, so nothing may change them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{binaries, require};

/// The name and the packages of the root that several test programs share.
pub const PLAIN: (&str, &str) = ("debian", "iproute2,iptables,nftables");

/// The root of this name in the folder `kept`, with these packages besides the essential ones. It is made if
/// it does not exist; the caller makes sure that no other thread does so at the same time.
pub fn root(kept: &Path, (name, packages): (&str, &str)) -> io::Result<Option<PathBuf>> {
    for program in ["debootstrap", "dpkg"] {
        if require(program, binaries::on_path(program)).is_none() {
            return Ok(None);
        }
    }
    let root = kept.join(name);
    if root.exists() {
        return Ok(Some(root));
    }
    // The release of this machine, from this machine's package source.
    let release = fs::read_to_string("/etc/os-release")?;
    let value = |key: &str| release.lines().find_map(|line| line.strip_prefix(key));
    let codename = value("VERSION_CODENAME=").unwrap_or("stable");
    let mirror = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        &format!("Codename: {codename}"),
    ]));
    let unfinished = root.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.arg("--variant=minbase");
    debootstrap.arg(format!("--include={packages}"));
    debootstrap.arg(codename).arg(&unfinished);
    debootstrap.args(mirror.unwrap_or_default().lines().next());
    run(&mut debootstrap)?;
    fs::rename(&unfinished, &root)?;
    Ok(Some(root))
}

/// Runs a program that may take long, and returns its output.
pub fn run(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(format!(
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )))
}
