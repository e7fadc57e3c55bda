//! A host for `wg-quick` and `wg-quick-rs`: it has its own /etc and a `resolvconf` that records its
//! calls, and either program runs there with the same command line.
//!
//! ```text
//! /etc                    an overlay over the machine's /etc: changes stay in this host
//! /etc/wireguard          config files
//! /etc/netns-tests/bin    stand-ins for programs, first on PATH
//! /etc/netns-tests/calls  calls of the stand-ins; …/dns/IFACE: the input of `resolvconf -a IFACE`
//! /etc/log                the output of hooks
//! ```

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use crate::state::names;
use crate::{Daemon, Host, HostState, Lab, NameServer, Proc, SOCKETS, binaries, require};

/// The folder of the stand-ins, first on PATH.
pub const BIN: &str = "/etc/netns-tests/bin";
/// The file to which the hooks of a test write.
pub const LOG: &str = "/etc/log";
const CALLS: &str = "/etc/netns-tests/calls";
const DNS: &str = "/etc/netns-tests/dns";
/// The time limit for one run.
const LONG: Duration = Duration::from_secs(60);

/// A resolvconf that keeps a record for each interface.
const RESOLVCONF: &str = r#"#!/bin/sh
{ printf resolvconf; printf ' [%s]' "$@"; echo; } >> /etc/netns-tests/calls
case $1 in
-a) cat > "/etc/netns-tests/dns/$2" && cat "/etc/netns-tests/dns/$2" >> /etc/netns-tests/calls ;;
-d) rm -f "/etc/netns-tests/dns/$2" ;;
-l) cat "/etc/netns-tests/dns/$2" ;;
esac
"#;

/// A program that takes `up IFACE`, `down IFACE` and so on.
#[derive(Debug, Clone)]
pub struct Quick {
    /// Its name in reports.
    pub name: &'static str,
    path: PathBuf,
    script: Option<String>,
}

impl Quick {
    /// `wg-quick-rs` of this workspace: the program in `WG_QUICK_RS`; if that is not set, it is built.
    pub fn ours() -> io::Result<Quick> {
        let path = match env::var_os("WG_QUICK_RS") {
            Some(path) => PathBuf::from(path),
            None => binaries::build("wg-quick-rs")?,
        };
        Ok(Quick {
            name: "wg-quick-rs",
            path,
            script: None,
        })
    }

