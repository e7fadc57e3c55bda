//! Child processes, and facts about any process from /proc.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::until;

/// A child process whose output is kept in memory. When it is dropped, it is killed; in a panic, or
/// with `NETNS_TESTS_LOG` in the environment, its output is printed then.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    output: File,
}

/// Starts a program that may just have been written. If another thread forked meanwhile, its child has the
/// file open for writing until it executes its own program, and the kernel refuses this one with ETXTBSY.
fn start(command: &mut Command) -> io::Result<Child> {
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && Instant::now() < give_up =>
            {
                thread::yield_now();
            }
            result => return result,
        }
    }
}

impl Proc {
    /// Starts a command in the namespaces of the calling thread.
    pub fn spawn(command: &mut Command) -> io::Result<Proc> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = File::from(memfd_create("output", MFdFlags::MFD_CLOEXEC)?);
        command
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output.try_clone()?));
        let child = start(command)
            .map_err(|error| io::Error::new(error.kind(), format!("start {name}: {error}")))?;
        Ok(Proc {
            name,
            child,
            output,
        })
    }

    /// Process ID.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Writes `text` to its standard input, and closes that.
    pub fn feed(&mut self, text: &str) -> io::Result<()> {
        let mut stdin = self
            .child
            .stdin
            .take()
            .ok_or_else(|| io::Error::other("no stdin"))?;
        io::Write::write_all(&mut stdin, text.as_bytes())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end; kills it after `limit`.
    pub fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        until(limit, &what, || self.child.try_wait()).inspect_err(|_| {
            let _ = self.child.kill();
        })
    }

    /// Its standard output and error so far.
    pub fn output(&self) -> String {
        let mut bytes = vec![0; self.output.metadata().map_or(0, |meta| meta.len() as usize)];
        let read = self.output.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    /// Waits for its end, and returns the output. If it fails, the error contains the output.
    pub fn success(&mut self, limit: Duration) -> io::Result<String> {
        let status = self.wait(limit).map_err(|error| {
            let text = format!("{error}; its output: {}", self.output().trim());
            io::Error::new(error.kind(), text)
        })?;
        let output = self.output();
        if status.success() {
            return Ok(output);
        }
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown".into(),
        };
        Err(io::Error::other(format!(
            "{} ended with {how}: {}",
            self.name,
            output.trim()
        )))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() || verbose() {
            eprintln!("--- output of {}:\n{}---", self.name, self.output());
        }
    }
}

/// A variable: if it is set, the output of every process is printed, and daemons log all they can.
pub(crate) const VERBOSE: &str = "NETNS_TESTS_LOG";

pub(crate) fn verbose() -> bool {
    std::env::var_os(VERBOSE).is_some()
}

/// The processes in one of these network namespaces, given by inode numbers.
pub fn in_namespaces(inodes: &[u64]) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|namespace| inodes.contains(&namespace.ino()))
        })
        .collect()
}

/// Whether a process has ended with all its threads, and so has closed its sockets. It loses its namespaces
/// before that.
pub fn has_ended(pid: i32) -> bool {
    match (status(pid, "State"), threads(pid)) {
        (Ok(state), Ok(threads)) => state.starts_with('Z') && threads <= 1,
        _ => true,
    }
}

/// One value of `/proc/PID/status`, without its label.
pub fn status(pid: i32, label: &str) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(label)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
        .ok_or_else(|| io::Error::other(format!("no {label} in the status of process {pid}")))
}

/// Peak resident memory of a process, in bytes (`VmHWM`).
pub fn peak_memory(pid: i32) -> io::Result<u64> {
    memory(pid, "VmHWM")
}

/// Resident memory of a process, in bytes (`VmRSS`).
pub fn resident_memory(pid: i32) -> io::Result<u64> {
    memory(pid, "VmRSS")
}

fn memory(pid: i32, label: &str) -> io::Result<u64> {
    let text = status(pid, label)?;
    let kib = text
        .trim_end_matches("kB")
        .trim()
        .parse::<u64>()
        .map_err(io::Error::other)?;
    Ok(kib * 1024)
}

/// The number of descriptors that a process has open.
pub fn descriptors(pid: i32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// The number of threads of a process.
pub fn threads(pid: i32) -> io::Result<usize> {
    status(pid, "Threads")?.parse().map_err(io::Error::other)
}

/// The CPU time of a process, user and system.
pub fn cpu_time(pid: i32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name may contain spaces and parentheses, so fields are counted from the last ')'.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
        return Err(io::Error::other(format!(
            "unreadable stat of process {pid}"
        )));
    };
    let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as u64;
    Ok(Duration::from_millis((user + system) * 1000 / per_second))
}

/// The CPU's name, and whether it has AVX-512 for our own AEAD.
pub fn cpu_name() -> io::Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim())
    };
    let name = value("model name").unwrap_or("unknown");
    let flags = value("flags").unwrap_or_default();
    let has = |flag| flags.split(' ').any(|known| known == flag);
    let avx512 = match has("avx512ifma") && has("avx512_vbmi2") {
        true => "with AVX-512",
        false => "without AVX-512",
    };
    Ok(format!("{name}, {avx512}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_this_process() {
        let me = std::process::id() as i32;
        assert!(resident_memory(me).unwrap() > 100_000);
        assert!(peak_memory(me).unwrap() >= resident_memory(me).unwrap());
        assert!(descriptors(me).unwrap() >= 3);
        assert!(threads(me).unwrap() >= 1);
        let before = cpu_time(me).unwrap();
        until(Duration::from_secs(20), "CPU time", || {
            Ok((cpu_time(me)? > before).then_some(()))
        })
        .unwrap();
    }

    #[test]
    fn the_output_is_kept_and_is_in_the_error() {
        let mut child =
            Proc::spawn(Command::new("sh").args(["-c", "echo out; echo err >&2"])).unwrap();
        assert_eq!(child.success(Duration::from_secs(9)).unwrap(), "out\nerr\n");
        let mut child = Proc::spawn(Command::new("sh").args(["-c", "echo why; exit 3"])).unwrap();
        let error = child
            .success(Duration::from_secs(9))
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit code 3: why"), "{error}");
    }
}
