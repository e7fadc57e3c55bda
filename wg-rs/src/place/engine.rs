//! Container engines, asked over their sockets which process a container is.

use std::env;
use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::{Error, NO_PERMISSION, reason};
use super::namespace::{Namespace, init};
use crate::sys::netns::NetNs;

/// Seconds that an engine has for all that is asked at once.
const PATIENCE: u64 = 10;
/// Of these, for looking at every container. One that does not show itself is left out.
const INSPECTION: Duration = Duration::from_secs(5);
/// Where Docker listens, if nobody says otherwise.
const DOCKER: &str = "unix:///var/run/docker.sock";
/// Where Podman listens for root.
const PODMAN: &str = "unix:///run/podman/podman.sock";

/// Whose container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Docker,
    Podman,
}

/// A container that runs.
#[derive(Debug)]
pub(super) struct Container {
    /// How the user calls it.
    pub namespace: Namespace,
    pub pid: u32,
}

/// What kept an engine from answering.
enum Trouble {
    /// Nobody is there.
    Absent,
    /// It knows no such container.
    NoContainer,
    /// The container has no namespace to enter.
    Unfit(String),
    /// The engine's own.
    Other(String),
}

impl Engine {
    pub const ALL: [Engine; 2] = [Engine::Docker, Engine::Podman];

    fn name(self) -> &'static str {
        match self {
            Engine::Docker => "Docker",
            Engine::Podman => "Podman",
        }
    }

    /// Where to ask, in this order.
    fn hosts(self) -> Vec<String> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let in_run_dir = |socket: &str| {
            let dir = PathBuf::from(variable("XDG_RUNTIME_DIR")?);
            Some(format!("unix://{}", dir.join(socket).display()))
        };
        let (told, root, own) = match self {
            Engine::Docker => (variable("DOCKER_HOST"), DOCKER, in_run_dir("docker.sock")),
            Engine::Podman => {
                let own = in_run_dir("podman/podman.sock");
                (variable("CONTAINER_HOST"), PODMAN, own)
            }
        };
        match told {
            Some(host) => vec![host],
            None => [root.into()].into_iter().chain(own).collect(),
        }
    }

    /// Opens the namespace of a container, by name or id. `namespace` is how the user calls it.
    ///
    /// # Errors
    /// As [`Namespace::open`].
    pub fn open(self, namespace: &Namespace, container: &str) -> Result<NetNs, Error> {
        let failed = |reason: String| Error::namespace(namespace, reason);
        let hosts = self.hosts();
        let mut asked = false;
        for host in &hosts {
            match ask(host, async |docker| {
                local(&docker, host).await?;
                entered(&docker, container).await
            }) {
                Ok(netns) => return Ok(netns),
                Err(Trouble::Absent) => {}
                Err(Trouble::NoContainer) => asked = true,
                Err(Trouble::Unfit(reason)) => return Err(failed(reason)),
                Err(Trouble::Other(reason)) => {
                    return Err(failed(format!("{} at {host}: {reason}", self.name())));
                }
            }
        }
        Err(failed(if asked {
            format!("{} has no such container", self.name())
        } else {
            format!("no {} answers at {}", self.name(), hosts.join(" or "))
        }))
    }

    /// The containers that run, of every engine that answers; none of one that does not.
    pub fn containers(self) -> Vec<Container> {
        let mut containers = Vec::new();
        for host in self.hosts() {
            let found = ask(&host, async |docker| {
                local(&docker, &host).await?;
                let none = None::<ListContainersOptions>;
                let listed = docker.list_containers(none).await.map_err(trouble)?;
                let mut asked = JoinSet::new();
                for id in listed.into_iter().filter_map(|container| container.id) {
                    let docker = docker.clone();
                    let none = None::<InspectContainerOptions>;
                    asked.spawn(timeout(INSPECTION, async move {
                        docker.inspect_container(&id, none).await
                    }));
                }
                let found = asked.join_all().await.into_iter();
                // It may be gone by now.
                Ok(found
                    .filter_map(|found| found.ok()?.ok())
                    .collect::<Vec<_>>())
            });
            for container in found.unwrap_or_default() {
                let Ok(pid) = running(&container) else {
                    continue;
                };
                let name = container.name.or(container.id).unwrap_or_default();
                let name = name.trim_start_matches('/').to_owned();
                let namespace = match self {
                    Engine::Docker => Namespace::Docker(name),
                    Engine::Podman => Namespace::Podman(name),
                };
                containers.push(Container { namespace, pid });
            }
        }
        containers
    }
}

