//! Compares `wg-rs`, called as `wg`, with the real `wg`, by the table of the program `side-by-side`.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use netns_tests::{Daemon, Lab, PATIENCE, Via, binaries, require};

const LONG: Duration = Duration::from_secs(600);

fn ours() -> io::Result<PathBuf> {
    match env::var_os("WG_RS") {
        Some(path) => Ok(path.into()),
        None => binaries::build("wg-rs"),
    }
}

/// Compares both on an interface `wg7` of this daemon. The report goes to the test's output.
fn beside(wg: &Path, daemon: &Daemon, flags: &[&str]) -> io::Result<()> {
    let program = binaries::build("side-by-side")?;
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let _interface = daemon.start(&host, "wg7", Via::Uapi)?;
    let mut command = Command::new(program);
    command.arg("--wg").arg(wg).arg("--ours").arg(ours()?);
    command.args(["--interface", "wg7"]).args(flags);
    let report = host.spawn(&mut command)?.success(LONG)?;
    println!("on {daemon}, {report}");
    Ok(())
}

#[test]
fn on_our_daemon() -> io::Result<()> {
    let Some(wg) = require("wg", binaries::on_path("wg")) else {
        return Ok(());
    };
    beside(&wg, &Daemon::ours()?, &["--our-daemon"])
}

#[test]
fn on_wireguard_go() -> io::Result<()> {
    let wg = require("wg", binaries::on_path("wg"));
    let go = require("wireguard-go", Daemon::installed("wireguard-go"));
    let (Some(wg), Some(go)) = (wg, go) else {
        return Ok(());
    };
    beside(&wg, &go, &["--unordered"])
}

/// A user without root rights sees the names of interfaces, and nothing else.
#[test]
fn unprivileged() -> io::Result<()> {
    let Some(wg) = require("wg", binaries::on_path("wg")) else {
        return Ok(());
    };
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let _interface = Daemon::ours()?.start(&host, "wg7", Via::Uapi)?;
    // In a folder where anybody may run it; the target folder may be private.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let ours_here = folder.path().join("wg");
    fs::copy(ours()?, &ours_here)?;
    let nobody = 65534;
    let run = |program: &Path, args: &[&str]| {
        let mut command = Command::new(program);
        command.arg0("wg").args(args).current_dir("/");
        command.uid(nobody).gid(nobody);
        let mut proc = host.spawn(&mut command)?;
        let status = proc.wait(PATIENCE)?;
        Ok::<_, io::Error>((status.code(), proc.output()))
    };
    for args in [
        &["show", "interfaces"][..],
        &["show"],
        &["show", "wg7"],
        &["show", "all", "dump"],
        &["showconf", "wg7"],
        &["set", "wg7", "fwmark", "1"],
    ] {
        let theirs = run(&wg, args)?;
        assert_eq!(theirs, run(&ours_here, args)?, "{args:?}");
        let denied = theirs.1.ends_with(": Permission denied\n");
        assert_eq!(denied, args[1..] != ["interfaces"], "{theirs:?}");
    }
    Ok(())
}
