//! A container engine for a test: Docker or Podman runs in a host of the lab, with its data in a
//! temporary folder. When it is dropped, it is removed with its containers.
//!
//! The only image has a static busybox, so nothing is downloaded.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{Host, PATIENCE, Proc, binaries, require};

/// The applets of busybox in the containers.
const APPLETS: [&str; 4] = ["sh", "sleep", "ip", "ping"];
/// Gives the host its own version of folders that engines always use.
const OWN_FOLDERS: &str = "
    mount -t tmpfs run /run
    mkdir -p /run/wireguard /run/netns /run/lock
    mkdir -p /etc/docker
    mount -t tmpfs etc /etc/docker
";

/// The time limit of a command. Without layers in the file system, an image is copied.
const COMMAND: Duration = Duration::from_secs(180);

/// The kind of engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `dockerd` and `docker`.
    Docker,
    /// `podman system service` and `podman`.
    Podman,
}

impl Kind {
    fn programs(self) -> &'static [&'static str] {
        match self {
            Kind::Docker => &["dockerd", "docker", "busybox"],
            Kind::Podman => &["podman", "busybox"],
        }
    }
}

/// A running engine.
#[derive(Debug)]
pub struct ContainerEngine {
    kind: Kind,
    host: Host,
    folder: PathBuf,
    server: Option<Proc>,
    had_etc_docker: bool,
}

impl ContainerEngine {
    /// Starts an engine in `host`, which gets its own /run. `None` if this machine lacks the engine,
    /// which the test [`require`]s.
    pub fn start(kind: Kind, host: &Host) -> io::Result<Option<ContainerEngine>> {
        for program in kind.programs() {
            if require(program, binaries::on_path(program)).is_none() {
                return Ok(None);
            }
        }
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("netns-tests-{}-{count}", std::process::id());
        let mut engine = ContainerEngine {
            kind,
            host: host.clone(),
            folder: std::env::temp_dir().join(name),
            server: None,
            had_etc_docker: Path::new("/etc/docker").exists(),
        };
        host.sh("sh", &["-euc", OWN_FOLDERS])?;
        engine.make_image_root()?;
        let socket = engine.socket();
        let mut command = match kind {
            Kind::Docker => engine.dockerd(),
            Kind::Podman => {
                let mut podman = engine.client();
                podman.args(["system", "service", "--time=0", &socket]);
                podman
            }
        };
        engine.server = Some(host.spawn(&mut command)?);
        crate::until(PATIENCE, "the container engine to answer", || {
            if let Some(server) = &mut engine.server
                && let Some(status) = server.ended()?
            {
                let text = format!("the engine ended with {status}: {}", server.output());
                return Err(io::Error::other(text));
            }
            let path = engine.folder.join("socket");
            let connected = std::os::unix::net::UnixStream::connect(path);
            Ok(connected.is_ok().then_some(()))
        })?;
        let root = engine.folder.join("image");
        let tar = engine.folder.join("image.tar").display().to_string();
        host.sh(
            "tar",
            &["-C", &root.display().to_string(), "-cf", &tar, "."],
        )?;
        engine.command(&["import", &tar, "box"])?;
        Ok(Some(engine))
    }

