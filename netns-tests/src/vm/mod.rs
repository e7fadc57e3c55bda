//! A virtual machine with a kernel that has the WireGuard module.
//!
//! [`run`] boots it, once for the program, and runs the program itself there with other arguments.
//! [`inside`] is the whole body of a test. On the real machine it runs the test of the same name in the virtual
//! one, and reports the result. In the virtual machine it runs the body.
//! Programs run as concurrently inside as they are asked for: each is one line of JSON to the agent in the
//! machine ([`serve`]), and one line back when it is done.
//!
//! qemu emulates the machine, so no KVM is needed. The machine uses no files of the real one, and is
//! killed when this process ends, in whatever way.

mod archive;

use std::any::type_name;
use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use self::archive::Archive;
use crate::process::{Proc, VERBOSE, verbose};
use crate::{binaries, require};

/// A variable that is set in the virtual machine, like [`binaries::PREBUILT`].
const INSIDE: &str = "NETNS_TESTS_INSIDE";
/// The variable with the folder that `.ci/kernel` has made, and its default.
const KERNEL: &str = "NETNS_TESTS_KERNEL";
const KERNEL_DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/vm-kernel");

/// Time limits for the boot and for one run of the program. An emulated machine is slow.
const BOOT: Duration = Duration::from_secs(180);
const RUN: Duration = Duration::from_secs(1800);

/// The agent's port: the first port of the first virtual serial device.
const PORT: &str = "/dev/vport0p1";
/// The running program in the virtual machine.
const PROGRAM: &str = "/bin/program";
/// Stock programs in the virtual machine, with their libraries. `sh` is among them as busybox's shell
/// would always run busybox's `ip`, whatever is on PATH.
const STOCK: [&str; 5] = ["busybox", "sh", "setpriv", "wg", "ip"];

#[derive(Serialize, Deserialize)]
struct Request {
    id: u64,
    arguments: Vec<String>,
    /// Whether to log all that can be logged, as outside.
    verbose: bool,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    id: u64,
    passed: bool,
    output: String,
}

/// Whether this process runs in the virtual machine.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs `test`, which is the body of the calling test function, in the virtual machine. If it fails,
/// panics with its output. Without qemu or a kernel the test is skipped ([`require`]).
pub fn inside<T: FnOnce() -> io::Result<()>>(test: T) {
    if is_inside() {
        return test().unwrap_or_else(|error| panic!("{error}"));
    }
    let name = test_name::<T>();
    let arguments = [&name, "--exact", "--nocapture", "--test-threads=1"];
    match run(&arguments) {
        Ok(None) => {}
        Ok(Some(output)) => {
            assert!(output.contains("1 passed"), "no test {name}: {output}");
            print!("{output}");
        }
        Err(error) => panic!("{error}"),
    }
}

/// Runs this program in the virtual machine with these arguments, and returns its output. `None` if qemu or a
/// kernel is missing ([`require`]).
///
/// # Errors
/// The machine does not boot, or the program fails there; the error has its output.
pub fn run(arguments: &[&str]) -> io::Result<Option<String>> {
    let failed = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
    let Some(machine) = machine().as_ref().map_err(failed)? else {
        return Ok(None);
    };
    let Answer { passed, output, .. } = machine.run(arguments)?;
    match passed {
        true => Ok(Some(output)),
        false => Err(io::Error::other(format!(
            "in the virtual machine:\n{output}"
        ))),
    }
}

/// The name of the test whose body is this closure, from `crate::module::test::{{closure}}`.
fn test_name<T>() -> String {
    let path = type_name::<T>().trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_, path)| path).into()
}

