//! Network namespaces: opening them by name, process or path, creating them, and running a closure
//! inside one. [`super::netlink`] moves links between them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// Flag of a kernel thread (linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;
/// The folder in which `ip netns` keeps names.
pub const NAMED: &str = "/run/netns";

/// A network namespace. It exists at least as long as this value.
#[derive(Debug)]
pub struct NetNs(OwnedFd);

/// Identifies a network namespace for as long as the namespace exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetNsId(u64, u64);

impl NetNsId {
    /// From the device and inode numbers of a file that stands for a namespace.
    pub fn new(device: u64, inode: u64) -> Self {
        NetNsId(device, inode)
    }

    /// The number by which `/proc` calls it: `net:[4026531840]`.
    pub fn inode(self) -> u64 {
        self.1
    }
}

impl NetNs {
    /// The calling thread's network namespace.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::of_path(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that `ip netns` knows as `name`.
    ///
    /// # Errors
    /// NotFound: there is no such name; InvalidInput: `name` is not a valid name.
    pub fn of_name(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            let message = format!("{name:?} is not a name for a network namespace");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Self::of_path(&Path::new(NAMED).join(name))
    }

    /// The network namespace of a process.
    ///
    /// # Errors
    /// NotFound: there is no such process; PermissionDenied.
    pub fn of_pid(pid: u32) -> io::Result<Self> {
        Self::of_path(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The host's namespace: the one of process 1. A root user without all capabilities may not
    /// read it; then the namespace of the kernel threads is used. Both are the same on a host, and
    /// a container has no kernel threads.
    ///
    /// # Errors
    /// PermissionDenied.
    pub fn of_init() -> io::Result<Self> {
        let opened = Self::of_pid(1);
        if !matches!(&opened, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
            return opened;
        }
        let stat = fs::read_to_string("/proc/2/stat").unwrap_or_default();
        // Fields after the name: state, parent, group, session, terminal, its group, flags.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let flags = fields.split(' ').nth(6);
        let flags = flags.and_then(|flags| flags.parse::<u32>().ok());
        if flags.is_some_and(|flags| flags & PF_KTHREAD != 0) {
            Self::of_pid(2)
        } else {
            opened
        }
    }

    /// The namespace that a file stands for: a bind mount, or a file below /proc. A file of another
    /// kind is only detected when the namespace is used.
    ///
    /// # Errors
    /// NotFound, PermissionDenied, …
    pub fn of_path(path: &Path) -> io::Result<Self> {
        File::open(path).map(|file| NetNs(file.into()))
    }

    /// Creates an empty namespace. It disappears when nothing refers to it and nothing is in it.
    ///
    /// # Errors
    /// EPERM: the process lacks CAP_SYS_ADMIN.
    pub fn new() -> io::Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            NetNs::current()
        })
    }

    /// Runs `work` inside the namespace, on a new thread. Sockets that it opens stay in the
    /// namespace. The calling thread's namespace does not change.
    ///
    /// # Errors
    /// EPERM: the process lacks CAP_SYS_ADMIN; EINVAL: not a network namespace; EAGAIN: no thread
    /// could be started. `work` has not run then.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
    }

    /// Moves the calling thread, and everything that it starts later, into the namespace.
    ///
    /// # Errors
    /// As for [`NetNs::run`].
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Whether both are the same namespace.
    ///
    /// # Errors
    /// The kernel is out of resources.
    pub fn is(&self, other: &NetNs) -> io::Result<bool> {
        Ok(self.id()? == other.id()?)
    }

    /// The identity of this namespace.
    ///
    /// # Errors
    /// The kernel is out of resources.
    pub fn id(&self) -> io::Result<NetNsId> {
        let meta = File::from(self.0.try_clone()?).metadata()?;
        Ok(NetNsId::new(meta.dev(), meta.ino()))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for NetNs {
    fn from(fd: OwnedFd) -> Self {
        NetNs(fd)
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
