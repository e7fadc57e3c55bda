//! What may go wrong in a run, and how that shows.

use nix::sys::signal::Signal;

pub const SIGNALS: [&str; 3] = ["INT", "TERM", "HUP"];
/// What asks the kernel or the daemon for something, or starts a process, by whichever call.
pub const CALLS: [&str; 8] = [
    "sendto", "sendmsg", "write", "unlink", "clone", "clone3", "vfork", "fork",
];
/// No steps: what is said to the person, what a signal's handler wakes the program with, the removal
/// of its lock when all is done, and the record of what was done, without which it goes on.
pub const NO_STEPS: [&str; 5] = [
    "write(2,",
    ", MSG_DONTWAIT,",
    ".lock\"",
    ".state",
    "{\\\"version\\\":",
];
/// Nor is this one, where the interface is looked for: by as many threads as there are namespaces
/// just now.
const THREAD: &str = "CLONE_THREAD";
/// What it can do without, as strace shows it.
pub const SPARED: [&str; 8] = [
    // A link of the kernel's own kind: there is the daemon.
    "IFLA_INFO_KIND}, \"wireguard\"]",
    // The way to a peer, and the MTU of its link: there is the other peer.
    "RTM_GETROUTE, nlmsg_flags=NLM_F_REQUEST|NLM_F_ACK,",
    "ifi_index=if_nametoindex(\"eth0\")",
    // Networks taken away: from a daemon that does not know how, another way is tried.
    "allowed_ip=-",
    // The daemon's socket removed: its link is deleted, and the daemon ends by that.
    "unlink(\"/var/run/wireguard/wg0.sock\"",
    // Routes of another namespace, asked for to say early what would fail later.
    "nlmsg_type=0x1a /* NLMSG_??? */, nlmsg_flags=NLM_F_REQUEST|0x300,",
    // Links of a namespace among all those in which the interface may be.
    "RTM_GETLINK, nlmsg_flags=NLM_F_REQUEST|NLM_F_DUMP,",
    // A handler's wake, if it came earlier or later this time: the end of a program is seen anyway.
    ", MSG_DONTWAIT,",
];
pub const PROGRAMS: [&str; 3] = ["wireguard-rs", "nft", "resolvconf"];
pub const HOOKS: [&str; 4] = ["pre-up-1", "pre-up-2", "post-up-1", "post-up-2"];
pub const DOWN_HOOKS: [&str; 2] = ["pre-down-1", "post-down-1"];

/// What happens once in a run.
#[derive(Debug, Clone)]
pub enum Fault {
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
    pub fn is_spared(&self, verb: &str, met: &str) -> bool {
        match self {
            Fault::Call(..) if SPARED.iter().any(|request| met.contains(request)) => true,
            // What the resolver has been told is asked first; unknown, it is told again.
            Fault::Call("clone" | "clone3" | "vfork" | "fork", 1)
            | Fault::Program("resolvconf", 1, _) => verb == "reload",
            _ => false,
        }
    }

    /// The exit code that tells of it.
    pub fn code(&self) -> i32 {
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

/// Whether a call is one. `down` looks for the interface, and so does what is to find it `away`.
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
    /// The call that failed, or what else shows that the fault came about.
    pub met: Option<String>,
    /// Whether it may have ended well.
    pub spared: bool,
}

/// What came of a fault.
#[derive(Debug)]
pub struct Verdict {
    /// It ended well, without what failed.
    pub went_on: bool,
    /// What is not as it must be.
    pub wrong: Vec<String>,
}