/// The machine of this process; `None` if something for it is missing.
fn machine() -> &'static io::Result<Option<Machine>> {
    static MACHINE: OnceLock<io::Result<Option<Machine>>> = OnceLock::new();
    // Every test prints what is missing, not only the first.
    let folder = env::var_os(KERNEL).map_or(KERNEL_DEFAULT.into(), PathBuf::from);
    let kernel = Some(folder).filter(|folder| folder.join("modules/order").exists());
    let kernel = require("a kernel for the virtual machine (.ci/kernel)", kernel);
    let mut programs = ["qemu-system-x86_64"].iter().chain(&STOCK);
    let programs = programs.all(|name| require(name, binaries::on_path(name)).is_some());
    MACHINE.get_or_init(|| match kernel.filter(|_| programs) {
        Some(kernel) => Machine::boot(&kernel).map(Some),
        None => Ok(None),
    })
}

type Waiting = Arc<Mutex<HashMap<u64, Sender<Answer>>>>;

/// A running machine.
struct Machine {
    requests: Mutex<(u64, ChildStdin)>,
    waiting: Waiting,
    console: File,
}

impl Machine {
    fn boot(kernel: &Path) -> io::Result<Machine> {
        let files = File::from(memfd_create("initramfs", MFdFlags::MFD_CLOEXEC)?);
        initramfs(kernel)?.write(&files)?;
        let console = File::from(memfd_create("console", MFdFlags::MFD_CLOEXEC)?);
        let mut command = qemu(&kernel.join("vmlinuz"), &files, &console);

        // The agent reports that it is ready by an answer with the number of the boot request.
        let (booted, boot) = mpsc::channel();
        let waiting = Waiting::default();
        lock(&waiting).insert(0, booted);
        let (started, start) = mpsc::channel();
        let answers = waiting.clone();
        // The machine is killed when the thread that starts it ends; this thread ends with the process.
        thread::spawn(move || match command.spawn() {
            Ok(child) => receive(child, &started, &answers),
            Err(error) => drop(started.send(Err(error))),
        });
        let requests = start.recv().map_err(io::Error::other)??;
        let machine = Machine {
            requests: Mutex::new((1, requests)),
            waiting,
            console,
        };
        machine.wait(&boot, BOOT, "the virtual machine to boot")?;
        Ok(machine)
    }

    fn run(&self, arguments: &[&str]) -> io::Result<Answer> {
        let (answered, answer) = mpsc::channel();
        {
            let mut requests = lock(&self.requests);
            let (next, stdin) = &mut *requests;
            let id = *next;
            *next += 1;
            lock(&self.waiting).insert(id, answered);
            let request = Request {
                id,
                arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
                verbose: verbose(),
            };
            let mut line = serde_json::to_string(&request)?;
            line.push('\n');
            stdin.write_all(line.as_bytes())?;
        }
        self.wait(&answer, RUN, "a program in the virtual machine")
    }

    fn wait(&self, answer: &Receiver<Answer>, limit: Duration, what: &str) -> io::Result<Answer> {
        answer.recv_timeout(limit).map_err(|error| {
            let why = match error {
                RecvTimeoutError::Timeout => format!("waited {limit:?} in vain for {what}"),
                RecvTimeoutError::Disconnected => format!("it ended while waiting for {what}"),
            };
            let path = format!("/proc/self/fd/{}", self.console.as_raw_fd());
            let console = fs::read(path).unwrap_or_default();
            io::Error::other(format!(
                "{why}; the machine's console:\n{}",
                String::from_utf8_lossy(&console)
            ))
        })
    }
}