/// Asks one engine. The runtime is ours alone, and gone afterwards.
fn ask<T>(
    host: &str,
    question: impl AsyncFnOnce(Docker) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let docker = connect(host)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::Other(reason(&error)))?;
    let limit = Duration::from_secs(PATIENCE);
    let answer = runtime.block_on(async { timeout(limit, question(docker)).await });
    // A look-up of the host's name cannot be ended: it is not waited for.
    runtime.shutdown_background();
    answer.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> Trouble {
    Trouble::Other(format!("no answer within {PATIENCE} s"))
}

fn connect(host: &str) -> Result<Docker, Trouble> {
    let docker = match host.split_once("://") {
        Some(("unix", path)) => Docker::connect_with_unix(path, PATIENCE, API_DEFAULT_VERSION),
        Some(("tcp" | "http", _)) => Docker::connect_with_http(host, PATIENCE, API_DEFAULT_VERSION),
        _ => {
            let text = "only unix:// and tcp:// can be asked";
            return Err(Trouble::Other(text.into()));
        }
    };
    docker.map_err(trouble)
}

/// Process ids mean nothing here that another machine gave.
async fn local(docker: &Docker, host: &str) -> Result<(), Trouble> {
    if host.starts_with("unix://") {
        return Ok(());
    }
    let there = docker.info().await.map_err(trouble)?.name;
    let here = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    if here.is_some() && there.as_deref() == here.as_deref().map(str::trim_end) {
        return Ok(());
    }
    let there = there.as_deref().unwrap_or("unknown");
    let text = format!("its containers run on another machine, {there}");
    Err(Trouble::Other(text))
}

fn trouble(error: bollard::errors::Error) -> Trouble {
    use bollard::errors::Error::{
        DockerResponseServerError, JsonDataError, RequestTimeoutError, SocketNotFoundError,
    };
    match &error {
        SocketNotFoundError(_) => return Trouble::Absent,
        // A state that Podman has between running and exited, and Docker has not.
        JsonDataError { message, .. } if message.contains("`stopped`") => {
            return Trouble::Unfit(NOT_RUNNING.into());
        }
        RequestTimeoutError => return no_answer(),
        DockerResponseServerError {
            status_code: 404, ..
        } => return Trouble::NoContainer,
        DockerResponseServerError { message, .. } => {
            let line = message.lines().next().unwrap_or_default();
            return Trouble::Other(line.trim().into());
        }
        _ => {}
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Trouble::Absent,
                io::ErrorKind::PermissionDenied => Trouble::Other("no permission to ask it".into()),
                _ => Trouble::Other(reason(error)),
            };
        }
        cause = error.source();
    }
    Trouble::Other(error.to_string())
}

/// Opens the namespace of a container, which is still the same when that is done.
async fn entered(docker: &Docker, container: &str) -> Result<NetNs, Trouble> {
    let inspect = async || {
        let none = None::<InspectContainerOptions>;
        docker
            .inspect_container(container, none)
            .await
            .map_err(trouble)
    };
    let before = inspect().await?;
    let pid = running(&before).map_err(Trouble::Unfit)?;
    let netns = of_process(pid).map_err(Trouble::Unfit)?;
    // Its process may have ended meanwhile, and the number be another's.
    if life(&inspect().await?) == life(&before) {
        Ok(netns)
    } else {
        Err(Trouble::Unfit("the container was started anew".into()))
    }
}

/// What tells one run of a container from the next: itself, its process, and since when.
fn life(container: &ContainerInspectResponse) -> (Option<&String>, Option<i64>, Option<&String>) {
    let state = container.state.as_ref();
    (
        container.id.as_ref(),
        state.and_then(|state| state.pid),
        state.and_then(|state| state.started_at.as_ref()),
    )
}

/// The process of a container with a network namespace of its own; else what is the matter.
fn running(container: &ContainerInspectResponse) -> Result<u32, String> {
    let state = container.state.as_ref();
    let pid = state.and_then(|state| state.pid).unwrap_or_default();
    let host_config = container.host_config.as_ref();
    if host_config.and_then(|config| config.network_mode.as_deref()) == Some("host") {
        return Err(HOST_NETWORK.into());
    }
    match u32::try_from(pid) {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(NOT_RUNNING.into()),
    }
}

const NOT_RUNNING: &str = "the container is not running";
const HOST_NETWORK: &str = "the container has the host's network, not one of its own";

fn of_process(pid: u32) -> Result<NetNs, String> {
    let open = || -> io::Result<_> {
        let netns = NetNs::of_pid(pid)?;
        let host = init().is_ok_and(|host| netns.is(&host).unwrap_or(false));
        netns.run(|| ())?;
        Ok((netns, host))
    };
    match open() {
        Ok((netns, false)) => Ok(netns),
        Ok((_, true)) => Err(HOST_NETWORK.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NOT_RUNNING.into()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(NO_PERMISSION.into()),
        Err(error) => Err(reason(&error)),
    }
}