    fn dockerd(&self) -> Command {
        let mut command = Command::new("dockerd");
        let folder = |name: &str| self.folder.join(name).display().to_string();
        command.args([
            "--data-root",
            &folder("data"),
            "--exec-root",
            &folder("exec"),
        ]);
        command.args(["--pidfile", &folder("pid"), "--host", &self.socket()]);
        command.args(["--bridge=none", "--iptables=false", "--ip-forward=false"]);
        command.args(["--cgroup-parent", &self.cgroup()]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command
    }

    /// The command line of its client, without a command.
    fn client(&self) -> Command {
        let folder = |name: &str| self.folder.join(name).display().to_string();
        match self.kind {
            Kind::Docker => {
                let mut command = Command::new("docker");
                command.args(["--host", &self.socket()]);
                command
            }
            Kind::Podman => {
                let mut command = Command::new("podman");
                command.args(["--root", &folder("data"), "--runroot", &folder("run")]);
                command.args(["--tmpdir", &folder("tmp"), "--storage-driver", "vfs"]);
                command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
                command
            }
        }
    }

    fn make_image_root(&self) -> io::Result<()> {
        let bin = self.folder.join("image/bin");
        fs::create_dir_all(&bin)?;
        let busybox = binaries::on_path("busybox").unwrap_or_default();
        fs::copy(busybox, bin.join("busybox"))?;
        APPLETS
            .iter()
            .try_for_each(|applet| symlink("busybox", bin.join(applet)))
    }

    /// The address of its socket.
    pub fn socket(&self) -> String {
        format!("unix://{}", self.folder.join("socket").display())
    }

    /// The environment variable in which clients look for the socket.
    pub fn variable(&self) -> &'static str {
        match self.kind {
            Kind::Docker => "DOCKER_HOST",
            Kind::Podman => "CONTAINER_HOST",
        }
    }

    /// The namespace of a container, as `wg-rs` takes it.
    pub fn namespace(&self, container: &str) -> String {
        match self.kind {
            Kind::Docker => format!("docker:{container}"),
            Kind::Podman => format!("podman:{container}"),
        }
    }

    fn cgroup(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    /// Runs a command of the engine, which must succeed, and returns its output.
    pub fn command(&self, args: &[&str]) -> io::Result<String> {
        let mut proc = self.host.spawn(self.client().args(args))?;
        proc.success(COMMAND)
    }

    /// Starts a container that does nothing, with this network.
    pub fn run(&self, container: &str, network: &str) -> io::Result<()> {
        self.run_with(container, network, &[])
    }

    /// Like [`ContainerEngine::run`], with further options.
    pub fn run_with(&self, container: &str, network: &str, options: &[&str]) -> io::Result<()> {
        let mut args = vec!["run", "-d", "--name", container, "--network", network];
        if self.kind == Kind::Podman {
            // Podman's default limits need capabilities that root may lack here.
            args.extend(["--ulimit", "nofile=256:256", "--ulimit", "nproc=256:256"]);
            args.push("--cap-add=NET_RAW");
        }
        args.extend(options);
        args.extend(["box", "/bin/sleep", "600"]);
        self.command(&args).map(drop)
    }

    /// Removes a container, running or not.
    pub fn remove(&self, container: &str) -> io::Result<()> {
        let at_once: &[&str] = match self.kind {
            Kind::Docker => &[],
            Kind::Podman => &["--time=0"],
        };
        self.command(&[&["rm", "--force"], at_once, &[container]].concat())
            .map(drop)
    }

    /// The engine's host, with the network namespace of a container. The value keeps that namespace
    /// alive.
    pub fn inside(&self, container: &str) -> io::Result<Host> {
        let pid = self.command(&["inspect", "--format", "{{.State.Pid}}", container])?;
        self.host.in_netns(&format!("/proc/{}/ns/net", pid.trim()))
    }
}

impl Drop for ContainerEngine {
    fn drop(&mut self) {
        if let Ok(containers) = self.command(&["ps", "--all", "--quiet"]) {
            for container in containers.split_whitespace() {
                let _ = self.remove(container);
            }
        }
        if let Some(server) = &mut self.server {
            let _ = server.signal(Signal::SIGTERM);
            let _ = server.wait(PATIENCE);
        }
        let _ = fs::remove_dir_all(&self.folder);
        if !self.had_etc_docker {
            let _ = fs::remove_dir("/etc/docker");
        }
        // A control group in each hierarchy of version 1, or a single one in version 2.
        let group = self.cgroup();
        let _ = fs::remove_dir(format!("/sys/fs/cgroup{group}"));
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = fs::remove_dir(format!("{}{group}", hierarchy.path().display()));
        }
    }
}