/// Sends the machine's standard input to `started`, then passes each answer to the thread that waits
/// for it. Returns when the machine has ended.
fn receive(mut child: Child, started: &Sender<io::Result<ChildStdin>>, waiting: &Waiting) {
    let pipes = child.stdin.take().zip(child.stdout.take());
    let Some((stdin, stdout)) = pipes else {
        return;
    };
    let _ = started.send(Ok(stdin));
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let answer = serde_json::from_str::<Answer>(&line).ok();
        let waiting = answer.and_then(|answer| Some((lock(waiting).remove(&answer.id)?, answer)));
        if let Some((sender, answer)) = waiting {
            let _ = sender.send(answer);
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    lock(waiting).clear();
}

/// The command for qemu. It has one processor, as the emulation of more is not faster.
fn qemu(kernel: &Path, files: &File, console: &File) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1"]);
    command.args(["-m", "2048", "-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-device", "virtio-serial-pci"]);
    command.args(["-chardev", "stdio,id=agent,signal=off"]);
    command.args(["-device", "virtserialport,chardev=agent"]);
    // The files are in this process's memory, so none can be left behind.
    let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    command.args([
        "-chardev",
        &format!("file,id=console,path={}", path(console)),
    ]);
    command.args(["-serial", "chardev:console", "-initrd", &path(files)]);
    command
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", CMDLINE]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The kernel's options. It does not check the emulated timer, which may be late on a busy machine.
const CMDLINE: &str = "console=ttyS0 loglevel=4 panic=-1 oops=panic mitigations=off nokaslr \
                       no_timer_check rcupdate.rcu_expedited=1";

/// The init program of the machine.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin:/applets HOME=/tmp
/bin/busybox mkdir -p /applets /dev /proc /sys /tmp /run /var
/bin/busybox --install -s /applets
ln -s /run /var/run
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
/bin/ip link set lo up
while read module; do insmod /modules/$module || echo "$module cannot be loaded"; done < /modules/order
export NETNS_TESTS_INSIDE=1 NETNS_TESTS_PREBUILT=1
vm-agent
poweroff -f
"#;

fn initramfs(kernel: &Path) -> io::Result<Archive> {
    let mut archive = Archive::default();
    let ours = [
        "wireguard-rs",
        "wg-rs",
        "wg-quick-rs",
        "vm-agent",
        "side-by-side",
    ];
    for name in ours {
        let path = binaries::build(name)?;
        archive.program(&format!("/bin/{name}"), &path)?;
    }
    archive.program(PROGRAM, &env::current_exe()?)?;
    for name in STOCK {
        let found = binaries::on_path(name).ok_or_else(|| io::Error::other(name))?;
        archive.program(&format!("/bin/{name}"), &found)?;
    }
    for module in fs::read_dir(kernel.join("modules"))? {
        let path = module?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            archive.file(&format!("/modules/{name}"), 0o644, fs::read(&path)?);
        }
    }
    archive.file("/init", 0o755, INIT.into());
    for (path, text) in [
        ("/etc/passwd", "root:x:0:0::/tmp:/bin/sh\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("/etc/services", "domain 53/udp\ndomain 53/tcp\n"),
        ("/etc/nsswitch.conf", "hosts: files dns\nservices: files\n"),
    ] {
        archive.file(path, 0o644, text.into());
    }
    Ok(archive)
}

/// The agent in the machine: runs the program as requested, each time in a process, until its port is closed.
pub fn serve() -> io::Result<()> {
    let port = File::options().read(true).write(true).open(PORT)?;
    let answers = Arc::new(Mutex::new(port.try_clone()?));
    answer(&answers, 0, Ok(String::new()))?;
    for line in BufReader::new(port).lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let answers = answers.clone();
        thread::spawn(move || answer(&answers, request.id, perform(&request)));
    }
    Ok(())
}

fn answer(port: &Mutex<File>, id: u64, result: io::Result<String>) -> io::Result<()> {
    let passed = result.is_ok();
    let output = result.unwrap_or_else(|error| error.to_string());
    let mut line = serde_json::to_string(&Answer { id, passed, output })?;
    line.push('\n');
    lock(port).write_all(line.as_bytes())
}

fn perform(request: &Request) -> io::Result<String> {
    let mut command = Command::new(PROGRAM);
    command.args(&request.arguments);
    if request.verbose {
        command.env(VERBOSE, "1");
    }
    Proc::spawn(command.stdin(Stdio::null()))?.success(RUN)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
