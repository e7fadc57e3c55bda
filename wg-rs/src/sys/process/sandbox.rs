//! What the daemon may still ask of the kernel once it runs: the system calls on a list (seccomp),
//! and the files of a few folders (Landlock). Code that an attacker runs in the daemon can then
//! neither start programs nor read files, load modules, or talk to other services of the host.
//!
//! The threads that start later inherit both, so [`enter`] comes before them. A kernel that has one
//! of them but not the other still gets the one.
//!
//! A call that is not on the list fails with ENOSYS, as on a kernel that does not have it. A new
//! version of the C library tries new calls, and falls back to the old ones on just this error. To end
//! the process instead would cut the tunnel for a call that does not matter, and stop an attacker no
//! better: the call is refused either way. In particular `clone3`, whose flags no filter can read,
//! falls back to `clone`, which may only start threads.
//!
//! Calls for packets are allowed whatever their arguments are: the kernel remembers this (Linux 5.11)
//! and does not run the filter for them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use crate::sys::netlink::SIOCGSKNS;

/// The settings that follow the link (`daemon/link.rs`).
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";

/// The newest version of Landlock whose restrictions are known here. Version 9 restricts connections to
/// UNIX sockets, but the path of syslog's is a link whose target may change.
const KNOWN: ABI = ABI::V6;

/// Calls that are allowed whatever their arguments are.
const CALLS: &[c_long] = &[
    // Packets, requests and the log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_close,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Clocks where the vDSO has none, and random numbers.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Sockets. `socket` and `setsockopt` are below.
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    // The file of the configuration socket, and settings of the link. Landlock limits the files.
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    // Memory. `mmap` and `mprotect` are below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and signals. `clone` and `tgkill` are below.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_uname,
];

/// The same under the names that only older architectures have.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[c_long] = &[
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_unlink,
    libc::SYS_rename,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[c_long] = &[];

/// Options of sockets that are opened later: UDP, and netlink.
const OPTIONS: &[(c_int, c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_MARK),
    (libc::SOL_SOCKET, libc::SO_RCVBUF),
    (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE),
    (libc::SOL_SOCKET, libc::SO_SNDBUF),
    (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    (libc::IPPROTO_IP, libc::IP_PKTINFO),
    (libc::IPPROTO_IP, libc::IP_RECVTOS),
    (libc::IPPROTO_IP, libc::IP_RECVTTL),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
    (libc::SOL_UDP, libc::UDP_GRO),
    (libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP),
    (libc::SOL_NETLINK, libc::NETLINK_CAP_ACK),
    (libc::SOL_NETLINK, libc::NETLINK_EXT_ACK),
];

/// The restrictions of this process.
#[derive(Debug)]
pub struct Sandbox {
    seccomp: Result<(), String>,
    landlock: Result<(), String>,
    /// The kernel may forget the folders of /proc, and its rules with them, while nobody has them open.
    _folders: Vec<PathFd>,
}

impl Sandbox {
    /// Why a part is not in force.
    pub fn missing(&self) -> impl Iterator<Item = String> {
        let parts = [("seccomp", &self.seccomp), ("Landlock", &self.landlock)];
        parts.into_iter().filter_map(|(part, in_force)| {
            let reason = in_force.as_ref().err()?;
            Some(format!("{part} does not restrict the daemon: {reason}"))
        })
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.seccomp, &self.landlock) {
            (Ok(()), Ok(())) => "seccomp and Landlock restrict the daemon",
            (Ok(()), Err(_)) => "seccomp restricts the daemon",
            (Err(_), Ok(())) => "Landlock restricts the daemon",
            (Err(_), Err(_)) => "nothing restricts the daemon",
        })
    }
}

/// Restricts the calling thread and those that it starts, for ever. Sockets may still be renamed and
/// removed in the folder `sockets`, and files be read and replaced in the folder `state`. The result must
/// be kept until the process ends.
#[must_use = "the restrictions are in force only as long as this exists"]
pub fn enter(sockets: Option<&Path>, state: &Path) -> Sandbox {
    let sockets = sockets.map(|folder| {
        let rights = AccessFs::RemoveFile | AccessFs::MakeSock;
        (folder.to_owned(), rights)
    });
    let state = (
        state.to_owned(),
        AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile,
    );
    let settings = (
        PathBuf::from(SETTINGS),
        AccessFs::WriteFile | AccessFs::Truncate,
    );
    let open = |(path, rights)| Some((PathFd::new::<PathBuf>(path).ok()?, rights));
    let folders: Vec<_> = sockets
        .into_iter()
        .chain([state, settings])
        .filter_map(open)
        .collect();
    // The filter does not allow the calls of Landlock, so it comes last.
    let landlock = restrict_files(&folders);
    let seccomp = filter(std::process::id())
        .map_err(|error| error.to_string())
        .and_then(|filter| seccompiler::apply_filter(&filter).map_err(|error| error.to_string()));
    Sandbox {
        seccomp,
        landlock,
        _folders: folders.into_iter().map(|(folder, _)| folder).collect(),
    }
}