    /// The stock script: the one in `WG_QUICK`, else the one on PATH.
    pub fn stock() -> io::Result<Option<Quick>> {
        let found = env::var_os("WG_QUICK")
            .map(PathBuf::from)
            .or_else(|| binaries::on_path("wg-quick"));
        let Some(path) = require("wg-quick", found) else {
            return Ok(None);
        };
        let script = fs::read_to_string(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        Ok(Some(Quick {
            name: "wg-quick",
            path,
            script: Some(script),
        }))
    }

    /// Whether it is the stock script.
    pub fn is_stock(&self) -> bool {
        self.script.is_some()
    }

    /// Whether the script contains this text, which tells its version. Our program is not a script.
    pub fn says(&self, text: &str) -> bool {
        self.script
            .as_ref()
            .is_some_and(|script| script.contains(text))
    }

    /// The path of the program.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A host that is prepared for these programs. Clones are the same host.
#[derive(Debug, Clone)]
pub struct Site {
    /// The host.
    pub host: Host,
    path: OsString,
}

/// The router of a [`Site::behind_gateway`], with a name server that runs until this is dropped.
#[derive(Debug)]
pub struct Gateway {
    /// The router's host.
    pub host: Host,
    _names: NameServer,
}

impl Gateway {
    /// Its address on the cable to the site.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    /// The address of the name server, outside of the site's network.
    pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output and error.
    pub output: String,
}

impl Run {
    /// The output; an error with the output if the exit code is not 0.
    pub fn success(self) -> io::Result<String> {
        match self.code {
            Some(0) => Ok(self.output),
            code => Err(io::Error::other(format!(
                "ended with {code:?}: {}",
                self.output
            ))),
        }
    }
}

impl Site {
    /// A host with only its loopback. [`require`]s the tools that [`HostState::of`] uses.
    pub fn new(lab: &Lab, name: &str) -> io::Result<Option<Site>> {
        for tool in ["ip", "nft", "wg", "bash"] {
            if require(tool, binaries::on_path(tool)).is_none() {
                return Ok(None);
            }
        }
        let host = lab.host(name)?;
        host.run(own_etc)?;
        let site = Site {
            host,
            path: search_path()?,
        };
        for folder in [BIN, DNS, "/etc/wireguard"] {
            site.host.run(|| fs::create_dir_all(folder))?;
        }
        site.stand_in("resolvconf", RESOLVCONF)?;
        let daemon = Daemon::ours()?;
        let real = daemon.path().unwrap_or_default();
        site.host
            .run(|| symlink(real, format!("{BIN}/wireguard-rs")))?;
        Ok(Some(site))
    }

    /// A host whose only way out is a [`Gateway`]. It has no program for DNS, as in a container: its
    /// /etc/resolv.conf, which names the gateway's name server, is itself replaced. `lookup` gives the
    /// addresses of names, as for [`NameServer::start`].
    pub fn behind_gateway(
        lab: &Lab,
        lookup: impl Fn(&str) -> Option<Ipv4Addr> + Send + 'static,
    ) -> io::Result<Option<(Site, Gateway)>> {
        let Some(mut site) = Site::new(lab, "site")? else {
            return Ok(None);
        };
        let host = lab.host("gateway")?;
        lab.cable((&site.host, "eth0"), (&host, "eth0"), 1500)?;
        site.host.address("eth0", [192, 0, 2, 2], 24)?;
        host.address("eth0", Gateway::ADDRESS, 24)?;
        host.address("lo", Gateway::NAME_SERVER, 32)?;
        let names = NameServer::start(&host, Gateway::NAME_SERVER, lookup)?;
        site.hide_dns_programs()?;
        site.sh(&format!(
            "ip route add default via {}
             echo 'hosts: files dns' > /etc/nsswitch.conf
             rm -f /etc/resolv.conf
             echo nameserver {} > /etc/resolv.conf",
            Gateway::ADDRESS,
            Gateway::NAME_SERVER
        ))?;
        Ok(Some((
            site,
            Gateway {
                host,
                _names: names,
            },
        )))
    }

    /// Installs a script that is found on PATH before the program of that name.
    pub fn stand_in(&self, name: &str, script: &str) -> io::Result<()> {
        let file = format!("{BIN}/{name}");
        // A symbolic link is removed first, as it may lead to a program of the machine.
        let _ = self.host.run(|| fs::remove_file(&file));
        self.host.write(&file, script)?;
        self.host
            .run(|| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)))
    }

    /// Makes PATH a single folder with all programs but this one.
    pub fn hide(&mut self, program: &str) -> io::Result<()> {
        let folder = "/etc/netns-tests/all";
        self.host.run(|| -> io::Result<()> {
            fs::create_dir(folder)?;
            for from in env::split_paths(&self.path) {
                for name in names(&from, "").unwrap_or_default() {
                    if name != program {
                        // As on PATH, the first program of a name counts.
                        let _ = symlink(from.join(&name), Path::new(folder).join(&name));
                    }
                }
            }
            Ok(())
        })?;
        self.path = env::join_paths([BIN, folder]).map_err(io::Error::other)?;
        Ok(())
    }

    /// Leaves no program for DNS, as in a container: neither `resolvectl` nor `resolvconf`.
    pub fn hide_dns_programs(&mut self) -> io::Result<()> {
        self.hide("resolvectl")?;
        self.sh(&format!(
            "rm -f {BIN}/resolvconf /etc/netns-tests/all/resolvconf"
        ))?;
        Ok(())
    }

