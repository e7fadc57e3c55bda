//! A host for `wg-quick` and `wg-quick-rs`: an /etc of its own, a `resolvconf` that writes down what
//! it is told, and either program to be run there by the same command line.
//!
//! ```text
//! /etc                    the machine's, and what is written to it here is only here (an overlay)
//! /etc/wireguard          config files
//! /etc/netns-tests/bin    first on PATH: the stand-ins
//! /etc/netns-tests/calls  the stand-ins' calls; …/dns/IFACE: what `resolvconf -a IFACE` was given
//! /etc/log                what hooks write
//! ```

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount};

use crate::state::names;
use crate::{Daemon, Host, HostState, Lab, Proc, SOCKETS, binaries, require};

/// Folder of the stand-ins, before all others on PATH.
pub const BIN: &str = "/etc/netns-tests/bin";
/// What the hooks of a test write to.
pub const LOG: &str = "/etc/log";
const CALLS: &str = "/etc/netns-tests/calls";
const DNS: &str = "/etc/netns-tests/dns";
/// How long one run may take.
const LONG: Duration = Duration::from_secs(60);

/// Its answers are those of a resolvconf that keeps a record for each interface.
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
    /// How to name it in a report.
    pub name: &'static str,
    path: PathBuf,
    script: Option<String>,
}

impl Quick {
    /// `wg-quick-rs` of this workspace: the program that `WG_QUICK_RS` names, else it is built.
    pub fn ours() -> io::Result<Quick> {
        let path = match env::var_os("WG_QUICK_RS") {
            Some(path) => PathBuf::from(path),
            None => binaries::build("wg-quick-rs", "wg-quick-rs")?,
        };
        Ok(Quick {
            name: "wg-quick-rs",
            path,
            script: None,
        })
    }

    /// The stock script: the one that `WG_QUICK` names, else the one on PATH.
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

    /// Whether the script has this text, by which its age is told; ours has none.
    pub fn says(&self, text: &str) -> bool {
        self.script
            .as_ref()
            .is_some_and(|script| script.contains(text))
    }

    /// Where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A host made for one of these programs. Clones are the same host.
#[derive(Debug, Clone)]
pub struct Site {
    /// The host.
    pub host: Host,
    path: OsString,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output and error.
    pub output: String,
}

impl Run {
    /// An error, with the output, unless it ended well.
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
    /// A host with nothing but its loopback. `require`s the tools that [`HostState::of`] reads with.
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

    /// Puts a script before the program of that name on PATH.
    pub fn stand_in(&self, name: &str, script: &str) -> io::Result<()> {
        let file = format!("{BIN}/{name}");
        // Not through a link: a program of the machine may be at its end.
        let _ = self.host.run(|| fs::remove_file(&file));
        self.host.write(&file, script)?;
        self.host
            .run(|| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)))
    }

    /// From now on PATH is one folder, with all programs but this one.
    pub fn hide(&mut self, program: &str) -> io::Result<()> {
        let folder = "/etc/netns-tests/all";
        self.host.run(|| -> io::Result<()> {
            fs::create_dir(folder)?;
            for from in env::split_paths(&self.path) {
                for name in names(&from, "").unwrap_or_default() {
                    if name != program {
                        // The first of a name is the one that counts.
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

    /// The environment of these programs: the stand-ins first, then our daemon, then PATH.
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

    /// Where it is run from. Either program puts its own folder before PATH, so they are run from
    /// that of the stand-ins: the script is copied there, ours is bound there.
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

    /// `PROGRAM ARGS…`, to be run in this host.
    pub fn command(&self, quick: &Quick, args: &[&str]) -> io::Result<Command> {
        let mut command = Command::new(self.place(quick)?);
        command.args(args);
        self.environment(&mut command);
        Ok(command)
    }

    /// Starts it.
    pub fn start(&self, quick: &Quick, args: &[&str]) -> io::Result<Proc> {
        self.host.spawn(&mut self.command(quick, args)?)
    }

    /// Runs it to its end, whatever that is.
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

    /// The host's state, with the records of the `resolvconf` there.
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

    /// The calls of the stand-ins and the log of the hooks so far, both emptied.
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

/// Lays a folder in memory over /etc, in the mount namespace of the calling thread.
fn own_etc() -> io::Result<()> {
    // The host's own tmpfs is there already.
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
