//! The faults that are injected into a run, and their exit codes.

use nix::errno::Errno;
use nix::sys::signal::Signal;

pub const SIGNALS: [&str; 3] = ["INT", "TERM", "HUP"];
/// The system calls that ask the kernel or the daemon for something, or start a process.
pub const CALLS: [&str; 8] = [
    "sendto", "sendmsg", "write", "unlink", "clone", "clone3", "vfork", "fork",
];
/// Calls that are not steps: messages to the user, the wake-up by a signal handler, the removal of
/// the lock at the end, and the record of `up`, without which the program goes on. Nor is the write
/// by which a tokio runtime wakes itself, as the one for container engines: tokio panics if it fails,
/// and only a test can make it fail.
pub const NO_STEPS: [&str; 6] = [
    "write(2,",
    ", MSG_DONTWAIT,",
    ".lock\"",
    ".state",
    "{\\\"version\\\":",
    "\"\\1\\0\\0\\0\\0\\0\\0\\0\", 8)",
];
/// This call is not a step either while the interface is searched: there is one thread for each
/// namespace of the moment.
const THREAD: &str = "CLONE_THREAD";
/// Requests that may fail without making the command fail, as strace shows them.
pub const SPARED: [&str; 8] = [
    // Creating a link of the kernel's module: the daemon is used instead.
    "IFLA_INFO_KIND}, \"wireguard\"]",
    // The route to a peer, and the MTU of its link: those of another peer are used.
    "RTM_GETROUTE, nlmsg_flags=NLM_F_REQUEST|NLM_F_ACK,",
    "ifi_index=if_nametoindex(\"eth0\")",
    // Removing single networks: it is done in the way for daemons that cannot.
    "allowed_ip=-",
    // Removing the daemon's socket: its link is deleted, which also ends the daemon.
    "unlink(\"/var/run/wireguard/wg0.sock\"",
    // The routes of another namespace: they are read only to fail early.
    "nlmsg_type=0x1a /* NLMSG_??? */, nlmsg_flags=NLM_F_REQUEST|0x300,",
    // The links of one of the namespaces in which the interface may be.
    "RTM_GETLINK, nlmsg_flags=NLM_F_REQUEST|NLM_F_DUMP,",
    // The wake-up by a signal handler, if it is at another position this time.
    ", MSG_DONTWAIT,",
];
pub const PROGRAMS: [&str; 3] = ["wireguard-rs", "nft", "resolvconf"];
pub const HOOKS: [&str; 4] = ["pre-up-1", "pre-up-2", "post-up-1", "post-up-2"];
pub const DOWN_HOOKS: [&str; 2] = ["pre-down-1", "post-down-1"];

/// A fault that happens once in a run.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The nth of these calls fails.
    Call(&'static str, usize),
    /// A signal arrives at the nth of these calls.
    SignalAtCall(&'static str, usize, &'static str),
    /// The nth call of all threads but the main one fails.
    CallOfThread(usize, Errno),
    /// A signal arrives at that call.
    SignalAtCallOfThread(usize, &'static str),
    /// The nth call of this program fails, before or after it did its work.
    Program(&'static str, usize, &'static str),
    /// This hook fails.
    Hook(&'static str),
    /// A signal arrives while this hook runs.
    SignalInHook(&'static str, &'static str),
}

impl Fault {
    /// Whether `verb` may succeed although this request failed.
    pub fn is_spared(&self, verb: &str, met: &str) -> bool {
        match self {
            // Entering a namespace to look for the interface, or to wait for its end: it is found, or
            // deleted, in another way.
            Fault::CallOfThread(..) if verb != "up" && met.contains(" setns(") => true,
            // Finding out whether a daemon listens. The request itself must not fail.
            Fault::CallOfThread(..) if met.contains(" connect(") => true,
            Fault::Call(..) | Fault::CallOfThread(..)
                if SPARED.iter().any(|request| met.contains(request)) =>
            {
                true
            }
            // `reload` first reads the DNS settings; if that fails, it sets them again.
            Fault::Call("clone" | "clone3" | "vfork" | "fork", 1)
            | Fault::Program("resolvconf", 1, _) => verb == "reload",
            _ => false,
        }
    }

    /// Whether it is a signal, which stops the command.
    pub fn is_signal(&self) -> bool {
        use Fault::{SignalAtCall, SignalAtCallOfThread, SignalInHook};
        matches!(
            self,
            SignalAtCall(..) | SignalAtCallOfThread(..) | SignalInHook(..)
        )
    }

    /// The expected exit code.
    pub fn code(&self) -> i32 {
        match self {
            Fault::Call(..) | Fault::CallOfThread(..) | Fault::Program(..) => 1,
            Fault::Hook(_) => 3,
            Fault::SignalAtCall(_, _, signal)
            | Fault::SignalAtCallOfThread(_, signal)
            | Fault::SignalInHook(_, signal) => {
                128 + match *signal {
                    "INT" => Signal::SIGINT as i32,
                    "TERM" => Signal::SIGTERM as i32,
                    _ => Signal::SIGHUP as i32,
                }
            }
        }
    }
}

/// Whether a call is a step. The commands that search the interface are `down`, and with `away` also
/// `reload`.
pub fn is_step(verb: &str, away: bool, line: &str) -> bool {
    let searches = verb == "down" || away && verb == "reload";
    let is_search = searches && line.contains(THREAD);
    !is_search && !NO_STEPS.iter().any(|call| line.contains(call))
}

/// How a run with a fault ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub output: String,
    /// A line that shows that the fault happened: the call that failed, or another trace.
    pub met: Option<String>,
    /// Whether the command was allowed to succeed.
    pub spared: bool,
}

/// The judgement on a run with a fault.
#[derive(Debug)]
pub struct Verdict {
    /// Whether the command succeeded in spite of the fault.
    pub went_on: bool,
    /// What is not as it must be; empty if all is well.
    pub wrong: Vec<String>,
}
