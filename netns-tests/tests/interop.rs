//! `wireguard-rs` against itself and against implementations that others wrote: the interop matrix without its
//! slow trials, which are in `roaming`, and without the kernel module, which is in `kernel`.

use std::io;
use std::process::{Command, Stdio};

use netns_tests::{Daemon, Trial, Via, binaries, require};

const FAST: [Trial; 9] = [
    Trial::ByUs,
    Trial::ByThem,
    Trial::Psk,
    Trial::Families,
    Trial::Jumbo,
    Trial::Tcp,
    Trial::Udp,
    Trial::Ecn,
    Trial::Cookie,
];

/// Makes the trials. Only known faults of the other may show.
fn matrix(other: &Daemon, via: Via) -> io::Result<()> {
    let ours = Daemon::ours()?;
    for trial in FAST {
        let verdict = trial.verdict(&ours, other, via);
        assert!(
            verdict.is_known(),
            "{other}, {}: {verdict:#?}",
            trial.name()
        );
    }
    Ok(())
}

#[test]
fn itself() -> io::Result<()> {
    matrix(&Daemon::ours()?, Via::Uapi)
}

#[test]
fn itself_configured_by_stock_wg() -> io::Result<()> {
    match require("wg", binaries::on_path("wg")) {
        Some(_) => matrix(&Daemon::ours()?, Via::StockWg),
        None => Ok(()),
    }
}

#[test]
fn boringtun_built_in() -> io::Result<()> {
    matrix(&Daemon::foreign()?, Via::Uapi)
}

/// Configured by the stock `wg` if that is installed, as a user would.
fn installed(name: &str) -> io::Result<()> {
    let Some(other) = require(name, Daemon::installed(name)) else {
        return Ok(());
    };
    let via = match binaries::on_path("wg") {
        Some(_) => Via::StockWg,
        None => Via::Uapi,
    };
    matrix(&other, via)
}

#[test]
fn wireguard_go() -> io::Result<()> {
    installed("wireguard-go")
}

#[test]
fn boringtun_cli() -> io::Result<()> {
    installed("boringtun-cli")
}

#[test]
fn gotatun_cli() -> io::Result<()> {
    installed("gotatun-cli")
}

/// The program, with a peer that works, one whose fault is known, and one that does not exist.
#[test]
fn the_program_prints_the_matrix() {
    let peers = ["wireguard-rs", "boringtun", "nobody"];
    let done = Command::new(env!("CARGO_BIN_EXE_matrix"))
        .args(["--peers", &peers.join(","), "--only", "by-us,ecn"])
        .stdin(Stdio::null())
        .output()
        .expect("the program was built for this test");
    let text = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}{errors}");
    let row = |peer: &str| {
        let line = text.lines().find(|line| line.starts_with(peer));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>())
    };
    assert_eq!(row("peer"), Some(vec!["peer", "by-us", "ecn"]));
    assert_eq!(
        row("wireguard-rs "),
        Some(vec!["wireguard-rs", "yes", "yes"])
    );
    assert_eq!(row("boringtun "), Some(vec!["boringtun", "yes", "no"]));
    assert!(
        text.contains("\nnobody was not tried: it is not on PATH."),
        "{text}"
    );
    assert!(
        text.contains("Between two of theirs it fails, too: boringtun delivers"),
        "{text}"
    );
    assert!(text.contains("A known fault of boringtun: "), "{text}");
}
