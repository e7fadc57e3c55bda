//! A fault at each step of `wg-quick-rs`, one after the other. After a failed `up` the host is as
//! before. After a failed `down` the tunnel is down, except for what `down` named together with the
//! commands that remove it; after a signal it may also be up. After a failed `reload` it is as before.
//!
//! A run without a fault under strace counts the steps: requests to the kernel and to the daemon,
//! files written, processes started, and calls of each program. Then each step fails once, and a
//! signal arrives at each step; the exit code tells which. Only if a request in `SPARED` fails may
//! the command succeed, and then the host must be as after a run without a fault. The tests need
//! strace. `thread-faults`, a program of this crate, counts the calls of the threads that work in
//! another namespace.

mod fault;
mod test_host;

use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use netns_tests::quick::LOG;
use netns_tests::{Lab, PATIENCE, netlink, require, until};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use fault::{DOWN_HOOKS, Fault, HOOKS, Verdict};
use test_host::TestHost;

/// The number of hosts on which faults are tried at the same time.
const WORKERS: usize = 2;
/// Tries each fault, on several hosts at the same time, and prints the numbers.
fn try_all(
    verb: &str,
    away: bool,
    least: usize,
    hooks: &[&'static str],
    run_with_fault: impl Fn(&TestHost, &Fault) -> io::Result<Verdict> + Sync,
) -> io::Result<()> {
    let lab = Lab::new()?;
    let Some(first) = TestHost::new(&lab, away)? else {
        return Ok(());
    };
    let faults = first.faults(verb, hooks)?;
    let next = AtomicUsize::new(0);
    let went_on = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let work = |host: &TestHost| -> io::Result<()> {
        while let Some(fault) = faults.get(next.fetch_add(1, Relaxed)) {
            let found = run_with_fault(host, fault)?;
            if found.went_on {
                went_on.fetch_add(1, Relaxed);
            }
            if !found.wrong.is_empty() {
                let mut wrong = wrong.lock().expect("no worker panics with it");
                wrong.push(format!("{fault:?}\n    {}", found.wrong.join("\n    ")));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..WORKERS)
            .map(|_| {
                scope.spawn(|| match TestHost::new(&lab, away)? {
                    Some(host) => work(&host),
                    None => Ok(()),
                })
            })
            .collect();
        let mine = work(&first);
        let join = |other: std::thread::ScopedJoinHandle<'_, io::Result<()>>| {
            other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        others.into_iter().map(join).fold(mine, io::Result::and)
    })?;
    let wrong = wrong.into_inner().expect("no worker panicked");
    let went_on = went_on.into_inner();
    // Not println!, which the test runner captures.
    writeln!(
        io::stderr(),
        "\nwg-quick-rs {verb}{} with {} faults: {} reported, {} without effect",
        if away { " --netns" } else { "" },
        faults.len(),
        faults.len() - wrong.len() - went_on,
        went_on
    )?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // If there are far fewer, the search for steps has failed.
    let count = faults.len();
    assert!(count >= least, "only {count} steps: {faults:?}");
    // The host still works after all faults.
    first.forget()?;
    first.run("up")?.success()?;
    first.down()
}

#[test]
fn a_fault_at_each_step_of_up_leaves_nothing() -> io::Result<()> {
    try_all("up", false, 120, &HOOKS, TestHost::run_up_with_fault)
}

#[test]
fn a_fault_at_each_step_of_down_leaves_nothing_unnamed() -> io::Result<()> {
    try_all(
        "down",
        false,
        45,
        &DOWN_HOOKS,
        TestHost::run_down_with_fault,
    )
}

#[test]
fn a_fault_at_each_step_of_reload_leaves_it_as_before_or_as_after() -> io::Result<()> {
    try_all("reload", false, 85, &[], TestHost::run_reload_with_fault)
}

/// For an interface in another namespace: also in the threads that work there.
#[test]
fn a_fault_at_each_step_of_up_in_a_namespace_leaves_nothing() -> io::Result<()> {
    try_all("up", true, 160, &HOOKS, TestHost::run_up_with_fault)
}

#[test]
fn a_fault_at_each_step_of_down_in_a_namespace_leaves_nothing_unnamed() -> io::Result<()> {
    try_all("down", true, 26, &DOWN_HOOKS, TestHost::run_down_with_fault)
}

#[test]
fn a_fault_at_each_step_of_reload_in_a_namespace_leaves_it_as_before_or_as_after() -> io::Result<()>
{
    try_all("reload", true, 80, &[], TestHost::run_reload_with_fault)
}

/// A container engine may hang or fail; an interface in a named namespace is found without it.
#[test]
fn an_interface_in_a_namespace_is_found_without_a_container_engine() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some(host) = TestHost::new(&lab, true)? else {
        return Ok(());
    };
    const SOCKET: &str = "/etc/engine.sock";
    let engine = host.site.host.run(|| UnixListener::bind(SOCKET))?;
    engine.set_nonblocking(true)?;
    host.forget()?;
    for verb in ["up", "reload", "save", "down"] {
        let mut command = host.command(verb)?;
        for variable in ["DOCKER_HOST", "CONTAINER_HOST"] {
            command.env(variable, format!("unix://{SOCKET}"));
        }
        let run = host.site.finish(host.site.host.spawn(&mut command)?)?;
        run.success()?;
        let asked = engine.accept();
        assert!(asked.is_err(), "{verb} asks a container engine");
    }
    Ok(())
}

#[test]
fn a_hook_that_hangs_can_be_interrupted() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some(host) = TestHost::new(&lab, false)? else {
        return Ok(());
    };
    // Ctrl-C signals all processes in the foreground, kill(1) only one.
    for (signal, to_all) in [
        (Signal::SIGINT, true),
        (Signal::SIGTERM, false),
        (Signal::SIGHUP, false),
        (Signal::SIGQUIT, false),
    ] {
        for hook in HOOKS {
            host.forget()?;
            host.site
                .host
                .write("/etc/fault", &format!("{hook} hangs"))?;
            let mut command = host.command("up")?;
            command.process_group(0);
            let proc = host.site.host.spawn(&mut command)?;
            until(PATIENCE, "the hook to run", || {
                let log = host.site.host.read(LOG)?;
                Ok(log.contains(hook).then_some(()))
            })?;
            let pid = Pid::from_raw(proc.pid());
            if to_all {
                killpg(pid, signal)?;
            } else {
                kill(pid, signal)?;
            }
            let run = host.site.finish(proc)?;
            assert_ne!(run.code, Some(0), "{hook}, {signal}: {}", run.output);
            host.reset_sysctl()?;
            let left = host.restored()?;
            assert!(
                left.is_empty(),
                "{hook}, {signal}: {left:?}\n{}",
                run.output
            );
        }
    }
    Ok(())
}

#[test]
fn down_cleans_up_after_a_daemon_that_was_killed() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some(host) = TestHost::new(&lab, false)? else {
        return Ok(());
    };
    host.forget()?;
    for _ in 0..2 {
        host.run("up")?.success()?;
        let daemon = host.site.state()?.part("processes").to_vec();
        let Some(_) = require("wg0 by a daemon", daemon.first()) else {
            return Ok(());
        };
        host.site.host.kill_processes()?;
        until(PATIENCE, "the link to go", || {
            let link = host.site.host.run(|| netlink::link("wg0"))?;
            Ok(link.is_none().then_some(()))
        })?;
        let left = host.before.against(&host.site.state()?);
        assert!(
            !left.none(),
            "a killed daemon leaves its socket, rules and tables"
        );
        host.down()?;
    }
    Ok(())
}
