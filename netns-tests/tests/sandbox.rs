//! The daemon restricts itself once it runs. Which calls and files are refused is tested in
//! `wg-rs/src/sys/process/sandbox.rs`; all other tests show that it can still do its work.

use std::fs;
use std::io;

use netns_tests::process::status;
use netns_tests::{Config, Host, PATIENCE, Proc, ready};
use netns_tests::{Daemon, Family, Lab, Plan, Tunnel, Uapi, until};

/// The value of a label in the status of each thread.
fn of_all_threads(pid: i32, label: &str) -> io::Result<Vec<String>> {
    let mut values = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.file_name();
        let thread = thread.to_string_lossy().parse().map_err(io::Error::other)?;
        values.push(status(thread, label)?);
    }
    Ok(values)
}

#[test]
fn every_thread_is_restricted() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    // Sockets that are opened again may have new threads.
    tunnel.a.wg.set(&Config {
        fwmark: Some(7),
        listen_port: Some(443),
        ..Config::default()
    })?;
    tunnel.ping_both_ways(Family::V4)?;
    let pid = tunnel.a.wg.pid()?;
    for (label, value) in [("Seccomp", "2"), ("NoNewPrivs", "1")] {
        let values = of_all_threads(pid, label)?;
        assert!(values.len() >= 4, "{values:?}");
        assert!(
            values.iter().all(|found| found == value),
            "{label} {values:?}"
        );
    }
    // Without CAP_SYS_RESOURCE the daemon cannot raise its limit, and leaves its memory unlocked.
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let limit = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"));
    let is_unlimited = limit.is_some_and(|limit| limit.contains("unlimited"));
    assert_eq!(status(pid, "VmLck")? != "0 kB", is_unlimited, "{limits}");
    Ok(())
}

fn start(host: &Host, sandbox: &str) -> io::Result<Proc> {
    let mut command = Daemon::ours()?.command(&["-f", "wg0"]);
    command
        .env("LOG_LEVEL", "verbose")
        .env("WG_SANDBOX", sandbox);
    host.spawn(&mut command)
}

#[test]
fn the_log_says_what_restricts_the_daemon() -> io::Result<()> {
    let lab = Lab::new()?;
    for (sandbox, seccomp, words) in [
        ("on", "2", "seccomp and Landlock restrict the daemon"),
        ("off", "0", "the sandbox is off"),
    ] {
        let host = lab.host(sandbox)?;
        let proc = start(&host, sandbox)?;
        until(PATIENCE, "the daemon", || {
            Ok(ready(&host, "wg0").then_some(()))
        })?;
        // It answers once it is restricted.
        Uapi::connect(&host, "wg0")?.ask("get=1\n\n")?;
        assert!(proc.output().contains(words), "{}", proc.output());
        assert_eq!(status(proc.pid(), "Seccomp")?, seccomp, "{sandbox}");
    }
    let host = lab.host("neither")?;
    let mut proc = start(&host, "perhaps")?;
    assert!(!proc.wait(PATIENCE)?.success());
    assert!(proc.output().contains("perhaps"), "{}", proc.output());
    Ok(())
}
