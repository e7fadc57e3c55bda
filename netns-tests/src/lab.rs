//! A laboratory: hosts in namespaces, which are removed at its end.
//!
//! A host is a network namespace and a mount namespace, both without a name. File descriptors of this
//! process, and the processes started in them, keep them alive. Each host has its own
//! /var/run/wireguard, so every host may have a `wg0`, and its own /run/netns, so it does not see the
//! machine's named namespaces. When the [`Lab`] is dropped, also by a panic, all processes in its
//! namespaces are killed, also those that became daemons. SIGINT, SIGTERM and SIGHUP do the same.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::process::{self, Proc};
use crate::{PATIENCE, netlink, until};

/// The folder of the sockets of WireGuard daemons.
pub const SOCKETS: &str = "/var/run/wireguard";
/// The folder of `ip netns` with named namespaces.
const NAMED: &str = "/run/netns";

/// The network namespaces of all labs that exist, for the signal handler.
static NAMESPACES: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static SIGNALS: Once = Once::new();

/// The owner of hosts; see the head of the file.
#[derive(Debug)]
pub struct Lab {
    /// Kept open as long as the lab exists, so that no other namespace gets the same inode number.
    hosts: Mutex<Vec<(u64, Host)>>,
}

impl Lab {
    /// An empty lab.
    ///
    /// # Errors
    /// This process may not create namespaces, or /dev/net/tun is missing.
    pub fn new() -> io::Result<Lab> {
        if !geteuid().is_root() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "network namespaces need root: run this as root (sudo)",
            ));
        }
        if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
            return Err(io::Error::new(
                error.kind(),
                format!(
                    "/dev/net/tun cannot be opened ({error}): load the module tun, or give it to the container"
                ),
            ));
        }
        SIGNALS.call_once(|| {
            if let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGTERM]) {
                thread::spawn(move || {
                    if let Some(signal) = signals.forever().next() {
                        kill_all(&lock(&NAMESPACES));
                        while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
                            waitpid(None, Some(WaitPidFlag::WNOHANG))
                        {}
                        std::process::exit(128 + signal);
                    }
                });
            }
        });
        Ok(Lab {
            hosts: Mutex::new(Vec::new()),
        })
    }

    /// Creates a host with only its loopback, which is up.
    pub fn host(&self, name: &str) -> io::Result<Host> {
        for folder in [SOCKETS, NAMED] {
            fs::create_dir_all(folder)?;
        }
        let made = thread::spawn(|| -> io::Result<(File, File)> {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
            let nothing = None::<&str>;
            mount(
                nothing,
                "/",
                nothing,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                nothing,
            )?;
            for folder in [SOCKETS, NAMED] {
                let (tmpfs, mode) = (Some("tmpfs"), Some("mode=755"));
                mount(tmpfs, folder, tmpfs, MsFlags::empty(), mode)?;
            }
            netlink::set_up("lo", true)?;
            // A tunnel that is set up switches this off for good. Switched off from the beginning, it
            // is not a difference between two states.
            fs::write("/proc/sys/net/ipv4/conf/all/send_redirects", "0")?;
            Ok((
                File::open("/proc/thread-self/ns/net")?,
                File::open("/proc/thread-self/ns/mnt")?,
            ))
        });
        let made = made
            .join()
            .map_err(|_| io::Error::other("making a host panicked"))?;
        let (net, mnt) = made
            .map_err(|error| io::Error::new(error.kind(), format!("make host {name}: {error}")))?;
        let inode = net.metadata()?.ino();
        let host = Host(Arc::new(Namespaces {
            name: name.into(),
            net,
            mnt,
        }));
        lock(&self.hosts).push((inode, host.clone()));
        lock(&NAMESPACES).push(inode);
        Ok(host)
    }

    /// Joins two hosts by a cable: a veth pair with this MTU, whose ends are up.
    pub fn cable(&self, a: (&Host, &str), b: (&Host, &str), mtu: u32) -> io::Result<()> {
        a.0.run(|| netlink::add_veth(a.1, b.1, b.0.net()))?;
        for (host, name) in [a, b] {
            host.run(|| netlink::set_mtu(name, mtu).and_then(|()| netlink::set_up(name, true)))?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let hosts: Vec<u64> = lock(&self.hosts).iter().map(|(inode, _)| *inode).collect();
        kill_all(&hosts);
        lock(&NAMESPACES).retain(|inode| !hosts.contains(inode));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill_all(namespaces: &[u64]) {
    let _ = until(Duration::from_secs(5), "the end of all processes", || {
        let left = process::in_namespaces(namespaces);
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        Ok(left.is_empty().then_some(()))
    });
}

#[derive(Debug)]
struct Namespaces {
    name: String,
    net: File,
    mnt: File,
}

/// A host. Clones are the same host.
#[derive(Debug, Clone)]
pub struct Host(Arc<Namespaces>);

impl Host {
    /// The name of the host.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its network namespace.
    pub fn net(&self) -> BorrowedFd<'_> {
        self.0.net.as_fd()
    }

    /// This host with another network namespace: the one of the file at `path` in this host. Only for
    /// threads: a process in it would outlive the lab.
    pub fn in_netns(&self, path: &str) -> io::Result<Host> {
        let net = self.run(|| File::open(path));
        let net = net.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        Ok(Host(Arc::new(Namespaces {
            name: format!("{}, {path}", self.name()),
            net,
            mnt: self.0.mnt.try_clone()?,
        })))
    }

    fn enter(&self) {
        unshare(CloneFlags::CLONE_FS)
            .and_then(|()| setns(&self.0.net, CloneFlags::CLONE_NEWNET))
            .and_then(|()| setns(&self.0.mnt, CloneFlags::CLONE_NEWNS))
            .unwrap_or_else(|error| panic!("enter host {}: {error}", self.0.name));
    }

    /// Runs `work` on a thread of this host and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            work()
        };
        let done = thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread of this host.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let host = self.clone();
        thread::spawn(move || {
            host.enter();
            work()
        })
    }

    /// Starts a process in this host.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Proc> {
        self.run(|| Proc::spawn(command.stdin(Stdio::null())))
    }

    /// Runs a program, which must succeed, and returns its output.
    pub fn sh(&self, program: &str, args: &[&str]) -> io::Result<String> {
        self.spawn(Command::new(program).args(args))?
            .success(Duration::from_secs(30))
    }

    /// Like [`Host::sh`], with text on standard input.
    pub fn sh_with(&self, program: &str, args: &[&str], stdin: &str) -> io::Result<String> {
        let mut child =
            self.run(|| Proc::spawn(Command::new(program).args(args).stdin(Stdio::piped())))?;
        child.feed(stdin)?;
        child.success(Duration::from_secs(30))
    }

    /// Reads a file as a process of this host sees it.
    pub fn read(&self, path: &str) -> io::Result<String> {
        self.run(|| {
            let mut text = String::new();
            File::open(path)?.read_to_string(&mut text)?;
            Ok(text)
        })
    }

    /// Writes a file as a process of this host sees it (a sysctl, or under [`SOCKETS`]).
    pub fn write(&self, path: &str, text: &str) -> io::Result<()> {
        self.run(|| fs::write(path, text))
            .map_err(|error| io::Error::new(error.kind(), format!("write {path}: {error}")))
    }

    /// Adds an address to a link.
    pub fn address(&self, link: &str, address: impl Into<IpAddr>, prefix: u8) -> io::Result<()> {
        let address = address.into();
        self.run(|| netlink::add_address(link, address, prefix))
    }

    /// The IDs of the processes in this host.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        Ok(process::in_namespaces(&[self.0.net.metadata()?.ino()]))
    }

    /// Kills all processes in this host without a chance to clean up, and waits until they have ended. Returns
    /// their number.
    pub fn kill_processes(&self) -> io::Result<usize> {
        let all = self.processes()?;
        for pid in &all {
            match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
                // It ended by itself meanwhile.
                Err(Errno::ESRCH) => {}
                result => result?,
            }
        }
        until(PATIENCE, "the killed processes to end", || {
            Ok(all
                .iter()
                .all(|pid| process::has_ended(*pid))
                .then_some(all.len()))
        })
    }

    /// The UDP ports that have a socket in this host.
    pub fn udp_ports(&self) -> io::Result<Vec<u16>> {
        let mut ports = Vec::new();
        for table in ["udp", "udp6"] {
            // "  sl  local_address ...": the port is the hex after the colon of the second field.
            let text = match self.read(&format!("/proc/thread-self/net/{table}")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            ports.extend(text.lines().skip(1).filter_map(|line| {
                let local = line.split_whitespace().nth(1)?;
                u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
            }));
        }
        Ok(ports)
    }
}

