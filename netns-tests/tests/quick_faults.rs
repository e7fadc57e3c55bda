//! `wg-quick-rs up` disturbed at each step in turn: all is as before afterwards. And `down`: it is
//! still up, or it is down, and nothing between.
//!
//! A run without a fault, under strace, counts the steps: requests to the kernel, processes started,
//! calls of each program. Then each of them fails once, and each of the signals that end it comes at
//! each of them. Where it can do without, as where the kernel has no WireGuard of its own, it ends
//! well: then all is as after a run without a fault. Needs strace.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use netns_tests::quick::{BIN, LOG, Quick, Site};
use netns_tests::{Lab, PATIENCE, State, binaries, netlink, require, until};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

const WORKERS: usize = 2;
const SIGNALS: [&str; 3] = ["INT", "TERM", "HUP"];
/// What asks the kernel for something, or starts a process, by whichever call.
const CALLS: [&str; 6] = ["sendto", "sendmsg", "clone", "clone3", "vfork", "fork"];
const PROGRAMS: [&str; 3] = ["wireguard-rs", "nft", "resolvconf"];
const HOOKS: [&str; 4] = ["pre-up-1", "pre-up-2", "post-up-1", "post-up-2"];
const DOWN_HOOKS: [&str; 2] = ["pre-down-1", "post-down-1"];

/// Everything that `up` can do at once.
const CONFIG: &str = "[Interface]
PrivateKey = 6AgToMTGwKJV1BBqhMlUFyAb3JQrbLBtRIMwkVMCi1g=
Address = 10.0.0.2/24, fd00::2/64
DNS = 10.0.0.1, fd00::1, corp.example
PreUp = . /etc/hook pre-up-1 %i
PreUp = . /etc/hook pre-up-2 %i
PostUp = . /etc/hook post-up-1 %i
PostUp = . /etc/hook post-up-2 %i
PreDown = . /etc/hook pre-down-1 %i
PostDown = . /etc/hook post-down-1 %i

[Peer]
PublicKey = eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw=
PresharedKey = cGVyaGFwcyBub3Qgc28gc2VjcmV0IGFmdGVyIGFsbCE=
AllowedIPs = 0.0.0.0/0, ::/0, 10.5.0.0/16
Endpoint = 192.0.2.1:51820

[Peer]
PublicKey = Hf4iFwCZpxMqHkRCCSxXC4nYVCOAxIlKe5IIQKuMUSw=
AllowedIPs = 10.6.0.0/16, fd06::/48
Endpoint = [2001:db8::1]:51820
";

/// Does what /etc/fault asks of the hook with this name; run in the shell that wg-quick-rs started.
const HOOK: &str = r#"
echo "$1" >> /etc/log
case "$(cat /etc/fault)" in
    "$1 fails") exit 3 ;;
    "$1 hangs") sleep 1000 ;;
    "$1 "*) kill "-$(cut -d' ' -f2 /etc/fault)" $PPID ;;
esac
"#;

/// Runs the real program, and fails at the call that /etc/netns-tests/NAME.fails says.
const STAND_IN: &str = r#"#!/bin/bash
calls=/etc/netns-tests/NAME.calls
n=$(($(cat $calls) + 1)); echo $n > $calls
fails=$(cat /etc/netns-tests/NAME.fails)
[ "$fails" = "$n before" ] && exit 1
REAL "$@" || exit
[ "$fails" = "$n after" ] && exit 1
exit 0
"#;

