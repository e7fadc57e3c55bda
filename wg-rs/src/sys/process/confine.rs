//! Giving up what the daemon does not need once it runs.
//!
//! Capabilities kept, and what for:
//! - CAP_NET_ADMIN: fwmarks and large buffers of sockets opened later (SO_MARK, SO_RCVBUFFORCE),
//!   and looking after the link wherever it is (TUNGETDEVNETNS, rtnetlink).
//! - CAP_NET_BIND_SERVICE: `listen-port` below 1024, given at any time.
//!
//! Not kept, though used at the start: CAP_NET_BROADCAST (link events of other namespaces: asked
//! for when their socket is opened) and whatever opening /dev/net/tun and the control socket took.

use std::ffi::{c_int, c_long, c_ulong};
use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use crate::sys::check;

// linux/capability.h
const VERSION_3: u32 = 0x2008_0522;
const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_NET_ADMIN: u32 = 12;
const KEPT: u64 = 1 << CAP_NET_BIND_SERVICE | 1 << CAP_NET_ADMIN;

/// Leaves no core dump, and lets no process of the same user look inside (ptrace, /proc): there
/// are keys in this memory.
///
/// # Errors
/// None that a running kernel has.
pub fn no_core_dumps() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    Ok(())
}

/// Gives up every capability but those kept, for ever: also those a program executed from here
/// would get. Before any other thread is started, as capabilities are a thread's, and inherited.
///
/// # Errors
/// Other: there are other threads, which would keep theirs. Then nothing was given up.
pub fn drop_capabilities() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        let message = format!("{threads} threads run already, each with capabilities of its own");
        return Err(io::Error::other(message));
    }
    prctl::set_no_new_privs()?;
    // The ambient set does not exist before Linux 4.3.
    let _ = prctl_args(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong,
    );
    // Ends with EINVAL behind the last capability, or with EPERM without CAP_SETPCAP; with
    // no_new_privs only a root's programs would gain by what is left.
    for capability in 0.. {
        if prctl_args(libc::PR_CAPBSET_DROP, capability).is_err() {
            break;
        }
    }
    let mut sets = capget()?;
    let kept = [KEPT as u32, (KEPT >> 32) as u32];
    for (set, kept) in sets.iter_mut().zip(kept) {
        set.permitted &= kept;
        set.effective = set.permitted;
        set.inheritable = 0;
    }
    capset(&sets)
}

/// struct __user_cap_header_struct
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// struct __user_cap_data_struct: 32 capabilities of each set.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn capget() -> io::Result<[Sets; 2]> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut sets = [Sets::default(); 2];
    // SAFETY: version 3 writes two of these structures, and the header's version.
    let got: c_long =
        unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    check(got)?;
    Ok(sets)
}

fn capset(sets: &[Sets; 2]) -> io::Result<()> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    // SAFETY: version 3 reads two of these structures.
    let set: c_long = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    check(set).map(drop)
}

fn prctl_args(operation: c_int, argument: c_ulong) -> io::Result<()> {
    const NONE: c_ulong = 0;
    // SAFETY: neither operation used here takes a pointer; unused arguments must be zero.
    check(unsafe { libc::prctl(operation, argument, NONE, NONE, NONE) }).map(drop)
}