fn restrict_files(folders: &[(PathFd, BitFlags<AccessFs>)]) -> Result<(), String> {
    let restrict = || -> Result<RulesetStatus, RulesetError> {
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .scope(Scope::Signal)?
            .create()?;
        for (folder, rights) in folders {
            rules = rules.add_rule(PathBeneath::new(folder, *rights))?;
        }
        Ok(rules.restrict_self()?.ruleset)
    };
    match restrict() {
        Ok(RulesetStatus::NotEnforced) => Err("the kernel does not support it".into()),
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The filter for the process with this ID.
fn filter(pid: u32) -> Result<BpfProgram, BackendError> {
    let one = |argument: u8, value: c_int| equal(argument, u32::MAX, value);
    let rule = |conditions: &[SeccompCondition]| SeccompRule::new(conditions.to_vec());
    // The type of a socket is next to its flags.
    let datagram = equal(1, 0xf, libc::SOCK_DGRAM)?;
    let not_executable = [rule(&[equal(2, libc::PROT_EXEC as u32, 0)?])?];
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = BTreeMap::new();
    for call in CALLS.iter().chain(OLD_CALLS) {
        rules.insert(*call, Vec::new());
    }
    let mut allow = |call, allowed: Vec<SeccompRule>| rules.insert(call, allowed);

    // UDP; datagrams to syslog and the service manager, but no connections to other services.
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX] {
        sockets.push(rule(&[one(0, family)?, datagram.clone()])?);
    }
    for protocol in [libc::NETLINK_ROUTE, libc::NETLINK_KOBJECT_UEVENT] {
        sockets.push(rule(&[one(0, libc::AF_NETLINK)?, one(2, protocol)?])?);
    }
    allow(libc::SYS_socket, sockets);
    let mut options = Vec::new();
    for (level, option) in OPTIONS {
        options.push(rule(&[one(1, *level)?, one(2, *option)?])?);
    }
    allow(libc::SYS_setsockopt, options);

    let mut operations = Vec::new();
    for operation in [
        libc::TUNGETIFF,
        libc::TUNGETDEVNETNS,
        SIOCGSKNS,
        libc::TIOCOUTQ,
        libc::FIONBIO,
        // The links that addresses with a scope name.
        libc::SIOCGIFINDEX as _,
        libc::SIOCGIFNAME as _,
    ] {
        operations.push(rule(&[one(1, operation as c_int)?])?);
    }
    allow(libc::SYS_ioctl, operations);
    let mut commands = Vec::new();
    for command in [
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
    ] {
        commands.push(rule(&[one(1, command)?])?);
    }
    allow(libc::SYS_fcntl, commands);

    // Memory is never both written and executed.
    allow(libc::SYS_mmap, not_executable.to_vec());
    allow(libc::SYS_mprotect, not_executable.to_vec());
    // Threads, but neither processes nor namespaces.
    let kinds = libc::CLONE_THREAD
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let thread = equal(0, kinds as u32, libc::CLONE_THREAD)?;
    allow(libc::SYS_clone, vec![rule(&[thread])?]);
    allow(libc::SYS_prctl, vec![rule(&[one(0, libc::PR_SET_NAME)?])?]);
    // By a thread to itself when it aborts.
    allow(libc::SYS_tgkill, vec![rule(&[one(0, pid.cast_signed())?])?]);
    // Only a thread's own share of a core, which it may reduce.
    for call in [libc::SYS_sched_getattr, libc::SYS_sched_setattr] {
        allow(call, vec![rule(&[one(0, 0)?])?]);
    }
    // Only reading one's own limits.
    let own = [one(0, 0)?, null(2)?];
    allow(libc::SYS_prlimit64, vec![rule(&own)?]);

    SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::ENOSYS as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// The bits of `mask` in an argument of 32 bits are those of `value`.
fn equal(argument: u8, mask: u32, value: c_int) -> Result<SeccompCondition, BackendError> {
    let masked = SeccompCmpOp::MaskedEq(mask.into());
    let value = value.cast_unsigned().into();
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, value)
}

fn null(argument: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::PollSet;
    use nix::net::if_::{if_indextoname, if_nametoindex};
    use std::fs;
    use std::io;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::thread;

    use crate::sys::process::{notify, slice};
    use crate::sys::tun::{Tun, TunOffloads};
    use crate::sys::udp::{self, Family, UdpOptions};

    /// Runs `attempts` on a thread that only it restricts.
    fn restricted<T: Send + 'static>(
        sockets: Option<&Path>,
        attempts: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let sockets = sockets.map(Path::to_owned);
        let thread = thread::spawn(move || {
            let sandbox = enter(sockets.as_deref(), Path::new("/nowhere"));
            assert_eq!(sandbox.missing().collect::<Vec<_>>(), [] as [String; 0]);
            attempts()
        });
        thread.join().unwrap()
    }

    fn call(number: c_long, arguments: [usize; 4]) -> io::Result<c_long> {
        let [a, b, c, d] = arguments;
        // SAFETY: the callers' arguments are numbers, or null in place of a pointer.
        crate::sys::check(unsafe { libc::syscall(number, a, b, c, d, 0, 0) })
    }

    #[track_caller]
    fn absent<T>(result: io::Result<T>) {
        let error = result.err().expect("it is allowed");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}");
    }

    #[track_caller]
    fn forbidden<T>(result: io::Result<T>) {
        let error = result.err().expect("it is allowed");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }

    #[test]
    fn calls_that_the_daemon_does_not_need_do_not_exist() {
        restricted(None, || {
            absent(Err::<(), _>(Command::new("/bin/true").exec()));
            absent(Command::new("/bin/true").spawn());
            let own = std::process::id() as usize;
            for (number, arguments) in [
                (libc::SYS_kill, [own, 0, 0, 0]),
                (libc::SYS_tgkill, [own + 1, own + 1, 0, 0]),
                (libc::SYS_ptrace, [libc::PTRACE_TRACEME as usize, 0, 0, 0]),
                (libc::SYS_process_vm_readv, [own, 0, 0, 0]),
                (libc::SYS_pidfd_open, [own, 0, 0, 0]),
                (libc::SYS_mount, [0; 4]),
                (libc::SYS_umount2, [0; 4]),
                (libc::SYS_chroot, [0; 4]),
                (libc::SYS_unshare, [0; 4]),
                (libc::SYS_setns, [0; 4]),
                (libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0]),
                (
                    libc::SYS_clone,
                    [(libc::CLONE_NEWUSER | libc::SIGCHLD) as usize, 0, 0, 0],
                ),
                (libc::SYS_clone3, [0; 4]),
                (libc::SYS_init_module, [0; 4]),
                (libc::SYS_finit_module, [0; 4]),
                (libc::SYS_kexec_load, [0; 4]),
                (libc::SYS_reboot, [0; 4]),
                (libc::SYS_bpf, [0; 4]),
                (libc::SYS_perf_event_open, [0; 4]),
                (libc::SYS_userfaultfd, [0; 4]),
                (libc::SYS_io_uring_setup, [0; 4]),
                (libc::SYS_keyctl, [0; 4]),
                (libc::SYS_setuid, [0; 4]),
                (libc::SYS_prctl, [libc::PR_SET_DUMPABLE as usize, 1, 0, 0]),
                (libc::SYS_prlimit64, [0, libc::RLIMIT_CORE as usize, 8, 0]),
                (libc::SYS_sched_setattr, [1, 0, 0, 0]),
                (libc::SYS_mknodat, [0; 4]),
                (libc::SYS_fchmodat, [0; 4]),
                (libc::SYS_open_by_handle_at, [0; 4]),
            ] {
                absent(call(number, arguments));
            }
        });
    }

    #[test]
    fn memory_is_not_both_written_and_executed() {
        restricted(None, || {
            let map = |protection: c_int| {
                let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                call(
                    libc::SYS_mmap,
                    [0, 4096, protection as usize, kind as usize],
                )
            };
            let pages = map(libc::PROT_READ | libc::PROT_WRITE).unwrap() as usize;
            absent(map(libc::PROT_READ | libc::PROT_EXEC));
            let executed = libc::PROT_READ | libc::PROT_EXEC;
            absent(call(
                libc::SYS_mprotect,
                [pages, 4096, executed as usize, 0],
            ));
        });
    }

    #[test]
    fn only_sockets_for_packets_and_datagrams_to_the_log_can_be_opened() {
        let name = std::env::temp_dir().join(format!("wg-rs-sandbox-{}", std::process::id()));
        let _listener = UnixListener::bind(&name).unwrap();
        let service = name.clone();
        restricted(None, move || {
            absent(TcpListener::bind("127.0.0.1:0"));
            absent(UnixStream::connect(&service));
            for (family, kind, protocol) in [
                (libc::AF_PACKET, libc::SOCK_DGRAM, 0),
                (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
                (libc::AF_INET, libc::SOCK_STREAM, 0),
                (libc::AF_INET6, libc::SOCK_SEQPACKET, 0),
                (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
                (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_GENERIC),
                (libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
                (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
            ] {
                let arguments = [family as usize, kind as usize, protocol as usize, 0];
                absent(call(libc::SYS_socket, arguments));
            }
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            absent(socket.set_ttl(9));
            udp::UdpSocket::bind(Family::V4, 0, &UdpOptions::default()).unwrap();
            crate::sys::netlink::Netlink::open().unwrap();
            crate::sys::uevent::Uevents::open().unwrap();
            UnixDatagram::unbound().unwrap();
        });
        fs::remove_file(name).unwrap();
    }

    #[test]
    fn files_can_be_neither_read_nor_written_and_devices_not_opened() {
        let folder = std::env::temp_dir().join(format!("wg-rs-sandboxed-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let inside = folder.clone();
        let program = std::env::current_exe().unwrap();
        let _kept = UnixListener::bind(folder.join("a.sock")).unwrap();
        fs::write(folder.join("key"), "").unwrap();
        restricted(Some(&folder), move || {
            for path in [
                "/etc/passwd",
                "/proc/self/mem",
                "/dev/kmsg",
                "/proc/kallsyms",
            ] {
                match fs::File::open(path) {
                    // Not every container has the devices.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    result => forbidden(result),
                }
            }
            forbidden(fs::read_dir("/"));
            forbidden(Tun::create("sandboxed", TunOffloads::ALL));
            forbidden(fs::write("/proc/sys/kernel/core_pattern", "|/bin/sh"));
            forbidden(fs::File::create(inside.join("new")));
            forbidden(fs::read(inside.join("key")));
            absent(fs::create_dir(inside.join("new")));
            absent(std::os::unix::fs::symlink("/", inside.join("new")));
            forbidden(fs::remove_file(program));
            // The socket's file follows the link's name, and goes in the end.
            fs::rename(inside.join("a.sock"), inside.join("b.sock")).unwrap();
            fs::remove_file(inside.join("b.sock")).unwrap();
        });
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn files_of_the_state_can_be_replaced() {
        let folder = std::env::temp_dir().join(format!("wg-rs-state-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let inside = folder.clone();
        let thread = thread::spawn(move || {
            let _sandbox = enter(None, &inside);
            let (new, file) = (inside.join("a.new"), inside.join("a"));
            let mut made = fs::File::create_new(&new).unwrap();
            io::Write::write_all(&mut made, b"state").unwrap();
            fs::rename(&new, &file).unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"state");
            fs::remove_file(&file).unwrap();
            forbidden(UnixDatagram::bind(inside.join("socket")));
            forbidden(fs::read_dir(&inside));
        });
        thread.join().unwrap();
        fs::remove_dir(folder).unwrap();
    }

    #[test]
    fn threads_and_messages_to_the_service_manager_still_work() {
        restricted(None, || {
            let threads = (0..8).map(|number| {
                let thread = thread::Builder::new().name(format!("wg-{number}"));
                let work = move || {
                    slice::lower_priority().unwrap();
                    vec![number; 1 << 20].len()
                };
                thread.spawn(work).unwrap()
            });
            for thread in threads.collect::<Vec<_>>() {
                assert_eq!(thread.join().unwrap(), 1 << 20);
            }
            // There is nobody, but one may ask.
            assert!(notify::notify(notify::STOPPING).is_ok());
            let sender = UnixDatagram::unbound().unwrap();
            let error = sender.send_to(b"", "/nowhere").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        });
    }

    #[test]
    fn links_have_names_and_descriptors_can_be_awaited() {
        restricted(None, || {
            let index = if_nametoindex("lo").unwrap();
            assert_eq!(if_indextoname(index).unwrap().to_str(), Ok("lo"));
            PollSet::<1>::new().unwrap();
        });
    }

    #[test]
    fn what_is_missing_is_named() {
        let sandbox = Sandbox {
            seccomp: Ok(()),
            landlock: Err("the kernel does not support it".into()),
            _folders: Vec::new(),
        };
        assert_eq!(sandbox.to_string(), "seccomp restricts the daemon");
        let missing: Vec<_> = sandbox.missing().collect();
        assert_eq!(
            missing,
            ["Landlock does not restrict the daemon: the kernel does not support it"]
        );
    }
}