/// What happens once in a run.
#[derive(Debug, Clone)]
enum Fault {
    /// The nth of these calls fails.
    Call(&'static str, usize),
    /// A signal comes at the nth of these calls.
    SignalAtCall(&'static str, usize, &'static str),
    /// The nth call of this program fails, before or after it did its work.
    Program(&'static str, usize, &'static str),
    /// This hook fails.
    Hook(&'static str),
    /// A signal comes while this hook runs.
    SignalInHook(&'static str, &'static str),
}

/// A host, `up` and `down` in it, and its state when it is down.
struct Bench {
    site: Site,
    quick: Quick,
    before: State,
    up: State,
}

impl Bench {
    fn new(lab: &Lab) -> io::Result<Option<Bench>> {
        let Some(_) = require("strace", binaries::on_path("strace")) else {
            return Ok(None);
        };
        let Some(site) = Site::new(lab, "disturbed")? else {
            return Ok(None);
        };
        let quick = Quick::ours()?;
        site.sh("ip link add eth0 type veth peer cable
             ip link set eth0 addrgenmode none; ip link set cable addrgenmode none
             ip link set cable up; ip link set eth0 up
             ip addr add 192.0.2.2/24 dev eth0; ip -6 addr add 2001:db8::2/64 dev eth0 nodad
             ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1")?;
        for name in PROGRAMS {
            // What is there under that name goes on under another.
            let real = site.sh(&format!("type -p {name}"))?.trim().to_owned();
            let moved = format!("{BIN}/real/{name}");
            site.sh(&format!(
                "mkdir -p {BIN}/real
                 if [[ {real} == {BIN}/* ]]; then mv {real} {moved}; else ln -s {real} {moved}; fi"
            ))?;
            site.stand_in(
                name,
                &STAND_IN.replace("NAME", name).replace("REAL", &moved),
            )?;
        }
        site.host.write("/etc/hook", HOOK)?;
        site.configure("wg0", CONFIG)?;
        let mut bench = Bench {
            site,
            quick,
            before: State::default(),
            up: State::default(),
        };
        bench.forget()?;
        bench.before = bench.site.state()?;
        bench.site.run(&bench.quick, &["up", "wg0"])?.success()?;
        bench.up = bench.state()?;
        bench.down()?;
        Ok(Some(bench))
    }

    /// No fault, and nothing counted.
    fn forget(&self) -> io::Result<()> {
        for name in PROGRAMS {
            self.site
                .host
                .write(&format!("/etc/netns-tests/{name}.calls"), "0")?;
            self.site
                .host
                .write(&format!("/etc/netns-tests/{name}.fails"), "")?;
        }
        self.site.host.write("/etc/fault", "")?;
        self.site.heard().map(|_| ())
    }

    /// Without the port, which is another each time.
    fn state(&self) -> io::Result<State> {
        let mut state = self.site.state()?;
        state.forget("ListenPort = ");
        Ok(state)
    }

    /// `up` or `down` under strace: its exit code and output.
    fn traced(&self, verb: &str, inject: Option<String>) -> io::Result<(Option<i32>, String)> {
        let place = self.site.place(&self.quick)?;
        let mut command = Command::new("strace");
        command.args(["-qq", "-o", "/etc/trace", "-e"]);
        command.arg(format!("trace={}", CALLS.join(",")));
        if let Some(inject) = inject {
            command.args(["-e".into(), format!("inject={inject}")]);
        }
        command.args([&place, verb, "wg0"]);
        self.site.environment(&mut command);
        let run = self.site.finish(self.site.host.spawn(&mut command)?)?;
        Ok((run.code, run.output))
    }

    /// Waits until all is as before; what is not, if that does not come about.
    fn restored(&self) -> io::Result<Vec<String>> {
        let mut left = Vec::new();
        let waited = until(PATIENCE, "the state before", || {
            left = self.before.against(&self.site.state()?).0;
            Ok(left.is_empty().then_some(()))
        });
        match waited {
            Err(error) if error.kind() != io::ErrorKind::TimedOut => Err(error),
            _ => Ok(left),
        }
    }

    /// Takes it down, which must leave nothing but what stays by design: the sysctl.
    fn down(&self) -> io::Result<()> {
        self.site.run(&self.quick, &["down", "wg0"])?.success()?;
        self.site
            .sh("echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark")?;
        match self.restored()?.as_slice() {
            [] => Ok(()),
            left => Err(io::Error::other(format!("down left {left:?}"))),
        }
    }

    /// All the faults there can be in `up` or `down`, after a run without one.
    fn faults(&self, verb: &str, hooks: &[&'static str]) -> io::Result<Vec<Fault>> {
        if verb == "down" {
            self.site.run(&self.quick, &["up", "wg0"])?.success()?;
        }
        self.forget()?;
        let (code, output) = self.traced(verb, None)?;
        assert_eq!(code, Some(0), "{output}");
        let trace = self.site.host.read("/etc/trace")?;
        let mut faults = Vec::new();
        for call in CALLS {
            let count = trace
                .lines()
                .filter(|line| line.starts_with(&format!("{call}(")))
                .count();
            for n in 1..=count {
                faults.push(Fault::Call(call, n));
                faults.extend(SIGNALS.map(|signal| Fault::SignalAtCall(call, n, signal)));
            }
        }
        for name in PROGRAMS {
            let calls = self
                .site
                .host
                .read(&format!("/etc/netns-tests/{name}.calls"))?;
            let calls = calls.trim().parse::<usize>().map_err(io::Error::other)?;
            for n in 1..=calls {
                faults.extend(["before", "after"].map(|when| Fault::Program(name, n, when)));
            }
        }
        for hook in hooks {
            faults.push(Fault::Hook(hook));
            faults.extend(SIGNALS.map(|signal| Fault::SignalInHook(hook, signal)));
        }
        if verb == "up" {
            self.down()?;
        }
        self.site
            .sh("echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark")?;
        Ok(faults)
    }

    /// Runs `up` or `down` and lets a fault happen: its exit code and output.
    fn disturbed(&self, verb: &str, fault: &Fault) -> io::Result<(Option<i32>, String)> {
        self.forget()?;
        let fault_file = |text: String| self.site.host.write("/etc/fault", &text);
        let mut inject = None;
        match fault {
            Fault::Call(call, n) => {
                let error = if call.starts_with("send") {
                    "EPERM"
                } else {
                    "EAGAIN"
                };
                inject = Some(format!("{call}:error={error}:when={n}"));
            }
            Fault::SignalAtCall(call, n, signal) => {
                inject = Some(format!("{call}:signal=SIG{signal}:when={n}"));
            }
            Fault::Program(name, n, when) => {
                let file = format!("/etc/netns-tests/{name}.fails");
                self.site.host.write(&file, &format!("{n} {when}"))?;
            }
            Fault::Hook(hook) => fault_file(format!("{hook} fails"))?,
            Fault::SignalInHook(hook, signal) => fault_file(format!("{hook} {signal}"))?,
        }
        if inject.is_some() {
            return self.traced(verb, inject);
        }
        let run = self.site.run(&self.quick, &[verb, "wg0"])?;
        Ok((run.code, run.output))
    }

    /// Disturbs `up`. What is wrong afterwards; nothing, if it is as before.
    fn suffer_up(&self, fault: &Fault) -> io::Result<Vec<String>> {
        let (code, output) = self.disturbed("up", fault)?;
        let mut wrong = Vec::new();
        if code == Some(0) {
            wrong.extend(self.up.against(&self.state()?).0);
            self.forget()?;
            self.down()?;
        } else {
            wrong.extend(self.restored()?);
        }
        self.blame(wrong, code, &output)
    }

    /// Disturbs `down`. What is wrong afterwards; nothing, if it is up as before, and can be taken
    /// down, or if it is down.
    fn suffer_down(&self, fault: &Fault) -> io::Result<Vec<String>> {
        self.site.run(&self.quick, &["up", "wg0"])?.success()?;
        let (code, output) = self.disturbed("down", fault)?;
        let mut wrong = Vec::new();
        let is_up = code != Some(0) && {
            wrong.extend(self.up.against(&self.state()?).0);
            wrong.is_empty()
        };
        if is_up {
            self.forget()?;
            self.down()?;
        } else {
            self.site
                .sh("echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark")?;
            let left = self.restored()?;
            if left.is_empty() {
                wrong.clear();
            }
            wrong.extend(
                left.into_iter()
                    .map(|line| format!("nor is it down: {line}")),
            );
        }
        self.blame(wrong, code, &output)
    }

    /// With what was said, and the way made free for the next.
    fn blame(
        &self,
        mut wrong: Vec<String>,
        code: Option<i32>,
        output: &str,
    ) -> io::Result<Vec<String>> {
        if !wrong.is_empty() {
            wrong.push(format!("exit code {code:?}: {output}"));
            self.clean()?;
        }
        Ok(wrong)
    }

    /// By force.
    fn clean(&self) -> io::Result<()> {
        self.forget()?;
        self.site.sh("ip link del wg0 2> /dev/null || :
             for f in -4 -6; do
                 while ip $f rule del not fwmark 51820 2> /dev/null; do :; done
                 while ip $f rule del table main suppress_prefixlength 0 2> /dev/null; do :; done
             done
             nft flush ruleset
             rm -f /etc/netns-tests/dns/* /var/run/wireguard/*.sock
             echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark")?;
        match self.restored()?.as_slice() {
            [] => Ok(()),
            left => Err(io::Error::other(format!("not to be cleaned: {left:?}"))),
        }
    }
}

/// Tries each fault, in several hosts at once; counts and prints.
fn try_all(
    verb: &str,
    hooks: &[&'static str],
    suffer: impl Fn(&Bench, &Fault) -> io::Result<Vec<String>> + Sync,
) -> io::Result<()> {
    let lab = Lab::new()?;
    let Some(first) = Bench::new(&lab)? else {
        return Ok(());
    };
    let faults = first.faults(verb, hooks)?;
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let work = |bench: &Bench| -> io::Result<()> {
        while let Some(fault) = faults.get(next.fetch_add(1, Relaxed)) {
            let found = suffer(bench, fault)?;
            if !found.is_empty() {
                let mut wrong = wrong.lock().expect("no worker panics with it");
                wrong.push(format!("{fault:?}\n    {}", found.join("\n    ")));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..WORKERS)
            .map(|_| {
                scope.spawn(|| match Bench::new(&lab)? {
                    Some(bench) => work(&bench),
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
    // Not println!: the test runner would keep it to itself.
    writeln!(
        io::stderr(),
        "\nwg-quick-rs {verb} disturbed: {} steps tried, {} states restored",
        faults.len(),
        faults.len() - wrong.len()
    )?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(faults.len() > 50, "only {} steps: {faults:?}", faults.len());
    // And the host still serves.
    first.forget()?;
    first.site.run(&first.quick, &["up", "wg0"])?.success()?;
    first.down()
}

#[test]
fn a_fault_at_each_step_of_up_leaves_nothing() -> io::Result<()> {
    try_all("up", &HOOKS, Bench::suffer_up)
}

#[test]
fn a_fault_at_each_step_of_down_leaves_it_up_or_down() -> io::Result<()> {
    try_all("down", &DOWN_HOOKS, Bench::suffer_down)
}

#[test]
fn a_hook_that_hangs_can_be_interrupted() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some(bench) = Bench::new(&lab)? else {
        return Ok(());
    };
    // As Ctrl-C does: to all in the foreground. As kill(1) does: to it alone.
    for (signal, to_all) in [
        (Signal::SIGINT, true),
        (Signal::SIGTERM, false),
        (Signal::SIGHUP, false),
    ] {
        for hook in HOOKS {
            bench.forget()?;
            bench
                .site
                .host
                .write("/etc/fault", &format!("{hook} hangs"))?;
            let mut command = bench.site.command(&bench.quick, &["up", "wg0"])?;
            command.process_group(0);
            let proc = bench.site.host.spawn(&mut command)?;
            until(PATIENCE, "the hook to run", || {
                let log = bench.site.host.read(LOG)?;
                Ok(log.contains(hook).then_some(()))
            })?;
            let pid = Pid::from_raw(proc.pid());
            if to_all {
                killpg(pid, signal)?;
            } else {
                kill(pid, signal)?;
            }
            let run = bench.site.finish(proc)?;
            assert_ne!(run.code, Some(0), "{hook}, {signal}: {}", run.output);
            let left = bench.restored()?;
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
    let Some(bench) = Bench::new(&lab)? else {
        return Ok(());
    };
    bench.forget()?;
    for _ in 0..2 {
        bench.site.run(&bench.quick, &["up", "wg0"])?.success()?;
        let daemon = bench.site.state()?.part("processes").to_vec();
        let Some(_) = require("wg0 by a daemon", daemon.first()) else {
            return Ok(());
        };
        for pid in bench.site.host.processes()? {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
        until(PATIENCE, "the link to go", || {
            let link = bench.site.host.run(|| netlink::link("wg0"))?;
            Ok(link.is_none().then_some(()))
        })?;
        let left = bench.before.against(&bench.site.state()?);
        assert!(
            !left.none(),
            "a killed daemon leaves its socket, rules and tables"
        );
        bench.down()?;
    }
    Ok(())
}
