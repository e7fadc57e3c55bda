//! Network namespaces: opened by name, process or path, made, and entered for the length of a
//! closure. Links are moved with [`super::netlink`].

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// Flag of a kernel thread (linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;
/// Where `ip netns` keeps names.
pub const NAMED: &str = "/run/netns";

/// A network namespace, kept alive by being held.
#[derive(Debug)]
pub struct NetNs(OwnedFd);

/// Identity of a network namespace, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetNsId(u64, u64);

impl NetNsId {
    /// From device and inode of a file that stands for one.
    pub fn new(device: u64, inode: u64) -> Self {
        NetNsId(device, inode)
    }

    /// The number by which `/proc` calls it: `net:[4026531840]`.
    pub fn inode(self) -> u64 {
        self.1
    }
}

impl NetNs {
    /// That of the calling thread.
    ///
    /// # Errors
    /// Without /proc.
    pub fn current() -> io::Result<Self> {
        Self::of_path(Path::new("/proc/thread-self/ns/net"))
    }

    /// The one that `ip netns` knows as `name`.
    ///
    /// # Errors
    /// NotFound: no such name; InvalidInput: not a name.
    pub fn of_name(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            let message = format!("{name:?} is not a name for a network namespace");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Self::of_path(&Path::new(NAMED).join(name))
    }

    /// That of a process.
    ///
    /// # Errors
    /// NotFound: no such process; PermissionDenied.
    pub fn of_pid(pid: u32) -> io::Result<Self> {
        Self::of_path(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// That of process 1, the host's. A root without all capabilities may not look at that one: then it
    /// is that of the kernel's threads, which is the same on a host, while a container has none.
    ///
    /// # Errors
    /// PermissionDenied.
    pub fn of_init() -> io::Result<Self> {
        let opened = Self::of_pid(1);
        if !matches!(&opened, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
            return opened;
        }
        let stat = fs::read_to_string("/proc/2/stat").unwrap_or_default();
        // Behind the name: state, parent, group, session, terminal, its group, flags.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let flags = fields.split(' ').nth(6);
        let flags = flags.and_then(|flags| flags.parse::<u32>().ok());
        if flags.is_some_and(|flags| flags & PF_KTHREAD != 0) {
            Self::of_pid(2)
        } else {
            opened
        }
    }

    /// The one that a file (a bind mount, or one of /proc) stands for. That it is a network
    /// namespace shows only on use.
    ///
    /// # Errors
    /// NotFound, PermissionDenied, …
    pub fn of_path(path: &Path) -> io::Result<Self> {
        File::open(path).map(|file| NetNs(file.into()))
    }

    /// A new, empty one, which vanishes when nobody holds it and nothing is in it.
    ///
    /// # Errors
    /// EPERM: no CAP_SYS_ADMIN.
    pub fn new() -> io::Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            NetNs::current()
        })
    }

    /// Runs `work` inside, on a thread of its own: sockets opened there stay there. The calling
    /// thread's namespace is not touched.
    ///
    /// # Errors
    /// EPERM: no CAP_SYS_ADMIN; EINVAL: not a network namespace; EAGAIN: no thread to be had. Then
    /// `work` did not run.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
    }

    /// The calling thread, and all it starts, enter for good.
    ///
    /// # Errors
    /// As for [`NetNs::run`].
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Whether both are the same namespace.
    ///
    /// # Errors
    /// Only the kernel's own trouble.
    pub fn is(&self, other: &NetNs) -> io::Result<bool> {
        Ok(self.id()? == other.id()?)
    }

    /// What tells it from all others.
    ///
    /// # Errors
    /// Only the kernel's own trouble.
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
