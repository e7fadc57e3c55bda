//! The implementations of WireGuard, and running interfaces.

use std::env;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::netlink::{self, Route};
use crate::{
    Config, Host, InterfaceState, Key, PATIENCE, PeerState, Proc, SOCKETS, Uapi, binaries, process,
    require, until,
};

/// An implementation of WireGuard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Its name in reports.
    pub name: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The program and its arguments before `-f IFACE`.
    Program(Vec<String>),
    /// The kernel's module.
    Kernel,
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Daemon {
    /// The daemon of this workspace: the program that `WIREGUARD_RS` names, else it is built.
    pub fn ours() -> io::Result<Daemon> {
        let path = match env::var_os("WIREGUARD_RS") {
            Some(path) => PathBuf::from(path),
            None => binaries::build("wireguard-rs")?,
        };
        Ok(Daemon::program("wireguard-rs", path.to_string_lossy()))
    }

    /// The daemon of this workspace with timers that are 20 times as fast: keys change every six seconds. It is
    /// for long tests, at both ends.
    pub fn ours_with_fast_timers() -> io::Result<Daemon> {
        let path = binaries::build_with(Some("fast-timers"), "wireguard-rs")?;
        Ok(Daemon::program("wireguard-rs", path.to_string_lossy()))
    }

    /// boringtun's device in a process of its own, built into this crate.
    pub fn foreign() -> io::Result<Daemon> {
        let path = binaries::build("foreign-peer")?;
        Ok(Daemon::program("boringtun", path.to_string_lossy()))
    }

    /// The kernel's module.
    ///
    /// # Errors
    /// The kernel has no module.
    pub fn kernel(probe: &Host) -> io::Result<Daemon> {
        let name = "probe";
        probe.run(|| {
            netlink::add_wireguard(name)?;
            netlink::delete_link(name)
        })?;
        Ok(Daemon {
            name: "kernel".into(),
            kind: Kind::Kernel,
        })
    }

    /// A program with its arguments, separated by spaces; `-f IFACE` is appended. A relative path counts
    /// from the current folder, although the program is started in another one.
    pub fn program(name: &str, command: impl AsRef<str>) -> Daemon {
        let words = command.as_ref().split_whitespace().map(str::to_owned);
        let mut words: Vec<String> = words.collect();
        if let Some(program) = words.first_mut().filter(|word| word.contains('/'))
            && let Ok(path) = std::path::absolute(&*program)
        {
            *program = path.to_string_lossy().into_owned();
        }
        Daemon {
            name: name.into(),
            kind: Kind::Program(words),
        }
    }

    /// A program on PATH, under one of its usual names.
    pub fn installed(name: &str) -> Option<Daemon> {
        let names: &[&str] = match name {
            "gotatun" | "gotatun-cli" => &["gotatun-cli", "gotatun"],
            other => &[other],
        };
        let path = names.iter().find_map(|name| binaries::on_path(name))?;
        Some(Daemon::program(name, path.to_string_lossy()))
    }

    /// Our daemon, the built-in boringtun, and those on PATH, each of which the test [`require`]s.
    pub fn all() -> io::Result<Vec<Daemon>> {
        let mut all = vec![Daemon::ours()?, Daemon::foreign()?];
        for name in ["wireguard-go", "boringtun-cli", "gotatun-cli"] {
            all.extend(require(name, Daemon::installed(name)).map(Daemon::that_roams));
        }
        Ok(all)
    }

    /// The same, but boringtun-cli without connected sockets, as these keep their first address and cannot
    /// roam.
    pub fn that_roams(mut self) -> Daemon {
        if let ("boringtun-cli", Kind::Program(words)) = (&*self.name, &mut self.kind) {
            words.push("--disable-connected-udp".into());
        }
        self
    }

    /// The same error, with the name of this daemon.
    pub fn blame(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{self}: {error}"))
    }

    /// The path of the program, unless it is the kernel's module.
    pub fn path(&self) -> Option<&str> {
        match &self.kind {
            Kind::Program(words) => words.first().map(String::as_str),
            Kind::Kernel => None,
        }
    }

    /// A command that runs the program with these arguments instead of `-f IFACE`.
    pub fn command(&self, args: &[&str]) -> Command {
        let words: &[String] = match &self.kind {
            Kind::Program(words) => words,
            Kind::Kernel => &[],
        };
        let mut words = words.iter();
        let mut command = Command::new(words.next().map_or("false", String::as_str));
        command.args(words).args(args);
        for variable in [
            "WG_PROCESS_FOREGROUND",
            "WG_TUN_FD",
            "WG_UAPI_FD",
            "NOTIFY_SOCKET",
        ] {
            command.env_remove(variable);
        }
        if process::verbose() {
            command
                .env("LOG_LEVEL", "verbose")
                .env("WG_LOG_LEVEL", "trace");
        }
        // Keeps boringtun and gotatun running as root even if there is no login name.
        command.env("WG_SUDO", "true").current_dir("/");
        command
    }

    /// Starts the interface `name` in `host`, and returns when its link and its socket exist.
    pub fn start(&self, host: &Host, name: &str, via: Via) -> io::Result<Wg> {
        let (proc, via) = match self.kind {
            Kind::Kernel => {
                host.run(|| netlink::add_wireguard(name))?;
                (None, Via::StockWg)
            }
            Kind::Program(_) => (Some(host.spawn(&mut self.command(&["-f", name]))?), via),
        };
        let mut wg = Wg {
            host: host.clone(),
            name: name.into(),
            proc,
            via,
        };
        if let Some(proc) = &mut wg.proc {
            until(PATIENCE, &format!("{self} to create {name}"), || {
                if let Some(status) = proc.ended()? {
                    let text = format!("{self} ended with {status}: {}", proc.output().trim());
                    return Err(io::Error::other(text));
                }
                Ok(ready(host, name).then_some(()))
            })?;
        }
        Ok(wg)
    }
}

