//! Makes one system call of a program fail, or sends a signal at it: the nth call of all threads but
//! the main one. strace(1) cannot do that, as it counts the calls of each thread separately.
//!
//! ```text
//! thread-faults TRACE [N ERRNO|SIGNAL] -- PROGRAM [ARGUMENT...]
//! ```
//! The file TRACE gets a line for each call. Processes that the program starts are not traced. Other
//! machines than x86-64 are not supported; there the exit code is 2.

use std::process::ExitCode;

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    eprintln!("thread-faults: only x86-64 is supported");
    ExitCode::from(2)
}

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    match x86_64::main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("thread-faults: {error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::collections::HashMap;
    use std::env;
    use std::error::Error;
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitCode};

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use pete::{Ptracer, Registers, Restart, Stop, Tracee};

    /// Calls that send a request to the kernel or the daemon, enter a namespace, or start a process.
    const CALLS: [(i64, &str); 10] = [
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_sendmsg, "sendmsg"),
        (libc::SYS_write, "write"),
        (libc::SYS_unlink, "unlink"),
        (libc::SYS_clone, "clone"),
        (libc::SYS_clone3, "clone3"),
        (libc::SYS_vfork, "vfork"),
        (libc::SYS_fork, "fork"),
        (libc::SYS_setns, "setns"),
        (libc::SYS_connect, "connect"),
    ];
    /// How many bytes of a request are shown.
    const SHOWN: usize = 200;
    /// Options that trace new processes are absent, as a traced daemon would end with the tracer.
    const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACEEXIT;

    #[derive(Clone, Copy)]
    enum Fault {
        Error(Errno),
        Signal(Signal),
    }

    pub fn main() -> Result<ExitCode, Box<dyn Error>> {
        let mut args = env::args().skip(1);
        let trace = args.next().ok_or("no file to write the trace to")?;
        let mut fault = None;
        match args.next().ok_or("no program")?.as_str() {
            "--" => {}
            nth => {
                let kind = args.next().ok_or("no error and no signal")?;
                let kind = match kind.parse::<Signal>() {
                    Ok(signal) => Fault::Signal(signal),
                    Err(_) => Fault::Error(Errno::from_raw(kind.parse()?)),
                };
                fault = Some((nth.parse::<usize>()?, kind));
                args.next().filter(|word| word == "--").ok_or("no --")?;
            }
        }
        let mut command = Command::new(args.next().ok_or("no program")?);
        command.args(args);
        run(command, File::create(trace)?, fault)
    }

    fn run(
        command: Command,
        mut trace: File,
        fault: Option<(usize, Fault)>,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let mut tracer = Ptracer::new();
        let mut options = tracer.default_options();
        for option in options.iter() {
            options.set(option, option.bits() & OPTIONS != 0);
        }
        tracer.set_default_options(options);
        let mut child = tracer.spawn(command)?;
        let main = child.id().cast_signed();
        let mut count = 0;
        // The error that the current call of a thread returns.
        let mut failing = HashMap::new();
        while let Some(mut tracee) = tracer.wait()? {
            let thread = tracee.pid.as_raw();
            match tracee.stop {
                Stop::SyscallEnter if thread != main => {
                    let mut registers = tracee.registers()?;
                    if let Some(call) = described(&mut tracee, &registers) {
                        count += 1;
                        let hit = fault.filter(|(nth, _)| *nth == count);
                        let injected = if hit.is_some() { " (INJECTED)" } else { "" };
                        writeln!(trace, "{count} {call}{injected}")?;
                        match hit {
                            Some((_, Fault::Error(errno))) => {
                                // An invalid number, so that the kernel does nothing.
                                registers.orig_rax = u64::MAX;
                                tracee.set_registers(registers)?;
                                failing.insert(thread, errno);
                            }
                            Some((_, Fault::Signal(signal))) => kill(Pid::from_raw(main), signal)?,
                            None => {}
                        }
                    }
                }
                Stop::SyscallExit => {
                    if let Some(errno) = failing.remove(&thread) {
                        let mut registers = tracee.registers()?;
                        registers.rax = (-i64::from(errno as i32)).cast_unsigned();
                        tracee.set_registers(registers)?;
                    }
                }
                _ => {}
            }
            match tracer.restart(tracee, Restart::Syscall) {
                Err(error) if !error.tracee_died() => return Err(error.into()),
                _ => {}
            }
        }
        let status = child.wait()?;
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        Ok(ExitCode::from(u8::try_from(code.unwrap_or(1))?))
    }

    /// The call that a thread is about to make; `None` if it is not in `CALLS`.
    fn described(tracee: &mut Tracee, registers: &Registers) -> Option<String> {
        let number = registers.orig_rax.cast_signed();
        let (_, name) = CALLS.iter().find(|(call, _)| *call == number)?;
        let (first, second, third) = (registers.rdi, registers.rsi, registers.rdx);
        // A signal handler's wake-up happens on any thread, so it is not counted.
        let flags = registers.r10.cast_signed();
        if *name == "sendto" && flags & i64::from(libc::MSG_DONTWAIT) != 0 {
            return None;
        }
        let mut read = |address: u64, len: u64| {
            let len = SHOWN.min(usize::try_from(len).unwrap_or(SHOWN));
            tracee.read_memory(address, len).unwrap_or_default()
        };
        let shown = match *name {
            // The write by which a tokio runtime wakes itself. Tokio panics if it fails, and only a
            // test can make it fail.
            "write" if read(second, third) == 1u64.to_ne_bytes() => return None,
            "sendto" | "write" | "connect" => read(second, third),
            "sendmsg" => {
                // The first iovec of the msghdr.
                let header = read(second, 24);
                let vector = read(word(&header, 16), 16);
                read(word(&vector, 0), word(&vector, 8))
            }
            "unlink" => read(first, 80),
            _ => Vec::new(),
        };
        Some(format!("{name}({first}, \"{}\")", shown.escape_ascii()))
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map_or(0, u64::from_ne_bytes)
    }
}
