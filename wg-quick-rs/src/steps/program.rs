//! Runs other programs: nft or iptables, resolvconf or resolvectl, a userspace implementation, and
//! hooks. They do not outlive this process: a signal that ends it is passed on to them and to their
//! children, and this process waits for their end.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wg_rs::sys::process::notify;

use crate::steps::signals::{Phase, Signals};
use crate::steps::target::Target;

/// Our own userspace implementation.
pub const OURS: &str = "wireguard-rs";

/// A program and how to run it.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    input: Option<Vec<u8>>,
    /// It is in the process group of the terminal, so Ctrl-C signals it too. Other programs are short,
    /// and get a signal only from this process.
    of_terminal: bool,
    /// Its standard error is not shown.
    quiet: bool,
}

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status.
    pub status: ExitStatus,
    /// Its standard output, if that was asked for.
    pub output: String,
}

impl Outcome {
    /// The exit code as shells count it: 128 plus the signal, if a signal ended the program.
    pub fn code(&self) -> i32 {
        let by_signal = self.status.signal().map(|signal| 128 + signal);
        self.status.code().or(by_signal).unwrap_or(1)
    }
}

impl Program {
    /// The program of this name, if there is one on PATH.
    pub fn find(name: impl AsRef<OsStr>) -> Option<Self> {
        Some(Program {
            path: find(name.as_ref())?,
            args: Vec::new(),
            variables: Vec::new(),
            input: None,
            of_terminal: false,
            quiet: false,
        })
    }

    /// Whether it is `wireguard-rs`.
    pub fn is_ours(&self) -> bool {
        self.path.file_name() == Some(OsStr::new(OURS))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to its environment.
    pub fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Gives it this standard input.
    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Runs it as the user would: in the foreground of the terminal.
    pub fn of_terminal(mut self) -> Self {
        self.of_terminal = true;
        self
    }

    /// Runs it in the namespace of the interface, and waits for its end.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn run(self, target: &Target, signals: &Signals) -> io::Result<Outcome> {
        self.run_with(target, signals, Stdio::inherit())
            .map(|status| Outcome {
                status,
                output: String::new(),
            })
    }

    /// Runs it and returns its standard output; its standard error is not shown.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn read(mut self, target: &Target, signals: &Signals) -> io::Result<Outcome> {
        let mut out = memory()?;
        self.quiet = true;
        let status = self.run_with(target, signals, out.try_clone()?.into())?;
        let mut output = Vec::new();
        out.rewind()?;
        out.read_to_end(&mut output)?;
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(Outcome { status, output })
    }

    fn run_with(self, target: &Target, signals: &Signals, out: Stdio) -> io::Result<ExitStatus> {
        let mut command = Command::new(&self.path);
        command.args(&self.args).env("PATH", path());
        command.env("LC_ALL", "C").stdout(out);
        // Only this process tells the service manager that the tunnel is up.
        command.env_remove(notify::VARIABLE);
        command.envs(self.variables);
        if self.quiet {
            command.stderr(Stdio::null());
        }
        if let Some(text) = self.input {
            let mut input = memory()?;
            input.write_all(&text)?;
            input.rewind()?;
            command.stdin(input);
        }
        if !self.of_terminal {
            command.process_group(0);
        }
        // Counted before the start, as the program itself may cause a signal at once.
        let earlier = signals.count();
        let child = target.at_home(|| command.spawn())??;
        wait(child, earlier, signals)
    }
}

/// Within this time, a terminal that is closed may send several signals.
const SHORT: Duration = Duration::from_secs(1);
/// A program that undoes something is ended after this time,
const LONG: Duration = Duration::from_secs(20);
/// and killed after this one.
const TOO_LONG: Duration = Duration::from_secs(25);

fn memory() -> io::Result<File> {
    Ok(memfd_create("", MFdFlags::MFD_CLOEXEC)?.into())
}

