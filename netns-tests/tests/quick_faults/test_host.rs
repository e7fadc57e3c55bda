//! A host on which faults are tried one after the other, and the judgement on each.

use std::io;
use std::process::Command;

use netns_tests::quick::{BIN, LOG, Quick, Run, Site};
use netns_tests::{Host, HostState, Lab, PATIENCE, binaries, require, until};
use nix::errno::Errno;

use super::fault::*;

/// A file that makes `up` do all its kinds of steps.
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

/// A file that differs from the first in everything that `reload` can change.
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

/// The hook with this name fails or sends a signal, as /etc/fault says. The shell of wg-quick-rs runs
/// it.
const HOOK: &str = r#"
echo "$1" >> /etc/log
case "$(cat /etc/fault)" in
    "$1 fails") exit 3 ;;
    "$1 hangs") sleep 1000 ;;
    "$1 "*) kill "-$(cut -d' ' -f2 /etc/fault)" $PPID ;;
esac
"#;

/// A stand-in that runs the real program, and fails at the call in /etc/netns-tests/NAME.fails.
const STAND_IN: &str = r#"#!/bin/bash
calls=/etc/netns-tests/NAME.calls
n=$(($(cat $calls) + 1)); echo $n > $calls
fails=$(cat /etc/netns-tests/NAME.fails)
[ "$fails" = "$n before" ] && exit 1
REAL "$@" || exit
[ "$fails" = "$n after" ] && exit 1
exit 0
"#;

/// The text of `down` if something fails; the remaining steps are done all the same.
const GOES_ON: &str = "; going on\n";
/// The start of a line with a command that removes what `down` could not remove.
const REST: &str = "[!]   ";
/// The text of `up` if it replaces /etc/resolv.conf itself, as resolvconf has failed.
const FALLS_BACK: &str = "/etc/resolv.conf itself is replaced";

/// The text of `up` if it cannot find out at the end whether the tunnel's packets would loop.
const NOT_KNOWN: &str = "Cannot find out whether endpoints are reached through `wg0' itself";

/// A host and its states: with wg0 down, up, and reloaded.
pub struct TestHost {
    pub site: Site,
    pub quick: Quick,
    /// The namespace of wg0, if it is not the host's.
    away: Option<Host>,
    pub before: HostState,
    pub up: HostState,
    pub reloaded: HostState,
}

/// The name of a namespace for wg0.
const AWAY: &str = "away";

fn namespace(site: &Site) -> io::Result<Host> {
    site.sh("mkdir -p /etc/netns; ip netns add away; ip -n away link set lo up")?;
    site.host.in_netns("/run/netns/away")
}

impl TestHost {
    pub fn new(lab: &Lab, away: bool) -> io::Result<Option<TestHost>> {
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
            // The real program is kept under another name.
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
        let away = match away {
            true => Some(namespace(&site)?),
            false => None,
        };
        site.configure("wg0", CONFIG)?;
        let mut host = TestHost {
            site,
            quick,
            away,
            before: HostState::default(),
            up: HostState::default(),
            reloaded: HostState::default(),
        };
        host.forget()?;
        host.before = host.look()?;
        host.run("up")?.success()?;
        host.up = host.state()?;
        host.site.configure("wg0", CHANGED)?;
        host.run("reload")?.success()?;
        host.reloaded = host.state()?;
        host.down()?;
        host.site.configure("wg0", CONFIG)?;
        Ok(Some(host))
    }

