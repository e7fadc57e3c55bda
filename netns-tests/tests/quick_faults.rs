//! `wg-quick-rs up` disturbed at each step in turn: all is as before afterwards. And `down`: it is
//! still up, or it is down, and nothing between. And `reload`: it is as before, or as the file says.
//!
//! A run without a fault, under strace, counts the steps: requests to the kernel and to the daemon,
//! files written, processes started, calls of each program. Then each of them fails once, and a
//! signal comes at each of them. The exit code tells which. Only without what is in `SPARED` may it
//! end well: then all is as after a run without a fault. Needs strace.

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
/// What asks the kernel or the daemon for something, or starts a process, by whichever call.
const CALLS: [&str; 8] = [
    "sendto", "sendmsg", "write", "unlink", "clone", "clone3", "vfork", "fork",
];
/// No steps: what is said to the person, what a signal's handler wakes the program with, and the
/// removal of its lock when all is done.
const NO_STEPS: [&str; 3] = ["write(2,", ", MSG_DONTWAIT,", ".lock\""];
/// What it can do without, as strace shows it.
const SPARED: [&str; 6] = [
    // A link of the kernel's own kind: there is the daemon.
    "IFLA_INFO_KIND}, \"wireguard\"]",
    // The way to a peer, and the MTU of its link: there is the other peer.
    "RTM_GETROUTE, nlmsg_flags=NLM_F_REQUEST|NLM_F_ACK,",
    "ifi_index=if_nametoindex(\"eth0\")",
    // Networks taken away: from a daemon that does not know how, another way is tried.
    "allowed_ip=-",
    // The daemon's socket removed: its link is deleted, and the daemon ends by that.
    "unlink(\"/var/run/wireguard/wg0.sock\"",
    // A handler's wake, if it came earlier or later this time: the end of a program is seen anyway.
    ", MSG_DONTWAIT,",
];
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

/// Differs from it in everything that `reload` can change.
const CHANGED: &str = "[Interface]
PrivateKey = 6AgToMTGwKJV1BBqhMlUFyAb3JQrbLBtRIMwkVMCi1g=
Address = 10.0.0.2/24, 10.0.1.2/24
MTU = 1300
DNS = 10.0.0.9
PreDown = . /etc/hook pre-down-1 %i
PostDown = . /etc/hook post-down-1 %i

[Peer]
PublicKey = eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw=
PresharedKey = YW5vdGhlciBvbmUsIG5vciBpcyB0aGlzIHNlY3JldC4=
AllowedIPs = 0.0.0.0/0, 10.7.0.0/16
PersistentKeepalive = 25
Endpoint = 192.0.2.1:51821

[Peer]
PublicKey = q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeBs=
AllowedIPs = 10.6.0.0/16
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

impl Fault {
    /// Whether `verb` can do without what failed, or what it asked for.
    fn is_spared(&self, verb: &str, met: &str) -> bool {
        match self {
            Fault::Call(..) if SPARED.iter().any(|request| met.contains(request)) => true,
            // What the resolver has been told is asked first; unknown, it is told again.
            Fault::Call("clone" | "clone3" | "vfork" | "fork", 1)
            | Fault::Program("resolvconf", 1, _) => verb == "reload",
            _ => false,
        }
    }

    /// The exit code that tells of it.
    fn code(&self) -> i32 {
        match self {
            Fault::Call(..) | Fault::Program(..) => 1,
            Fault::Hook(_) => 3,
            Fault::SignalAtCall(_, _, signal) | Fault::SignalInHook(_, signal) => {
                128 + match *signal {
                    "INT" => Signal::SIGINT as i32,
                    "TERM" => Signal::SIGTERM as i32,
                    _ => Signal::SIGHUP as i32,
                }
            }
        }
    }
}

fn is_step(line: &str) -> bool {
    !NO_STEPS.iter().any(|call| line.contains(call))
}

