//! Container engines: asks them over their sockets for the network namespaces of containers.
//!
//! An engine reports the process ID of a container, and that ID may belong to another process a
//! moment later. So the namespace is opened between two equal replies, and held by a descriptor.

use std::env;
use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{NO_PERMISSION, reason};
use crate::sys::netns::NetNs;
use crate::sys::process::other::Process;

/// Seconds in which an engine must open the namespace of a container that the user named.
const PATIENCE: u64 = 10;
/// Time for all engines together to list their containers. A container that is not known by then is
/// shown under another name.
const LISTING: Duration = Duration::from_secs(1);
/// The socket of Docker, unless an environment variable names another one.
const DOCKER: &str = "unix:///var/run/docker.sock";
/// The socket of Podman for root.
const PODMAN: &str = "unix:///run/podman/podman.sock";

/// A container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainerEngine {
    Docker,
    Podman,
}

/// A running container with a network namespace of its own.
#[derive(Debug)]
pub(super) struct Container {
    pub engine: ContainerEngine,
    pub name: String,
    pub netns: NetNs,
}

/// Why an engine did not return a namespace.
enum LookupError {
    /// Nobody listens at the socket.
    Absent,
    /// The engine has no such container.
    NoContainer,
    /// The container has no namespace that can be used.
    Unfit(String),
    /// Another error of the engine.
    Other(String),
}

impl ContainerEngine {
    const ALL: [ContainerEngine; 2] = [ContainerEngine::Docker, ContainerEngine::Podman];

    fn name(self) -> &'static str {
        match self {
            ContainerEngine::Docker => "Docker",
            ContainerEngine::Podman => "Podman",
        }
    }

    /// The sockets to try, in this order.
    fn hosts(self) -> Vec<String> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let in_run_dir = |socket: &str| {
            let dir = PathBuf::from(variable("XDG_RUNTIME_DIR")?);
            Some(format!("unix://{}", dir.join(socket).display()))
        };
        let (told, root, own) = match self {
            ContainerEngine::Docker => (variable("DOCKER_HOST"), DOCKER, in_run_dir("docker.sock")),
            ContainerEngine::Podman => {
                let own = in_run_dir("podman/podman.sock");
                (variable("CONTAINER_HOST"), PODMAN, own)
            }
        };
        match told {
            Some(host) => vec![host],
            None => [root.into()].into_iter().chain(own).collect(),
        }
    }

    /// Opens the namespace of a container, given by name or ID.
    ///
    /// # Errors
    /// A message: there is no engine or no such container, the container is not running or uses the
    /// host's network, or permission is denied.
    pub fn open(self, container: &str) -> Result<NetNs, String> {
        let hosts = self.hosts();
        let mut asked = false;
        for host in &hosts {
            let answer = ask(async {
                let docker = connect(host)?;
                check_local(&docker, host).await?;
                let (_, netns) = namespace_of(&docker, container).await?;
                netns.run(|| ()).map_err(unfit)?;
                Ok(netns)
            });
            match answer {
                Ok(netns) => return Ok(netns),
                Err(LookupError::Absent) => {}
                Err(LookupError::NoContainer) => asked = true,
                Err(LookupError::Unfit(reason)) => return Err(reason),
                Err(LookupError::Other(reason)) => {
                    return Err(format!("{} at {host}: {reason}", self.name()));
                }
            }
        }
        Err(if asked {
            format!("{} has no such container", self.name())
        } else {
            format!("no {} answers at {}", self.name(), hosts.join(" or "))
        })
    }

    /// The running containers of all engines, which are asked at the same time. Containers that are
    /// not known after a second are left out.
    pub fn containers() -> Vec<Container> {
        let Ok(runtime) = runtime() else {
            return Vec::new();
        };
        let containers = runtime.block_on(async {
            let deadline = Instant::now() + LISTING;
            let mut engines = JoinSet::new();
            for engine in ContainerEngine::ALL {
                for host in engine.hosts() {
                    engines.spawn(engine.containers_at(host, deadline));
                }
            }
            engines.join_all().await.into_iter().flatten().collect()
        });
        // Does not wait for the look-up of a host name, which cannot be cancelled.
        runtime.shutdown_background();
        containers
    }

    async fn containers_at(self, host: String, deadline: Instant) -> Vec<Container> {
        let listing = async {
            let docker = connect(&host)?;
            check_local(&docker, &host).await?;
            let none = None::<ListContainersOptions>;
            let containers = docker.list_containers(none).await.map_err(failure)?;
            Ok::<_, LookupError>((docker, containers))
        };
        let Ok(Ok((docker, listed))) = timeout_at(deadline, listing).await else {
            return Vec::new();
        };
        let mut asked = JoinSet::new();
        for id in listed.into_iter().filter_map(|container| container.id) {
            let docker = docker.clone();
            asked.spawn(timeout_at(deadline, async move {
                namespace_of(&docker, &id).await
            }));
        }
        let found = asked.join_all().await.into_iter();
        // The container may have ended meanwhile.
        let found = found.filter_map(|found| found.ok()?.ok());
        found
            .map(|(container, netns)| {
                let name = container.name.or(container.id).unwrap_or_default();
                Container {
                    engine: self,
                    name: name.trim_start_matches('/').to_owned(),
                    netns,
                }
            })
            .collect()
    }
}