/// Whether the link exists and its UAPI socket answers.
pub fn ready(host: &Host, name: &str) -> bool {
    host.run(|| netlink::link(name))
        .is_ok_and(|link| link.is_some())
        && Uapi::connect(host, name).is_ok()
}

/// How an interface is configured and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The UAPI socket.
    Uapi,
    /// The stock `wg`, which must be on PATH.
    StockWg,
}

/// A running interface. Dropping it ends its daemon.
#[derive(Debug)]
pub struct Wg {
    /// The host in which its daemon runs.
    pub host: Host,
    /// Interface name.
    pub name: String,
    /// The daemon; `None` for an interface of the kernel.
    pub proc: Option<Proc>,
    via: Via,
}

impl Wg {
    /// Applies a configuration.
    pub fn set(&self, config: &Config) -> io::Result<()> {
        match self.via {
            Via::Uapi => Uapi::connect(&self.host, &self.name)?.set(config),
            Via::StockWg => {
                let verb = if config.replace_peers {
                    "setconf"
                } else {
                    "addconf"
                };
                self.host
                    .sh_with("wg", &[verb, &self.name, "/dev/stdin"], &config.file(&[]))
                    .map(|_| ())
            }
        }
    }

    /// The state of the interface.
    pub fn get(&self) -> io::Result<InterfaceState> {
        match self.via {
            Via::Uapi => Uapi::connect(&self.host, &self.name)?.get(),
            Via::StockWg => {
                InterfaceState::from_dump(&self.host.sh("wg", &["show", &self.name, "dump"])?)
            }
        }
    }

    /// The state of one peer.
    pub fn peer(&self, key: Key) -> io::Result<PeerState> {
        self.get()?.peer(key).cloned()
    }

    /// Waits until the peer's state satisfies a condition.
    pub fn until_peer(
        &self,
        key: Key,
        what: &str,
        wanted: impl Fn(&PeerState) -> bool,
    ) -> io::Result<PeerState> {
        until(PATIENCE, what, || Ok(Some(self.peer(key)?).filter(&wanted)))
    }

    /// Process ID of the daemon.
    pub fn pid(&self) -> io::Result<i32> {
        self.proc
            .as_ref()
            .map(Proc::pid)
            .ok_or_else(|| io::Error::other("no daemon process"))
    }

    /// Kills the daemon without a chance to clean up, and waits until its link is gone. Its socket file stays.
    pub fn kill(&mut self) -> io::Result<()> {
        let absent = || io::Error::other("no daemon process");
        let proc = self.proc.as_mut().ok_or_else(absent)?;
        proc.signal(Signal::SIGKILL)?;
        proc.wait(PATIENCE)?;
        until(PATIENCE, "the link to go", || {
            let link = self.host.run(|| netlink::link(&self.name))?;
            Ok(link.is_none().then_some(()))
        })
    }

    /// Sets the MTU, the link up, and its addresses with their prefixes, in the namespace of `place`.
    pub fn up_in(&self, place: &Host, mtu: u32, addresses: &[(IpAddr, u8)]) -> io::Result<()> {
        place.run(|| {
            netlink::set_mtu(&self.name, mtu)?;
            // The link is set up first: an IPv6 address that is added before can be used only some
            // time later.
            netlink::set_up(&self.name, true)?;
            for (address, prefix) in addresses {
                netlink::add_address(&self.name, *address, *prefix)?;
            }
            Ok(())
        })
    }

    /// Like [`Wg::up_in`], in the host in which the daemon runs.
    pub fn up(&self, mtu: u32, addresses: &[(IpAddr, u8)]) -> io::Result<()> {
        self.up_in(&self.host, mtu, addresses)
    }

    /// Adds a route for a network through the interface.
    pub fn route(&self, to: impl Into<IpAddr>, prefix: u8) -> io::Result<()> {
        let to = to.into();
        self.host.run(|| Route::dev(to, prefix, &self.name).add())
    }

    /// Path of the UAPI socket.
    pub fn socket(&self) -> String {
        format!("{SOCKETS}/{}.sock", self.name)
    }

    /// Waits for the successful end of the daemon, its link and its socket file.
    pub fn ends_cleanly(mut self) -> io::Result<()> {
        let proc = self.proc.as_mut().expect("a process");
        let status = proc.wait(PATIENCE)?;
        assert!(status.success(), "{status}: {}", proc.output());
        until(PATIENCE, "link and socket to go", || {
            Ok(self.gone()?.then_some(()))
        })
    }

    /// Whether both the link and the socket file are gone.
    pub fn gone(&self) -> io::Result<bool> {
        let socket = self.socket();
        self.host
            .run(|| Ok(netlink::link(&self.name)?.is_none() && !std::fs::exists(&socket)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_from_the_current_folder() {
        let here = env::current_dir().unwrap();
        let daemon = Daemon::program("x", "some/daemon --option a/b");
        let command = daemon.command(&["-f", "wg0"]);
        assert_eq!(command.get_program(), here.join("some/daemon").as_os_str());
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args, ["--option", "a/b", "-f", "wg0"]);
        let program = |command| Daemon::program("x", command).path().unwrap().to_owned();
        assert_eq!(program("/bin/daemon"), "/bin/daemon");
        assert_eq!(program("daemon"), "daemon", "found on PATH");
    }
}
