//! Shows how daemons spend their CPU time, by the kernel's own sampler (`perf`).
//!
//! Each sample belongs to one part, chosen by the sampled function and its callers:
//!
//! ```text
//! AEAD           encryption and authentication of packets
//! copies         bytes moved or summed, in the program or the kernel
//! wakeups        poll, futex, eventfd, the scheduler
//! system calls   everything else in the kernel, by system call
//! program        everything else in the program
//! ```
//!
//! On a veth pair, the sender itself carries a datagram to the receiving socket, so `sendmsg`
//! includes much of the network stack of both hosts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use netns_tests::binaries;

/// Samples per second and CPU. A prime number, so that samples do not coincide with regular work.
const FREQUENCY: &str = "1999";
/// Number of functions that are listed for each part.
const LISTED: usize = 4;

/// The sampler.
#[derive(Debug)]
pub struct Perf(PathBuf);

/// The samples of each part, by function or system call.
#[derive(Debug, Default, PartialEq)]
pub struct Profile {
    parts: BTreeMap<Part, BTreeMap<String, usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Aead,
    Copies,
    Wakeups,
    SystemCalls,
    Program,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Aead => "AEAD",
            Part::Copies => "copies",
            Part::Wakeups => "wakeups",
            Part::SystemCalls => "system calls",
            Part::Program => "program",
        }
    }
}

impl Perf {
    /// Finds perf on PATH, and checks that it may sample.
    ///
    /// # Errors
    /// perf is missing, or it may not sample; the error says what to do.
    pub fn find() -> io::Result<Perf> {
        let path = binaries::on_path("perf").ok_or_else(|| {
            io::Error::other("there is no perf on PATH (on Debian: apt install linux-perf)")
        })?;
        let perf = Perf(path);
        perf.sample(&[std::process::id() as i32], Duration::from_millis(10))
            .map_err(|error| io::Error::other(format!("perf cannot sample here: {error}")))?;
        Ok(perf)
    }

    /// Samples these processes for the time `window`.
    ///
    /// # Errors
    /// perf fails.
    pub fn sample(&self, pids: &[i32], window: Duration) -> io::Result<Profile> {
        let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
        let mut record = Command::new(&self.0);
        // `cpu-clock` also exists in virtual machines.
        record.args(["record", "-q", "-e", "cpu-clock", "-F", FREQUENCY, "-g"]);
        record.args(["-p", &pids.join(","), "-o", "-", "--", "sleep"]);
        record.arg(window.as_secs_f64().to_string());
        let samples = record.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut samples = samples.spawn()?;
        let mut script = Command::new(&self.0);
        script.args(["script", "-i", "-", "-F", "ip,sym,dso"]);
        script.stdin(samples.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let script = script.output()?;
        let recorded = samples.wait()?;
        if !recorded.success() || !script.status.success() {
            let said = String::from_utf8_lossy(&script.stderr);
            return Err(io::Error::other(format!(
                "perf record ended with {recorded}, perf script with {}: {}",
                script.status,
                said.trim()
            )));
        }
        Ok(Profile::parse(&String::from_utf8_lossy(&script.stdout)))
    }
}

/// A frame of a call chain: a function and its file.
#[derive(Debug, Clone, Copy)]
struct Frame<'a> {
    function: &'a str,
    in_kernel: bool,
}

impl<'a> Frame<'a> {
    /// A line as `perf script` prints it: an address, a function, a file in parentheses.
    fn parse(line: &'a str) -> Option<Self> {
        let (_, rest) = line.trim().split_once(' ')?;
        let (function, file) = rest.trim().rsplit_once(" (")?;
        let file = file.trim_end_matches(')');
        Some(Frame {
            function,
            // The kernel itself, or one of its modules.
            in_kernel: file.starts_with('[') && file != "[vdso]" && file != "[unknown]",
        })
    }

    fn is_any(&self, parts: &[&str]) -> bool {
        parts.iter().any(|part| self.function.contains(part))
    }
}

const AEAD: [&str; 6] = [
    "wg_crypto::transport",
    "chacha",
    "poly1305",
    "aws_lc",
    "ring::aead",
    "ring_core",
];
const COPIES: [&str; 12] = [
    "memcpy",
    "memmove",
    "memset",
    "copy_user",
    "copy_to_iter",
    "copy_from_iter",
    "copy_to_user",
    "copy_from_user",
    "rep_movs",
    "csum",
    "checksum",
    "clear_page",
];
const WAKEUPS: [&str; 12] = [
    "futex",
    "eventfd",
    "poll",
    "try_to_wake_up",
    "schedule",
    "epoll",
    "ep_send",
    "pick_next",
    "switch_to",
    "switch_mm",
    "sock_def_readable",
    "wake_up",
];