/// A runtime for one request.
fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Sends a request to one engine.
fn ask<T>(question: impl Future<Output = Result<T, LookupError>>) -> Result<T, LookupError> {
    let runtime = runtime().map_err(|error| LookupError::Other(reason(&error)))?;
    let limit = Duration::from_secs(PATIENCE);
    let answer = runtime.block_on(async { timeout(limit, question).await });
    // Does not wait for the look-up of a host name, which cannot be cancelled.
    runtime.shutdown_background();
    answer.unwrap_or_else(|_| Err(no_answer()))
}

fn no_answer() -> LookupError {
    LookupError::Other(format!("no answer within {PATIENCE} s"))
}

fn connect(host: &str) -> Result<Docker, LookupError> {
    let docker = match host.split_once("://") {
        Some(("unix", path)) => Docker::connect_with_unix(path, PATIENCE, API_DEFAULT_VERSION),
        Some(("tcp" | "http", _)) => Docker::connect_with_http(host, PATIENCE, API_DEFAULT_VERSION),
        _ => {
            let text = "only unix:// and tcp:// can be asked";
            return Err(LookupError::Other(text.into()));
        }
    };
    docker.map_err(failure)
}

/// Fails if the engine runs on another machine, because its process IDs are meaningless here.
async fn check_local(docker: &Docker, host: &str) -> Result<(), LookupError> {
    if host.starts_with("unix://") {
        return Ok(());
    }
    let there = docker.info().await.map_err(failure)?.name;
    let here = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    if here.is_some() && there.as_deref() == here.as_deref().map(str::trim_end) {
        return Ok(());
    }
    let there = there.as_deref().unwrap_or("unknown");
    let text = format!("its containers run on another machine, {there}");
    Err(LookupError::Other(text))
}

fn failure(error: bollard::errors::Error) -> LookupError {
    use bollard::errors::Error::{
        DockerResponseServerError, JsonDataError, RequestTimeoutError, SocketNotFoundError,
    };
    match &error {
        SocketNotFoundError(_) => return LookupError::Absent,
        // Podman has this state between running and exited; Docker does not.
        JsonDataError { message, .. } if message.contains("`stopped`") => {
            return LookupError::Unfit(NOT_RUNNING.into());
        }
        RequestTimeoutError => return no_answer(),
        DockerResponseServerError {
            status_code: 404, ..
        } => return LookupError::NoContainer,
        DockerResponseServerError { message, .. } => {
            let line = message.lines().next().unwrap_or_default();
            return LookupError::Other(line.trim().into());
        }
        _ => {}
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => LookupError::Absent,
                io::ErrorKind::PermissionDenied => {
                    LookupError::Other("permission to use the engine's socket is denied".into())
                }
                _ => LookupError::Other(reason(error)),
            };
        }
        cause = error.source();
    }
    LookupError::Other(error.to_string())
}

/// The container and its namespace, if the container is still the same after opening it.
async fn namespace_of(
    docker: &Docker,
    container: &str,
) -> Result<(ContainerInspectResponse, NetNs), LookupError> {
    let inspect = async || {
        let none = None::<InspectContainerOptions>;
        docker
            .inspect_container(container, none)
            .await
            .map_err(failure)
    };
    let before = inspect().await?;
    let pid = running(&before).map_err(LookupError::Unfit)?;
    let netns = Process::open(pid).and_then(|process| process.netns());
    let netns = netns.map_err(unfit)?;
    if NetNs::of_init().is_ok_and(|host| netns.is(&host).unwrap_or(false)) {
        return Err(LookupError::Unfit(HOST_NETWORK.into()));
    }
    // The container's process may have ended, and its ID may belong to another process now.
    if life(&inspect().await?) == life(&before) {
        Ok((before, netns))
    } else {
        Err(LookupError::Unfit("the container was restarted".into()))
    }
}

/// The values that change when a container is restarted: its ID, its process, and its start time.
fn life(container: &ContainerInspectResponse) -> (Option<&String>, Option<i64>, Option<&String>) {
    let state = container.state.as_ref();
    (
        container.id.as_ref(),
        state.and_then(|state| state.pid),
        state.and_then(|state| state.started_at.as_ref()),
    )
}

/// The process ID of a container with its own network namespace, or the reason why there is none.
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

fn unfit(error: io::Error) -> LookupError {
    LookupError::Unfit(match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) | (_, Some(libc::ESRCH)) => NOT_RUNNING.into(),
        (io::ErrorKind::PermissionDenied, _) => NO_PERMISSION.into(),
        _ => reason(&error),
    })
}
