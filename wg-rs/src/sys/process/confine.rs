//! Gives up the rights that the daemon does not need once it runs.
//!
//! These capabilities are kept:
//! - CAP_NET_ADMIN: fwmarks and large buffers of sockets that are opened later (SO_MARK,
//!   SO_RCVBUFFORCE), and looking after the link in any namespace (TUNGETDEVNETNS, rtnetlink).
//! - CAP_NET_BIND_SERVICE: a `listen-port` below 1024, which may be set at any time.
//!
//! All others are dropped, including those that are used only at the start: CAP_NET_BROADCAST (for
//! link events of other namespaces, needed when the socket is opened) and the capabilities for
//! opening /dev/net/tun and the control socket.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::sys::check;

/// Disables core dumps, and prevents other processes of the same user from reading this process's
/// memory (ptrace, /proc), because it contains keys.
///
/// # Errors
/// Never on a supported kernel.
pub fn no_core_dumps() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    Ok(())
}

/// Keeps the memory of this process, which contains keys, out of the swap area.
///
/// # Errors
/// PermissionDenied: the limit of locked memory is finite and may not be raised (CAP_SYS_RESOURCE). A
/// finite limit would make later allocations fail. InvalidInput: Linux before 4.4.
pub fn lock_memory() -> io::Result<()> {
    let limit = Resource::RLIMIT_MEMLOCK;
    setrlimit(limit, RLIM_INFINITY, RLIM_INFINITY)?;
    // Without MCL_ONFAULT, memory that is only reserved would be filled, for instance for stacks.
    let kinds = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: the call changes nothing that a program can see.
    check(unsafe { libc::mlockall(kinds) }).map(drop)
}

/// Drops all capabilities except those kept, for this process and the programs that it executes.
/// This cannot be undone. It must be called before other threads start, because each thread has its
/// own capabilities, which it inherits from the thread that starts it.
///
/// # Errors
/// Other: there are other threads, which would keep their capabilities, and nothing was dropped; or
/// the kernel refused.
pub fn drop_capabilities() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        let message = format!("{threads} threads already run, each with its own capabilities");
        return Err(io::Error::other(message));
    }
    prctl::set_no_new_privs()?;
    // The ambient set does not exist before Linux 4.3.
    let _ = caps::clear(None, CapSet::Ambient);
    // This needs CAP_SETPCAP. Without it the rest of the bounding set is harmless: because of
    // no_new_privs, an executed program gains no capability from it.
    for capability in caps::all() {
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    let kept = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_BIND_SERVICE];
    set_capabilities(&CapsHashSet::from(kept)).map_err(io::Error::other)
}

/// Reduces the permitted and effective sets to `kept`, and empties the inheritable set.
fn set_capabilities(kept: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    let permitted = &caps::read(None, CapSet::Permitted)? & kept;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &permitted)?;
    caps::set(None, CapSet::Permitted, &permitted)
}