impl Profile {
    fn parse(text: &str) -> Profile {
        let mut profile = Profile::default();
        // An empty line ends a sample; its first line is the sampled function.
        for sample in text.split("\n\n") {
            let frames: Vec<Frame> = sample.lines().filter_map(Frame::parse).collect();
            let Some(leaf) = frames.first() else {
                continue;
            };
            let (part, name) = part_of(leaf, &frames);
            let names = profile.parts.entry(part).or_default();
            *names.entry(name).or_default() += 1;
        }
        profile
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.parts.values().flat_map(BTreeMap::values).sum()
    }

    /// Returns a line for each part: its share, and the functions with most samples.
    pub fn table(&self) -> String {
        let all = self.len().max(1);
        let share = |count: usize| count as f64 * 100.0 / all as f64;
        let mut table = String::new();
        for (part, names) in &self.parts {
            let mut names: Vec<_> = names.iter().collect();
            names.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let count = names.iter().map(|(_, count)| **count).sum();
            let most: Vec<String> = names
                .iter()
                .take(LISTED)
                .map(|(name, count)| format!("{name} {:.1}", share(**count)))
                .collect();
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "  {:<13}{:>5.1} %   {}",
                part.name(),
                share(count),
                most.join(", ")
            );
        }
        table
    }
}

/// Returns the part that a sample belongs to, and the name under which it is counted there.
fn part_of(leaf: &Frame, frames: &[Frame]) -> (Part, String) {
    let call = || {
        let entry = frames.iter().rev().find_map(|frame| {
            let name = frame.function.split('+').next()?;
            name.strip_prefix("__x64_sys_")
                .or_else(|| name.strip_prefix("__arm64_sys_"))
        });
        entry.unwrap_or("others").to_owned()
    };
    let function = || short(leaf.function);
    if !leaf.in_kernel {
        return match () {
            () if leaf.is_any(&AEAD) => (Part::Aead, function()),
            () if leaf.is_any(&COPIES) => (Part::Copies, function()),
            () => (Part::Program, function()),
        };
    }
    if leaf.is_any(&COPIES) {
        return (Part::Copies, function());
    }
    let call = call();
    if leaf.is_any(&WAKEUPS) || ["futex", "poll", "ppoll", "epoll_wait"].contains(&&*call) {
        return (Part::Wakeups, call);
    }
    (Part::SystemCalls, call)
}

/// Returns a function's name without generic arguments, hash and module path.
fn short(function: &str) -> String {
    let end = function.find(['<', '+']).filter(|end| *end > 0);
    let name = &function[..end.unwrap_or(function.len())];
    let parts: Vec<&str> = name.split("::").filter(|part| !part.is_empty()).collect();
    parts[parts.len().saturating_sub(2)..].join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_has_its_part() {
        let text = "
    55d0 wg_crypto::transport::avx512::passes::run (/x/wireguard-rs)
    55d1 wg_rs::datapath::lane::Lane<S>::run (/x/wireguard-rs)

    ffff _copy_from_iter ([kernel.kallsyms])
    ffff udp_sendmsg ([kernel.kallsyms])
    ffff __x64_sys_sendmsg ([kernel.kallsyms])
    55d1 wg_rs::sys::udp::UdpSocket::send (/x/wireguard-rs)

    ffff nf_hook_slow ([kernel.kallsyms])
    ffff __x64_sys_sendmsg ([kernel.kallsyms])

    ffff do_sys_poll ([kernel.kallsyms])
    ffff __x64_sys_ppoll ([kernel.kallsyms])

    55d2 wg_rs::datapath::coalesce::Coalescer::plan (/x/wireguard-rs)

    55d3 __memmove_avx512_unaligned_erms (/usr/lib/libc.so.6)

";
        let profile = Profile::parse(text);
        assert_eq!(profile.len(), 6);
        let count = |part: Part| profile.parts[&part].values().sum::<usize>();
        assert_eq!(count(Part::Aead), 1);
        assert_eq!(count(Part::Copies), 2);
        assert_eq!(count(Part::Wakeups), 1);
        assert_eq!(count(Part::Program), 1);
        assert_eq!(profile.parts[&Part::SystemCalls]["sendmsg"], 1);
        assert_eq!(profile.parts[&Part::Wakeups]["ppoll"], 1);
        assert!(profile.table().contains("passes::run 16.7"));
        assert_eq!(Profile::parse(""), Profile::default());
    }
}