    /// Writes /etc/wireguard/IFACE.conf, readable by root only.
    pub fn configure(&self, interface: &str, text: &str) -> io::Result<()> {
        let file = format!("/etc/wireguard/{interface}.conf");
        self.host.write(&file, text)?;
        self.host
            .run(|| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)))
    }

    /// Sets the environment of these programs: on PATH are first the stand-ins, then our daemon.
    pub fn environment(&self, command: &mut Command) {
        for (variable, _) in env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("WG_") || name == "LOG_LEVEL" {
                command.env_remove(&variable);
            }
        }
        command
            .env("PATH", &self.path)
            .env("WG_QUICK_USERSPACE_IMPLEMENTATION", "wireguard-rs")
            .current_dir("/");
    }

    /// Puts the program in the folder of the stand-ins, and returns its path there. Either program puts
    /// its own folder first on PATH. The script is copied, and ours is mounted (bind).
    pub fn place(&self, quick: &Quick) -> io::Result<String> {
        let file = format!("{BIN}/{}", quick.name);
        if self.host.run(|| fs::exists(&file))? {
            return Ok(file);
        }
        match &quick.script {
            Some(script) => self.stand_in(quick.name, script)?,
            None => self.host.run(|| -> io::Result<()> {
                fs::File::create(&file)?;
                let (flags, none) = (MsFlags::MS_BIND, None::<&str>);
                Ok(mount(Some(&quick.path), file.as_str(), none, flags, none)?)
            })?,
        }
        Ok(file)
    }

    /// The command `PROGRAM ARGS…`, to be run in this host.
    pub fn command(&self, quick: &Quick, args: &[&str]) -> io::Result<Command> {
        let mut command = Command::new(self.place(quick)?);
        command.args(args);
        self.environment(&mut command);
        Ok(command)
    }

    /// Starts the program.
    pub fn start(&self, quick: &Quick, args: &[&str]) -> io::Result<Proc> {
        self.host.spawn(&mut self.command(quick, args)?)
    }

    /// Runs the program and waits for its end. It may fail.
    pub fn run(&self, quick: &Quick, args: &[&str]) -> io::Result<Run> {
        self.finish(self.start(quick, args)?)
    }

    /// Waits for a program's end.
    pub fn finish(&self, mut proc: Proc) -> io::Result<Run> {
        let code = proc.wait(LONG)?.code();
        Ok(Run {
            code,
            output: proc.output(),
        })
    }

    /// Runs shell commands, each of which must succeed.
    pub fn sh(&self, script: &str) -> io::Result<String> {
        let mut command = Command::new("bash");
        command.args(["-euc", script]);
        self.environment(&mut command);
        self.host.spawn(&mut command)?.success(LONG)
    }

    /// The state of the host, with the records of its `resolvconf`.
    pub fn state(&self) -> io::Result<HostState> {
        let mut state = HostState::of(&self.host)?;
        let records = self.host.run(|| names(Path::new(DNS), ""))?;
        for record in records {
            state.put(
                &format!("dns of {record}"),
                self.lines(&format!("{DNS}/{record}"))?,
            );
        }
        Ok(state)
    }

    /// The calls of the stand-ins and the log of the hooks so far; both are then emptied.
    pub fn heard(&self) -> io::Result<HostState> {
        let mut heard = HostState::default();
        for (part, file) in [("calls", CALLS), ("log", LOG)] {
            heard.put(part, self.lines(file)?);
            self.host.write(file, "")?;
        }
        Ok(heard)
    }

    fn lines(&self, file: &str) -> io::Result<Vec<String>> {
        match self.host.read(file) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Mounts an overlay in memory on /etc, in the mount namespace of the calling thread.
fn own_etc() -> io::Result<()> {
    // This folder is a tmpfs of the host.
    let place = |name: &str| format!("{SOCKETS}/.etc-{name}");
    let (upper, work) = (place("upper"), place("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let options = format!("lowerdir=/etc,upperdir={upper},workdir={work}");
    mount(
        Some("overlay"),
        "/etc",
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("mount an overlay on /etc: {error}"))
    })
}

fn search_path() -> io::Result<OsString> {
    let daemon = Daemon::ours()?;
    let program = Path::new(daemon.path().unwrap_or_default());
    let folder = program
        .parent()
        .filter(|_| program.ends_with("wireguard-rs"))
        .ok_or_else(|| io::Error::other("WIREGUARD_RS must name a program wireguard-rs"))?;
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [PathBuf::from(BIN), folder.into()];
    env::join_paths(folders.into_iter().chain(env::split_paths(&path))).map_err(io::Error::other)
}