impl Host {
    /// Datagrams that the host has dropped because a UDP socket's buffer was full.
    pub fn udp_overflows(&self) -> io::Result<u64> {
        // IPv6 has a table of its own, with a name and a value on each line.
        let v6 = self.read("/proc/thread-self/net/snmp6").unwrap_or_default();
        let v6 = v6
            .lines()
            .find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
        let v6 = v6.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        Ok(self.snmp("Udp:", "RcvbufErrors")? + v6)
    }

    /// TCP segments that the host has sent again.
    pub fn tcp_retransmissions(&self) -> io::Result<u64> {
        self.snmp("Tcp:", "RetransSegs")
    }

    /// A counter of a protocol.
    fn snmp(&self, protocol: &str, counter: &str) -> io::Result<u64> {
        // Two lines "Udp: …", one of names and one of values.
        let text = self.read("/proc/thread-self/net/snmp")?;
        let mut lines = text.lines().filter(|line| line.starts_with(protocol));
        let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        let mut counters = names.split_whitespace().zip(values.split_whitespace());
        let value = counters.find_map(|(name, value)| (name == counter).then_some(value));
        let absent = || io::Error::other(format!("no {protocol} {counter} in {}", self.name()));
        value
            .and_then(|value| value.parse().ok())
            .ok_or_else(absent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ping;

    #[test]
    fn hosts_are_isolated_until_cabled_and_leave_nothing() {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        let there: IpAddr = [192, 0, 2, 2].into();
        lab.cable((&a, "eth0"), (&b, "eth0"), 1500).unwrap();
        a.address("eth0", [192, 0, 2, 1], 24).unwrap();
        let once = Ping {
            count: 1,
            timeout: Duration::from_millis(200),
            ..Ping::to(there)
        };
        assert_eq!(a.ping(&once).unwrap().received(), 0);
        b.address("eth0", [192, 0, 2, 2], 24).unwrap();
        assert_eq!(a.ping(&Ping::to(there)).unwrap().lost(), 0);

        for folder in [SOCKETS, NAMED] {
            a.write(&format!("{folder}/x"), "a's").unwrap();
            assert!(b.read(&format!("{folder}/x")).is_err());
        }
        let socket = a.run(|| std::net::UdpSocket::bind("127.0.0.1:0")).unwrap();
        assert!(
            a.udp_ports()
                .unwrap()
                .contains(&socket.local_addr().unwrap().port())
        );

        // A process that has left its parent is found by its namespace and ended.
        a.sh("sh", &["-c", "setsid sleep 1000 >/dev/null 2>&1 &"])
            .unwrap();
        let inode = a.0.net.metadata().unwrap().ino();
        assert_eq!(process::in_namespaces(&[inode]).len(), 1);
        drop(lab);
        assert!(process::in_namespaces(&[inode]).is_empty());
    }
}
