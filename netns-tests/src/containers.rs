//! A container engine of a test's own: Docker or Podman, running in a host of the lab, with all it
//! keeps in a temporary folder, and gone with its containers when it is dropped.
//!
//! The containers' one image is made of a static busybox: nothing is fetched.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{Host, PATIENCE, Proc, binaries, require};

/// What of busybox the containers have.
const APPLETS: [&str; 4] = ["sh", "sleep", "ip", "ping"];
/// Where engines keep things whatever one tells them; in the host they are its own.
const OWN_FOLDERS: &str = "
    mount -t tmpfs run /run
    mkdir -p /run/wireguard /run/netns /run/lock
    mkdir -p /etc/docker
    mount -t tmpfs etc /etc/docker
";

/// Whose engine.
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
    /// Starts one in `host`, whose /run becomes its own; `None` if this machine lacks it, which a
    /// test says by [`require`].
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
        command.args(["--storage-driver=vfs", "--cgroup-parent", &self.cgroup()]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command
    }

    /// Its command line, without a command.
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

    /// Where it answers.
    pub fn socket(&self) -> String {
        format!("unix://{}", self.folder.join("socket").display())
    }

    /// The environment variable that tells others of the socket.
    pub fn variable(&self) -> &'static str {
        match self.kind {
            Kind::Docker => "DOCKER_HOST",
            Kind::Podman => "CONTAINER_HOST",
        }
    }

    /// How `wg-rs` calls the namespace of a container.
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

    /// Runs a command of the engine's to its successful end.
    pub fn command(&self, args: &[&str]) -> io::Result<String> {
        let mut proc = self.host.spawn(self.client().args(args))?;
        proc.success(Duration::from_secs(60))
    }

    /// Starts a container that does nothing, with this network.
    pub fn run(&self, container: &str, network: &str) -> io::Result<()> {
        self.run_with(container, network, &[])
    }

    /// As [`ContainerEngine::run`], with these further options.
    pub fn run_with(&self, container: &str, network: &str, options: &[&str]) -> io::Result<()> {
        let mut args = vec!["run", "-d", "--name", container, "--network", network];
        if self.kind == Kind::Podman {
            // Its defaults are more than a root of few capabilities may give.
            args.extend(["--ulimit", "nofile=256:256", "--ulimit", "nproc=256:256"]);
            args.push("--cap-add=NET_RAW");
        }
        args.extend(options);
        args.extend(["box", "/bin/sleep", "600"]);
        self.command(&args).map(drop)
    }

    /// Removes a container, however it is.
    pub fn remove(&self, container: &str) -> io::Result<()> {
        let at_once: &[&str] = match self.kind {
            Kind::Docker => &[],
            Kind::Podman => &["--time=0"],
        };
        self.command(&[&["rm", "--force"], at_once, &[container]].concat())
            .map(drop)
    }

    /// The host with the network of a container. As long as this is there, so is that network.
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
        // One in each hierarchy of version 1, or the one of version 2.
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