/// Waits for the end of a program, and passes signals on to it. A program that must run in any case,
/// after the point of no return or to undo something, is not ended by an earlier signal. One that undoes
/// something is ended if it takes too long.
fn wait(mut child: Child, earlier: usize, signals: &Signals) -> io::Result<ExitStatus> {
    let start = Instant::now();
    let is_undoing = signals.phase == Phase::Undoing;
    let mut told = if signals.phase == Phase::Doing {
        0
    } else {
        earlier
    };
    let mut limits = [(LONG, Signal::SIGTERM), (TOO_LONG, Signal::SIGKILL)]
        .into_iter()
        .filter(|_| is_undoing)
        .peekable();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let count = signals.count();
        if count != told {
            told = count;
            if let Some(Ok(signal)) = signals.caught().map(Signal::try_from)
                && (!is_undoing || start.elapsed() > SHORT)
            {
                // Shells ignore SIGQUIT.
                let is_quit = signal == Signal::SIGQUIT;
                tell(child.id(), if is_quit { Signal::SIGTERM } else { signal });
            }
        }
        if let Some((_, signal)) = limits.next_if(|(limit, _)| start.elapsed() >= *limit) {
            tell(child.id(), signal);
        }
        let left = limits
            .peek()
            .map(|(limit, _)| limit.saturating_sub(start.elapsed()));
        signals.wait(left);
    }
}

/// Sends a signal to a process and to all its descendants. They are stopped meanwhile, so that none of them
/// starts another one that would get no signal.
fn tell(process: u32, signal: Signal) {
    let mut all = vec![process];
    let mut stopped = 0;
    while let Some(&process) = all.get(stopped) {
        stop(process);
        all.extend(children(process));
        stopped += 1;
    }
    for signal in [signal, Signal::SIGCONT] {
        all.iter().for_each(|process| send(*process, signal));
    }
}

/// A process that has ended meanwhile gets no signal.
fn send(process: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(process.cast_signed()), signal);
}

/// Stops a process, and waits until it has stopped: a fork that has begun is completed before that.
fn stop(process: u32) {
    send(process, Signal::SIGSTOP);
    let start = Instant::now();
    while is_running(process) && start.elapsed() < SHORT {
        thread::sleep(Duration::from_micros(100));
    }
}

/// Whether a process has neither stopped nor ended.
fn is_running(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:\t"));
    state.is_some_and(|state| !state.starts_with(['T', 't', 'Z', 'X']))
}

fn children(process: u32) -> Vec<u32> {
    let children = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    let ids = children.split_whitespace();
    ids.filter_map(|child| child.parse().ok()).collect()
}

/// The search path for programs: first the folder of this one.
fn path() -> OsString {
    let rest = env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let here = env::current_exe().ok();
    let here = here
        .as_deref()
        .and_then(Path::parent)
        .map(Path::to_path_buf);
    let all = here.into_iter().chain(env::split_paths(&rest));
    env::join_paths(all).unwrap_or(rest)
}

fn find(name: &OsStr) -> Option<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        return is_program(Path::new(name)).then(|| name.into());
    }
    env::split_paths(&path())
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    let file = fs::metadata(path);
    file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a process with this argument runs.
    fn runs(argument: &str) -> bool {
        let argument = format!("\0{argument}\0");
        let processes = fs::read_dir("/proc").unwrap();
        let mut lines =
            processes.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        lines.any(|line| String::from_utf8_lossy(&line).ends_with(&argument))
    }

    #[test]
    fn a_signal_reaches_also_the_children_that_are_just_being_started() {
        let seconds = format!("{}", 1_000_000 + std::process::id());
        let script =
            format!("i=0; while [ $i -lt 500 ]; do sleep {seconds} & i=$((i+1)); done; wait");
        for round in 0..20 {
            let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
            while children(child.id()).len() < round {
                std::thread::yield_now();
            }
            tell(child.id(), Signal::SIGTERM);
            assert!(!child.wait().unwrap().success());
            let start = Instant::now();
            while runs(&seconds) {
                assert!(start.elapsed() < LONG, "round {round}");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn programs_are_found_on_path() {
        assert!(Program::find("sh").is_some());
        assert!(Program::find("/bin/sh").is_some());
        assert!(Program::find("no such program").is_none());
        assert!(Program::find("/dev/null").is_none());
    }
}