    /// Resets all faults and counters.
    pub fn forget(&self) -> io::Result<()> {
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

    fn args<'a>(&self, verb: &'a str) -> Vec<&'a str> {
        let mut args = vec![verb, "wg0"];
        if self.away.is_some() && verb == "up" {
            args.extend(["--netns", AWAY]);
        }
        args
    }

    pub fn command(&self, verb: &str) -> io::Result<Command> {
        self.site.command(&self.quick, &self.args(verb))
    }

    pub fn run(&self, verb: &str) -> io::Result<Run> {
        self.site.run(&self.quick, &self.args(verb))
    }

    /// The state of the host and of the other namespace.
    pub fn look(&self) -> io::Result<HostState> {
        let mut state = self.site.state()?;
        let resolv_conf = self.site.sh("cat /etc/resolv.conf")?;
        let lines = resolv_conf.lines().map(str::to_owned).collect();
        state.put("resolv.conf", lines);
        if let Some(away) = &self.away {
            state.take(HostState::of(away)?.under("away "));
            let files = "find /etc/netns -exec stat -c '%n %a' {} + -type f -exec cat {} +";
            let files = self.site.sh(files)?;
            state.put("files", files.lines().map(str::to_owned).collect());
        }
        Ok(state)
    }

    /// The state without the port, which differs each time.
    fn state(&self) -> io::Result<HostState> {
        let mut state = self.look()?;
        state.forget("ListenPort = ");
        Ok(state)
    }

    /// Runs a command under strace. Returns its exit code and output.
    fn traced(&self, verb: &str, inject: Option<String>) -> io::Result<(Option<i32>, String)> {
        let place = self.site.place(&self.quick)?;
        let mut command = Command::new("strace");
        command.args(["-qq", "-s", "1000", "-o", "/etc/trace", "-e"]);
        command.arg(format!("trace={}", CALLS.join(",")));
        if let Some(inject) = inject {
            command.args(["-e".into(), format!("inject={inject}")]);
        }
        command.arg(place).args(self.args(verb));
        self.site.environment(&mut command);
        let run = self.site.finish(self.site.host.spawn(&mut command)?)?;
        Ok((run.code, run.output))
    }

    /// As [`TestHost::traced`], for the calls of all threads but the main one. Each call is a line of
    /// the trace.
    fn traced_threads(&self, verb: &str, inject: &[&str]) -> io::Result<(Option<i32>, String)> {
        let place = self.site.place(&self.quick)?;
        let mut command = Command::new(binaries::build("thread-faults")?);
        command.arg("/etc/trace").args(inject).arg("--");
        command.arg(place).args(self.args(verb));
        self.site.environment(&mut command);
        let run = self.site.finish(self.site.host.spawn(&mut command)?)?;
        Ok((run.code, run.output))
    }

    /// All faults in threads other than the main one.
    fn faults_of_threads(&self, verb: &str) -> io::Result<Vec<Fault>> {
        let (code, output) = self.traced_threads(verb, &[])?;
        assert_eq!(code, Some(0), "{output}");
        let trace = self.site.host.read("/etc/trace")?;
        let mut faults = Vec::new();
        for (n, call) in (1..).zip(trace.lines()) {
            let starts = ["clone", "fork"].iter().any(|name| call.contains(name));
            let errno = if starts { Errno::EAGAIN } else { Errno::EPERM };
            faults.push(Fault::CallOfThread(n, errno));
            let signal = SIGNALS[n % SIGNALS.len()];
            faults.push(Fault::SignalAtCallOfThread(n, signal));
        }
        Ok(faults)
    }

    /// Waits until the host is as before wg0 was up. Returns the differences that are left.
    pub fn restored(&self) -> io::Result<Vec<String>> {
        let mut left = Vec::new();
        let waited = until(PATIENCE, "the state before", || {
            left = self.before.against(&self.look()?).0;
            Ok(left.is_empty().then_some(()))
        });
        match waited {
            Err(error) if error.kind() != io::ErrorKind::TimedOut => Err(error),
            _ => Ok(left),
        }
    }

    /// Takes wg0 down, which must leave nothing except the sysctl.
    pub fn down(&self) -> io::Result<()> {
        self.run("down")?.success()?;
        self.reset_sysctl()?;
        match self.restored()?.as_slice() {
            [] => Ok(()),
            left => Err(io::Error::other(format!("down left {left:?}"))),
        }
    }

    /// Resets the sysctl that `down` does not reset, as another tunnel may need it.
    pub fn reset_sysctl(&self) -> io::Result<()> {
        let reset = "echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark";
        self.site.sh(reset).map(|_| ())
    }

    /// All possible faults, found by a run without a fault.
    pub fn faults(&self, verb: &str, hooks: &[&'static str]) -> io::Result<Vec<Fault>> {
        if verb != "up" {
            self.run("up")?.success()?;
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
                .filter_map(|(n, line)| is_step(verb, self.away.is_some(), line).then_some(n));
            for n in steps {
                faults.push(Fault::Call(call, n));
                // One signal for each step is enough; hooks are tried with all of them.
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
        let again = || -> io::Result<()> {
            if verb != "down" {
                self.down()?;
            }
            self.site.configure("wg0", CONFIG)?;
            self.reset_sysctl()
        };
        again()?;
        // The threads that work in another namespace.
        if self.away.is_some()
            && let Some(()) = require("x86-64", cfg!(target_arch = "x86_64").then_some(()))
        {
            if verb != "up" {
                self.run("up")?.success()?;
            }
            if verb == "reload" {
                self.site.configure("wg0", CHANGED)?;
            }
            self.forget()?;
            faults.extend(self.faults_of_threads(verb)?);
            again()?;
        }
        Ok(faults)
    }

    /// Runs a command with a fault.
    fn disturbed(&self, verb: &str, fault: &Fault) -> io::Result<Outcome> {
        self.forget()?;
        let fault_file = |text: String| self.site.host.write("/etc/fault", &text);
        let mut inject = None;
        let mut inject_threads = None;
        match fault {
            Fault::CallOfThread(n, errno) => {
                inject_threads = Some([n.to_string(), (*errno as i32).to_string()]);
            }
            Fault::SignalAtCallOfThread(n, signal) => {
                inject_threads = Some([n.to_string(), format!("SIG{signal}")]);
            }
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
        let (code, output) = match (inject, inject_threads) {
            (Some(inject), _) => self.traced(verb, Some(inject))?,
            (None, Some([n, what])) => self.traced_threads(verb, &[&n, &what])?,
            (None, None) => {
                let run = self.run(verb)?;
                (run.code, run.output)
            }
        };
        let met = self.met(fault)?;
        let spared = met.as_ref().is_some_and(|met| fault.is_spared(verb, met))
            || verb == "down" && output.contains(GOES_ON)
            || verb == "up"
                && [FALLS_BACK, NOT_KNOWN]
                    .iter()
                    .any(|note| output.contains(note));
        Ok(Outcome {
            code,
            output,
            met,
            spared,
        })
    }

    /// The line that shows that the fault happened, if it did.
    fn met(&self, fault: &Fault) -> io::Result<Option<String>> {
        let line = |file: &str, is: &dyn Fn(&str) -> bool| {
            let text = self.site.host.read(file)?;
            Ok(text.lines().find(|line| is(line)).map(str::to_owned))
        };
        match fault {
            Fault::Call(..) | Fault::CallOfThread(..) | Fault::SignalAtCallOfThread(..) => {
                line("/etc/trace", &|line| line.ends_with("(INJECTED)"))
            }
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

    /// Runs `up` with a fault. The host must then be as before, or, if `up` succeeded, as after any
    /// `up`.
    pub fn run_up_with_fault(&self, fault: &Fault) -> io::Result<Verdict> {
        let outcome = self.disturbed("up", fault)?;
        let mut wrong = Vec::new();
        if outcome.code == Some(0) {
            wrong.extend(self.up.against(&self.state()?).0);
            if outcome.output.contains(FALLS_BACK) {
                wrong.retain(|line| {
                    !line.starts_with("dns of wg0") && !line.starts_with("resolv.conf")
                });
            }
            self.forget()?;
            self.down()?;
        } else {
            self.reset_sysctl()?;
            wrong.extend(self.restored()?);
        }
        self.judge(fault, outcome, wrong)
    }

    /// Runs `down` with a fault. The tunnel must then be down, except for what `down` named: that is
    /// removed by the commands that it printed, or by a second `down`. The tunnel may be up as before
    /// after a signal, or if no step was done.
    pub fn run_down_with_fault(&self, fault: &Fault) -> io::Result<Verdict> {
        self.run("up")?.success()?;
        let outcome = self.disturbed("down", fault)?;
        let rest: Vec<&str> = outcome
            .output
            .lines()
            .filter_map(|line| line.strip_prefix(REST))
            .collect();
        let mut wrong = Vec::new();
        let is_up = outcome.code != Some(0) && rest.is_empty() && {
            wrong.extend(self.up.against(&self.state()?).0);
            wrong.is_empty()
        };
        self.forget()?;
        if is_up {
            if !fault.is_signal() && outcome.output.contains("[#] ") {
                wrong.push("the tunnel is up after some steps were done".into());
            }
            self.down()?;
            return self.judge(fault, outcome, wrong);
        }
        if !rest.is_empty() {
            let by_hand = rest.len() % 2 == 1;
            if by_hand {
                self.site.sh(&rest.join("\n"))?;
            }
            let again = self.run("down")?;
            if again.code != Some(0) {
                wrong.push(format!("a second `down' failed: {}", again.output));
            }
        }
        self.reset_sysctl()?;
        let left = self.restored()?;
        if left.is_empty() && rest.is_empty() {
            wrong.clear();
        }
        let is_not = |line| format!("not down: {line}");
        wrong.extend(left.into_iter().map(is_not));
        self.judge(fault, outcome, wrong)
    }

    /// Runs `reload` with a fault. The tunnel must then be as before or as the file says.
    pub fn run_reload_with_fault(&self, fault: &Fault) -> io::Result<Verdict> {
        self.run("up")?.success()?;
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

    /// Judges a run, given the wrong lines of the state, and cleans up for the next run.
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
            self.clean()
                .map_err(|error| io::Error::other(format!("{error}, after {wrong:?}: {output}")))?;
        }
        let went_on = code == Some(0) && spared;
        if met.is_none() {
            wrong.push("the fault did not happen".into());
        }
        if !went_on && code != Some(fault.code()) {
            wrong.push(format!("not the exit code {}, after {met:?}", fault.code()));
        }
        if !wrong.is_empty() {
            wrong.push(format!("exit code {code:?}: {output}"));
        }
        Ok(Verdict { went_on, wrong })
    }

    /// Removes everything of wg0 by force.
    fn clean(&self) -> io::Result<()> {
        self.forget()?;
        self.site.sh("ip link del wg0 2> /dev/null || :
             ip -n away link del wg0 2> /dev/null || :
             rm -rf /etc/netns/*
             for f in -4 -6; do
                 while ip $f rule del not fwmark 51820 2> /dev/null; do :; done
                 while ip $f rule del table main suppress_prefixlength 0 2> /dev/null; do :; done
                 ip $f route del unreachable default table 51820 metric 4294967295 2> /dev/null || :
             done
             nft flush ruleset
             rm -f /etc/netns-tests/dns/* /var/run/wireguard/*.sock /var/run/wireguard/*.state
             echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark")?;
        match self.restored()?.as_slice() {
            [] => Ok(()),
            left => Err(io::Error::other(format!("cannot be cleaned: {left:?}"))),
        }
    }
}