/// How a run with a fault ended.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    output: String,
    /// The call that failed, or what else shows that the fault came about.
    met: Option<String>,
    /// Whether it may have ended well.
    spared: bool,
}

/// What came of a fault.
#[derive(Debug)]
struct Verdict {
    /// It ended well, without what failed.
    went_on: bool,
    /// What is not as it must be.
    wrong: Vec<String>,
}

/// A host, its state when wg0 is down, and when it is up and reloaded.
struct Bench {
    site: Site,
    quick: Quick,
    before: State,
    up: State,
    reloaded: State,
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
            reloaded: State::default(),
        };
        bench.forget()?;
        bench.before = bench.site.state()?;
        bench.site.run(&bench.quick, &["up", "wg0"])?.success()?;
        bench.up = bench.state()?;
        bench.site.configure("wg0", CHANGED)?;
        bench
            .site
            .run(&bench.quick, &["reload", "wg0"])?
            .success()?;
        bench.reloaded = bench.state()?;
        bench.down()?;
        bench.site.configure("wg0", CONFIG)?;
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
        command.args(["-qq", "-s", "1000", "-o", "/etc/trace", "-e"]);
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

    /// All the faults there can be, after a run without one.
    fn faults(&self, verb: &str, hooks: &[&'static str]) -> io::Result<Vec<Fault>> {
        if verb != "up" {
            self.site.run(&self.quick, &["up", "wg0"])?.success()?;
        }
        if verb == "reload" {
            self.site.configure("wg0", CHANGED)?;
        }
        self.forget()?;
        let (code, output) = self.traced(verb, None)?;
        assert_eq!(code, Some(0), "{output}");
        let trace = self.site.host.read("/etc/trace")?;
        let mut faults = Vec::new();
        for call in CALLS {
            let calls = trace
                .lines()
                .filter(|line| line.starts_with(&format!("{call}(")));
            let steps = (1..)
                .zip(calls)
                .filter_map(|(n, line)| is_step(line).then_some(n));
            for n in steps {
                faults.push(Fault::Call(call, n));
                // Which of them, makes no difference here: see the hooks for that.
                let signal = SIGNALS[n % SIGNALS.len()];
                faults.push(Fault::SignalAtCall(call, n, signal));
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
        if verb != "down" {
            self.down()?;
        }
        self.site.configure("wg0", CONFIG)?;
        self.site
            .sh("echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark")?;
        Ok(faults)
    }

    /// Runs it and lets a fault happen.
    fn disturbed(&self, verb: &str, fault: &Fault) -> io::Result<Outcome> {
        self.forget()?;
        let fault_file = |text: String| self.site.host.write("/etc/fault", &text);
        let mut inject = None;
        match fault {
            Fault::Call(call, n) => {
                let starts = !call.starts_with("send") && *call != "write";
                let error = if starts { "EAGAIN" } else { "EPERM" };
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
        let (code, output) = match inject {
            Some(_) => self.traced(verb, inject)?,
            None => {
                let run = self.site.run(&self.quick, &[verb, "wg0"])?;
                (run.code, run.output)
            }
        };
        let met = self.met(fault)?;
        let spared = met.as_ref().is_some_and(|met| fault.is_spared(verb, met));
        Ok(Outcome {
            code,
            output,
            met,
            spared,
        })
    }

    /// What shows that the fault came about.
    fn met(&self, fault: &Fault) -> io::Result<Option<String>> {
        let line = |file: &str, is: &dyn Fn(&str) -> bool| {
            let text = self.site.host.read(file)?;
            Ok(text.lines().find(|line| is(line)).map(str::to_owned))
        };
        match fault {
            Fault::Call(..) => line("/etc/trace", &|line| line.ends_with("(INJECTED)")),
            Fault::SignalAtCall(_, _, signal) => line("/etc/trace", &|line| {
                line.starts_with(&format!("--- SIG{signal} "))
            }),
            Fault::Program(name, n, _) => {
                line(&format!("/etc/netns-tests/{name}.calls"), &|line| {
                    line.parse().is_ok_and(|calls: usize| calls >= *n)
                })
            }
            Fault::Hook(hook) | Fault::SignalInHook(hook, _) => line(LOG, &|line| line == *hook),
        }
    }

    /// Disturbs `up`: all is as before, or as after any other.
    fn suffer_up(&self, fault: &Fault) -> io::Result<Verdict> {
        let outcome = self.disturbed("up", fault)?;
        let mut wrong = Vec::new();
        if outcome.code == Some(0) {
            wrong.extend(self.up.against(&self.state()?).0);
            self.forget()?;
            self.down()?;
        } else {
            wrong.extend(self.restored()?);
        }
        self.judge(fault, outcome, wrong)
    }

    /// Disturbs `down`: it is up as before, and can be taken down, or it is down.
    fn suffer_down(&self, fault: &Fault) -> io::Result<Verdict> {
        self.site.run(&self.quick, &["up", "wg0"])?.success()?;
        let outcome = self.disturbed("down", fault)?;
        let mut wrong = Vec::new();
        let is_up = outcome.code != Some(0) && {
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
        self.judge(fault, outcome, wrong)
    }

    /// Disturbs `reload`: it is as before, or as the file says.
    fn suffer_reload(&self, fault: &Fault) -> io::Result<Verdict> {
        self.site.run(&self.quick, &["up", "wg0"])?.success()?;
        self.site.configure("wg0", CHANGED)?;
        let outcome = self.disturbed("reload", fault)?;
        let now = self.state()?;
        let wrong = if outcome.code == Some(0) {
            self.reloaded.against(&now).0
        } else {
            self.site.configure("wg0", CONFIG)?;
            self.up.against(&now).0
        };
        if wrong.is_empty() {
            self.forget()?;
            self.down()?;
        }
        self.site.configure("wg0", CONFIG)?;
        self.judge(fault, outcome, wrong)
    }

    /// Adds to what is wrong with the state; makes the way free for the next.
    fn judge(
        &self,
        fault: &Fault,
        outcome: Outcome,
        mut wrong: Vec<String>,
    ) -> io::Result<Verdict> {
        let Outcome {
            code,
            output,
            met,
            spared,
        } = outcome;
        if !wrong.is_empty() {
            self.clean()?;
        }
        let went_on = code == Some(0) && spared;
        if met.is_none() {
            wrong.push("it did not come about".into());
        }
        if !went_on && code != Some(fault.code()) {
            wrong.push(format!("not the exit code {}, after {met:?}", fault.code()));
        }
        if !wrong.is_empty() {
            wrong.push(format!("exit code {code:?}: {output}"));
        }
        Ok(Verdict { went_on, wrong })
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
    suffer: impl Fn(&Bench, &Fault) -> io::Result<Verdict> + Sync,
) -> io::Result<()> {
    let lab = Lab::new()?;
    let Some(first) = Bench::new(&lab)? else {
        return Ok(());
    };
    let faults = first.faults(verb, hooks)?;
    let next = AtomicUsize::new(0);
    let went_on = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let work = |bench: &Bench| -> io::Result<()> {
        while let Some(fault) = faults.get(next.fetch_add(1, Relaxed)) {
            let found = suffer(bench, fault)?;
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
    let went_on = went_on.into_inner();
    // Not println!: the test runner would keep it to itself.
    writeln!(
        io::stderr(),
        "\nwg-quick-rs {verb} disturbed: {} faults, {} reported and undone, {} gone on without",
        faults.len(),
        faults.len() - wrong.len() - went_on,
        went_on
    )?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // `down`, the shortest, has 50; far fewer would mean that they are not found.
    assert!(faults.len() > 40, "only {} steps: {faults:?}", faults.len());
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
fn a_fault_at_each_step_of_reload_leaves_it_as_before_or_as_after() -> io::Result<()> {
    try_all("reload", &[], Bench::suffer_reload)
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
